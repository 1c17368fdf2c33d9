// Tokens of several sequences side by side: which of them can be taken together.
#pragma once

#include "kernels/attention/kv_device.cuh"

namespace moebench::attention {
namespace {

// Tokens [begin, end) of one sequence, in ascending positions.
struct Run {
  int begin, end;
};

// The run that begins at `begin`, as far as token `end`. Called by whole warps.
MOEBENCH_DEVICE Run find_run(const DeviceKv& kv, int begin, int end) {
  for (int base = begin + 1;; base += gpu::kWarp) {
    const int token = base + gpu::lane_id();
    const bool stops = token >= end || kv.sequence[token] != kv.sequence[token - 1] ||
                       kv.position[token] <= kv.position[token - 1];
    const unsigned lanes = gpu::ballot(gpu::kAllLanes, stops);
    if (lanes != 0) return {begin, base + gpu::lowest_bit(lanes)};
  }
}

}  // namespace
}  // namespace moebench::attention
