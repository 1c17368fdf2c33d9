// cuda_wgmma_bf16: for many tokens, on Hopper, with bf16 weights. A small kernel rounds x to bf16;
// then a block computes a tile of 128 tokens by 128 rows, 64 columns at a time. One warp keeps a
// ring of tiles filled with the tensor memory accelerator, which also puts zeros where a tile
// reaches beyond x or the weight; two groups of four warps multiply, 64 tokens each, by wgmma, and
// hand a tile back when the products after it have been started.
//
// Two blocks fit on a multiprocessor: one starts or ends while the other multiplies.
//
// Each output is one sum over columns in order, by the same instruction whatever the number of
// tokens: it does not depend on the batch.
#include "kernels/linear/tiles.cuh"

namespace moebench::linear {
namespace {

constexpr int kStages = 3;
constexpr int kGroups = 2;  // of four warps, that multiply
constexpr int kGroupThreads = 128;
constexpr int kGroupTokens = kTile / kGroups;
constexpr int kThreads = kGroups * kGroupThreads + gpu::kWarp;  // the last warp copies
constexpr int kStepBytes = 32;                                  // of 16 columns
constexpr int kSteps = kCols / 16;

struct Stage {
  std::uint16_t x[kTile * kCols];
  std::uint16_t weights[kTile * kCols];
};

MOEBENCH_DEVICE void copy_tiles(Stage* stages, gpu::Mbarrier* full, gpu::Mbarrier* empty,
                                const gpu::TensorMap& x, const gpu::TensorMap& weights,
                                const Tile& to, int column_tiles) {
  gpu::prefetch_tensor_map(x);
  gpu::prefetch_tensor_map(weights);
  for (int tile = 0; tile < column_tiles; ++tile) {
    const int s = tile % kStages;
    gpu::mbarrier_wait(&empty[s], static_cast<unsigned>(tile / kStages + 1) % 2);
    gpu::mbarrier_arrive_expect_bytes(&full[s], sizeof(Stage));
    gpu::load_tile_async(stages[s].x, x, tile * kCols, to.first_token, &full[s]);
    gpu::load_tile_async(stages[s].weights, weights, tile * kCols, to.first_row, &full[s]);
  }
}

__global__ void MOEBENCH_BOUNDS(kThreads, 2)
    multiply_tile(MOEBENCH_GRID_CONSTANT gpu::TensorMap x,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap first,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap second,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap third, Parts parts, int num_tokens) {
  auto* stages = reinterpret_cast<Stage*>(gpu::dynamic_shared());
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
  if (threadIdx.x == 0) {
    gpu::init_ring(full, empty, kStages, 1, kGroups * kGroupThreads / gpu::kWarp);
  }
  gpu::sync_threads();

  const Part& part = part_of_block(parts, static_cast<int>(blockIdx.x));
  const Weight& weight = part.weight;
  const gpu::TensorMap& weights = &part == &parts.part[0]   ? first
                                  : &part == &parts.part[1] ? second
                                                            : third;
  const Tile tile =
      tile_of_block(static_cast<int>(blockIdx.x) - part.first_block, num_tokens, weight.rows);
  const int column_tiles = (weight.cols + kCols - 1) / kCols;
  if (threadIdx.x >= kGroups * kGroupThreads) {
    if (gpu::lane_id() == 0) copy_tiles(stages, full, empty, x, weights, tile, column_tiles);
    return;
  }

  const int group_token = gpu::warp_id() / 4 * kGroupTokens;
  float sums[kTile / 2];
  const auto hand_back = [&](int column_tile) {
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[column_tile % kStages]);
  };
  for (int c = 0; c < column_tiles; ++c) {
    const Stage& stage = stages[c % kStages];
    gpu::mbarrier_wait(&full[c % kStages], static_cast<unsigned>(c / kStages) % 2);
    const auto* token_tile = reinterpret_cast<const unsigned char*>(stage.x + group_token * kCols);
    const auto* row_tile = reinterpret_cast<const unsigned char*>(stage.weights);
    gpu::wgmma_fence(sums);
    MOEBENCH_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      gpu::wgmma_bf16(sums, gpu::wgmma_descriptor(token_tile + step * kStepBytes),
                      gpu::wgmma_descriptor(row_tile + step * kStepBytes), c > 0 || step > 0);
    }
    gpu::wgmma_commit();
    gpu::wgmma_wait<1>(sums);  // the products of the tile before
    if (c > 0) hand_back(c - 1);
  }
  gpu::wgmma_wait<0>(sums);

  const int token = tile.first_token + group_token + gpu::warp_id() % 4 * 16 + gpu::lane_id() / 4;
  MOEBENCH_UNROLL
  for (int j = 0; j < kTile / 8; ++j) {
    const int row = tile.first_row + 8 * j + gpu::lane_id() % 4 * 2;  // and the next
    const RowPair pair = load_row_pair<Format::kBf16>(weight, part.bias, row);
    store_row_pair(part.out, num_tokens, weight.rows, token, row, pair, sums[4 * j],
                   sums[4 * j + 1]);
    store_row_pair(part.out, num_tokens, weight.rows, token + 8, row, pair, sums[4 * j + 2],
                   sums[4 * j + 3]);
  }
}

// Tiles of a [rows, cols] matrix of bf16.
gpu::TensorMap tiles_of(const void* data, std::int64_t rows, std::int64_t cols) {
  return gpu::device().make_tensor_map({.data = data,
                                        .element_bytes = 2,
                                        .rows = rows,
                                        .columns = cols,
                                        .row_bytes = 2 * cols,
                                        .tile_rows = kTile,
                                        .tile_columns = kCols,
                                        .swizzle = 128});
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::needs_wgmma();
  if (!reason.empty()) return reason;
  if (problem.format != Format::kBf16) {
    return fmt::format("weights must be bf16; they are {}", format_name(problem.format));
  }
  return tiles_unsupported(problem);
}

void run(const Args& args, Context& context) {
  const std::int64_t cols = args.weight.cols;
  const std::int64_t num_tokens = args.x.shape[0];
  // Each part has so many blocks for each tile of tokens.
  Parts parts = device_parts(args, kTile);
  const std::int64_t token_tiles = (num_tokens + kTile - 1) / kTile;
  for (Part& part : parts.part) part.first_block *= static_cast<int>(token_tiles);
  const auto weights = [&](int i) {
    const Weight& weight = parts.part[i < parts.count ? i : 0].weight;
    return tiles_of(weight.data, weight.rows, cols);
  };
  Workspace workspace(context.workspace);
  const uint4* rounded = rounded_x<Format::kBf16>(args, take_rounded(workspace, num_tokens, cols),
                                                  context.stream, "linear/cuda_wgmma_bf16, inputs");
  gpu::launch(multiply_tile,
              {.grid = {static_cast<unsigned>(parts.blocks * token_tiles)},
               .block = kThreads,
               .shared_bytes = kStages * sizeof(Stage),
               .stream = context.stream},
              "linear/cuda_wgmma_bf16", tiles_of(rounded, num_tokens, cols), weights(0), weights(1),
              weights(2), parts, static_cast<int>(num_tokens));
}

}  // namespace

const Variant cuda_wgmma_bf16 = {
    .name = "cuda_wgmma_bf16",
    .backend = "cuda",
    .summary = "tiles of 128 tokens by 128 rows through wgmma, copied by TMA (Hopper)",
    .rounds = "activations: bf16, accumulate: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported = unsupported,
    .workspace_bytes = rounded_bytes,
    .run = run,
    .runs_several = true,
    .knows_bf16 = has_bf16_weights,
};

}  // namespace moebench::linear
