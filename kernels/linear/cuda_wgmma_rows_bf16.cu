// cuda_wgmma_rows_bf16: the bits of cuda_wgmma_bf16 for up to 16 tokens at the speed of memory. One
// choice for every number of tokens whose results do not depend on it, if wgmma's sums do not
// depend on its number of columns, which the PTX manual does not promise.
//
// Weights go from memory through a ring in shared memory to wgmma without passing through a
// register, so there is hardly an instruction for them: one warp asks for tiles of kRows rows and
// 64 columns, as far ahead as the ring is long and while the kernel before still runs; four others
// multiply. As there, tokens are wgmma's M side: x is rounded to bf16 into shared memory once a
// block, all of its columns, and only the first warp has rows of M that are tokens. Those of the
// others read whatever follows in shared memory, and are not used.
//
// Blocks walk over tiles; two fit on a multiprocessor where shared memory allows. Up to three
// layers of the same x (query, key, value) are one launch.
#include <algorithm>

#include "kernels/linear/tiles.cuh"

namespace moebench::linear {
namespace {

constexpr int kMultiplyingThreads = 128;
constexpr int kThreads = kMultiplyingThreads + gpu::kWarp;  // the last warp copies
constexpr int kMostTokens = 16;
constexpr int kMostStages = 24;
constexpr int kGroupBytes = 1024;  // of 8 rows and 64 columns
constexpr int kBarrierBytes = 1024;
constexpr int kMultipliersBarrier = 1;

// Dynamic shared memory: x by tiles of 64 columns and 8 kGroups tokens; as much again as makes the
// last of them the 64 rows that wgmma reads; and the ring.
template <int kGroups>
MOEBENCH_HOST_DEVICE int inputs_bytes(int column_tiles) {
  return (column_tiles * kGroups + 8 - kGroups) * kGroupBytes;
}
template <int kRows>
constexpr int kStageBytes = kRows * 2 * kCols;

template <int kGroups>
MOEBENCH_DEVICE void stage_inputs(const float* x, int num_tokens, int cols, int column_tiles,
                                  unsigned char* inputs) {
  const int chunks = column_tiles * (kCols / 8);
  for (int i = static_cast<int>(threadIdx.x); i < num_tokens * chunks; i += kMultiplyingThreads) {
    const int token = i / chunks;
    const int chunk = i % chunks;
    const int r = token % 8;
    unsigned char* row = inputs + (chunk / 8 * kGroups + token / 8) * kGroupBytes + r * 128;
    *reinterpret_cast<uint4*>(row + (chunk % 8 ^ r) * 16) = read_inputs<Format::kBf16>(
        x + static_cast<std::int64_t>(token) * cols + chunk * 8, chunk * 8 < cols);
  }
}

template <int kRows, int kGroups>
__global__ void MOEBENCH_BOUNDS(kThreads, 2)
    multiply_rows(MOEBENCH_GRID_CONSTANT gpu::TensorMap first,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap second,
                  MOEBENCH_GRID_CONSTANT gpu::TensorMap third, Parts parts, const float* x,
                  int num_tokens, int stages) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kMostStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kMostStages]);
  if (threadIdx.x == 0) {
    gpu::init_ring(full, empty, stages, 1, kMultiplyingThreads / gpu::kWarp);
  }
  gpu::sync_threads();
  gpu::let_next_kernel_start();

  const int cols = parts.part[0].weight.cols;
  const int column_tiles = (cols + kCols - 1) / kCols;
  unsigned char* inputs = gpu::dynamic_shared();
  unsigned char* ring = inputs + inputs_bytes<kGroups>(column_tiles);
  int stage = 0;
  unsigned parity = 0;
  const auto advance = [&] {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  };
  const auto blocks = static_cast<int>(gridDim.x);

  if (threadIdx.x >= kMultiplyingThreads) {
    if (gpu::lane_id() != 0) return;
    for (int tile = static_cast<int>(blockIdx.x); tile < parts.blocks; tile += blocks) {
      const Part& part = part_of_block(parts, tile);
      const gpu::TensorMap& weights = &part == &parts.part[0]   ? first
                                      : &part == &parts.part[1] ? second
                                                                : third;
      for (int c = 0; c < column_tiles; ++c) {
        gpu::mbarrier_wait(&empty[stage], parity ^ 1);
        gpu::mbarrier_arrive_expect_bytes(&full[stage], kStageBytes<kRows>);
        gpu::load_tile_async(ring + stage * kStageBytes<kRows>, weights, c * kCols,
                             (tile - part.first_block) * kRows, &full[stage]);
        advance();
      }
    }
    return;
  }

  gpu::wait_for_previous_kernel();
  stage_inputs<kGroups>(x, num_tokens, cols, column_tiles, inputs);
  gpu::fence_async_proxy();
  gpu::sync_named(kMultipliersBarrier, kMultiplyingThreads);

  const auto hand_back = [&](int which) {
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[which]);
  };
  for (int tile = static_cast<int>(blockIdx.x); tile < parts.blocks; tile += blocks) {
    float sums[kRows / 2];
    int last = 0;
    MOEBENCH_NO_UNROLL
    for (int c = 0; c < column_tiles; ++c) {
      gpu::mbarrier_wait(&full[stage], parity);
      const unsigned char* tokens = inputs + c * kGroups * kGroupBytes;
      const unsigned char* rows = ring + stage * kStageBytes<kRows>;
      gpu::wgmma_fence(sums);
      MOEBENCH_UNROLL
      for (int step = 0; step < kCols / 16; ++step) {
        gpu::wgmma_bf16(sums, gpu::wgmma_descriptor(tokens + step * 32),
                        gpu::wgmma_descriptor(rows + step * 32), c > 0 || step > 0);
      }
      gpu::wgmma_commit();
      gpu::wgmma_wait<1>(sums);
      if (c > 0) hand_back(last);
      last = stage;
      advance();
    }
    gpu::wgmma_wait<0>(sums);
    hand_back(last);
    if (gpu::warp_id() > 0) continue;
    const Part& part = part_of_block(parts, tile);
    const int token = gpu::lane_id() / 4;
    MOEBENCH_UNROLL
    for (int j = 0; j < kRows / 8; ++j) {
      const int row = (tile - part.first_block) * kRows + 8 * j + gpu::lane_id() % 4 * 2;
      const RowPair pair = load_row_pair<Format::kBf16>(part.weight, part.bias, row);
      store_row_pair(part.out, num_tokens, part.weight.rows, token, row, pair, sums[4 * j],
                     sums[4 * j + 1]);
      if (kGroups > 1) {
        store_row_pair(part.out, num_tokens, part.weight.rows, token + 8, row, pair,
                       sums[4 * j + 2], sums[4 * j + 3]);
      }
    }
  }
}

