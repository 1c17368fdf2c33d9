// Which part of a plan costs the divergence: the reference with one weight group, the cache or one
// op as the plan has it, one at a time.
#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"
#include "evals/fidelity.h"

namespace moebench {

struct Attribution {
  std::string part;  // "experts int4", "cache fp8_e4m3", "linear avx2_int8"
  MeanEstimate mean_kl;
  double top1_agreement = 0;
  double router_flip_rate = 0;
  std::string reason;  // why it could not be run alone; "" if it was
};

// The parts in which `plan` (as `engine` runs it) differs from `reference`, each swapped into
// `reference` alone and compared with it on `traces`; the costliest first, those that cannot run
// alone last. Divergences do not add up exactly: errors of two parts can cancel. Loads one model at
// a time beside the reference; both plans must be for the same backend.
std::vector<Attribution> attribute_divergence(const std::filesystem::path& model,
                                              const Plan& reference_plan, Engine& reference,
                                              const Plan& plan, const Engine& engine,
                                              const EngineOptions& options, ThreadPool& pool,
                                              const std::vector<Trace>& traces);

}  // namespace moebench
