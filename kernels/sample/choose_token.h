// The meaning of `sample` for one row, on the host: what the reference variant runs, and what the
// engine draws with where the logits are in its memory.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/sample/sample.h"

namespace moebench::sample {

struct Choice {
  std::int32_t token = 0;
  double log_probability = 0;
  std::int32_t status = kOk;
};

// As sample.h says, in float64. `logits` is not empty.
Choice choose_token(std::span<const float> logits, const RowParams& params);

// log(sum(exp(logits))), in float64. `logits` is not empty.
double log_sum_exp(std::span<const float> logits);

}  // namespace moebench::sample
