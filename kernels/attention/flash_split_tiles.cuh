// A token's split of the positions by four warps at once, of a bf16 cache, for up to 16 query heads
// a key/value head: the same bits as by one warp tile after tile (flash.cuh, based_weights.cuh).
//
// A warp has a tile of 64 keys and values of its own, all of which are on their way at once. What
// one warp finds tile by tile, four find together: a row's base is the largest score of the first
// tile that it sees, and they tell each other of those; then each weighs its own. Sums of weights
// are added up in the order of tiles. Of the weighted sums of values, a chain over tiles and keys
// for each column, each warp takes some columns of all tiles, by weights in shared memory.
//
// A base hardly ever is to be raised. Where it is, one warp does it all as elsewhere.
//
// Counted for 256 keys of heads of 64: 32 products for scores and 32 for sums in a row, where one
// warp has 128 and 128, and one load to wait for instead of four. The published page has 7.8 us of
// a layer in this kernel at batch 1 and 1,024 positions, which were 40 blocks of one warp at work.
#pragma once

#include "kernels/attention/flash.cuh"
#include "kernels/attention/flash_splits.cuh"
#include "kernels/attention/partials.cuh"

namespace moebench::attention {
namespace {

constexpr int kTileWarps = kSplit / kKeys;
constexpr int kTileHeads = 16;  // a warp's rows

template <int kHeadDim>
struct SplitTiles {
  static constexpr int kChunks = kHeadDim / 8;
  uint4 keys[kTileWarps][kKeys * kChunks];
  uint4 values[kTileWarps][kKeys * kChunks];
  uint4 queries[kTileWarps][kTileHeads * kChunks];  // each warp's own
  uint4 weights[kTileWarps][kKeys / 16][gpu::kWarp];
  float2 added[kTileWarps][gpu::kWarp];  // to each lane's totals, of both of its rows
  float largest[kTileWarps][kTileHeads];
  int beyond[kTileWarps];  // whether a row's base is to be raised
};

// Of a block, which has a token, a key/value head and some of its splits.
struct SplitsOfToken {
  int position;
  int low;  // the first position that it sees
  int sequence;
  int kv_head;
  std::int64_t first_head;  // in partials
  int group;
};

template <int kHeadDim>
MOEBENCH_DEVICE void load_tile(const DeviceKv& kv, const SplitsOfToken& token, int tile,
                               uint4* keys, uint4* values) {
  constexpr int kChunks = kHeadDim / 8;
  constexpr int kEach = kKeys * kChunks / gpu::kWarp;
  std::int64_t own[kKeys / gpu::kWarp];  // where keys lane, lane + 32 lie
  MOEBENCH_UNROLL
  for (int h = 0; h < kKeys / gpu::kWarp; ++h) {
    const int position = tile + gpu::lane_id() + h * gpu::kWarp;
    const bool is_seen = position >= token.low && position <= token.position;
    own[h] = is_seen ? kv_offset(kv, token.sequence, position, token.kv_head) : -1;
  }
  const auto copy = [&](uint4* to, const unsigned char* from) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const int item = gpu::lane_id() + i * gpu::kWarp;
      const int key = item / kChunks;
      const std::int64_t offset = gpu::shuffle(gpu::kAllLanes, own[i / kChunks], key % gpu::kWarp);
      const bool is_seen = offset >= 0;
      gpu::copy_async(to + chunk_at<kHeadDim>(key, item % kChunks),
                      from + (is_seen ? offset : 0) + item % kChunks * 16, is_seen);
    }
    gpu::commit_copies();
  };
  copy(keys, kv.keys);
  copy(values, kv.values);
}

// A lane's rows and columns of what a split gave, for those who join splits.
struct SplitResult {
  const Partials& partials;
  const SplitsOfToken& token;
  int split;

