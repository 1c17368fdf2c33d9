// cuda_mma_bf16: for many tokens, on any GPU with bf16 tensor cores. A small kernel rounds x to
// bf16; then a block computes a tile of 128 tokens by 128 rows, 64 columns at a time, through a
// ring of tiles in shared memory: x, and weights that are bf16 already, by asynchronous copies two
// tiles ahead; other weights are read two tiles ahead into registers, and decoded into the ring
// after the products of the current tile.
//
// A tile's rows are 128 bytes, whose 16-byte chunk c lies at chunk c ^ (row % 8): so that the eight
// rows that ldmatrix reads at once lie in different banks.
//
// Each output is one sum over columns in order, by the same instruction whatever the number of
// tokens: it does not depend on the batch.
#include "kernels/linear/tiles.cuh"

namespace moebench::linear {
namespace {

constexpr int kStages = 3;
constexpr int kThreads = 256;
constexpr int kChunks = kCols / 8;  // 16 bytes each, in a row of a tile
constexpr int kWarpTokens = 64;     // a warp computes 64 tokens by 32 rows
constexpr int kWarpRows = 32;

struct Stage {
  uint4 x[kTile * kChunks];
  uint4 weights[kTile * kChunks];
};

// Where a chunk of a row lies in a tile.
MOEBENCH_DEVICE int place(int row, int chunk) { return row * kChunks + (chunk ^ (row % 8)); }

// Copies rows of 16-byte chunks: a tile of `matrix` ([num_rows, row_chunks]). Zeros outside.
MOEBENCH_DEVICE void copy_tile(uint4* tile, const uint4* matrix, int first_row, int num_rows,
                               int first_chunk, int row_chunks) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kTile * kChunks / kThreads; ++i) {
    const int index = i * kThreads + static_cast<int>(threadIdx.x);
    const int row = index / kChunks;
    const int chunk = index % kChunks;
    const bool inside = first_row + row < num_rows && first_chunk + chunk < row_chunks;
    const uint4* from = matrix;
    if (inside) {
      from += static_cast<std::int64_t>(first_row + row) * row_chunks + first_chunk + chunk;
    }
    gpu::copy_async(tile + place(row, chunk), from, inside);
  }
}

// A thread's part of a tile of weights that are not bf16.
template <Format kFormat>
struct Part {
  static constexpr int kRunsInRow = kCols / Run<kFormat>::kValues;
  static constexpr int kRuns = kTile * kRunsInRow / kThreads;

  Run<kFormat> runs[kRuns];

  MOEBENCH_DEVICE void load(const Weight& weight, int first_row, int first_column) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kRuns; ++i) {
      const int index = i * kThreads + static_cast<int>(threadIdx.x);
      const int row = first_row + index / kRunsInRow;
      const int run = first_column / Run<kFormat>::kValues + index % kRunsInRow;
      const bool inside = row < weight.rows && run * Run<kFormat>::kValues < weight.cols;
      runs[i].load(encoded_row(weight, inside ? row : 0), run, inside);
    }
  }

  MOEBENCH_DEVICE void decode_to(uint4* tile) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < kRuns; ++i) {
      const int index = i * kThreads + static_cast<int>(threadIdx.x);
      std::uint32_t pairs[Run<kFormat>::kValues / 2];
      runs[i].decode(pairs);
      MOEBENCH_UNROLL
      for (int c = 0; c < Run<kFormat>::kChunks; ++c) {
        const int chunk = index % kRunsInRow * Run<kFormat>::kChunks + c;
        tile[place(index / kRunsInRow, chunk)] = {pairs[4 * c], pairs[4 * c + 1], pairs[4 * c + 2],
                                                  pairs[4 * c + 3]};
      }
    }
  }
};

// sums[i][j]: tokens 16 i.., rows 8 j.. of the warp's part.
MOEBENCH_DEVICE void multiply_stage(const Stage& stage, int warp_token, int warp_row,
                                    float (&sums)[kWarpTokens / 16][kWarpRows / 8][4]) {
  const int lane = gpu::lane_id();
  MOEBENCH_UNROLL
  for (int chunk = 0; chunk < kChunks; chunk += 2) {
    std::uint32_t tokens[kWarpTokens / 16][4];
    MOEBENCH_UNROLL
    for (int i = 0; i < kWarpTokens / 16; ++i) {
      gpu::load_matrices(tokens[i],
                         stage.x + place(warp_token + 16 * i + lane % 16, chunk + lane / 16));
    }
    MOEBENCH_UNROLL
    for (int j = 0; j < kWarpRows / 8; j += 2) {  // two operands of 8 rows at once
      std::uint32_t rows[4];
      gpu::load_matrices(rows, stage.weights + place(warp_row + 8 * j + lane / 16 * 8 + lane % 8,
                                                     chunk + lane / 8 % 2));
      MOEBENCH_UNROLL
      for (int i = 0; i < kWarpTokens / 16; ++i) {
        gpu::multiply_bf16(sums[i][j], tokens[i], {rows[0], rows[1]});
        gpu::multiply_bf16(sums[i][j + 1], tokens[i], {rows[2], rows[3]});
      }
    }
  }
}

