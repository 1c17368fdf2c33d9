// cuda_chain_bf16: the bits of cuda_wgmma_bf16 for up to 64 tokens, on Hopper; more run as that. So
// one choice for every number of tokens, whose results do not depend on it.
//
// An output is one chain of products over columns, 16 at a time and in order, into one accumulator:
// by mma.sync here, by wgmma there. On an H200 the two give the same bits (16,384 sums over 1,024
// columns of random numbers, for 8 to 256 columns of wgmma). A chain cannot be split, so a block
// has its rows all at once instead of one after the other: with as many rows a tile as make one
// tile a block, if that is at most 64. A warp has 16 rows and as many chains as there are groups of
// 8 tokens.
//
// Two threads in turns ask for stages of a ring, each a tile's rows by 64 columns in one box, ahead
// and while the kernel before still runs. Up to 16 tokens' x is rounded to bf16 into shared memory
// by all warps of the block; more are rounded by a small kernel before this one, and come with the
// stages. While a stage is multiplied, a warp loads its part of the next to registers.
//
// Counted, not measured: a tile of 40 rows (query, key and value of gpt-oss by 132 SMs) arrives in
// 275 cycles a stage at 4.3 TB/s, and a chain has 4 products a stage, each some 33 cycles.
#include <algorithm>
#include <limits>

#include "kernels/linear/tiles.cuh"

namespace moebench::linear {
namespace {

constexpr int kMostTokens = 64;
constexpr int kMostRows = 64;  // of a tile
constexpr int kWarpRows = 16;
constexpr int kMostChainWarps = kMostRows / kWarpRows;
constexpr int kSteps = kCols / 16;
constexpr int kMostStages = 48;
constexpr int kRowBytes = 2 * kCols;  // of a stage's row
constexpr int kGroupTokens = 8;
constexpr int kGroupBytes = kGroupTokens * kRowBytes;
constexpr int kBarrierBytes = 1024;
constexpr int kStagedBarrier = 1;
// More under way makes what else an SM asks for wait: row_stream.cuh.
constexpr int kBytesUnderWay = 48 << 10;

// kGroups: of 8 tokens.
template <int kGroups>
constexpr bool kComesWithStages = kGroups > 2;
// Warps that multiply come first, and those that copy last: asking for a stage of few rows takes
// one of them about as long as it takes to arrive. Where x is staged all others do that.
constexpr int kProducers = 2;
template <int kGroups>
constexpr int kWarps = kComesWithStages<kGroups> ? kMostChainWarps + kProducers : 12;

// A stage is the weights' box, up to a multiple of 1,024 bytes, and what comes with it of x.
MOEBENCH_HOST_DEVICE int weight_bytes(int tile_rows) {
  return (tile_rows * kRowBytes + 1023) / 1024 * 1024;
}
template <int kGroups>
MOEBENCH_HOST_DEVICE int stage_bytes(int tile_rows) {
  return weight_bytes(tile_rows) + (kComesWithStages<kGroups> ? kGroups * kGroupBytes : 0);
}
MOEBENCH_HOST_DEVICE int num_column_tiles(int cols) { return (cols + kCols - 1) / kCols; }
// What is staged of x, in tiles of 64 columns.
template <int kGroups>
MOEBENCH_HOST_DEVICE int inputs_bytes(int cols) {
  return kComesWithStages<kGroups> ? 0 : num_column_tiles(cols) * kGroups * kGroupBytes;
}

// Thread `thread` of `threads`: rounds x, as the tensor map of a stage's x would have it.
template <int kGroups>
MOEBENCH_DEVICE void stage_inputs(const float* x, int num_tokens, int cols, int thread, int threads,
                                  unsigned char* inputs) {
  constexpr int kAtOnce = 4;
  const int chunks = num_column_tiles(cols) * (kCols / 8);
  const int count = num_tokens * chunks;
  for (int first = thread; first < count; first += kAtOnce * threads) {
    uint4 values[kAtOnce];
    MOEBENCH_UNROLL
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * threads;
      const int token = i / chunks;
      const int column = i % chunks * 8;
      values[j] = read_inputs<Format::kBf16>(x + static_cast<std::int64_t>(token) * cols + column,
                                             i < count && column < cols);
    }
    MOEBENCH_UNROLL
    for (int j = 0; j < kAtOnce; ++j) {
      const int i = first + j * threads;
      if (i >= count) break;
      const int token = i / chunks;
      const int chunk = i % chunks;
      unsigned char* row = inputs + (chunk / 8 * kGroups * kGroupTokens + token) * kRowBytes;
      *reinterpret_cast<uint4*>(row + (chunk % 8 ^ token % 8) * 16) = values[j];
    }
  }
}

// A place in the ring, and the parity of its turn.
struct Turn {
  int stages;
  int stage = 0;
  unsigned parity = 0;

