// FlashAttention-2 (Dao, 2023) on tensor cores in bf16: what its variants share.
//
// A block holds 16 rows of queries a warp, the query heads that share a key/value head times
// neighbouring tokens, and goes over tiles of 64 keys, two tiles in shared memory: while one is
// worked on, the next is on its way. A warp owns its rows: their scores, weights (which become the
// left operand of the second product where they are) and sums stay in registers; the queries, for
// want of them, in shared memory.
//
// Tokens of several sequences may meet in a block: their runs are taken one after the other, and
// rows of other runs see nothing meanwhile. Tiles begin at multiples of 64 of the absolute position
// and tiles that a row does not see leave it as it is.
#pragma once

#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/attention/based_weights.cuh"
#include "kernels/attention/kv_device.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr int kKeys = 64;  // of a tile
constexpr int kWithoutEnd = std::numeric_limits<int>::max();

// Rows of kHeadDim bf16 in shared memory, in 16-byte chunks, which are exchanged within a row so
// that eight rows of a column of chunks lie in different banks.
template <int kHeadDim>
MOEBENCH_DEVICE int chunk_at(int row, int chunk) {
  constexpr int kChunks = kHeadDim / 8;
  return row * kChunks + (chunk ^ (kChunks >= 8 ? row % 8 : row / 2 % 4));
}

// Brings the keys and values [low, high) of a tile to shared memory, and zeros for the others, in
// two steps that computation can stand between.
template <Format kFormat, int kHeadDim, int kThreads>
struct TileLoader {
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kEach = kKeys * kChunks / kThreads;  // chunks of keys of a thread
  using Columns = KvColumns<kFormat, 8>;

  Columns keys[kEach];
  Columns values[kEach];

  MOEBENCH_DEVICE void start(const DeviceKv& kv, int sequence, int kv_head, int tile, int low,
                             int high, uint4* shared_keys, uint4* shared_values) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kEach; ++i) {
      const int item = static_cast<int>(threadIdx.x) + i * kThreads;
      const int key = item / kChunks;
      const int chunk = item % kChunks;
      const bool valid = tile + key >= low && tile + key < high;
      const std::int64_t offset = valid ? kv_offset(kv, sequence, tile + key, kv_head) : 0;
      if constexpr (kFormat == Format::kBf16) {
        const int to = chunk_at<kHeadDim>(key, chunk);
        gpu::copy_async(shared_keys + to, kv.keys + offset + chunk * 16, valid);
        gpu::copy_async(shared_values + to, kv.values + offset + chunk * 16, valid);
      } else {
        keys[i].clear();
        values[i].clear();
        if (valid) {
          keys[i].load(kv.keys + offset, kv.data_bytes, chunk * 8);
          values[i].load(kv.values + offset, kv.data_bytes, chunk * 8);
        }
      }
    }
    if constexpr (kFormat == Format::kBf16) gpu::commit_copies();
  }

  MOEBENCH_DEVICE void finish(uint4* shared_keys, uint4* shared_values) {
    if constexpr (kFormat == Format::kBf16) {
      gpu::wait_copies<0>();
    } else {
      MOEBENCH_UNROLL
      for (int i = 0; i < kEach; ++i) {
        const int item = static_cast<int>(threadIdx.x) + i * kThreads;
        const int to = chunk_at<kHeadDim>(item / kChunks, item % kChunks);
        shared_keys[to] = rounded(keys[i]);
        shared_values[to] = rounded(values[i]);
      }
    }
  }

  MOEBENCH_DEVICE static uint4 rounded(const Columns& columns) {
    std::uint32_t pairs[4];
    columns.decode_bf16(pairs);
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
  }
};

// Columns 8n to 8n + 7 of sums or scores: four of a thread.
template <int kCount>
MOEBENCH_DEVICE float (&four_of(float (&all)[kCount], int n))[4] {
  return *reinterpret_cast<float(*)[4]>(&all[4 * n]);
}

