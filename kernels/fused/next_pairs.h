// What the launch behind the next boundary reads first, for ops that have memory to themselves
// before they know what they will read: query, key and value of the next layer, which
// attention/cuda_one_launch_bf16 deals out to its blocks in pairs of rows that are rotated
// together.
#pragma once

#include <cstdint>

#include "kernels/core/view.h"

namespace moebench::fused {

// A hint: rows of one size, in whole 16 bytes. query.data == nullptr: nothing.
struct NextPairs {
  MatrixView query;
  MatrixView key;
  MatrixView value;
  std::int64_t head_dim = 0;
};

}  // namespace moebench::fused