  MOEBENCH_DEVICE void advance(int by) {
    stage += by;
    if (stage >= stages) {
      stage -= stages;
      parity ^= 1;
    }
  }
};

// What a warp multiplies of a stage.
template <int kGroups>
struct Fragments {
  std::uint32_t weights[kSteps][4];
  std::uint32_t inputs[kGroups][kSteps / 2][4];  // of two steps
};

template <int kGroups>
__global__ void MOEBENCH_BOUNDS(kWarps<kGroups>* gpu::kWarp, 1)
    multiply_chains(MOEBENCH_GRID_CONSTANT gpu::TensorMap first,
                    MOEBENCH_GRID_CONSTANT gpu::TensorMap second,
                    MOEBENCH_GRID_CONSTANT gpu::TensorMap third,
                    MOEBENCH_GRID_CONSTANT gpu::TensorMap rounded, Parts parts, const float* x,
                    int num_tokens, int tile_rows, int stages) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kMostStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kMostStages]);
  constexpr bool kWithStages = kComesWithStages<kGroups>;
  constexpr int kThreads = kWarps<kGroups> * gpu::kWarp;
  const int chain_warps = (tile_rows + kWarpRows - 1) / kWarpRows;
  if (threadIdx.x == 0) gpu::init_ring(full, empty, stages, 1, chain_warps);
  gpu::sync_threads();
  gpu::let_next_kernel_start();

  const int cols = parts.part[0].weight.cols;
  const int column_tiles = num_column_tiles(cols);
  const int of_stage = stage_bytes<kGroups>(tile_rows);
  unsigned char* ring = gpu::dynamic_shared();
  unsigned char* inputs = ring + stages * of_stage;
  const auto blocks = static_cast<int>(gridDim.x);
  const auto block = static_cast<int>(blockIdx.x);
  const int tiles = (parts.blocks - block + blocks - 1) / blocks;
  const int count = tiles * column_tiles;  // stages, one after the other

  const int producer = gpu::warp_id() - (kWarps<kGroups> - kProducers);
  if (producer >= 0) {
    if (gpu::lane_id() != 0) return;
    // Of x nothing until the kernel before has ended.
    const auto load_inputs = [&](int column_tile, int stage) {
      gpu::load_tile_async(ring + stage * of_stage + weight_bytes(tile_rows), rounded,
                           column_tile * kCols, 0, &full[stage]);
    };
    // Even, so that a producer waits for stages of its own.
    const int most_under_way =
        max(min(stages, kBytesUnderWay / (tile_rows * kRowBytes)) / kProducers * kProducers,
            kProducers);
    const int before_inputs = kWithStages ? min(most_under_way, count) : 0;
    const auto wait_for_inputs = [&] {
      gpu::wait_for_previous_kernel();
      for (int i = producer; i < before_inputs; i += kProducers) load_inputs(i % column_tiles, i);
    };
    Turn turn{stages};
    turn.advance(producer);
    Turn landed = turn;
    int tile = block;
    int column_tile = producer;
    for (int asked = producer; asked < count; asked += kProducers) {
      if (kWithStages && asked - before_inputs >= 0 && asked - before_inputs < kProducers) {
        wait_for_inputs();
      }
      for (; column_tile >= column_tiles; column_tile -= column_tiles) tile += blocks;
      if (asked >= most_under_way) {
        gpu::mbarrier_wait(&full[landed.stage], landed.parity);
        landed.advance(kProducers);
      }
      gpu::mbarrier_wait(&empty[turn.stage], turn.parity ^ 1);
      gpu::mbarrier_arrive_expect_bytes(
          &full[turn.stage], tile_rows * kRowBytes + (kWithStages ? kGroups * kGroupBytes : 0));
      const Part& part = part_of_block(parts, tile);
      const gpu::TensorMap& weights = &part == &parts.part[0]   ? first
                                      : &part == &parts.part[1] ? second
                                                                : third;
      gpu::load_tile_async(ring + turn.stage * of_stage, weights, column_tile * kCols,
                           (tile - part.first_block) * tile_rows, &full[turn.stage]);
      if (kWithStages && asked >= before_inputs) load_inputs(column_tile, turn.stage);
      turn.advance(kProducers);
      column_tile += kProducers;
    }
    if (kWithStages && count - before_inputs <= producer) wait_for_inputs();
    return;
  }

  if constexpr (!kWithStages) {
    constexpr int kStaging = kThreads - kProducers * gpu::kWarp;
    gpu::wait_for_previous_kernel();
    stage_inputs<kGroups>(x, num_tokens, cols, static_cast<int>(threadIdx.x), kStaging, inputs);
    if (gpu::warp_id() >= chain_warps) return gpu::arrive_named(kStagedBarrier, kStaging);
    gpu::sync_named(kStagedBarrier, kStaging);
  } else {
    if (gpu::warp_id() >= chain_warps) return;
    gpu::wait_for_previous_kernel();
  }

  // The addresses of the lane's rows of 16 bytes: of weights, those past the tile's end repeat the
  // last; of x likewise where it was staged, and zeros where it came by a tensor map.
  const int lane = gpu::lane_id();
  const int weight_row = min(gpu::warp_id() * kWarpRows + lane % 16, tile_rows - 1);
  const auto chunk_of = [](int row, int chunk) { return row * kRowBytes + (chunk ^ row % 8) * 16; };
  using Mine = Fragments<kGroups>;
  const auto load_step = [&](Mine& to, int stage, int column_tile, int step) {
    const unsigned char* from = ring + stage * of_stage;
    gpu::load_matrices(to.weights[step], from + chunk_of(weight_row, 2 * step + lane / 16));
    if (step % 2 != 0) return;
    const unsigned char* tokens =
        kWithStages ? from + weight_bytes(tile_rows) : inputs + column_tile * kGroups * kGroupBytes;
    MOEBENCH_UNROLL
    for (int n = 0; n < kGroups; ++n) {
      int token = n * kGroupTokens + lane % 8;
      if (!kWithStages) token = min(token, num_tokens - 1);
      gpu::load_matrices(to.inputs[n][step / 2], tokens + chunk_of(token, 2 * step + lane / 8));
    }
  };

  float sums[kGroups][4] = {};
  float biases[2] = {};
  int tile = block;
  int column_tile = 0;
  Turn next{stages};
  // Of the lane's two rows, where they are of the part.
  const auto row_of = [&](const Part& part, int tile_of_part, int h) {
    const int in_tile = gpu::warp_id() * kWarpRows + lane / 4 + 8 * h;
    const int row = tile_of_part * tile_rows + in_tile;
    return in_tile < tile_rows && row < part.weight.rows ? row : -1;
  };
  const auto begin_tile = [&] {
    const Part& part = part_of_block(parts, tile);
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(part, tile - part.first_block, h);
      biases[h] = part.bias == nullptr || row < 0 ? 0.0F : gpu::load_constant(part.bias + row);
    }
  };
  const auto end_tile = [&] {
    const Part& part = part_of_block(parts, tile);
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int row = row_of(part, tile - part.first_block, h);
      MOEBENCH_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        MOEBENCH_UNROLL
        for (int c = 0; c < 2; ++c) {
          const int token = n * kGroupTokens + lane % 4 * 2 + c;
          if (row >= 0 && token < num_tokens) {
            part.out[static_cast<std::int64_t>(token) * part.weight.rows + row] =
                sums[n][2 * h + c] + biases[h];
          }
          sums[n][2 * h + c] = 0;
        }
      }
    }
  };
  const auto release = [&] {
    gpu::sync_warp();
    if (lane == 0) gpu::mbarrier_arrive(&empty[next.stage]);
    next.advance(1);
  };
  // Multiplies a stage, and loads the one after it if there is one: between products, which wait
  // for each other.
  const auto multiply = [&](const Mine& now, Mine& after, bool more) {
    if (column_tile == 0) begin_tile();
    const int next_column_tile = column_tile + 1 == column_tiles ? 0 : column_tile + 1;
    MOEBENCH_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      MOEBENCH_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        const auto& in = now.inputs[n][step / 2];
        gpu::multiply_bf16(sums[n], now.weights[step], {in[step % 2 * 2], in[step % 2 * 2 + 1]});
      }
      if (!more) continue;
      if (step == 0) gpu::mbarrier_wait(&full[next.stage], next.parity);
      load_step(after, next.stage, next_column_tile, step);
      if (step == kSteps - 1) release();
    }
    column_tile = next_column_tile;
    if (column_tile == 0) {
      end_tile();
      tile += blocks;
    }
  };

  Mine fragments[2];
  gpu::mbarrier_wait(&full[0], 0);
  MOEBENCH_UNROLL
  for (int step = 0; step < kSteps; ++step) load_step(fragments[0], 0, 0, step);
  release();
  MOEBENCH_NO_UNROLL
  for (int s = 0; s < count; s += 2) {
    multiply(fragments[0], fragments[1], s + 1 < count);
    if (s + 1 < count) multiply(fragments[1], fragments[0], s + 2 < count);
  }
}