  MOEBENCH_DEVICE static int row_of(int i) { return gpu::lane_id() / 4 + 8 * i; }
  MOEBENCH_DEVICE std::int64_t at(int i) const {
    return (token.first_head + row_of(i)) * partials.most_splits + split;
  }
  MOEBENCH_DEVICE void write_stats(int i, float base, float total) const {
    if (row_of(i) < token.group && gpu::lane_id() % 4 == 0) {
      partials.stats[at(i)] = {base, total};
    }
  }
  template <int kHeadDim>
  MOEBENCH_DEVICE void write_sums(int n, const float (&sums)[4]) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (row_of(i) >= token.group) continue;
      float* const to = partials.sums + at(i) * kHeadDim + 8 * n + gpu::lane_id() % 4 * 2;
      *reinterpret_cast<float2*>(to) = {sums[2 * i], sums[2 * i + 1]};
    }
  }
};

// The split that begins at position `begin`, by all warps of the block; queries are in their
// places. `scale` is the contract's times log2 e.
template <int kHeadDim>
MOEBENCH_DEVICE void attend_tiles(const DeviceKv& kv, const SplitsOfToken& token, int begin,
                                  float scale, SplitTiles<kHeadDim>& s, const SplitResult& result) {
  using Rows = BasedWarpRows<kHeadDim>;
  // From one lane, so that the compiler knows the branches taken on it to be the warp's.
  const int warp = gpu::shuffle(gpu::kAllLanes, gpu::warp_id(), 0);
  const int lane = gpu::lane_id();
  const int tile = begin + warp * kKeys;
  const auto is_seen = [&](int of_warp) {
    const int first = begin + of_warp * kKeys;
    return first <= token.position && first + kKeys > token.low;
  };
  int first[2];
  int last[2];
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    last[i] = result.row_of(i) < token.group ? token.position : -1;
    first[i] = last[i] < 0 ? 0 : token.low;
  }
  if (is_seen(warp)) load_tile<kHeadDim>(kv, token, tile, s.keys[warp], s.values[warp]);

  typename Rows::Scores scores;
  float most[2] = {kLowest, kLowest};
  if (is_seen(warp)) {
    gpu::wait_copies<1>();
    gpu::sync_warp();
    multiply_keys<kHeadDim>(scores, s.queries[warp], s.keys[warp]);
    Rows::hide(scores, tile, first, last);
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) most[i] = Rows::largest_of(scores, i);
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    if (lane % 4 == 0) s.largest[warp][result.row_of(i)] = most[i];
  }
  gpu::sync_threads();

  Rows rows;
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    rows.base[i] = kLowest;
    MOEBENCH_UNROLL
    for (int w = 0; w < kTileWarps; ++w) {
      const float largest = s.largest[w][result.row_of(i)];
      if (rows.base[i] == kLowest && largest > kLowest) rows.base[i] = largest * scale;
    }
  }
  bool beyond = false;
  if (is_seen(warp)) {
    typename Rows::Weights weights;
    float added[2];
    rows.weigh_by_base(scores, weights, scale, added);
    beyond = gpu::any(gpu::kAllLanes, added[0] > kMost || added[1] > kMost);
    MOEBENCH_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) {
      s.weights[warp][k][lane] = {weights[k][0], weights[k][1], weights[k][2], weights[k][3]};
    }
    s.added[warp][lane] = {added[0], added[1]};
    gpu::wait_copies<0>();
  }
  if (lane == 0) s.beyond[warp] = beyond ? 1 : 0;
  gpu::sync_threads();

  bool is_beyond = false;
  MOEBENCH_UNROLL
  for (const int of_warp : s.beyond) is_beyond |= of_warp != 0;
  if (is_beyond) {
    if (warp != 0) return;
    rows.clear();
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      rows.first[i] = first[i];
      rows.last[i] = last[i];
    }
    MOEBENCH_NO_UNROLL
    for (int w = 0; w < kTileWarps; ++w) {
      if (!is_seen(w)) continue;
      rows.take_in_tile(s.queries[0], s.keys[w], s.values[w], begin + w * kKeys, scale);
    }
    MOEBENCH_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      result.write_sums<kHeadDim>(n, four_of(rows.sums, n));
    }
  } else {
    rows.total[0] = rows.total[1] = 0;
    MOEBENCH_UNROLL
    for (int w = 0; w < kTileWarps; ++w) {
      if (!is_seen(w)) continue;
      rows.total[0] += s.added[w][lane].x;
      rows.total[1] += s.added[w][lane].y;
    }
    for (int n = 2 * warp; n < kHeadDim / 8; n += 2 * kTileWarps) {
      float sums[2][4] = {};
      MOEBENCH_UNROLL
      for (int w = 0; w < kTileWarps; ++w) {
        if (!is_seen(w)) continue;
        MOEBENCH_UNROLL
        for (int k = 0; k < kKeys / 16; ++k) {
          const uint4 four = s.weights[w][k][lane];
          const std::uint32_t weights[4] = {four.x, four.y, four.z, four.w};
          add_value_columns<kHeadDim>(sums[0], sums[1], weights, s.values[w], k, n);
        }
      }
      result.write_sums<kHeadDim>(n, sums[0]);
      result.write_sums<kHeadDim>(n + 1, sums[1]);
    }
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float total = rows.total_of_row(i);
    if (warp == 0) result.write_stats(i, rows.base[i], total);
  }
}