// Stages of the ring beside the inputs: if there are enough, as many as let two blocks share a
// multiprocessor. 0: not even four fit.
template <int kRows, int kGroups>
int choose_stages(int cols) {
  const auto most = static_cast<int>(gpu::device_info().shared_bytes_per_block) - kBarrierBytes;
  const int inputs = inputs_bytes<kGroups>((cols + kCols - 1) / kCols);
  const int beside_another = (most / 2 - kBarrierBytes - inputs) / kStageBytes<kRows>;
  const int alone = (most - inputs) / kStageBytes<kRows>;
  const int stages = std::min(beside_another >= 8 ? beside_another : alone, kMostStages);
  return stages >= 4 ? stages : 0;
}

bool takes(std::int64_t num_tokens, std::int64_t cols) {
  if (num_tokens > kMostTokens) return false;
  const auto c = static_cast<int>(cols);
  return (num_tokens <= 8 ? choose_stages<32, 1>(c) : choose_stages<32, 2>(c)) > 0;
}

template <int kRows, int kGroups>
void start(const Args& args, gpu::Stream stream) {
  const Parts parts = device_parts(args, kRows);
  const int cols = parts.part[0].weight.cols;
  const auto weights = [&](int i) {
    const Weight& weight = parts.part[i < parts.count ? i : 0].weight;
    return gpu::device().make_tensor_map({.data = weight.data,
                                          .element_bytes = 2,
                                          .rows = weight.rows,
                                          .columns = cols,
                                          .row_bytes = 2 * std::int64_t{cols},
                                          .tile_rows = kRows,
                                          .tile_columns = kCols,
                                          .swizzle = 128});
  };
  const int stages = choose_stages<kRows, kGroups>(cols);
  gpu::launch(
      multiply_rows<kRows, kGroups>,
      {.grid = {static_cast<unsigned>(std::min(2 * gpu::device_info().num_sms, parts.blocks))},
       .block = kThreads,
       .shared_bytes = static_cast<std::size_t>(inputs_bytes<kGroups>((cols + kCols - 1) / kCols) +
                                                stages * kStageBytes<kRows>),
       .stream = stream,
       .overlap_previous = true},
      "linear/cuda_wgmma_rows_bf16", weights(0), weights(1), weights(2), parts, args.x.data,
      static_cast<int>(args.x.shape[0]), stages);
}

void run(const Args& args, Context& context) {
  const std::int64_t num_tokens = args.x.shape[0];
  if (!takes(num_tokens, args.weight.cols)) return cuda_wgmma_bf16.run(args, context);
  // Tiles of 16 rows where those of 32 would leave multiprocessors without any.
  const bool small = device_parts(args, 32).blocks < gpu::device_info().num_sms;
  if (num_tokens <= 8) {
    small ? start<16, 1>(args, context.stream) : start<32, 1>(args, context.stream);
  } else {
    small ? start<16, 2>(args, context.stream) : start<32, 2>(args, context.stream);
  }
}

}  // namespace

const Variant cuda_wgmma_rows_bf16 = {
    .name = "cuda_wgmma_rows_bf16",
    .backend = "cuda",
    .summary = "up to 16 tokens: weights by TMA straight to wgmma, with cuda_wgmma_bf16's bits",
    .rounds = "activations: bf16, accumulate: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported = [](const Problem& problem) { return cuda_wgmma_bf16.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return cuda_wgmma_bf16.workspace_bytes(problem, num_threads);
        },
    .run = run,
    .runs_several = true,
};

}  // namespace moebench::linear
