// log_softmax: each row of logits as log-probabilities.
//
//   out[r, i] = logits[r, i] - log(sum_j exp(logits[r, j]))
//
// -inf stays -inf. A row that holds NaN or +inf, or nothing finite, becomes NaN as a whole or in
// part: it must show.
// Source: the definition; log-probabilities are what KL divergences of distributions are summed of.
// Lower bound: reading the logits and writing as much.
#pragma once

#include "kernels/core/variant.h"
#include "kernels/core/view.h"

namespace moebench::log_softmax {

struct Problem {
  std::int64_t num_rows = 0;
  std::int64_t vocab_size = 0;
};

struct Args {
  View<const float, 2> logits;  // [num_rows, vocab_size]
  View<float, 2> out;           // [num_rows, vocab_size]; overwritten; may be the logits themselves
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_LOG_SOFTMAX_VARIANTS(X) X(reference)
#define MOEBENCH_LOG_SOFTMAX_CUDA_VARIANTS(X) X(cuda_block)
MOEBENCH_VARIANTS(MOEBENCH_LOG_SOFTMAX_VARIANTS, MOEBENCH_LOG_SOFTMAX_CUDA_VARIANTS)

}  // namespace moebench::log_softmax
