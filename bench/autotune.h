// Choosing variants by measuring them on this machine, and remembering the choice.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include "engine/op_choice.h"
#include "engine/plan.h"

namespace moebench {

// The plan with every op of its family named: the one that ran a prompt's chunk and single decoded
// tokens of this model fastest, with `threads` threads. On the GPU, whose clock it then is,
// variants for few and for many tokens are chosen apart ("a+b"); and cuBLASLt, where the plan names
// it, times its algorithms in every process that runs the plan (Plan::tunes). A choice that was
// made before for the same processor, GPU, threads, build, plan and model shape is taken from a
// file (autotune.json in $XDG_CACHE_HOME/moebench or ~/.cache/moebench). The reference comes back
// as it is. report(line) is told what was measured and chosen.
Plan autotune(const Plan& plan, const std::filesystem::path& model, int threads,
              const std::function<void(std::string_view)>& report);

// The choice itself, with whatever tells the time.
struct StepTimes {
  std::vector<double> chunk_ms, token_ms;
};
inline constexpr double kCannotRunMs = 1e12;  // of steps that the variants refuse
// Runs a chunk of a prompt and single tokens with these variants, and adds what each step took.
using TimeSteps = std::function<void(const OpTables&, StepTimes&)>;
struct TuningCandidates {
  OpCandidates few, many;  // by the number of tokens of a step; on the CPU the same
};
// `plan` with the fastest candidate of every op. Op by op, beginning with `tables`: candidates take
// turns, and those of which one step took much longer than another's drop out.
Plan choose_by_measuring(const Plan& plan, const TuningCandidates& candidates, OpTables tables,
                         const TimeSteps& time,
                         const std::function<void(std::string_view)>& report);

}  // namespace moebench
