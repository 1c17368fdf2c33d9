// rms_norm: adds a branch to the residual stream, then root-mean-square normalisation with a
// learned scale.
//
//   x[t, i] += addend[t, i]
//   out[t, i] = weight[i] * x[t, i] / sqrt(mean_j(x[t, j]^2) + epsilon)
//
// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019; openai/gpt-oss,
// gpt_oss/torch/model.py, RMSNorm (epsilon inside the root; weight applied in float32).
// Lower bound: reading x and addend, writing x and out, once.
#pragma once

#include "kernels/core/float_types.h"
#include "kernels/core/variant.h"
#include "kernels/core/view.h"

namespace moebench::rms_norm {

struct Problem {
  std::int64_t num_tokens = 0;
  std::int64_t hidden_size = 0;
};

struct Args {
  View<float, 2> x;             // [num_tokens, hidden_size]; addend is added to it
  View<const float, 2> addend;  // [num_tokens, hidden_size], or data == nullptr: none
  View<const float, 1> weight;  // [hidden_size]
  float epsilon = 0;
  View<float, 2> out;  // [num_tokens, hidden_size]; overwritten; may be x itself without an addend
  // The same rounded to bf16, instead of `out`, for variants that know (Variant::knows_bf16).
  View<bf16, 2> rounded{};
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_RMS_NORM_VARIANTS(X) X(reference) X(portable_f32) X(avx2_f32)
#define MOEBENCH_RMS_NORM_CUDA_VARIANTS(X) X(cuda_block)
MOEBENCH_VARIANTS(MOEBENCH_RMS_NORM_VARIANTS, MOEBENCH_RMS_NORM_CUDA_VARIANTS)

}  // namespace moebench::rms_norm