// Scores of a tile for a warp's rows.
template <int kHeadDim>
MOEBENCH_DEVICE void multiply_keys(float (&scores)[kKeys / 2], const uint4* queries,
                                   const uint4* keys) {
  const int lane = gpu::lane_id();
  MOEBENCH_UNROLL
  for (float& score : scores) score = 0;
  MOEBENCH_UNROLL
  for (int k = 0; k < kHeadDim / 16; ++k) {
    std::uint32_t a[4];
    gpu::load_matrices(a, queries + chunk_at<kHeadDim>(lane % 16, 2 * k + lane / 16));
    MOEBENCH_UNROLL
    for (int n = 0; n < kKeys / 8; n += 2) {
      std::uint32_t b[4];
      gpu::load_matrices(
          b, keys + chunk_at<kHeadDim>(8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
      gpu::multiply_bf16(four_of(scores, n), a, {b[0], b[1]});
      gpu::multiply_bf16(four_of(scores, n + 1), a, {b[2], b[3]});
    }
  }
}

// Adds 16 of a tile's values, from 16k on, by their weights: columns 8n to 8n + 15.
template <int kHeadDim>
MOEBENCH_DEVICE void add_value_columns(float (&first)[4], float (&second)[4],
                                       const std::uint32_t (&weights)[4], const uint4* values,
                                       int k, int n) {
  const int lane = gpu::lane_id();
  std::uint32_t b[4];
  gpu::load_matrices_transposed(b, values + chunk_at<kHeadDim>(16 * k + lane % 16, n + lane / 16));
  gpu::multiply_bf16(first, weights, {b[0], b[1]});
  gpu::multiply_bf16(second, weights, {b[2], b[3]});
}
// All columns.
template <int kHeadDim>
MOEBENCH_DEVICE void add_values(float (&sums)[kHeadDim / 2], const std::uint32_t (&weights)[4],
                                const uint4* values, int k) {
  MOEBENCH_UNROLL
  for (int n = 0; n < kHeadDim / 8; n += 2) {
    add_value_columns<kHeadDim>(four_of(sums, n), four_of(sums, n + 1), weights, values, k, n);
  }
}

// What a warp keeps of its 16 rows. Thread 4g + t has rows g and g + 8, of which it keeps columns
// 8n + 2t and the next. Here: by online softmax, in which weights are of the largest score so far.
template <int kHeadDim>
struct WarpRows {
  float sums[kHeadDim / 2];
  float largest[2];  // score
  float total[2];    // of this thread's columns' weights
  int first[2];      // positions that the row sees of the run at hand
  int last[2];

  MOEBENCH_DEVICE void clear() {
    MOEBENCH_UNROLL
    for (float& sum : sums) sum = 0;
    largest[0] = largest[1] = gpu::float_from_bits(0xff800000U);
    total[0] = total[1] = 0;
  }

  MOEBENCH_DEVICE void take_in_tile(const uint4* queries, const uint4* keys, const uint4* values,
                                    int tile, float scale) {
    const int lane = gpu::lane_id();
    float scores[kKeys / 2];
    multiply_keys<kHeadDim>(scores, queries, keys);
    const float nothing = gpu::float_from_bits(0xff800000U);  // minus infinity
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (first[i] <= tile && last[i] >= tile + kKeys - 1) continue;
      MOEBENCH_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        MOEBENCH_UNROLL
        for (int c = 0; c < 2; ++c) {
          const int position = tile + 8 * n + lane % 4 * 2 + c;
          if (position < first[i] || position > last[i]) scores[4 * n + 2 * i + c] = nothing;
        }
      }
    }
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      float most = largest[i];
      MOEBENCH_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        most = fmaxf(most, fmaxf(scores[4 * n + 2 * i], scores[4 * n + 2 * i + 1]));
      }
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 1));
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 2));
      // A row that has seen nothing yet keeps weights of 2^-infinity.
      const float base = most == nothing ? 0.0F : most * scale;
      const float factor = gpu::exp2_fast(largest[i] * scale - base);
      largest[i] = most;
      total[i] *= factor;
      MOEBENCH_UNROLL
      for (int n = 0; n < kKeys / 8; ++n) {
        MOEBENCH_UNROLL
        for (int c = 4 * n + 2 * i; c < 4 * n + 2 * i + 2; ++c) {
          scores[c] = gpu::exp2_fast(scores[c] * scale - base);
          total[i] += scores[c];
        }
      }
      MOEBENCH_UNROLL
      for (int n = 0; n < kHeadDim / 8; ++n) {
        sums[4 * n + 2 * i] *= factor;
        sums[4 * n + 2 * i + 1] *= factor;
      }
    }
    MOEBENCH_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) {
      std::uint32_t weights[4];
      MOEBENCH_UNROLL
      for (int j = 0; j < 4; ++j) {  // both rows, then both rows 8 columns on
        weights[j] = gpu::pack_bf16(scores[8 * k + 2 * j], scores[8 * k + 2 * j + 1]);
      }
      add_values<kHeadDim>(sums, weights, values, k);
    }
  }

  MOEBENCH_DEVICE float total_of_row(int i) const {
    float all = total[i];
    all += gpu::shuffle_xor(gpu::kAllLanes, all, 1);
    all += gpu::shuffle_xor(gpu::kAllLanes, all, 2);
    return all;
  }
};

