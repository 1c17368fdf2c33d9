// Rows of queries, the query heads that share a key/value head times some tokens: which tokens can
// be taken together, how many heads share, and how a row ends.
#pragma once

#include <limits>
#include <string>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr float kLog2E = 1.44269504F;

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

// What the sums of a row are multiplied with, whose largest score (scaled) and sum of weights these
// are: one over the sum, the sink among its weights.
MOEBENCH_DEVICE float factor_of_row(float largest, float total, const float* sink) {
  if (sink == nullptr) return 1.0F / total;
  const float of_sink = *sink * kLog2E;
  const float most = fmaxf(largest, of_sink);
  const float weight = gpu::exp2_fast(largest - most);
  return weight / fmaf(total, weight, gpu::exp2_fast(of_sink - most));
}

// Empty, or why query heads cannot share key/value heads, at most so many.
inline std::string shared_heads_unsupported(
    const Problem& problem, std::int64_t most_rows = std::numeric_limits<std::int64_t>::max()) {
  if (problem.num_kv_heads <= 0 || problem.num_heads % problem.num_kv_heads != 0) {
    return "num_heads must be a multiple of num_kv_heads";
  }
  if (problem.num_heads / problem.num_kv_heads > most_rows) {
    return fmt::format("{} query heads share a key/value head, more than {}",
                       problem.num_heads / problem.num_kv_heads, most_rows);
  }
  return "";
}

}  // namespace
}  // namespace moebench::attention
