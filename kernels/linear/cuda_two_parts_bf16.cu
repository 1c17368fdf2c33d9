// cuda_two_parts_bf16: for many tokens and few rows where x must not be rounded: the router's
// product. x is the sum of two bf16, to 2^-17 of itself, and so its products with bf16 weights are
// two each by the tensor cores.
//
// There are few tiles of outputs (one of 64 tokens by 128 rows for 64 tokens of gpt-oss 120b) and
// many columns, so a cluster of eight blocks takes a tile, each an eighth of the columns, which it
// copies through a ring in shared memory, 64 at a time. Then each adds up, over the blocks in
// order, an eighth of the tokens.
//
// Tensor cores do not round sums to nearest, so a sum in them is of 64 columns only; these are
// added up in registers. What is added to what depends on the columns alone, not on the batch.
//
// Lanes take columns in the order in which they can read 16 bytes at once: lane t of four those
// from 8 t, of x and of weights alike, where the instruction speaks of 2 t and 2 t + 8.
#include "kernels/core/gpu_numbers.cuh"
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kBlocks = 8;   // of a cluster
constexpr int kTokens = 64;  // of a tile
constexpr int kCols = 64;    // columns in a stage
constexpr int kStages = 3;
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / gpu::kWarp;
constexpr int kTokenChunks = kCols / 4;   // 16 bytes each, in a stage's row of x
constexpr int kWeightChunks = kCols / 8;  // likewise of weights

template <int kRows>
struct Stage {
  float4 x[kTokens * kTokenChunks];
  uint4 weights[kRows * kWeightChunks];
};

// Where a chunk of a row lies: eight lanes that read at once, of two rows, meet different banks.
MOEBENCH_DEVICE int token_place(int row, int chunk) {
  return row * kTokenChunks + (chunk ^ row % 2);
}
MOEBENCH_DEVICE int weight_place(int row, int chunk) {
  return row * kWeightChunks + (chunk ^ row % 2 * 4);
}

// Rows of kChunks chunks of 16 bytes, zeros outside of the matrix ([num_rows, row_chunks]).
template <int kRows, int kChunks, class Place>
MOEBENCH_DEVICE void copy_tile(void* tile, const void* matrix, int first_row, int num_rows,
                               int first_chunk, int row_chunks, Place&& place) {
  constexpr int kAtOnce = kThreads / kChunks;  // rows
  static_assert(kAtOnce % 2 == 0);             // which lie alike
  const int row = static_cast<int>(threadIdx.x) / kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  uint4* to = static_cast<uint4*>(tile) + place(row, chunk);
  const auto* from = static_cast<const uint4*>(matrix) +
                     static_cast<std::int64_t>(first_row + row) * row_chunks + first_chunk + chunk;
  const int rows_left = first_chunk + chunk < row_chunks ? num_rows - first_row - row : 0;
  MOEBENCH_UNROLL
  for (int i = 0; i < kRows / kAtOnce; ++i) {
    const bool inside = i * kAtOnce < rows_left;
    gpu::copy_async(to + i * kAtOnce * kChunks, inside ? from : matrix, inside);
    from += kAtOnce * row_chunks;
  }
}

// 16 tokens by 32 columns: operands of two instructions, of each part.
struct Tokens {
  std::uint32_t high[2][4];
  std::uint32_t low[2][4];

  // `chunk`: the first of this lane's two.
  MOEBENCH_DEVICE void load(const float4* tile, int first_token, int chunk) {
    MOEBENCH_UNROLL
    for (int half = 0; half < 2; ++half) {  // rows g, then g + 8
      const int row = first_token + 8 * half + gpu::lane_id() / 4;
      MOEBENCH_UNROLL
      for (int step = 0; step < 2; ++step) {
        const float4 four = tile[token_place(row, chunk + step)];
        const gpu::TwoParts first(four.x, four.y);
        const gpu::TwoParts second(four.z, four.w);
        high[step][half] = first.high;
        low[step][half] = first.low;
        high[step][half + 2] = second.high;
        low[step][half + 2] = second.low;
      }
    }
  }
};

