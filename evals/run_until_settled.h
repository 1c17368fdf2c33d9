// A task that stops asking once its comparison with another plan is decided.
#pragma once

#include <vector>

#include "evals/non_inferiority.h"
#include "evals/run_task.h"

namespace moebench {

struct SettleLook {
  std::int64_t num_items = 0;
  NonInferiority result;
};

struct SettledRun {
  std::vector<LedgerLine> lines;  // as run_task returns them
  std::vector<SettleLook> looks;
  std::int64_t planned = 0;  // items

  GateOutcome outcome() const;
  // Confidence level of the last look, at which alone intervals of these answers mean what they
  // say; 0.95 without a look.
  double level() const;
};

// Asks the items in a random order, always the same, and looks after each tenth of them (but no
// fewer than 50) whether the accuracy is worse than that of `base`, answers of another plan to the
// same items, by `margin`: PASS and FAIL end it (evals/non_inferiority.h). Looks come after whole
// sets of items, so that quick answers do not count more. For settings, `done`, hooks and errors
// see run_task; answers in `done` count from the look on at which their item has its turn, so that
// a run that was interrupted ends as it would have.
SettledRun run_until_settled(Engine& engine, const Task& task, TaskSettings settings,
                             std::span<const LedgerLine> base, double margin,
                             const std::vector<LedgerLine>& done, const TaskHooks& hooks);

}  // namespace moebench
