// The last kernel of variants that compute the experts of a token one by one: their weighted sum,
// and if asked for the norm behind it, with the bits of rms_norm/cuda_block.
#pragma once

#include "kernels/fused/norm_row.cuh"
#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {

constexpr int kCombineThreads = 256;

MOEBENCH_DEVICE float4 four_of(const float* from) { return *reinterpret_cast<const float4*>(from); }
MOEBENCH_DEVICE float4 four_of(const std::uint16_t* from) {
  const uint2 four = *reinterpret_cast<const uint2*>(from);
  return {gpu::low_bf16(four.x), gpu::high_bf16(four.x), gpu::low_bf16(four.y),
          gpu::high_bf16(four.y)};
}

MOEBENCH_DEVICE void add_weighted(float4& sum, float weight, const float4& y) {
  sum.x += weight * y.x;
  sum.y += weight * y.y;
  sum.z += weight * y.z;
  sum.w += weight * y.w;
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
    add_weighted(sum, expert_weights[pair],
                 four_of(products + 4 * (pair * std::int64_t{quads} + column)));
  }
  reinterpret_cast<float4*>(out)[item] = sum;
}

// The same of a token a block, added to x and normalised. Out: float, or the bits of bf16.
template <class Value, class Out>
__global__ void MOEBENCH_BOUNDS(fused::kRowThreads, 3)
    combine_and_normalise(Sizes sizes, const Value* products, const float* expert_weights, float* x,
                          const float* weight, float epsilon, Out* out) {
  using Row = fused::RowPart<4>;
  gpu::let_next_kernel_start();
  const int size = sizes.hidden_size;
  const auto token = static_cast<std::int64_t>(blockIdx.x);
  Row row;
  row.load_weights(weight, size);
  gpu::wait_for_previous_kernel();
  row.load_row(x + token * size, nullptr, size);
  float4 sums[Row::kLoads] = {};
  for (int k = 0; k < sizes.top_k; ++k) {
    const std::int64_t pair = token * sizes.top_k + k;
    const float of_expert = expert_weights[pair];
    MOEBENCH_UNROLL
    for (int h = 0; h < Row::kLoads; ++h) {
      if (Row::at(h) >= size) continue;
      add_weighted(sums[h], of_expert, four_of(products + pair * size + Row::at(h)));
    }
  }
  MOEBENCH_UNROLL
  for (int h = 0; h < Row::kLoads; ++h) {
    fused::add(row.held[h], {sums[h].x, sums[h].y, sums[h].z, sums[h].w});
  }
  row.store_row(x + token * size, size);
  const float squares = gpu::block_sum<fused::kRowThreads>(row.squares());
  row.normalise(fused::row_scale(squares, size, epsilon));
  row.store_row(out + token * size, size);
}

// Whether launch_combine does the norm behind it.
inline bool combines_with_norm(std::int64_t hidden_size) {
  return hidden_size % 4 == 0 && hidden_size <= fused::kMostHeld;
}
inline bool combines_with_norm(const Problem& problem) {
  return combines_with_norm(problem.hidden_size);
}

template <class Value, class Out>
void launch_combine_and_normalise(const Args& args, Context& context, const Value* products,
                                  Out* out, bool overlaps) {
  const fused::NormBehind& behind = args.behind;
  const Sizes sizes = sizes_of(args);
  require(combines_with_norm(sizes.hidden_size),
          "run moe_experts with the norm behind: at most {} columns, in fours; there are {}",
          fused::kMostHeld, sizes.hidden_size);
  fused::check_aligned({behind.x.data, behind.weight.data, reinterpret_cast<const float*>(out)});
  gpu::launch(combine_and_normalise<Value, Out>,
              {.grid = {static_cast<unsigned>(sizes.num_tokens)},
               .block = fused::kRowThreads,
               .stream = context.stream,
               .overlap_previous = overlaps},
              "moe_experts (add up slots, norm)", sizes, products, args.expert_weights.data,
              behind.x.data, behind.weight.data, behind.epsilon, out);
}

// `overlaps`: whether the kernel before lets it start early.
template <class Value>
void launch_combine(const Args& args, Context& context, const Value* products,
                    bool overlaps = false) {
  if (args.behind.weight.data != nullptr) {
    if (args.behind.rounded.data == nullptr) {
      return launch_combine_and_normalise(args, context, products, args.behind.out.data, overlaps);
    }
    auto* rounded = reinterpret_cast<std::uint16_t*>(args.behind.rounded.data);
    return launch_combine_and_normalise(args, context, products, rounded, overlaps);
  }
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
