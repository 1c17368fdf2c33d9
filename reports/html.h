// report.json as one self-contained page.
#pragma once

#include <string>

#include "kernels/core/json_fields.h"

namespace moebench {

// One HTML file without outside links: tables that read without JavaScript, charts and an item
// browser with it. Everything that came from a model, a dataset or a file name is escaped.
std::string render_html(const OrderedJson& report);

}  // namespace moebench