// The same with weights of a base that hardly ever changes.
template <int kHeadDim>
struct BasedWarpRows : BasedRows<kHeadDim, kKeys, true> {
  using Rows = BasedRows<kHeadDim, kKeys, true>;

  int first[2];
  int last[2];

  MOEBENCH_DEVICE void take_in_tile(const uint4* queries, const uint4* keys, const uint4* values,
                                    int tile, float scale) {
    typename Rows::Scores scores;
    multiply_keys<kHeadDim>(scores, queries, keys);
    typename Rows::Weights weights;
    this->weigh(scores, weights, tile, first, last, scale, true);
    MOEBENCH_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) add_values<kHeadDim>(this->sums, weights[k], values, k);
  }
};

// Some tokens and one key/value head. `scale` is the contract's times log2 e.
template <Format kFormat, int kHeadDim, int kWarps, class Rows = WarpRows<kHeadDim>>
class FlashBlock {
  static constexpr int kThreads = kWarps * gpu::kWarp;
  static constexpr int kChunks = kHeadDim / 8;
  static constexpr int kTileChunks = kKeys * kChunks;

 public:
  static constexpr int kRows = 16 * kWarps;
  // Of dynamic shared memory: [2][keys, values], queries.
  static constexpr std::size_t kBytes = std::size_t{2} * kHeadDim * (4 * kKeys + kRows);

  Rows rows;

  // Tokens [begin, begin + most_tokens) as far as `num_tokens`; `group` query heads.
  MOEBENCH_DEVICE FlashBlock(const DeviceKv& cache, int window_size, int begin_token,
                             int most_tokens, int num_tokens, int kv_head_at, int group_size)
      : kv(cache),
        window(window_size),
        begin(begin_token),
        end(begin_token + most_tokens < num_tokens ? begin_token + most_tokens : num_tokens),
        block_tokens(most_tokens),
        kv_head(kv_head_at),
        group(group_size) {}

  // A row's token, -1 if it has none; and where its head begins in queries and out. Worked out
  // where it is needed, for want of registers.
  MOEBENCH_DEVICE int token_of(int row) const {
    const int token = begin + row / group;
    return row / group < block_tokens && token < end ? token : -1;
  }
  // The row's head among all [token, head].
  MOEBENCH_DEVICE std::int64_t head_of(int row) const {
    return static_cast<std::int64_t>(token_of(row)) * (kv.num_kv_heads * group) + kv_head * group +
           row % group;
  }
  // Of this thread's two rows.
  MOEBENCH_DEVICE static int row_of(int i) {
    return gpu::warp_id() * 16 + gpu::lane_id() / 4 + 8 * i;
  }

