// No speed without correctness: a plan's outputs are checked before any of its times are taken.
#pragma once

#include <string>

#include "engine/engine.h"

namespace moebench {

struct OutputCheck {
  bool passed = false;
  std::string reason;  // what is wrong, or what was compared
  // sum (got - want)^2 / sum want^2 over the logits of a position: the median of the positions
  // compared, and the same over all of them together.
  double nmse = 0;
  double total_nmse = 0;
  double max_abs = 0;
  bool against_reference = false;  // false: the plan runs reference ops only
  std::string digest;              // of the logits
};

// Runs a fixed prompt. Logits must be finite; and if the plan names variants, they must agree with
// the reference ops on the same weights: rounding activations to int8 gives an NMSE around 1e-4, a
// wrong index or a missing bias one near 1. The bound lies between: 1e-2 for the median position.
// All together may reach 0.25, for where two experts are all but equal a rounding chooses the other
// one, and the positions after it differ by more than roundings.
OutputCheck check_outputs(Engine& engine, const EngineOptions& options, ThreadPool& pool);

}  // namespace moebench
