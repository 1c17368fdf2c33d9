// report.json as one self-contained page.
#pragma once

#include <string>
#include <string_view>

#include "kernels/core/json_fields.h"

namespace moebench {

// One HTML file without outside links: tables that read without JavaScript, charts and an item
// browser with it. Everything that came from a model, a dataset or a file name is escaped.
// `home`: a relative link to the site that the page is part of; "" where it stands alone.
std::string render_html(const OrderedJson& report, std::string_view home = "");

}  // namespace moebench
