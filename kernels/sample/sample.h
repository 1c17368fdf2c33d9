// sample: the next token of each row of logits.
//
//   temperature 0   the largest logit; ties go to the lower id
//   otherwise       p[i] = exp(logits[i] / temperature), cut down by the filters in this order,
//   each
//                   on the renormalised rest: top_k, top_p, min_p. The token is the first whose
//                   cumulative p exceeds uniform * (their sum). Candidates stand by falling logit,
//                   ties by rising id, if a filter is on; else by id.
//   log_probability = logits[token] - log(sum_i exp(logits[i])): unfiltered, at temperature 1
//
// Source of the filters' order: huggingface/transformers, generation/utils.py,
// _get_logits_processor.
// Lower bound: the bytes of the logits.
#pragma once

#include <cstdint>

#include "kernels/core/variant.h"
#include "kernels/core/view.h"

namespace moebench::sample {

struct Problem {
  std::int64_t num_rows = 0;
  std::int64_t vocab_size = 0;  // at least 1
};

// How one row is drawn.
struct RowParams {
  double temperature = 0;  // in [0, 100]
  double top_p = 1;        // in (0, 1]; 1: off
  double min_p = 0;        // in [0, 1); 0: off
  double uniform = 0;      // in [0, 1): the row's random number
  std::int64_t top_k = 0;  // at least 0; 0: off
};

// A row's status. Without kOk there is no log-probability: it is NaN.
inline constexpr std::int32_t kOk = 0;
inline constexpr std::int32_t kBroken = 1;  // `token` is the first id whose logit is NaN or +inf
inline constexpr std::int32_t kNoneFinite = 2;  // all are -inf; `token` is 0

struct Args {
  View<const float, 2> logits;        // [num_rows, vocab_size]
  View<const RowParams, 1> params;    // [num_rows]
  View<std::int32_t, 1> tokens;       // [num_rows]; overwritten, always a valid id
  View<double, 1> log_probabilities;  // [num_rows]; overwritten
  View<std::int32_t, 1> status;       // [num_rows]; overwritten
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_SAMPLE_VARIANTS(X) X(reference)
#define MOEBENCH_SAMPLE_CUDA_VARIANTS(X) X(cuda_radix)
MOEBENCH_VARIANTS(MOEBENCH_SAMPLE_VARIANTS, MOEBENCH_SAMPLE_CUDA_VARIANTS)

}  // namespace moebench::sample
