// Two properties of a plan that are measured, not assumed: the same run gives the same bits
// (determinism), and a sequence's logits do not depend on the company it keeps in a batch or on how
// its prompt is cut into chunks (batch invariance).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "evals/fidelity.h"

namespace moebench {

// One other way to run the same traces, compared with each trace alone in the largest chunks.
struct ArrangementResult {
  std::string name;                // "again", "one token at a time", ...
  std::int64_t num_positions = 0;  // compared
  std::int64_t num_different = 0;  // positions whose logits differ in any bit
  double max_abs_difference = 0;   // over all logits; infinite if one is not finite
};

struct InvarianceResult {
  ArrangementResult again;                      // determinism
  std::vector<ArrangementResult> arrangements;  // batch invariance
  std::string digest;                           // hash of all logits, in 16 hexadecimal digits

  bool deterministic() const { return again.num_different == 0; }
  bool batch_invariant() const;
};

// Uses at most as many traces as the engine's batch holds.
InvarianceResult measure_invariance(Engine& engine, const std::vector<Trace>& traces);

}  // namespace moebench