template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads, kFormat == Format::kF32 ? 1 : 2)
    multiply_tile(const uint4* x, Weight weight, const float* bias, float* out, int num_tokens) {
  constexpr bool kCopies = kFormat == Format::kBf16;
  auto* stages = reinterpret_cast<Stage*>(gpu::dynamic_shared());

  const auto [first_token, first_row] =
      tile_of_block(static_cast<int>(blockIdx.x), num_tokens, weight.rows);
  const int row_chunks = weight.cols / 8;
  const int column_tiles = (weight.cols + kCols - 1) / kCols;
  const auto copy = [&](int tile) {
    Stage& stage = stages[tile % kStages];
    copy_tile(stage.x, x, first_token, num_tokens, tile * kChunks, row_chunks);
    if constexpr (kCopies) {
      copy_tile(stage.weights, reinterpret_cast<const uint4*>(weight.data), first_row, weight.rows,
                tile * kChunks, row_chunks);
    }
  };
  Part<kFormat> part;
  MOEBENCH_UNROLL
  for (int tile = 0; tile < kStages - 1; ++tile) {
    if (tile < column_tiles) {
      copy(tile);
      if constexpr (!kCopies) {
        part.load(weight, first_row, tile * kCols);
        part.decode_to(stages[tile].weights);
      }
    }
    gpu::commit_copies();
  }

  const int warp_token = gpu::warp_id() % (kTile / kWarpTokens) * kWarpTokens;
  const int warp_row = gpu::warp_id() / (kTile / kWarpTokens) * kWarpRows;
  float sums[kWarpTokens / 16][kWarpRows / 8][4] = {};
  for (int tile = 0; tile < column_tiles; ++tile) {
    gpu::wait_copies<kStages - 2>();
    gpu::sync_threads();  // this tile is there, and the one before has been used
    const int ahead = tile + kStages - 1;
    if (ahead < column_tiles) {
      copy(ahead);
      if constexpr (!kCopies) part.load(weight, first_row, ahead * kCols);
    }
    gpu::commit_copies();
    multiply_stage(stages[tile % kStages], warp_token, warp_row, sums);
    if constexpr (!kCopies) {
      if (ahead < column_tiles) part.decode_to(stages[ahead % kStages].weights);
    }
  }
  gpu::wait_copies<0>();

  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  MOEBENCH_UNROLL
  for (int j = 0; j < kWarpRows / 8; ++j) {
    const int row = first_row + warp_row + 8 * j + 2 * t;  // and the next
    const RowPair pair = load_row_pair<kFormat>(weight, bias, row);
    MOEBENCH_UNROLL
    for (int i = 0; i < kWarpTokens / 8; ++i) {
      const float* both = sums[i / 2][j] + i % 2 * 2;
      store_row_pair(out, num_tokens, weight.rows, first_token + warp_token + 8 * i + g, row, pair,
                     both[0], both[1]);
    }
  }
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  Workspace workspace(context.workspace);
  uint4* scratch = take_rounded(workspace, args.x.shape[0], weight.cols);
  gpu::with_format(args.weight.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    const uint4* rounded =
        rounded_x<kFormat>(args, scratch, context.stream, "linear/cuda_mma_bf16, inputs");
    gpu::launch(multiply_tile<kFormat>,
                {.grid = {num_tiles(args.x.shape[0], weight.rows)},
                 .block = kThreads,
                 .shared_bytes = kStages * sizeof(Stage),
                 .stream = context.stream},
                "linear/cuda_mma_bf16", rounded, weight, args.bias.data, args.out.data,
                static_cast<int>(args.x.shape[0]));
  });
}

}  // namespace

const Variant cuda_mma_bf16 = {
    .name = "cuda_mma_bf16",
    .backend = "cuda",
    .summary = "tiles of 128 tokens by 128 rows through mma, weights decoded to bf16 on the way",
    .rounds = "activations: bf16, weights: bf16 where they have more bits, accumulate: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = gpu::needs_compute_capability(80);
          return reason.empty() ? tiles_unsupported(problem) : reason;
        },
    .workspace_bytes = rounded_bytes,
    .run = run,
    .knows_bf16 = has_bf16_weights,
};

}  // namespace moebench::linear