// Rows of a tile: those with which the block that has most has fewest; but from two tiles a block
// on at least kManyRows, or chains do not keep pace with memory. All of 16 and more.
int choose_rows(const Args& args) {
  constexpr int kFewRows = 16;
  constexpr int kManyRows = 48;
  const int num_sms = gpu::device_info().num_sms;
  int best = kMostRows;
  int least = std::numeric_limits<int>::max();
  for (int rows = kMostRows; rows >= kFewRows; --rows) {
    const int tiles = (device_parts(args, rows).blocks + num_sms - 1) / num_sms;
    if (tiles > 1 && rows < kManyRows) break;
    if (tiles * rows < least) {
      least = tiles * rows;
      best = rows;
    }
  }
  return best;
}

// Stages of the ring: all that fit. 0: not even four do.
template <int kGroups>
int choose_stages(int tile_rows, std::int64_t cols) {
  const auto most = static_cast<int>(gpu::device_info().shared_bytes_per_block) - kBarrierBytes;
  const int stages = std::min(
      (most - inputs_bytes<kGroups>(static_cast<int>(cols))) / stage_bytes<kGroups>(tile_rows),
      kMostStages);
  return stages >= 4 ? stages : 0;
}

// Calls with_groups(constant) with the number of groups of tokens that a kernel is for.
template <class WithGroups>
auto with_groups(std::int64_t num_tokens, WithGroups&& call) {
  if (num_tokens <= 8) return call(std::integral_constant<int, 1>());
  if (num_tokens <= 16) return call(std::integral_constant<int, 2>());
  if (num_tokens <= 32) return call(std::integral_constant<int, 4>());
  return call(std::integral_constant<int, 8>());
}

