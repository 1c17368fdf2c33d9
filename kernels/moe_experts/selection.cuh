// Which experts the few tokens of a decode step selected, and in which of their pairs of a token
// and a slot: found out by every block for itself, which costs less than a kernel that sorts them.
#pragma once

#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kGroup = 8;        // tokens of an expert at a time
constexpr int kMostPairs = 256;  // of a token and a slot

// An expert's pairs, up to kGroup of them (or as many as select() was told).
struct Group {
  int expert;
  int first;  // in Selection::pair
  int size;
};
// The experts of a step by number, and their pairs in order: a pair's number, and its token's
// above.
struct Selection {
  int num_groups;
  Group group[kMostPairs];
  int pair[kMostPairs];
  MOEBENCH_DEVICE int pair_at(int i) const { return pair[i] & 0xffff; }
  MOEBENCH_DEVICE int token_at(int i) const { return pair[i] >> 16; }
};

// The sum over this lane and those before it.
MOEBENCH_DEVICE int sum_up_to(int value) {
  MOEBENCH_UNROLL
  for (int offset = 1; offset < gpu::kWarp; offset *= 2) {
    const int other = gpu::shuffle_up(gpu::kAllLanes, value, offset);
    if (gpu::lane_id() >= offset) value += other;
  }
  return value;
}

// By one warp, which sees the selection afterwards, in groups of up to kSize. Lane l counts for
// experts l, l + 32, ...
template <int kSize = kGroup>
MOEBENCH_DEVICE void select(const std::int32_t* expert_ids, const Sizes& sizes, Selection& s) {
  const int num_pairs = sizes.num_pairs;
  const int num_experts = sizes.num_experts;
  MOEBENCH_SHARED(int, ids, [kMostPairs]);
  for (int p = gpu::lane_id(); p < num_pairs; p += gpu::kWarp) ids[p] = expert_ids[p];
  gpu::sync_warp();
  int pairs = 0;  // of experts before these 32
  int groups = 0;
  for (int begin = 0; begin < num_experts; begin += gpu::kWarp) {
    const int expert = begin + gpu::lane_id();
    int size = 0;
    for (int p = 0; p < num_pairs; ++p) size += static_cast<int>(ids[p] == expert);
    const int of_expert = (size + kSize - 1) / kSize;
    const int pairs_up_to = pairs + sum_up_to(size);
    const int groups_up_to = groups + sum_up_to(of_expert);
    int next = pairs_up_to - size;
    for (int g = 0; g < of_expert; ++g) {
      const int left = size - g * kSize;
      s.group[groups_up_to - of_expert + g] = {expert, next + g * kSize,
                                               left < kSize ? left : kSize};
    }
    for (int p = 0; p < num_pairs && size > 0; ++p) {
      if (ids[p] == expert) s.pair[next++] = p | p / sizes.top_k << 16;
    }
    pairs = gpu::shuffle(gpu::kAllLanes, pairs_up_to, gpu::kWarp - 1);
    groups = gpu::shuffle(gpu::kAllLanes, groups_up_to, gpu::kWarp - 1);
  }
  if (gpu::lane_id() == 0) s.num_groups = groups;
  gpu::sync_warp();
}

}  // namespace
}  // namespace moebench::moe_experts
