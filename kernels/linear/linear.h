// linear: a dense layer, y = W x + b.
//
//   out[t, r] = bias[r] + sum_c weight[r, c] * x[t, c]
//
// Lower bound: the bytes of the weight, once per call however many tokens it serves.
#pragma once

#include <array>

#include "kernels/attention/kv_view.h"
#include "kernels/core/float_types.h"
#include "kernels/core/variant.h"
#include "kernels/core/view.h"
#include "kernels/formats/format.h"
#include "kernels/fused/norm.h"

namespace moebench::linear {

struct Problem {
  Format format = Format::kF32;
  std::int64_t num_tokens = 0;
  std::int64_t rows = 0;  // output features
  std::int64_t cols = 0;  // input features
  // Of a query, key and value that are to be cached at once (Args::Cached); 0: not.
  std::int64_t head_dim = 0;
  Format kv_format = Format::kF32;
};

struct Args {
  View<const float, 2> x;     // [num_tokens, cols]
  MatrixView weight;          // [rows, cols]
  View<const float, 1> bias;  // [rows], or data == nullptr: none
  View<float, 2> out;         // [num_tokens, rows]; overwritten

  // More layers of the same x, weights in the same format: for variants that run several at once.
  struct Output {
    MatrixView weight;  // data == nullptr: none
    View<const float, 1> bias;
    View<float, 2> out;
  };
  std::array<Output, 2> also{};

  // A norm whose result is x, for variants that do it on the way: x.data is not looked at then.
  fused::Norm norm{};

  // What becomes of query, key and value (the layers in this order), for variants that do it on the
  // way: query and key are rotated as rope would, key and value put into the cache as kv_write
  // would, and not into `out`. cos.data == nullptr: nothing.
  struct Cached {
    View<const float, 2> cos;  // [num_tokens, head_dim / 2]
    View<const float, 2> sin;  // [num_tokens, head_dim / 2]
    KvLayerView kv;
    TokenPlaces places;
  };
  Cached cached{};

  // x rounded to bf16, for variants that would do that themselves (Variant::knows_bf16), if weights
  // are bf16: x.data is not looked at then.
  View<const bf16, 2> rounded{};
};

using Variant = moebench::Variant<Problem, Args>;

// Simplest first. To add one: write <name>.cpp (CUDA: .cu) beside this file and add X(<name>) here.
#define MOEBENCH_LINEAR_VARIANTS(X) \
  X(reference)                      \
  X(portable_f32)                   \
  X(avx2_f32)                       \
  X(avx2_int15)                     \
  X(avx2_int8)
#define MOEBENCH_LINEAR_CUDA_VARIANTS(X) \
  X(cuda_tiled_f32)                      \
  X(cuda_rows_f32)                       \
  X(cuda_rows_bf16)                      \
  X(cuda_stream_bf16)                    \
  X(cuda_mma_bf16)                       \
  X(cuda_wgmma_bf16)                     \
  X(cuda_wgmma_rows_bf16)                \
  X(cuda_chain_bf16)                     \
  X(cuda_decode)                         \
  X(cuda_two_parts_bf16)                 \
  X(cuda_cublaslt)
MOEBENCH_VARIANTS(MOEBENCH_LINEAR_VARIANTS, MOEBENCH_LINEAR_CUDA_VARIANTS)

}  // namespace moebench::linear