bool takes(std::int64_t num_tokens, std::int64_t cols) {
  return num_tokens <= kMostTokens && cols <= std::numeric_limits<int>::max() / 64 &&
         with_groups(num_tokens,
                     [&](auto groups) { return choose_stages<groups()>(kMostRows, cols) > 0; });
}

gpu::TensorMap boxes_of(const void* data, std::int64_t rows, std::int64_t cols, int box_rows) {
  return gpu::device().make_tensor_map({.data = data,
                                        .element_bytes = 2,
                                        .rows = rows,
                                        .columns = cols,
                                        .row_bytes = 2 * cols,
                                        .tile_rows = box_rows,
                                        .tile_columns = kCols,
                                        .swizzle = 128});
}

template <int kGroups>
void start(const Args& args, Context& context) {
  const int rows = choose_rows(args);
  const Parts parts = device_parts(args, rows);
  const std::int64_t cols = args.weight.cols;
  const std::int64_t num_tokens = args.x.shape[0];
  const auto weights = [&](int i) {
    const Weight& weight = parts.part[i < parts.count ? i : 0].weight;
    return boxes_of(weight.data, weight.rows, cols, rows);
  };
  gpu::TensorMap rounded_boxes = weights(0);  // not read where x is staged
  if constexpr (kComesWithStages<kGroups>) {
    Workspace workspace(context.workspace);
    uint4* rounded = take_rounded(workspace, num_tokens, cols);
    enqueue_rounding<Format::kBf16>(args.x, rounded, context.stream,
                                    "linear/cuda_chain_bf16, inputs");
    rounded_boxes = boxes_of(rounded, num_tokens, cols, kGroups * kGroupTokens);
  }
  const int stages = choose_stages<kGroups>(rows, cols);
  gpu::launch(
      multiply_chains<kGroups>,
      {.grid = {static_cast<unsigned>(std::min(gpu::device_info().num_sms, parts.blocks))},
       .block = kWarps<kGroups> * gpu::kWarp,
       .shared_bytes = static_cast<std::size_t>(stages * stage_bytes<kGroups>(rows) +
                                                inputs_bytes<kGroups>(static_cast<int>(cols))),
       .stream = context.stream,
       .overlap_previous = true,
       .shared_percent = gpu::shared_percent_beside_streams(num_tokens)},
      "linear/cuda_chain_bf16", weights(0), weights(1), weights(2), rounded_boxes, parts,
      args.x.data, static_cast<int>(num_tokens), rows, stages);
}

void run(const Args& args, Context& context) {
  const std::int64_t num_tokens = args.x.shape[0];
  if (!takes(num_tokens, args.weight.cols)) return cuda_wgmma_bf16.run(args, context);
  with_groups(num_tokens, [&](auto groups) { start<groups()>(args, context); });
}

}  // namespace

const Variant cuda_chain_bf16 = {
    .name = "cuda_chain_bf16",
    .backend = "cuda",
    .summary = "up to 64 tokens: one chain of mma.sync an output, with cuda_wgmma_bf16's bits",
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
