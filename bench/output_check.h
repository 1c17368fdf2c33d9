// No speed without correctness: a plan's outputs are checked before any of its times are taken.
#pragma once

#include <string>

#include "engine/engine.h"

namespace moebench {

struct OutputCheck {
  bool passed = false;
  std::string reason;  // what is wrong, or what was compared
  double nmse = 0;     // sum (got - want)^2 / sum want^2 over the logits of the fixed prompt
  double max_abs = 0;
  bool against_reference = false;  // false: the plan runs reference ops only
  std::string digest;              // of the logits
};

// Runs a fixed prompt. Logits must be finite; and if the plan names variants, they must agree with
// the reference ops on the same weights: rounding activations to int8 gives an NMSE around 1e-4, a
// wrong index or a missing bias one near 1, and the bound lies between, at 1e-2.
OutputCheck check_outputs(Engine& engine, const EngineOptions& options, ThreadPool& pool);

}  // namespace moebench