// Block (token of the round, key/value head, split).
template <int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kTileWarps* gpu::kWarp, kHeadDim <= 64 ? 2 : 1)
    attend_split_tiles(const float* queries, const uint4* rounded_queries, DeviceKv kv, float scale,
                       int window, int group, int first_token, Partials partials) {
  constexpr int kChunks = kHeadDim / 8;
  constexpr int kQueries = kTileHeads * kChunks / gpu::kWarp;  // of a lane
  auto& s = *reinterpret_cast<SplitTiles<kHeadDim>*>(gpu::dynamic_shared());
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  // All of this is on its way together.
  const auto token = first_token + static_cast<int>(blockIdx.x);
  const auto kv_head = static_cast<int>(blockIdx.y);
  const int position = kv.position[token];
  const int sequence = kv.sequence[token];
  const std::int64_t num_heads = static_cast<std::int64_t>(kv.num_kv_heads) * group;
  uint4 packed[kQueries] = {};
  MOEBENCH_UNROLL
  for (int i = 0; i < kQueries; ++i) {
    const int item = gpu::lane_id() + i * gpu::kWarp;
    if (item / kChunks >= group) continue;
    const std::int64_t at = (token * num_heads + kv_head * group) * kChunks + item;
    if (rounded_queries != nullptr) {
      packed[i] = rounded_queries[at];
    } else {
      const auto* from = reinterpret_cast<const float4*>(queries) + 2 * at;
      packed[i] = gpu::pack_inputs<Format::kBf16>(from[0], from[1]);
    }
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < kQueries; ++i) {
    const int item = gpu::lane_id() + i * gpu::kWarp;
    s.queries[gpu::warp_id()][chunk_at<kHeadDim>(item / kChunks, item % kChunks)] = packed[i];
  }
  const SeenSplits seen = seen_splits(position, window);
  const SplitsOfToken of_token{position,
                               first_seen(position, window),
                               sequence,
                               kv_head,
                               (token - first_token) * num_heads + kv_head * group,
                               group};
  for (int split = static_cast<int>(blockIdx.z); split < seen.count;
       split += static_cast<int>(gridDim.z)) {
    if (split != static_cast<int>(blockIdx.z)) gpu::sync_threads();  // who reads the one before
    attend_tiles<kHeadDim>(kv, of_token, (seen.first + split) * kSplit, scale, s,
                           {partials, of_token, split});
  }
}

}  // namespace
}  // namespace moebench::attention