// Adds the products of one stage: sums[i][j], tokens 16 i .., rows 8 j .. of the warp's part.
template <int kWarpTokens, int kWarpRows, int kRows>
MOEBENCH_DEVICE void multiply_stage(const Stage<kRows>& stage, int warp_token, int warp_row,
                                    float (&sums)[kWarpTokens / 16][kWarpRows / 8][4]) {
  constexpr int kOperands = kWarpTokens / 16;
  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  MOEBENCH_NO_UNROLL
  for (int part = 0; part < kCols / 32; ++part) {
    Tokens tokens[kOperands];
    MOEBENCH_UNROLL
    for (int i = 0; i < kOperands; ++i) {
      tokens[i].load(stage.x, warp_token + 16 * i, part * 8 + 2 * t);
    }
    MOEBENCH_UNROLL
    for (int j = 0; j < kWarpRows / 8; ++j) {
      const uint4 row = stage.weights[weight_place(warp_row + 8 * j + g, part * 4 + t)];
      const std::uint32_t rows[2][2] = {{row.x, row.y}, {row.z, row.w}};
      float of_part[kOperands][4] = {};
      MOEBENCH_UNROLL
      for (int step = 0; step < 2; ++step) {
        MOEBENCH_UNROLL
        for (int i = 0; i < kOperands; ++i) {
          gpu::multiply_bf16(of_part[i], tokens[i].low[step], rows[step]);
          gpu::multiply_bf16(of_part[i], tokens[i].high[step], rows[step]);
        }
      }
      MOEBENCH_UNROLL
      for (int i = 0; i < kOperands; ++i) {
        MOEBENCH_UNROLL
        for (int v = 0; v < 4; ++v) sums[i][j][v] += of_part[i][v];
      }
    }
  }
}

template <int kWarpTokens, int kWarpRows>
constexpr int kTileRows = kWarpRows* kWarps / (kTokens / kWarpTokens);

