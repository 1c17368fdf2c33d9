// Memory of plans: the waterfall of what was predicted, taken and measured, and how long a context
// fits where.
#pragma once

#include <string>

#include "reports/html_page.h"

namespace moebench::page {

// Tables by category, folded away; "" where no load record has them.
std::string memory_waterfalls(const Report& report);
// Table of memory sizes by batch for each plan, from run.json; "" where no run has it.
std::string memory_frontiers(const Report& report);

}  // namespace moebench::page
