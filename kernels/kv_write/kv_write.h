// kv_write: puts a step's keys and values into the paged cache, in the cache's format.
//
//   cache[place of t] = (keys[t], values[t])
//
// Variants with runs_several also do what rope does right before it, if the arguments ask for that:
// they rotate queries and keys in place, or on their way from the product that made them.
//
// Lower bound: writing the encoded vectors once.
#pragma once

#include "kernels/attention/kv_view.h"
#include "kernels/core/float_types.h"
#include "kernels/core/variant.h"
#include "kernels/core/view.h"

namespace moebench::kv_write {

struct Problem {
  Format kv_format = Format::kF32;
  std::int64_t num_tokens = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
};

struct Args {
  View<const float, 3> keys;    // [num_tokens, num_kv_heads, head_dim], rotated
  View<const float, 3> values;  // [num_tokens, num_kv_heads, head_dim]
  KvLayerView kv;
  TokenPlaces places;

  // What is to be rotated first, by tables as rope's; `keys` is the same memory as above. Null: all
  // is rotated already.
  struct Rotation {
    View<float, 3> queries;    // [num_tokens, num_heads, head_dim]
    View<float, 3> keys;       // [num_tokens, num_kv_heads, head_dim]
    View<const float, 2> cos;  // [num_tokens, head_dim / 2]
    View<const float, 2> sin;  // [num_tokens, head_dim / 2]
    // Where they all are before, or data == nullptr: in their places. A row is a token's query, its
    // key and its value; keys may be rotated in it. Only queries and the cache are written then:
    // data of keys and values above is not looked at.
    View<float, 2> joined{};  // [num_tokens, (num_heads + 2 num_kv_heads) head_dim]
    // Queries rounded to bf16 once they are rotated, instead of those above, for variants that know
    // (Variant::knows_bf16), from joined rows only.
    View<bf16, 3> rounded_queries{};  // [num_tokens, num_heads, head_dim]
  };
  Rotation rotation{};
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_KV_WRITE_VARIANTS(X) X(reference)
#define MOEBENCH_KV_WRITE_CUDA_VARIANTS(X) X(cuda_rows)
MOEBENCH_VARIANTS(MOEBENCH_KV_WRITE_VARIANTS, MOEBENCH_KV_WRITE_CUDA_VARIANTS)

}  // namespace moebench::kv_write