  // `rounded`: of bf16, instead of `queries`; null: not.
  MOEBENCH_DEVICE void load_queries(const float* queries, const uint4* rounded = nullptr) {
    const int first_row = gpu::warp_id() * 16;
    MOEBENCH_UNROLL
    for (int i = 0; i < 16 * kChunks / gpu::kWarp; ++i) {
      const int item = gpu::lane_id() + i * gpu::kWarp;
      const int row = item / kChunks;
      const int chunk = item % kChunks;
      uint4 packed{0, 0, 0, 0};
      if (token_of(first_row + row) >= 0) {
        const std::int64_t at = head_of(first_row + row) * kHeadDim + 8 * chunk;
        if (rounded != nullptr) {
          packed = rounded[at / 8];
        } else {
          const auto* from = reinterpret_cast<const float4*>(queries + at);
          packed = gpu::pack_inputs<Format::kBf16>(from[0], from[1]);
        }
      }
      warp_queries()[chunk_at<kHeadDim>(row, chunk)] = packed;
    }
    gpu::sync_warp();
  }

  // Takes in the keys that the rows see of positions [from, to), multiples of 64. after(tile) is
  // called by every thread after the tile that begins at a position, and no other.
  template <class After>
  MOEBENCH_DEVICE void take_in(float scale, int from, int to, After&& after) {
    TileLoader<kFormat, kHeadDim, kThreads> loader;
    int buffer = 0;
    for (Run run{begin, begin}; run.end < end;) {
      run = find_run(kv, run.end, end);
      MOEBENCH_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int token = token_of(row_of(i));
        rows.last[i] = token >= run.begin && token < run.end ? kv.position[token] : -1;
        rows.first[i] = window > 0 && rows.last[i] >= window ? rows.last[i] - window + 1 : 0;
      }
      const int sequence = kv.sequence[run.begin];
      const int first_position = kv.position[run.begin];
      const int low = window > 0 && first_position >= window ? first_position - window + 1 : 0;
      const int high = kv.position[run.end - 1] + 1;
      const int first_tile = low / kKeys * kKeys > from ? low / kKeys * kKeys : from;
      const int end_tile = high < to ? high : to;
      if (first_tile >= end_tile) continue;
      const auto start_load = [&](int tile, int to_buffer) {
        uint4* keys = shared() + to_buffer * 2 * kTileChunks;
        loader.start(kv, sequence, kv_head, tile, low, high, keys, keys + kTileChunks);
      };
      const auto finish_load = [&](int to_buffer) {
        uint4* keys = shared() + to_buffer * 2 * kTileChunks;
        loader.finish(keys, keys + kTileChunks);
      };
      start_load(first_tile, buffer);
      finish_load(buffer);
      gpu::sync_threads();
      for (int tile = first_tile; tile < end_tile; tile += kKeys) {
        const bool more = tile + kKeys < end_tile;
        if (more) start_load(tile + kKeys, 1 - buffer);
        const bool seen = (rows.first[0] < tile + kKeys && rows.last[0] >= tile) ||
                          (rows.first[1] < tile + kKeys && rows.last[1] >= tile);
        if (gpu::any(gpu::kAllLanes, seen)) {
          const uint4* keys = shared() + buffer * 2 * kTileChunks;
          rows.take_in_tile(warp_queries(), keys, keys + kTileChunks, tile, scale);
        }
        after(tile);
        if (more) finish_load(1 - buffer);
        gpu::sync_threads();
        buffer = 1 - buffer;
      }
    }
  }

  DeviceKv kv;
  int window;
  int begin, end;  // tokens
  int block_tokens;
  int kv_head;
  int group;

 private:
  MOEBENCH_DEVICE static uint4* shared() { return reinterpret_cast<uint4*>(gpu::dynamic_shared()); }
  MOEBENCH_DEVICE static uint4* warp_queries() {
    return shared() + 4 * kTileChunks + gpu::warp_id() * 16 * kChunks;
  }
};

inline std::string flash_unsupported(const Problem& problem, int rows) {
  const std::string reason = shared_heads_unsupported(problem, rows);
  if (!reason.empty()) return reason;
  if (problem.head_dim != 32 && problem.head_dim != 64 && problem.head_dim != 128) {
    return fmt::format("head_dim {} is not 32, 64 or 128", problem.head_dim);
  }
  return gpu::needs_compute_capability(80);
}

}  // namespace
}  // namespace moebench::attention
