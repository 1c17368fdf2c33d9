// Rows of a weight that a warp multiplies by one float32 vector, or a part of their columns: asked
// for before the vector is there, and held in registers as they are stored. What router and experts
// share that make the router's product.
#pragma once

#include "kernels/formats/f32_groups.cuh"

namespace moebench::fused {

// Of columns in groups of 16 bytes a lane takes groups begin, begin + stride, ..., up to `groups`;
// the first kHeld of them are held.
template <Format kFormat, int kRows, int kHeld>
struct HeldRows {
  gpu::EncodedRow rows[kRows];
  gpu::RowGroup<kRows> held[kHeld];

  // Once the rows are named.
  MOEBENCH_DEVICE void load(int begin, int stride, int groups) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeld; ++h) {
      if (begin + h * stride < groups) {
        held[h] = gpu::load_group<kFormat>(rows, begin + h * stride);
      }
    }
  }
  // The lane's part of the products.
  MOEBENCH_DEVICE void multiply(const float* x, int begin, int stride, int groups,
                                float (&sums)[kRows][1]) const {
    constexpr int kValues = gpu::DeviceFormat<kFormat>::kValues;
    const float* const tokens[1] = {x};
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeld; ++h) {
      const int group = begin + h * stride;
      if (group < groups) gpu::multiply_group<kFormat>(held[h], tokens, group * kValues, sums);
    }
    for (int group = begin + kHeld * stride; group < groups; group += stride) {
      gpu::multiply_group<kFormat>(gpu::load_group<kFormat>(rows, group), tokens, group * kValues,
                                   sums);
    }
  }
};

}  // namespace moebench::fused
