// The last kernel of variants that compute the experts of a token one by one: their weighted sum.
#pragma once

#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {

constexpr int kCombineThreads = 256;

MOEBENCH_DEVICE float4 four_of(const float* from) { return *reinterpret_cast<const float4*>(from); }
MOEBENCH_DEVICE float4 four_of(const std::uint16_t* from) {
  const uint2 four = *reinterpret_cast<const uint2*>(from);
  return {gpu::low_bf16(four.x), gpu::high_bf16(four.x), gpu::low_bf16(four.y),
          gpu::high_bf16(four.y)};
}

// out = the sum of a token's slots, in order. `products` is [num_pairs, hidden_size] of floats, or
// of the bits of bf16. A thread does four columns.
template <int kThreads, class Value>
__global__ void MOEBENCH_BOUNDS(kThreads)
    combine(Sizes sizes, const Value* products, const float* expert_weights, float* out) {
  gpu::wait_for_previous_kernel();
  gpu::let_next_kernel_start();
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kThreads + static_cast<std::int64_t>(threadIdx.x);
  const int quads = sizes.hidden_size / 4;
  if (item >= static_cast<std::int64_t>(sizes.num_tokens) * quads) return;
  const auto token = static_cast<int>(item / quads);
  const std::int64_t column = item % quads;
  float4 sum = {0, 0, 0, 0};
  for (int k = 0; k < sizes.top_k; ++k) {
    const int pair = token * sizes.top_k + k;
    const float weight = expert_weights[pair];
    const float4 y = four_of(products + 4 * (pair * std::int64_t{quads} + column));
    sum.x += weight * y.x;
    sum.y += weight * y.y;
    sum.z += weight * y.z;
    sum.w += weight * y.w;
  }
  reinterpret_cast<float4*>(out)[item] = sum;
}

// `overlaps`: whether the kernel before lets it start early.
template <class Value>
void launch_combine(const Args& args, Context& context, const Value* products,
                    bool overlaps = false) {
  const std::int64_t items = args.out.size() / 4;
  gpu::launch(combine<kCombineThreads, Value>,
              {.grid = {static_cast<unsigned>((items + kCombineThreads - 1) / kCombineThreads)},
               .block = kCombineThreads,
               .stream = context.stream,
               .overlap_previous = overlaps},
              "moe_experts (add up slots)", sizes_of(args), products, args.expert_weights.data,
              args.out.data);
}

}  // namespace moebench::moe_experts
