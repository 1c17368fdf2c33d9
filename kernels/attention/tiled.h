// Attention in tiles of 32 positions with an online softmax (Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).
//
// A tile of keys and values is decoded once for up to 16 tokens and all the heads that share it.
// Tiles begin at multiples of 32 of the absolute position, whatever the step holds, so a token's
// output has the same bits alone, in a chunk of a prompt or in a batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/core/float_types.h"
#include "kernels/core/simd_math.h"
#include "kernels/core/thread_pool.h"
#include "kernels/rows/decode.h"

namespace moebench::attention {
// Each file that includes this compiles it for another processor: nothing here may be shared by the
// linker.
namespace {

constexpr std::int64_t kTile = 32;    // positions
constexpr std::int64_t kTokens = 16;  // of one sequence, that share a decoded tile

struct TiledScratch {
  float* row;     // [8, head_dim]: keys on their way to `keys`
  float* keys;    // [head_dim, kTile]
  float* values;  // [kTile, head_dim]
  float* state;   // [kTokens, group, head_dim + 2]: the sum so far, its largest score, its weight
};

[[maybe_unused]] TiledScratch take_tiled_scratch(Workspace& workspace, std::int64_t head_dim,
                                                 std::int64_t group) {
  return {workspace.take<float>(8 * head_dim), workspace.take<float>(head_dim * kTile),
          workspace.take<float>(kTile * head_dim),
          workspace.take<float>(kTokens * group * (head_dim + 2))};
}

// Tokens [begin, end) of the step belong to one sequence.
struct TokenBlock {
  std::int32_t begin, end;
};

[[maybe_unused]] std::size_t tiled_workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  workspace.take<TokenBlock>(problem.num_tokens);
  workspace.take<TiledScratch>(num_threads);
  for (int i = 0; i < num_threads; ++i) {
    take_tiled_scratch(workspace, problem.head_dim, problem.num_heads / problem.num_kv_heads);
  }
  return workspace.used();
}

[[maybe_unused]] std::string tiled_unsupported(const Problem& problem) {
  if (problem.num_kv_heads <= 0 || problem.num_heads % problem.num_kv_heads != 0) {
    return "num_heads must be a multiple of num_kv_heads";
  }
  return problem.head_dim % 8 == 0
             ? ""
             : fmt::format("head_dim {} is not a multiple of 8", problem.head_dim);
}

// One cached vector as floats. The common formats of a cache in vectors, the others by their codec.
template <class S>
void decode_vector(const KvLayerView& kv, const std::byte* row, float* out) {
  const std::int64_t n = kv.head_dim;
  switch (kv.format) {
    case Format::kF32:
      std::memcpy(out, row, static_cast<std::size_t>(n) * sizeof(float));
      return;
    case Format::kBf16:
      for (std::int64_t i = 0; i < n; i += 8) {
        S::store(out + i, S::as_float(S::shift_left(S::load_halves(row + 2 * i), 16)));
      }
      return;
    case Format::kF16:
      for (std::int64_t i = 0; i < n; i += 8) S::store(out + i, S::load_f16(row + 2 * i));
      return;
    case Format::kFp8E4m3:
      for (std::int64_t i = 0; i < n; i += 8) {
        float scale;
        std::memcpy(&scale, row + n, sizeof(scale));
        S::store(out + i, S::mul(e4m3_to_float<S>(S::load_bytes(row + i)), S::set(scale)));
      }
      return;
    case Format::kInt8:
      for (std::int64_t i = 0; i < n; i += 8) {
        f16 stored;
        std::memcpy(&stored, row + n + i / 32 * 2, sizeof(stored));
        const auto code = S::shift_signed(S::shift_left(S::load_bytes(row + i), 24), 24);
        S::store(out + i, S::mul(S::to_float(code), S::set(to_float(stored))));
      }
      return;
    default:
      kv.decode(row, out);
  }
}

// Positions [low, high) of the tile that begins at `tile`: keys transposed, values as they are.
template <class S>
void decode_tile(const Args& args, std::int32_t sequence, std::int64_t kv_head, std::int64_t tile,
                 std::int64_t low, std::int64_t high, const TiledScratch& s) {
  const KvLayerView& kv = args.kv;
  const auto pages = args.places.page_tables[sequence];
  const std::int64_t n = kv.head_dim;
  for (std::int64_t eight = tile; eight < tile + kTile; eight += 8) {
    if (eight + 8 <= low || eight >= high) continue;
    for (std::int64_t j = std::max(eight, low); j < std::min(eight + 8, high); ++j) {
      const std::int32_t page = pages[j / kv.page_size];
      const std::int64_t slot = j % kv.page_size;
      decode_vector<S>(kv, kv.row(kv.keys, page, slot, kv_head), s.row + (j - eight) * n);
      decode_vector<S>(kv, kv.row(kv.values, page, slot, kv_head), s.values + (j - tile) * n);
    }
    // Rows that are not visible hold whatever they held: their scores are overwritten.
    for (std::int64_t d = 0; d < n; d += 8) {
      S::transpose(s.row + d, n, s.keys + d * kTile + (eight - tile), kTile);
    }
  }
}

// Scores of kHeads heads with the 32 keys of a tile: scores[h * kTile + j].
template <class S, int kHeads>
void score_tile(const float* queries, const float* keys, std::int64_t head_dim, float scale,
                float* scores) {
  typename S::F32 sums[kHeads][4];
  for (auto& of_head : sums) {
    for (auto& sum : of_head) sum = S::zero();
  }
  for (std::int64_t d = 0; d < head_dim; ++d) {
    typename S::F32 key[4];
    for (int i = 0; i < 4; ++i) key[i] = S::load(keys + d * kTile + 8 * i);
    for (int h = 0; h < kHeads; ++h) {
      const auto query = S::set(queries[h * head_dim + d]);
      for (int i = 0; i < 4; ++i) sums[h][i] = S::multiply_add(key[i], query, sums[h][i]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int i = 0; i < 4; ++i) {
      S::store(scores + h * kTile + 8 * i, S::mul(sums[h][i], S::set(scale)));
    }
  }
}

// sum[0 .. 8 * kVectors) = sum * factor + weights[j] * values[j], j in [low, high) in order.
template <class S, int kVectors>
void add_values(const float* weights, const float* values, std::int64_t head_dim, std::int64_t low,
                std::int64_t high, float factor, float* sum) {
  typename S::F32 total[kVectors];
  for (int i = 0; i < kVectors; ++i) total[i] = S::mul(S::load(sum + 8 * i), S::set(factor));
  for (std::int64_t j = low; j < high; ++j) {
    const auto weight = S::set(weights[j]);
    for (int i = 0; i < kVectors; ++i) {
      total[i] = S::multiply_add(weight, S::load(values + j * head_dim + 8 * i), total[i]);
    }
  }
  for (int i = 0; i < kVectors; ++i) S::store(sum + 8 * i, total[i]);
}

// One head's running softmax takes in the positions [low, high) of a tile.
template <class S>
void take_in_tile(float* scores, const TiledScratch& s, std::int64_t head_dim, std::int64_t low,
                  std::int64_t high, float* state) {
  std::fill(scores, scores + low, -std::numeric_limits<float>::infinity());
  std::fill(scores + high, scores + kTile, -std::numeric_limits<float>::infinity());
  float& largest = state[head_dim];
  float& total = state[head_dim + 1];
  auto most = S::load(scores);
  for (int i = 1; i < 4; ++i) most = S::max(most, S::load(scores + 8 * i));
  const float new_largest = std::max(largest, S::largest(most));
  float lanes[8];
  S::store(lanes, exponential<S>(S::set(largest - new_largest)));
  const float factor = lanes[0];
  auto sum = S::zero();
  for (int i = 0; i < 4; ++i) {
    const auto weight = exponential<S>(S::sub(S::load(scores + 8 * i), S::set(new_largest)));
    S::store(scores + 8 * i, weight);
    sum = S::add(sum, weight);
  }
  largest = new_largest;
  total = total * factor + S::sum(sum);
  std::int64_t d = 0;
  for (; d + 64 <= head_dim; d += 64) {
    add_values<S, 8>(scores, s.values + d, head_dim, low, high, factor, state + d);
  }
  for (; d < head_dim; d += 8) {
    add_values<S, 1>(scores, s.values + d, head_dim, low, high, factor, state + d);
  }
}

// All heads that share `kv_head`, for the tokens of one block.
template <class S>
void attend_block(const Args& args, TokenBlock block, std::int64_t kv_head, const TiledScratch& s) {
  const std::int64_t head_dim = args.kv.head_dim;
  const std::int64_t group = args.queries.shape[1] / args.kv.num_kv_heads;
  const std::int64_t state_size = head_dim + 2;
  const auto position = [&](std::int64_t t) -> std::int64_t { return args.places.position[t]; };
  const auto first_visible = [&](std::int64_t t) {
    return args.window > 0 ? std::max<std::int64_t>(0, position(t) - args.window + 1)
                           : std::int64_t{0};
  };
  for (std::int64_t t = 0; t < block.end - block.begin; ++t) {
    for (std::int64_t g = 0; g < group; ++g) {
      float* state = s.state + (t * group + g) * state_size;
      std::fill(state, state + head_dim, 0.0F);
      const bool sink = args.sinks.data != nullptr;
      state[head_dim] =
          sink ? args.sinks[kv_head * group + g] : -std::numeric_limits<float>::infinity();
      state[head_dim + 1] = sink ? 1.0F : 0.0F;
    }
  }
  const std::int64_t first = first_visible(block.begin);
  const std::int64_t last = position(block.end - 1);
  const std::int32_t sequence = args.places.sequence[block.begin];
  for (std::int64_t tile = first / kTile * kTile; tile <= last; tile += kTile) {
    decode_tile<S>(args, sequence, kv_head, tile, std::max(tile, first),
                   std::min(tile + kTile, last + 1), s);
    for (std::int64_t t = block.begin; t < block.end; ++t) {
      const std::int64_t low = std::max(tile, first_visible(t)) - tile;
      const std::int64_t high = std::min(tile + kTile, position(t) + 1) - tile;
      if (low >= high) continue;
      const float* queries = args.queries[t][kv_head * group].data;
      float* state = s.state + (t - block.begin) * group * state_size;
      float scores[2 * kTile];
      std::int64_t g = 0;
      for (; g + 2 <= group; g += 2) {
        score_tile<S, 2>(queries + g * head_dim, s.keys, head_dim, args.scale, scores);
        take_in_tile<S>(scores, s, head_dim, low, high, state + g * state_size);
        take_in_tile<S>(scores + kTile, s, head_dim, low, high, state + (g + 1) * state_size);
      }
      if (g < group) {
        score_tile<S, 1>(queries + g * head_dim, s.keys, head_dim, args.scale, scores);
        take_in_tile<S>(scores, s, head_dim, low, high, state + g * state_size);
      }
    }
  }
  for (std::int64_t t = block.begin; t < block.end; ++t) {
    for (std::int64_t g = 0; g < group; ++g) {
      const float* state = s.state + ((t - block.begin) * group + g) * state_size;
      float* out = args.out[t][kv_head * group + g].data;
      const auto total = S::set(state[head_dim + 1]);
      for (std::int64_t d = 0; d < head_dim; d += 8) {
        S::store(out + d, S::div(S::load(state + d), total));
      }
    }
  }
}

// Runs of tokens of one sequence, at most kTokens each. Returns how many.
[[maybe_unused]] std::int64_t find_blocks(const TokenPlaces& places, TokenBlock* blocks) {
  const auto num_tokens = static_cast<std::int32_t>(places.position.size());
  std::int64_t count = 0;
  for (std::int32_t begin = 0; begin < num_tokens;) {
    std::int32_t end = begin + 1;
    while (end < num_tokens && end - begin < kTokens &&
           places.sequence[end] == places.sequence[begin] &&
           places.position[end] > places.position[end - 1]) {
      ++end;
    }
    blocks[count++] = {begin, end};
    begin = end;
  }
  return count;
}

template <class S>
struct AttendParts {
  const Args& args;
  const TokenBlock* blocks;
  const TiledScratch* scratch;  // one per thread

  void operator()(std::int64_t begin, std::int64_t end, int thread) const {
    const std::int64_t num_kv_heads = args.kv.num_kv_heads;
    for (std::int64_t item = begin; item < end; ++item) {
      attend_block<S>(args, blocks[item / num_kv_heads], item % num_kv_heads, scratch[thread]);
    }
  }
};

template <class S>
void run_tiled(const Args& args, Context& context) {
  const std::int64_t num_kv_heads = args.kv.num_kv_heads;
  Workspace workspace(context.workspace);
  auto* blocks = workspace.take<TokenBlock>(args.queries.shape[0]);
  auto* scratch = workspace.take<TiledScratch>(context.pool.num_threads());
  for (int i = 0; i < context.pool.num_threads(); ++i) {
    scratch[i] =
        take_tiled_scratch(workspace, args.kv.head_dim, args.queries.shape[1] / num_kv_heads);
  }
  const std::int64_t num_blocks = find_blocks(args.places, blocks);
  context.pool.parallel_for(num_blocks * num_kv_heads, 1, AttendParts<S>{args, blocks, scratch});
}

}  // namespace
}  // namespace moebench::attention
