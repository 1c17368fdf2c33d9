// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "kernels/sample/sample.h"

namespace moebench {

// temperature 0 means greedy: the largest logit, ties to the lower id. Otherwise the logits are
// divided by the temperature and the filters apply in this order, each on the renormalised rest:
// top_k (0: off), top_p (1: off), min_p (0: off). Source of the order: huggingface/transformers,
// generation/utils.py, _get_logits_processor.
struct SamplingParams {
  double temperature = 0;
  std::int64_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  std::uint64_t seed = 0;
};

// Throws Error(kInvalidArgument) naming the parameter, its value and its range.
void check_sampling(const SamplingParams& params);

struct SampledToken {
  std::int32_t token = 0;
  double log_probability = 0;  // under the unfiltered distribution at temperature 1
};

// Draws token number `index` of a request. The random number is a function of (seed, index) alone,
// so the answer depends neither on the batch nor on what else was drawn.
// Throws Error(kInvalidArgument) if the logits hold NaN or no finite value.
SampledToken sample_token(std::span<const float> logits, const SamplingParams& params,
                          std::uint64_t index);

// What draws token number `index`, for the ops: see kernels/sample/sample.h.
sample::RowParams row_params(const SamplingParams& params, std::uint64_t index);

// Empty, or what is wrong with logits of which the sample op gave `status` and `token`.
std::string sampling_problem(std::int32_t status, std::int32_t token);

// log(sum(exp(logits))), in float64.
double log_sum_exp(std::span<const float> logits);

}  // namespace moebench
