// attention: grouped-query attention over a paged cache, causal, with sinks and an optional window.
//
//   z_j  = (q . k_j) * scale                       over visible positions j
//   w_j  = exp(z_j - M) / (sum_j exp(z_j - M) + exp(sink - M)),    M = max(max_j z_j, sink)
//   out  = sum_j w_j v_j
//
// Visible from position p: j <= p, and p - j < window if window > 0. Query head a reads key/value
// head a / (num_heads / num_kv_heads). The keys and values of the step's own tokens must be in the
// cache already (kv_write). The sink of a head is a logit without a value; it is not scaled.
// Source: openai/gpt-oss, gpt_oss/torch/model.py, sdpa; Xiao et al., "Efficient Streaming Language
// Models with Attention Sinks", 2023.
// Lower bound: reading each visible key and value once per sequence.
#pragma once

#include <algorithm>

#include "kernels/attention/kv_view.h"
#include "kernels/core/float_types.h"
#include "kernels/core/variant.h"
#include "kernels/core/view.h"
#include "kernels/formats/format.h"
#include "kernels/fused/norm.h"

namespace moebench::attention {

struct Problem {
  Format kv_format = Format::kF32;
  std::int64_t num_tokens = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t window = 0;       // 0: full causal attention
  std::int64_t max_context = 0;  // longest sequence, in positions
  // Of what is around attention, where that is to be done at once (Args::Around); 0: not.
  std::int64_t hidden_size = 0;
  Format weight_format = Format::kF32;
  std::int64_t num_experts = 0;  // of the router behind it, if its product is to be done, too
};

// A layer of linear's.
struct Product {
  MatrixView weight;
  View<const float, 1> bias;  // data == nullptr: none
};

struct Args {
  View<const float, 3> queries;  // [num_tokens, num_heads, head_dim], rotated
  KvLayerView kv;
  TokenPlaces places;
  View<const float, 1> sinks;  // [num_heads], or data == nullptr: no sinks
  float scale = 0;             // 1 / sqrt(head_dim)
  std::int64_t window = 0;
  std::int64_t max_context = 0;
  // Whether variants that find splits of the context may join them in the same launch: same bits.
  bool joins = false;
  View<float, 3> out;  // [num_tokens, num_heads, head_dim]; overwritten

  // The rest of a layer's first half, for variants that do it on the way (Variant::normalises): the
  // norm, query, key and value of it, rotated as rope would and cached as kv_write would, and the
  // product of what attention finds. Only the shapes of `queries` and `out` are looked at then.
  // norm.weight.data == nullptr: nothing.
  struct Around {
    fused::Norm norm;
    Product query, key, value;
    View<const float, 2> cos;  // [num_tokens, head_dim / 2]
    View<const float, 2> sin;  // [num_tokens, head_dim / 2]
    Product output;
    View<float, 2> out;  // [num_tokens, hidden_size]; overwritten
    // The product of the router behind it, of norm.sum + out, whose norm has these weights: its
    // sums are left in the signals, for the experts' launch that must follow
    // (Variant::routes_ahead). weight.data == nullptr: nothing.
    struct Router {
      MatrixView weight;                 // [num_experts, hidden_size]
      View<const float, 1> norm_weight;  // [hidden_size]
    };
    Router router{};
  };
  Around around{};
  // The first so many tokens are the only ones of their sequences: a hint.
  std::int64_t num_single = 0;
  // The same rounded to bf16, instead of `out`, and queries that are already: for variants that
  // know (Variant::knows_bf16).
  View<bf16, 3> rounded{};
  View<const bf16, 3> rounded_queries{};  // queries.data is not looked at then
};

// Tokens [first, first + count) of a step.
inline Args tokens_of(Args args, std::int64_t first, std::int64_t count) {
  const auto cut = [&](auto& view) {
    if (view.data != nullptr) view.data += first * (view.size() / view.shape[0]);
    view.shape[0] = count;
  };
  args.num_single = std::clamp<std::int64_t>(args.num_single - first, 0, count);
  cut(args.queries);
  cut(args.places.position);
  cut(args.places.sequence);
  cut(args.out);
  cut(args.rounded);
  cut(args.rounded_queries);
  return args;
}

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_ATTENTION_VARIANTS(X) X(reference) X(portable_f32) X(avx2_f32)
#define MOEBENCH_ATTENTION_CUDA_VARIANTS(X) \
  X(cuda_plain_f32)                         \
  X(cuda_split_kv)                          \
  X(cuda_decode_mma)                        \
  X(cuda_decode_stream_mma)                 \
  X(cuda_flash_mma)                         \
  X(cuda_flash_splits_mma)                  \
  X(cuda_flash_wgmma)                       \
  X(cuda_one_launch_bf16)                   \
  X(cuda_one_launch_routed_bf16)
MOEBENCH_VARIANTS(MOEBENCH_ATTENTION_VARIANTS, MOEBENCH_ATTENTION_CUDA_VARIANTS)

}  // namespace moebench::attention
