// moe_experts: the feed-forward experts of one MoE layer, applied to the tokens routed to them.
//
//   u         = gate_up[e] x[t] + gate_up_bias[e]         with e = expert_ids[t, k]
//   gate, up  = u[0], u[2], ...   and   u[1], u[3], ...   (rows interleaved)
//   g         = min(gate, limit)          c = clamp(up, -limit, limit)
//   a         = g * sigmoid(alpha * g) * (c + 1)
//   out[t]    = sum over k of  expert_weights[t, k] * (down[e] a + down_bias[e])
//
// Variants that normalise also do what makes x and the choice of experts, if the arguments ask for
// that: norm, product and choice of kernels/router/router.h. Those that end with a norm do the one
// that follows: kernels/rms_norm/rms_norm.h.
//
// Source: openai/gpt-oss, gpt_oss/torch/model.py, MLPBlock and swiglu.
// Lower bound: the bytes of every expert that at least one token selected, once.
#pragma once

#include "kernels/core/variant.h"
#include "kernels/core/view.h"
#include "kernels/formats/format.h"
#include "kernels/fused/norm.h"

namespace moebench::moe_experts {

struct Problem {
  Format format = Format::kF32;
  std::int64_t num_tokens = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  Format router_format = Format::kF32;  // of the product before it, for those who can do it, too
};

struct Args {
  View<const float, 2> x;                  // [num_tokens, hidden_size]
  View<const std::int32_t, 2> expert_ids;  // [num_tokens, top_k], each in [0, num_experts)
  View<const float, 2> expert_weights;     // [num_tokens, top_k]
  MatrixStackView gate_up;                 // [num_experts] of [2 * intermediate_size, hidden_size]
  View<const float, 2> gate_up_bias;       // [num_experts, 2 * intermediate_size]
  MatrixStackView down;                    // [num_experts] of [hidden_size, intermediate_size]
  View<const float, 2> down_bias;          // [num_experts, hidden_size]
  float swiglu_alpha = 1.702F;
  float swiglu_limit = 7.0F;
  View<float, 2> out;  // [num_tokens, hidden_size]; overwritten

  // What is to be done first; x, and what expert_ids and expert_weights hold, are not looked at
  // then, and need not be written. norm.weight.data == nullptr: nothing. `out` is none of its
  // operands: other blocks may still read them.
  struct Route {
    fused::Norm norm;
    MatrixView weight;          // [num_experts, hidden_size]
    View<const float, 1> bias;  // [num_experts], or data == nullptr: none
    // The launch in front was attention's, with Around::router, and has left the product's sums in
    // the signals (Variant::routes_ahead).
    bool is_ahead = false;
  };
  Route route{};
  // What is to be done with the sum over k instead of writing `out`. What it gives may be where x
  // was.
  fused::NormBehind behind{};
};

using Variant = moebench::Variant<Problem, Args>;

// Simplest first. To add one: write <name>.cpp (CUDA: .cu) beside this file and add X(<name>) here.
#define MOEBENCH_MOE_EXPERTS_VARIANTS(X) \
  X(reference)                           \
  X(portable_f32)                        \
  X(avx2_f32)                            \
  X(avx2_int15)                          \
  X(avx2_int8)
#define MOEBENCH_MOE_EXPERTS_CUDA_VARIANTS(X) \
  X(cuda_per_token_f32)                       \
  X(cuda_fused_bf16)                          \
  X(cuda_stream_bf16)                         \
  X(cuda_direct_bf16)                         \
  X(cuda_digits_fp8)                          \
  X(cuda_one_launch_fp8)                      \
  X(cuda_one_launch_stream_int8)              \
  X(cuda_one_launch_readers_int8)             \
  X(cuda_one_launch_chunks_fp8)               \
  X(cuda_one_launch_blocks_fp8)               \
  X(cuda_folded_fp8)                          \
  X(cuda_grouped_mma_bf16)                    \
  X(cuda_grouped_wgmma_bf16)                  \
  X(cuda_grouped_registers_bf16)              \
  X(cuda_grouped_fp8)                         \
  X(cuda_grouped_blocks_fp8)                  \
  X(cuda_grouped_chunks_fp8)                  \
  X(cuda_grouped_folded_32_fp8)               \
  X(cuda_grouped_ahead_fp8)                   \
  X(cuda_grouped_short_fp8)                   \
  X(cuda_dequantise_cublaslt)
MOEBENCH_VARIANTS(MOEBENCH_MOE_EXPERTS_VARIANTS, MOEBENCH_MOE_EXPERTS_CUDA_VARIANTS)

}  // namespace moebench::moe_experts
