// Attention in splits of the context, for decoding: what its variants share.
//
// A first kernel leaves, for each token, head and visible split, the largest score, the sum of
// weights and the weighted sum of values; a second one joins them in their order and adds the sink.
// Splits are 128 positions and begin at multiples of 128 of the absolute position: a token's output
// has the same bits in any batch, in any chunking and for any bound on the context.
#pragma once

#include <algorithm>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
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
constexpr float kLog2E = 1.44269504F;

// What is kept between the two kernels; more tokens are taken in several rounds.
constexpr std::int64_t kMostPartialBytes = std::int64_t{128} << 20;
// Blocks that keep a large GPU busy: with more, a block takes several splits.
constexpr std::int64_t kManyBlocks = 2048;

// Of [token of the round, head, split]; scores are in powers of two.
struct Partials {
  float* sums;    // [.., head_dim], of values times weights
  float2* stats;  // the largest score, the sum of weights
  int most_splits;
};

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
                                       const Round& round) {
  const std::int64_t token = static_cast<std::int64_t>(round.first_token) + blockIdx.x;
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

// Joins what the warps of a block found in a split, once all have written it.
template <int kHeadDim>
MOEBENCH_DEVICE void write_partials(const float (&sums)[kWarps][kHeads][kHeadDim],
                                    const float2 (&stats)[kWarps][kHeads], const SplitBlock& block,
                                    int num_heads, int split, const Partials& partials) {
  for (int i = static_cast<int>(threadIdx.x); i < block.heads * kHeadDim; i += kThreads) {
    const int h = i / kHeadDim;
    float largest = stats[0][h].x;
    MOEBENCH_UNROLL
    for (int w = 1; w < kWarps; ++w) largest = fmaxf(largest, stats[w][h].x);
    float total = 0;
    float sum = 0;
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) {
      const float factor = gpu::exp2_fast(stats[w][h].x - largest);
      total += factor * stats[w][h].y;
      sum += factor * sums[w][h][i % kHeadDim];
    }
    const std::int64_t at =
        (static_cast<std::int64_t>(blockIdx.x) * num_heads + block.first_head + h) *
            partials.most_splits +
        split;
    partials.sums[at * kHeadDim + i % kHeadDim] = sum;
    if (i % kHeadDim == 0) partials.stats[at] = {largest, total};
  }
}

// Block (token, head).
template <int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kMergeThreads)
    merge_splits(const std::int32_t* position, const float* sinks, int window, int num_heads,
                 Round round, float* out) {
  constexpr int kParts = kMergeThreads / kHeadDim;  // each takes every kParts-th split
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
  float sum = 0;
  float total = 0;
  for (int s = part; s < splits; s += kParts) {
    const float factor = gpu::exp2_fast(stats[s].x - largest);
    total += factor * stats[s].y;
    sum += factor * from[static_cast<std::int64_t>(s) * kHeadDim];
  }
  sums[part][column] = sum;
  if (column == 0) totals[part] = total;
  gpu::sync_threads();
  if (part > 0) return;
  MOEBENCH_UNROLL
  for (int p = 1; p < kParts; ++p) {
    sum += sums[p][column];
    total += totals[p];
  }
  total += gpu::exp2_fast(sink - largest);  // 0 without a sink
  out[(token * num_heads + head) * kHeadDim + column] = sum / total;
}

std::int64_t most_splits(std::int64_t window, std::int64_t max_context) {
  const std::int64_t all = (max_context + kSplit - 1) / kSplit;
  return window > 0 ? std::min(all, (window + kSplit - 2) / kSplit + 1) : all;
}
std::int64_t round_tokens(std::int64_t num_tokens, std::int64_t num_heads, std::int64_t head_dim,
                          std::int64_t splits) {
  const std::int64_t bytes = num_heads * splits * (head_dim + 2) * std::int64_t{sizeof(float)};
  return std::clamp<std::int64_t>(kMostPartialBytes / bytes, 1, num_tokens);
}
Partials take_partials(Workspace& workspace, std::int64_t tokens, std::int64_t num_heads,
                       std::int64_t head_dim, std::int64_t splits) {
  const std::int64_t count = tokens * num_heads * splits;
  float* sums = workspace.take<float>(count * head_dim);
  return {sums, workspace.take<float2>(count), static_cast<int>(splits)};
}

std::size_t partials_bytes(const Problem& problem, int) {
  const std::int64_t splits = most_splits(problem.window, problem.max_context);
  Workspace workspace;
  take_partials(workspace,
                round_tokens(problem.num_tokens, problem.num_heads, problem.head_dim, splits),
                problem.num_heads, problem.head_dim, splits);
  return workspace.used();
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
  const std::int64_t group = num_heads / args.kv.num_kv_heads;
  const std::int64_t parts = args.kv.num_kv_heads * ((group + kHeads - 1) / kHeads);
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
                 .overlap_previous = true},
                "attention, merge of splits", args.places.position.data, args.sinks.data,
                static_cast<int>(args.window), static_cast<int>(num_heads), round, args.out.data);
  }
}

std::string splits_unsupported(const Problem& problem) {
  if (problem.num_kv_heads <= 0 || problem.num_heads % problem.num_kv_heads != 0) {
    return "num_heads must be a multiple of num_kv_heads";
  }
  if (problem.head_dim != 32 && problem.head_dim != 64 && problem.head_dim != 128) {
    return fmt::format("head_dim {} is not 32, 64 or 128", problem.head_dim);
  }
  return "";
}

}  // namespace
}  // namespace moebench::attention