// Block (tile of tokens and part of the columns, tile of rows). A warp computes kWarpTokens by
// kWarpRows of the tile.
template <int kWarpTokens, int kWarpRows>
__global__ void MOEBENCH_BOUNDS(kThreads, 2)
    multiply_tile(const float* x, Weight weight, const float* bias, float* out, int num_tokens) {
  constexpr int kRows = kTileRows<kWarpTokens, kWarpRows>;
  constexpr int kStride = kRows + 8;  // floats between tokens of partial sums: fewer conflicts
  static_assert(kTokens * kStride * sizeof(float) <= kStages * sizeof(Stage<kRows>));
  auto* stages = reinterpret_cast<Stage<kRows>*>(gpu::dynamic_shared());
  auto* partial = reinterpret_cast<float*>(stages);  // once the stages have been used

  const auto rank = static_cast<int>(gpu::cluster_rank());
  const int first_token = static_cast<int>(blockIdx.x) / kBlocks * kTokens;
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  const int column_tiles = (weight.cols + kCols - 1) / kCols;
  const int begin = column_tiles * rank / kBlocks;
  const int end = column_tiles * (rank + 1) / kBlocks;
  const auto copy_weights = [&](int tile) {
    copy_tile<kRows, kWeightChunks>(stages[(tile - begin) % kStages].weights, weight.data,
                                    first_row, weight.rows, tile * kWeightChunks, weight.cols / 8,
                                    weight_place);
  };
  const auto copy_tokens = [&](int tile) {
    copy_tile<kTokens, kTokenChunks>(stages[(tile - begin) % kStages].x, x, first_token, num_tokens,
                                     tile * kTokenChunks, weight.cols / 4, token_place);
  };
  for (int tile = begin; tile < begin + kStages - 1 && tile < end; ++tile) copy_weights(tile);
  gpu::wait_for_previous_kernel();
  for (int tile = begin; tile < begin + kStages - 1; ++tile) {
    if (tile < end) copy_tokens(tile);
    gpu::commit_copies();
  }

  constexpr int kTokenWarps = kTokens / kWarpTokens;
  const int warp_token = gpu::warp_id() % kTokenWarps * kWarpTokens;
  const int warp_row = gpu::warp_id() / kTokenWarps * kWarpRows;
  float sums[kWarpTokens / 16][kWarpRows / 8][4] = {};
  MOEBENCH_NO_UNROLL
  for (int tile = begin; tile < end; ++tile) {
    gpu::wait_copies<kStages - 2>();
    gpu::sync_threads();  // this tile is there, and the one before has been used
    const int ahead = tile + kStages - 1;
    if (ahead < end) {
      copy_weights(ahead);
      copy_tokens(ahead);
    }
    gpu::commit_copies();
    multiply_stage<kWarpTokens, kWarpRows>(stages[(tile - begin) % kStages], warp_token, warp_row,
                                           sums);
  }
  gpu::let_next_kernel_start();
  gpu::wait_copies<0>();
  gpu::sync_threads();  // all stages have been used
  MOEBENCH_UNROLL
  for (int i = 0; i < kWarpTokens / 8; ++i) {
    float* to = partial + (warp_token + 8 * i + gpu::lane_id() / 4) * kStride + warp_row +
                gpu::lane_id() % 4 * 2;
    MOEBENCH_UNROLL
    for (int j = 0; j < kWarpRows / 8; ++j) {
      const float* both = sums[i / 2][j] + i % 2 * 2;
      *reinterpret_cast<float2*>(to + 8 * j) = float2{both[0], both[1]};
    }
  }
  gpu::sync_cluster();

  constexpr int kOfBlock = kTokens / kBlocks;  // tokens that a block finishes
  for (int i = static_cast<int>(threadIdx.x); i < kOfBlock * kRows / 4; i += kThreads) {
    const int of_tile = rank * kOfBlock + i / (kRows / 4);
    const int of_row = i % (kRows / 4) * 4;
    float4 parts[kBlocks];
    MOEBENCH_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      parts[b] = *reinterpret_cast<const float4*>(
          gpu::cluster_pointer(partial, static_cast<unsigned>(b)) + of_tile * kStride + of_row);
    }
    float values[4] = {};
    MOEBENCH_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      values[0] += parts[b].x;
      values[1] += parts[b].y;
      values[2] += parts[b].z;
      values[3] += parts[b].w;
    }
    const int token = first_token + of_tile;
    const int row = first_row + of_row;
    if (token >= num_tokens) continue;
    float* to = out + static_cast<std::int64_t>(token) * weight.rows + row;
    MOEBENCH_UNROLL
    for (int v = 0; v < 4; ++v) {
      if (row + v < weight.rows) to[v] = values[v] + (bias != nullptr ? bias[row + v] : 0.0F);
    }
  }
  gpu::sync_cluster();  // others may still read this block's sums
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  const auto num_tokens = static_cast<int>(args.x.shape[0]);
  const auto start = [&](auto* kernel, int rows, std::size_t stage_bytes) {
    gpu::launch(kernel,
                {.grid = {static_cast<unsigned>((num_tokens + kTokens - 1) / kTokens * kBlocks),
                          static_cast<unsigned>((weight.rows + rows - 1) / rows)},
                 .block = kThreads,
                 .shared_bytes = kStages * stage_bytes,
                 .stream = context.stream,
                 .cluster = kBlocks,
                 .overlap_previous = true},
                "linear/cuda_two_parts_bf16", args.x.data, weight, args.bias.data, args.out.data,
                num_tokens);
  };
  if (weight.rows <= kTileRows<16, 32>) {
    constexpr int kRows = kTileRows<16, 32>;
    return start(multiply_tile<16, 32>, kRows, sizeof(Stage<kRows>));
  }
  constexpr int kRows = kTileRows<32, 64>;
  start(multiply_tile<32, 64>, kRows, sizeof(Stage<kRows>));
}

std::string unsupported(const Problem& problem) {
  const std::string reason = gpu::needs_compute_capability(90);
  if (!reason.empty()) return reason;
  if (problem.format != Format::kBf16) {
    return fmt::format("weights must be bf16; they are {}", format_name(problem.format));
  }
  constexpr std::int64_t kMostRows = 65535 * std::int64_t{kTileRows<32, 64>};
  if (problem.rows > kMostRows) {
    return fmt::format("at most {} rows; there are {}", kMostRows, problem.rows);
  }
  return groups_unsupported(problem);
}

}  // namespace

const Variant cuda_two_parts_bf16 = {
    .name = "cuda_two_parts_bf16",
    .backend = "cuda",
    .summary = "x as two bf16 through mma, columns shared out in a cluster (Hopper)",
    .rounds = "activations: two bf16 (17 bits), accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = unsupported,
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::linear
