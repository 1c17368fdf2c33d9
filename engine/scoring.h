// Teacher forcing: the logits a model gives at every position of a known token sequence.
#pragma once

#include <functional>
#include <span>

#include "engine/model.h"

namespace moebench {

// Runs `tokens` from position 0 and calls visit(position, logits) for each position >= `first`, in
// order; `logits` ([vocab_size]) predict the token after it and are valid during the call only.
// Splits the sequence into steps within the model's limits.
void score_sequence(Model& model, KvCache& cache, std::span<const std::int32_t> tokens,
                    std::int64_t first,
                    const std::function<void(std::int64_t, std::span<const float>)>& visit,
                    const Observer* observer = nullptr);

}  // namespace moebench
