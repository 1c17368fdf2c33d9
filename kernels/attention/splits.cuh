// Attention in splits of the context, for decoding: what its variants share.
//
// A first kernel leaves, for each token, head and visible split, the largest score, the sum of
// weights and the weighted sum of values; a second one joins them in their order and adds the sink.
// Where a cluster of blocks has all splits of a token, those blocks hand what they found to each
// other and do both. Splits are 128 positions and begin at multiples of 128 of the absolute
// position: a token's output has the same bits in any batch, in any chunking and for any bound on
// the context.
#pragma once

#include <algorithm>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/attention/partials.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr int kSplit = 128;  // positions
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * gpu::kWarp;
constexpr int kPositions = kSplit / kWarps;  // of a warp
constexpr int kHeads = 8;                    // of a block
constexpr int kMergeThreads = 256;
constexpr float kLowest = -3.0e38F;  // below any score, and finite: differences stay numbers

// Splits that a cluster joins, some in turns.
constexpr int kMostBlocksOfCluster = 8;
constexpr int kMostJoined = 2 * kMostBlocksOfCluster;

// Blocks that keep a large GPU busy: with more, a block takes several splits.
constexpr std::int64_t kManyBlocks = 2048;

// A round of tokens.
struct Round {
  int first_token;
  Partials partials;
};

struct Visible {
  int first, last;          // positions
  int first_split, splits;  // that hold them
};
MOEBENCH_DEVICE Visible visible_from(int position, int window) {
  const int first = window > 0 && position >= window ? position - window + 1 : 0;
  return {first, position, first / kSplit, position / kSplit - first / kSplit + 1};
}

// Block (token, key/value head and up to eight of its query heads, split).
struct SplitBlock {
  std::int64_t token;
  Visible visible;
  int sequence;
  int kv_head;
  int first_head;
  int heads;
};
MOEBENCH_DEVICE SplitBlock split_block(const DeviceKv& kv, int window, int num_heads,
                                       std::int64_t token) {
  const int group = num_heads / kv.num_kv_heads;
  const int parts = (group + kHeads - 1) / kHeads;
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const int first_of_group = static_cast<int>(blockIdx.y) % parts * kHeads;
  return {token,
          visible_from(kv.position[token], window),
          kv.sequence[token],
          kv_head,
          kv_head * group + first_of_group,
          group - first_of_group < kHeads ? group - first_of_group : kHeads};
}

// A warp's part of a split: positions begin + [low, high), none if low >= high.
struct WarpPart {
  int begin, low, high;
};
MOEBENCH_DEVICE WarpPart warp_part(const Visible& visible, int split) {
  const int begin = (visible.first_split + split) * kSplit + gpu::warp_id() * kPositions;
  const int behind = visible.last - begin + 1;
  return {begin, visible.first > begin ? visible.first - begin : 0,
          behind < kPositions ? behind : kPositions};
}
// Where its rows lie, -1 for those that the token does not see.
MOEBENCH_DEVICE void find_rows(const DeviceKv& kv, const SplitBlock& block, const WarpPart& part,
                               std::int64_t (&offsets)[kPositions]) {
  MOEBENCH_UNROLL
  for (int i = gpu::lane_id(); i < kPositions; i += gpu::kWarp) {
    offsets[i] = i >= part.low && i < part.high
                     ? kv_offset(kv, block.sequence, part.begin + i, block.kv_head)
                     : std::int64_t{-1};
  }
  gpu::sync_warp();
}

// What is known of some positions: the largest score, the sum of weights, the weighted sum of one
// column of the values.
struct Found {
  float largest;
  float total;
  float sum;
};
// Adds what was found elsewhere, as seen from `into.largest`, which is at least as large.
MOEBENCH_DEVICE void add_found(Found& into, float2 stats, float sum) {
  const float factor = gpu::exp2_fast(stats.x - into.largest);
  into.total += factor * stats.y;
  into.sum += factor * sum;
}
// What the warps of a block found in a split, once all have written it.
template <int kHeadDim>
MOEBENCH_DEVICE Found join_warps(const float (&sums)[kWarps][kHeads][kHeadDim],
                                 const float2 (&stats)[kWarps][kHeads], int head, int column) {
  Found all{stats[0][head].x, 0, 0};
  MOEBENCH_UNROLL
  for (int w = 1; w < kWarps; ++w) all.largest = fmaxf(all.largest, stats[w][head].x);
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarps; ++w) add_found(all, stats[w][head], sums[w][head][column]);
  return all;
}

