// What the page carries inside: its style, its script, and Chart.js. Made at build by assets.cmake.
#pragma once

#include <string_view>

namespace moebench {

extern const std::string_view kPageStyle;   // page.css
extern const std::string_view kPageScript;  // page.js: charts
extern const std::string_view kItemScript;  // page_items.js: the item browser
extern const std::string_view kToolScript;  // page_tools.js: definitions, copying, theme, keys
extern const std::string_view kChartJs;     // Debian's libjs-chart.js, minified (MIT licence)

}  // namespace moebench
