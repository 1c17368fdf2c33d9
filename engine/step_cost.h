// What one step must read and compute: the floor under its time, op by op.
//
// Counted: every weight that the step needs, once; of the experts those that at least one token
// chose; of the cache what the step's tokens may see (in sliding layers their window), once per
// sequence, and what they add; two operations a multiply-add in products and attention. Not
// counted: activations between ops, which a cache may hold, and norms, rotations, softmax and
// sampling, which are next to nothing of a real model. So no implementation of the same formats can
// be faster than this count at the machine's rates.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/model_config.h"
#include "engine/weights.h"
#include "kernels/core/precision.h"

namespace moebench {

struct StepWork {
  // Of each sequence the tokens at positions [first, first + count).
  struct Part {
    std::int64_t first = 0;
    std::int64_t count = 1;
  };
  std::vector<Part> parts;
  std::int64_t logit_rows = 0;
  // Of each layer the number of different experts that the step's tokens chose; an expectation
  // where no routing is known.
  std::vector<double> touched_experts;

  std::int64_t num_tokens() const;
};

struct OpCost {
  std::string_view op;  // as Model::time_ops names it
  Precision precision = Precision::kF32;
  double weight_bytes = 0;
  double cache_bytes = 0;    // of keys and values read
  double written_bytes = 0;  // of keys and values
  double operations = 0;

  double bytes() const { return weight_bytes + cache_bytes + written_bytes; }
};

// Every op of the step that reads or multiplies anything, in the order of their first run. Throws
// Error(kInvalidArgument) for work that is not this model's: no tokens, negative positions, another
// number of layers, more experts than there are.
std::vector<OpCost> step_cost(const ModelConfig& config, const WeightLayout& layout, Format kv,
                              const StepWork& work);

// The precision in which a variant multiplies weights (or a cache) of this format, by its name.
Precision multiplies_in(std::string_view variant, Format format);

}  // namespace moebench
