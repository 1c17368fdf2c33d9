// All answers of a report, for charts over them.
#pragma once

#include <functional>
#include <string>

#include "reports/html_page.h"

namespace moebench::page {

// Calls visit("task effort", row of the report, answer) for each answer whose plan has a row.
void for_each_answer(
    const Report& report,
    const std::function<void(const std::string&, std::size_t, const OrderedJson&)>& visit);

}  // namespace moebench::page
