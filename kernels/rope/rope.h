// rope: rotary position embedding, half-split pairs (GPT-NeoX style), in place.
//
//   x'[t, h, i]          = x[t, h, i] * cos[t, i] - x[t, h, i + D/2] * sin[t, i]
//   x'[t, h, i + D/2]    = x[t, h, i + D/2] * cos[t, i] + x[t, h, i] * sin[t, i]      for i < D/2
//
// The tables already hold YaRN's frequencies and concentration factor for each token's position.
// Source: Su et al., "RoFormer", 2021; Peng et al., "YaRN", 2023; openai/gpt-oss,
// gpt_oss/torch/model.py, RotaryEmbedding.
#pragma once

#include "kernels/core/variant.h"
#include "kernels/core/view.h"

namespace moebench::rope {

struct Problem {
  std::int64_t num_tokens = 0;
  std::int64_t num_heads = 0;
  std::int64_t head_dim = 0;  // even
};

struct Args {
  View<float, 3> x;          // [num_tokens, num_heads, head_dim]; rotated in place
  View<const float, 2> cos;  // [num_tokens, head_dim / 2]
  View<const float, 2> sin;  // [num_tokens, head_dim / 2]
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_ROPE_VARIANTS(X) X(reference) X(portable_f32) X(avx2_f32)
#define MOEBENCH_ROPE_CUDA_VARIANTS(X) X(cuda_elementwise)
MOEBENCH_VARIANTS(MOEBENCH_ROPE_VARIANTS, MOEBENCH_ROPE_CUDA_VARIANTS)

}  // namespace moebench::rope
