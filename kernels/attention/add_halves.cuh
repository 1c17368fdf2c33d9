// Sums of several values over pairs of lanes, each lane left with half of them.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

// v[i], i < kHalf, becomes the sum of this lane's v[i] (or v[i + kHalf], if it is the upper of the
// two) and the other lane's.
template <int kHalf, int kSize>
MOEBENCH_DEVICE void add_halves(float (&v)[kSize], int offset) {
  const bool upper = (gpu::lane_id() & offset) != 0;
  MOEBENCH_UNROLL
  for (int i = 0; i < kHalf; ++i) {
    const float sent = upper ? v[i] : v[i + kHalf];
    const float kept = upper ? v[i + kHalf] : v[i];
    v[i] = kept + gpu::shuffle_xor(gpu::kAllLanes, sent, offset);
  }
}

}  // namespace
}  // namespace moebench::attention
