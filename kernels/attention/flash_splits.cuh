// A row's keys in splits of 256 positions, and how what they give is joined: the same operations in
// the same order for a token alone and in a prompt.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr int kSplit = 256;  // positions; splits begin at multiples of it

// The first position that a token sees, and its splits.
MOEBENCH_DEVICE int first_seen(int position, int window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}
struct SeenSplits {
  int first, count;
};
MOEBENCH_DEVICE SeenSplits seen_splits(int position, int window) {
  const int first = first_seen(position, window) / kSplit;
  return {first, position / kSplit - first + 1};
}

// Joins what two sets of keys gave a row, as seen from their bases. Joining nothing, whose base is
// kLowest and whose sums are 0, changes no bit.
struct Join {
  float base;
  float first, second;  // what sums are multiplied with

  MOEBENCH_DEVICE Join(float first_base, float second_base)
      : base(fmaxf(first_base, second_base)),
        first(gpu::exp2_fast(first_base - base)),
        second(gpu::exp2_fast(second_base - base)) {}
  MOEBENCH_DEVICE float sum(float of_first, float of_second) const {
    return fmaf(of_first, first, gpu::multiply(of_second, second));
  }
};

}  // namespace
}  // namespace moebench::attention
