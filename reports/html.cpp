// Placeholder until the page lands in the next commit.
#include "reports/html.h"

namespace moebench {
std::string render_html(const OrderedJson& report) {
  return "<pre>" + report.value("title", std::string()) + "</pre>";
}
}  // namespace moebench
