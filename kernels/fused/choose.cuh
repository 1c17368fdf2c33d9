// Choosing a token's experts by one warp: what the router's variants share, and experts that route.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::fused {

// The logits stay in registers as numbers whose order is theirs, NaNs the largest as in the
// reference; top_k times the warp looks for the largest that was not taken. Lane l holds experts l,
// l + 32, ...: kHeld of them. `logits` may be shared memory.
template <int kHeld>
MOEBENCH_DEVICE void choose_experts(const float* logits, int num_experts, int top_k,
                                    std::int32_t* expert_ids, float* expert_weights) {
  std::uint32_t orders[kHeld];  // 0: taken, or no expert
  int places[kHeld];            // among the chosen; -1: not chosen
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeld; ++h) {
    const int expert = gpu::lane_id() + h * gpu::kWarp;
    orders[h] = expert < num_experts ? gpu::order_of(logits[expert]) : 0;
    places[h] = -1;
  }
  float largest = 0;
  float sum = 0;
  for (int k = 0; k < top_k; ++k) {
    // The best of this lane, the lowest of equals; then of the warp.
    std::uint32_t best = orders[0];
    int expert = gpu::lane_id();
    MOEBENCH_UNROLL
    for (int h = 1; h < kHeld; ++h) {
      if (orders[h] > best) {
        best = orders[h];
        expert = gpu::lane_id() + h * gpu::kWarp;
      }
    }
    const std::uint32_t winner = gpu::reduce_max(gpu::kAllLanes, best);
    const auto chosen = static_cast<int>(gpu::reduce_min(
        gpu::kAllLanes, best == winner ? static_cast<unsigned>(expert) : 0xffffffffU));
    if (k == 0) largest = gpu::float_of_order(winner);
    sum += expf(gpu::float_of_order(winner) - largest);
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeld; ++h) {
      if (chosen != gpu::lane_id() + h * gpu::kWarp) continue;
      orders[h] = 0;
      places[h] = k;
    }
  }
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeld; ++h) {
    if (places[h] < 0) continue;
    const int expert = gpu::lane_id() + h * gpu::kWarp;
    expert_ids[places[h]] = expert;
    expert_weights[places[h]] = expf(logits[expert] - largest) / sum;
  }
}

}  // namespace moebench::fused