// Leaves that for merge_splits.
template <int kHeadDim>
MOEBENCH_DEVICE void write_partials(const float (&sums)[kWarps][kHeads][kHeadDim],
                                    const float2 (&stats)[kWarps][kHeads], const SplitBlock& block,
                                    int num_heads, int split, const Partials& partials) {
  for (int i = static_cast<int>(threadIdx.x); i < block.heads * kHeadDim; i += kThreads) {
    const int h = i / kHeadDim;
    const Found found = join_warps(sums, stats, h, i % kHeadDim);
    const std::int64_t at =
        (static_cast<std::int64_t>(blockIdx.x) * num_heads + block.first_head + h) *
            partials.most_splits +
        split;
    partials.sums[at * kHeadDim + i % kHeadDim] = found.sum;
    if (i % kHeadDim == 0) partials.stats[at] = {found.largest, found.total};
  }
}

// How the threads of merge_splits share the splits of a head: part p takes every such split from
// the p-th on. Whoever else joins splits adds up in the same order.
template <int kHeadDim>
constexpr int kMergeParts = kMergeThreads / kHeadDim;

// A cluster of blocks that has all splits of a token and of some heads. Block b of it joins heads
// b, b + blocks, ...
struct Cluster {
  const float* sinks;  // null: none
  float* out;
  int blocks;       // a power of two
  int most_splits;  // at most kMostJoined
};

// Where the blocks of a cluster leave what they found, in the shared memory of who joins it.
template <int kHeadDim>
struct Handed {
  float sums[kMostJoined][kHeadDim];
  float2 stats[kMostJoined];
};

// This block's. To be called by all blocks before a barrier of the cluster, after which the others
// may write.
template <int kHeadDim>
MOEBENCH_DEVICE Handed<kHeadDim>& handed_to_block() {
  MOEBENCH_SHARED(Handed<kHeadDim>, handed, [1]);
  return handed[0];
}

// As write_partials, to the blocks of the cluster that join the heads. They must have begun.
template <int kHeadDim>
MOEBENCH_DEVICE void hand_over(const float (&sums)[kWarps][kHeads][kHeadDim],
                               const float2 (&stats)[kWarps][kHeads], const SplitBlock& block,
                               int split, const Cluster& cluster, Handed<kHeadDim>& handed) {
  for (int i = static_cast<int>(threadIdx.x); i < block.heads * kHeadDim; i += kThreads) {
    const int h = i / kHeadDim;
    const Found found = join_warps(sums, stats, h, i % kHeadDim);
    const int slot = h / cluster.blocks * cluster.most_splits + split;
    const auto owner = static_cast<unsigned>(h % cluster.blocks);
    gpu::cluster_pointer(&handed.sums[slot][i % kHeadDim], owner)[0] = found.sum;
    if (i % kHeadDim == 0) {
      gpu::cluster_pointer(&handed.stats[slot], owner)[0] = float2{found.largest, found.total};
    }
  }
}

// As merge_splits, in its order, after a barrier of the cluster.
template <int kHeadDim>
MOEBENCH_DEVICE void join_handed(const SplitBlock& block, int num_heads, const Cluster& cluster,
                                 const Handed<kHeadDim>& handed) {
  const auto rank = static_cast<int>(gpu::cluster_rank());
  const int heads = (block.heads - rank + cluster.blocks - 1) / cluster.blocks;
  for (int i = static_cast<int>(threadIdx.x); i < heads * kHeadDim; i += kThreads) {
    const int head = block.first_head + i / kHeadDim * cluster.blocks + rank;
    const int column = i % kHeadDim;
    const int first = i / kHeadDim * cluster.most_splits;
    const float sink = cluster.sinks != nullptr ? cluster.sinks[head] * kLog2E : kLowest;
    float largest = sink;
    for (int s = 0; s < block.visible.splits; ++s) {
      largest = fmaxf(largest, handed.stats[first + s].x);
    }
    float sum = 0;
    float total = 0;
    for (int part = 0; part < kMergeParts<kHeadDim>; ++part) {
      Found of_part{largest, 0, 0};
      for (int s = part; s < block.visible.splits; s += kMergeParts<kHeadDim>) {
        add_found(of_part, handed.stats[first + s], handed.sums[first + s][column]);
      }
      sum = part == 0 ? of_part.sum : sum + of_part.sum;
      total = part == 0 ? of_part.total : total + of_part.total;
    }
    total += gpu::exp2_fast(sink - largest);
    cluster.out[(block.token * num_heads + head) * kHeadDim + column] = sum / total;
  }
}

