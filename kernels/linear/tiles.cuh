// What the variants share in which a block computes a tile of 128 tokens by 128 rows: rounding x,
// which block computes which tile, and writing outputs.
#pragma once

#include "kernels/linear/weight.cuh"

namespace moebench::linear {

constexpr int kTile = 128;  // tokens, and rows, of a block
constexpr int kCols = 64;   // columns of a tile in shared memory: 128 bytes of bf16

// Blocks that run at the same time share kTokenGroup tiles of tokens and few tiles of rows, so that
// what they read stays in the second-level cache.
constexpr int kTokenGroup = 8;

struct Tile {
  int first_token;
  int first_row;
};

MOEBENCH_DEVICE Tile tile_of_block(int block, int num_tokens, int num_rows) {
  const int token_tiles = (num_tokens + kTile - 1) / kTile;
  const int row_tiles = (num_rows + kTile - 1) / kTile;
  const int group_begin = block / (kTokenGroup * row_tiles) * kTokenGroup;
  const int group_size =
      token_tiles - group_begin < kTokenGroup ? token_tiles - group_begin : kTokenGroup;
  const int in_group = block - group_begin * row_tiles;
  return {(group_begin + in_group % group_size) * kTile, in_group / group_size * kTile};
}

inline unsigned num_tiles(std::int64_t num_tokens, std::int64_t num_rows) {
  return static_cast<unsigned>((num_tokens + kTile - 1) / kTile * ((num_rows + kTile - 1) / kTile));
}

// Empty, or why the tiles cannot be counted.
inline std::string tiles_unsupported(const Problem& problem) {
  const std::string reason = groups_unsupported(problem);
  if (!reason.empty()) return reason;
  const std::int64_t tiles =
      (problem.num_tokens + kTile - 1) / kTile * ((problem.rows + kTile - 1) / kTile);
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  return tiles <= kMost ? "" : fmt::format("at most {} tiles; there are {}", kMost, tiles);
}

// What a thread needs to write a row and the next: two sums, times the rows' factors, plus biases.
struct RowPair {
  float factors[2];
  float biases[2];
};

template <Format kFormat>
MOEBENCH_DEVICE RowPair load_row_pair(const Weight& weight, const float* bias, int row) {
  RowPair pair = {};
  MOEBENCH_UNROLL
  for (int c = 0; c < 2; ++c) {
    if (row + c >= weight.rows) continue;
    pair.factors[c] = gpu::DeviceFormat<kFormat>::row_factor(encoded_row(weight, row + c));
    if (bias != nullptr) pair.biases[c] = bias[row + c];
  }
  return pair;
}

// `row` is even. Tokens and rows outside are left alone.
MOEBENCH_DEVICE void store_row_pair(float* out, int num_tokens, int num_rows, int token, int row,
                                    const RowPair& pair, float first, float second) {
  if (token >= num_tokens || row >= num_rows) return;
  float* to = out + static_cast<std::int64_t>(token) * num_rows + row;
  first = first * pair.factors[0] + pair.biases[0];
  second = second * pair.factors[1] + pair.biases[1];
  if (num_rows % 2 == 0) {
    *reinterpret_cast<float2*>(to) = float2{first, second};
  } else {
    to[0] = first;
    if (row + 1 < num_rows) to[1] = second;
  }
}

// x as bf16 in the order of decoded weights, 8 values a thread.
constexpr int kRoundThreads = 256;
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kRoundThreads)
    round_inputs(const float* x, uint4* rounded, std::int64_t count) {
  gpu::let_next_kernel_start();  // one that waits for this one before it reads
  const std::int64_t i = std::int64_t{blockIdx.x} * kRoundThreads + threadIdx.x;
  if (i < count) rounded[i] = read_inputs<kFormat>(x + i * 8, true);
}

inline uint4* take_rounded(Workspace& workspace, std::int64_t num_tokens, std::int64_t cols) {
  return workspace.take<uint4>(num_tokens * cols / 8);
}
inline std::size_t rounded_bytes(const Problem& problem, int) {
  Workspace workspace;
  take_rounded(workspace, problem.num_tokens, problem.cols);
  return workspace.used();
}

// Enqueues the rounding of x to [num_tokens, cols].
template <Format kFormat>
void enqueue_rounding(const View<const float, 2>& x, uint4* rounded, gpu::Stream stream,
                      const char* name) {
  const std::int64_t count = x.size() / 8;
  gpu::launch(round_inputs<kFormat>,
              {.grid = {static_cast<unsigned>((count + kRoundThreads - 1) / kRoundThreads)},
               .block = kRoundThreads,
               .stream = stream},
              name, x.data, rounded, count);
}

// x in bf16, in the order of decoded weights: as it comes, or rounded to `scratch`.
template <Format kFormat>
const uint4* rounded_x(const Args& args, uint4* scratch, gpu::Stream stream, const char* name) {
  if (args.rounded.data != nullptr) {
    require(kFormat == Format::kBf16, "run linear: inputs of bf16 are for weights of bf16");
    return reinterpret_cast<const uint4*>(args.rounded.data);
  }
  enqueue_rounding<kFormat>(args.x, scratch, stream, name);
  return scratch;
}

}  // namespace moebench::linear
