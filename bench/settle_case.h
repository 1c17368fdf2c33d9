// A task that ends when its comparison with another plan of the run is decided: where that plan's
// answers are, and what a record says about it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bench/scenario.h"
#include "bench/suite.h"
#include "evals/run_until_settled.h"

namespace moebench {

struct SettleBase {
  std::vector<LedgerLine> lines;  // of the plan to compare with; none: ask all items
  std::string reason;             // why there are none; "" if none were wanted
};

// The answers that plan `scenario.settle_against` gave in this run to the same task.
SettleBase find_settle_base(const std::filesystem::path& out_dir, const Case& one,
                            const TaskScenario& scenario);

// {"against", "margin", "outcome", "planned", "asked", "level", "looks": [{"items",
// "difference", "outcome", "interval"}], "to_settle"}; `level` is that of the last look.
OrderedJson settled_json(const SettledRun& run, const TaskScenario& scenario);

}  // namespace moebench
