// A pair of columns that rope rotates: what all kernels that rotate share, so that all have the
// same bits.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::fused {

// Of columns i and i + head_dim / 2, `low` and `high` before.
MOEBENCH_DEVICE float rotated_low(float low, float high, float cos, float sin) {
  return low * cos - gpu::multiply(high, sin);
}
MOEBENCH_DEVICE float rotated_high(float low, float high, float cos, float sin) {
  return high * cos + gpu::multiply(low, sin);
}

}  // namespace moebench::fused