// Block (token, head).
template <int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kMergeThreads)
    merge_splits(const std::int32_t* position, const float* sinks, int window, int num_heads,
                 Round round, float* out) {
  constexpr int kParts = kMergeParts<kHeadDim>;
  MOEBENCH_SHARED(float, sums, [kParts][kHeadDim]);
  MOEBENCH_SHARED(float, totals, [kParts]);
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const std::int64_t token = static_cast<std::int64_t>(round.first_token) + blockIdx.x;
  const int head = static_cast<int>(blockIdx.y);
  const int splits = visible_from(position[token], window).splits;
  const std::int64_t at =
      (static_cast<std::int64_t>(blockIdx.x) * num_heads + head) * round.partials.most_splits;
  const float2* stats = round.partials.stats + at;
  float largest = kLowest;
  for (int s = gpu::lane_id(); s < splits; s += gpu::kWarp) largest = fmaxf(largest, stats[s].x);
  largest = gpu::warp_max(largest);
  const float sink = sinks != nullptr ? sinks[head] * kLog2E : kLowest;
  largest = fmaxf(largest, sink);

  const int part = static_cast<int>(threadIdx.x) / kHeadDim;
  const int column = static_cast<int>(threadIdx.x) % kHeadDim;
  const float* from = round.partials.sums + at * kHeadDim + column;
  Found all{largest, 0, 0};
  for (int s = part; s < splits; s += kParts) {
    add_found(all, stats[s], from[static_cast<std::int64_t>(s) * kHeadDim]);
  }
  sums[part][column] = all.sum;
  if (column == 0) totals[part] = all.total;
  gpu::sync_threads();
  if (part > 0) return;
  MOEBENCH_UNROLL
  for (int p = 1; p < kParts; ++p) {
    all.sum += sums[p][column];
    all.total += totals[p];
  }
  all.total += gpu::exp2_fast(sink - largest);  // 0 without a sink
  out[(token * num_heads + head) * kHeadDim + column] = all.sum / all.total;
}

std::int64_t most_splits(std::int64_t window, std::int64_t max_context) {
  return most_splits(window, max_context, kSplit);
}
std::size_t partials_bytes(const Problem& problem, int) {
  return partials_bytes(problem.num_tokens, problem.num_heads, problem.head_dim,
                        most_splits(problem.window, problem.max_context));
}

// Blocks that share out the heads of a token.
std::int64_t num_parts(std::int64_t num_heads, std::int64_t num_kv_heads) {
  const std::int64_t group = num_heads / num_kv_heads;
  return num_kv_heads * ((group + kHeads - 1) / kHeads);
}

// Calls start_splits(grid, round) for each round of tokens, and joins what it leaves.
template <int kHeadDim, class StartSplits>
void run_rounds(const Args& args, Context& context, const StartSplits& start_splits) {
  const std::int64_t num_tokens = args.queries.shape[0];
  const std::int64_t num_heads = args.queries.shape[1];
  const std::int64_t splits = most_splits(args.window, args.max_context);
  const std::int64_t tokens = round_tokens(num_tokens, num_heads, kHeadDim, splits);
  Workspace workspace(context.workspace);
  const Partials partials = take_partials(workspace, tokens, num_heads, kHeadDim, splits);
  const std::int64_t parts = num_parts(num_heads, args.kv.num_kv_heads);
  for (std::int64_t first = 0; first < num_tokens; first += tokens) {
    const std::int64_t count = std::min(tokens, num_tokens - first);
    const std::int64_t depth =
        std::min(splits, (kManyBlocks + count * parts - 1) / (count * parts));
    const Round round{static_cast<int>(first), partials};
    start_splits(gpu::Extent{static_cast<unsigned>(count), static_cast<unsigned>(parts),
                             static_cast<unsigned>(depth)},
                 round);
    gpu::launch(merge_splits<kHeadDim>,
                {.grid = {static_cast<unsigned>(count), static_cast<unsigned>(num_heads)},
                 .block = kMergeThreads,
                 .stream = context.stream,
                 .overlap_previous = true,
                 .shared_percent = gpu::shared_percent_beside_streams(num_tokens)},
                "attention, merge of splits", args.places.position.data, args.sinks.data,
                static_cast<int>(args.window), static_cast<int>(num_heads), round, args.out.data);
  }
}

std::string splits_unsupported(const Problem& problem) {
  const std::string reason = shared_heads_unsupported(problem);
  if (!reason.empty()) return reason;
  if (problem.head_dim != 32 && problem.head_dim != 64 && problem.head_dim != 128) {
    return fmt::format("head_dim {} is not 32, 64 or 128", problem.head_dim);
  }
  return "";
}

}  // namespace
}  // namespace moebench::attention
