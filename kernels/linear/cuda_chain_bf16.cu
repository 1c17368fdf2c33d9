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
// Four warps ask for stages of a ring, each a tile's rows by 256 columns in four boxes, ahead and
// while the kernel before still runs. Up to 16 tokens' x is rounded to bf16 into shared memory by
// all warps of the block; more come with the stages, and are rounded by a small kernel before this
// one, unless who made them has done that. While 64 columns are multiplied, a warp loads its part
// of the next to registers.
//
// A warp's products wait for each other, some 33 cycles each, and no other warp of its scheduler
// has anything to do: what it does besides is hidden only if it is little. With stages of 64
// columns, and addresses that the compiler worked out from the thread's number at each load, four
// products of the attention's output of gpt-oss took 630 cycles on an H200, whatever the tokens.
// Now 40 instructions stand between four products and the next. Counted, not measured: those take
// 132 cycles, and the rows of query, key and value (40 a block) arrive in 290 of them at 4.3 TB/s,
// those of the output (22) in 160.
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
constexpr int kBoxes = 4;  // of a stage
constexpr int kMostStages = 16;
constexpr int kRowBytes = 2 * kCols;  // of a box
constexpr int kGroupTokens = 8;
constexpr int kGroupBytes = kGroupTokens * kRowBytes;
constexpr int kBarrierBytes = 1024;
constexpr int kStagedBarrier = 1;
// Less makes memory wait for an SM, more what else the SM asks for: row_stream.cuh, docs/gpu.md.
constexpr int kBytesUnderWay = 64 << 10;

// kGroups: of 8 tokens.
template <int kGroups>
constexpr bool kComesWithStages = kGroups > 2;
// Warps that multiply come first, and those that copy last, each of which has one box of every
// stage. Where x is staged all others do that.
constexpr int kProducers = kBoxes;
template <int kGroups>
constexpr int kWarps = kComesWithStages<kGroups> ? kMostChainWarps + kProducers : 12;

// A stage is the weights' boxes, each up to a multiple of 1,024 bytes, and what comes with them of
// x.
MOEBENCH_HOST_DEVICE int weight_bytes(int tile_rows) {
  return (tile_rows * kRowBytes + 1023) / 1024 * 1024;
}
template <int kGroups>
MOEBENCH_HOST_DEVICE int stage_bytes(int tile_rows) {
  return kBoxes *
         (weight_bytes(tile_rows) + (kComesWithStages<kGroups> ? kGroups * kGroupBytes : 0));
}
MOEBENCH_HOST_DEVICE int num_column_tiles(int cols) { return (cols + kCols - 1) / kCols; }
// What is staged of x, in tiles of 64 columns.
template <int kGroups>
MOEBENCH_HOST_DEVICE int inputs_bytes(int cols) {
  return kComesWithStages<kGroups> ? 0 : num_column_tiles(cols) * kGroups * kGroupBytes;
}

// Thread `thread` of `threads`: rounds x, or takes what is, as the tensor map of a stage's x would
// have it.
template <int kGroups>
MOEBENCH_DEVICE void stage_inputs(const float* x, const uint4* rounded, int num_tokens, int cols,
                                  int thread, int threads, unsigned char* inputs) {
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
      const bool valid = i < count && column < cols;
      const std::int64_t at = static_cast<std::int64_t>(token) * cols + column;
      if (rounded != nullptr) {
        values[j] = valid ? rounded[at / 8] : uint4{0, 0, 0, 0};
      } else {
        values[j] = read_inputs<Format::kBf16>(x + at, valid);
      }
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

  MOEBENCH_DEVICE void advance() {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

// What a warp multiplies at once: of a box.
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
                    MOEBENCH_GRID_CONSTANT gpu::TensorMap rounded_boxes, Parts parts,
                    const float* x, const uint4* rounded, int num_tokens, int tile_rows,
                    int stages) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kMostStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kMostStages]);
  constexpr bool kWithStages = kComesWithStages<kGroups>;
  constexpr int kThreads = kWarps<kGroups> * gpu::kWarp;
  const int chain_warps = (tile_rows + kWarpRows - 1) / kWarpRows;
  if (threadIdx.x == 0) gpu::init_ring(full, empty, stages, kProducers, chain_warps);
  gpu::sync_threads();
  gpu::let_next_kernel_start();

  const int cols = parts.part[0].weight.cols;
  const int column_tiles = num_column_tiles(cols);
  const int of_stage = stage_bytes<kGroups>(tile_rows);
  const int of_box = gpu::keep(weight_bytes(tile_rows));
  unsigned char* ring = gpu::dynamic_shared();
  unsigned char* inputs = ring + stages * of_stage;
  const auto blocks = static_cast<int>(gridDim.x);
  const auto block = static_cast<int>(blockIdx.x);
  const int tiles = (parts.blocks - block + blocks - 1) / blocks;

  const int producer = gpu::warp_id() - (kWarps<kGroups> - kProducers);
  if (producer >= 0) {
    if (gpu::lane_id() != 0) return;
    const int stages_of_tile = (column_tiles + kBoxes - 1) / kBoxes;
    const int count = tiles * stages_of_tile;
    // Of x nothing until the kernel before has ended.
    const auto load_inputs = [&](int column_tile, int stage) {
      if (column_tile >= column_tiles) return;
      gpu::load_tile_async(
          ring + stage * of_stage + kBoxes * of_box + producer * kGroups * kGroupBytes,
          rounded_boxes, column_tile * kCols, 0, &full[stage]);
    };
    const int most_under_way =
        min(stages, max(2, kBytesUnderWay / (kBoxes * tile_rows * kRowBytes)));
    const int before_inputs = kWithStages ? min(most_under_way, count) : 0;
    const auto wait_for_inputs = [&] {
      gpu::wait_for_previous_kernel();
      for (int i = 0; i < before_inputs; ++i) {
        load_inputs(i % stages_of_tile * kBoxes + producer, i);
      }
    };
    Turn turn{stages};
    Turn landed{stages};
    int tile = block;
    int column_tile = producer;
    for (int asked = 0; asked < count; ++asked) {
      if (kWithStages && asked == before_inputs) wait_for_inputs();
      if (asked >= most_under_way) {
        gpu::mbarrier_wait(&full[landed.stage], landed.parity);
        landed.advance();
      }
      gpu::mbarrier_wait(&empty[turn.stage], turn.parity ^ 1);
      if (column_tile < column_tiles) {
        gpu::mbarrier_arrive_expect_bytes(
            &full[turn.stage], tile_rows * kRowBytes + (kWithStages ? kGroups * kGroupBytes : 0));
        const Part& part = part_of_block(parts, tile);
        const gpu::TensorMap& weights = &part == &parts.part[0]   ? first
                                        : &part == &parts.part[1] ? second
                                                                  : third;
        gpu::load_tile_async(ring + turn.stage * of_stage + producer * of_box, weights,
                             column_tile * kCols, (tile - part.first_block) * tile_rows,
                             &full[turn.stage]);
      } else {  // the tile's last stage has fewer boxes
        gpu::mbarrier_arrive(&full[turn.stage]);
      }
      if (kWithStages && asked >= before_inputs) load_inputs(column_tile, turn.stage);
      turn.advance();
      column_tile += kBoxes;
      if (column_tile - producer < column_tiles) continue;
      column_tile = producer;
      tile += blocks;
    }
    if (kWithStages && count == before_inputs) wait_for_inputs();
    return;
  }

  if constexpr (!kWithStages) {
    constexpr int kStaging = kThreads - kProducers * gpu::kWarp;
    gpu::wait_for_previous_kernel();
    stage_inputs<kGroups>(x, rounded, num_tokens, cols, static_cast<int>(threadIdx.x), kStaging,
                          inputs);
    if (gpu::warp_id() >= chain_warps) return gpu::arrive_named(kStagedBarrier, kStaging);
    gpu::sync_named(kStagedBarrier, kStaging);
  } else {
    if (gpu::warp_id() >= chain_warps) return;
    gpu::wait_for_previous_kernel();
  }

  // Where the lane's rows of 16 bytes lie, in a box of weights and in one of x: rows of weights
  // past the tile's end repeat the last; those of x likewise where it was staged, and are zeros
  // where it came by a tensor map.
  const int lane = gpu::keep(gpu::lane_id());
  const auto chunk_of = [](int row, int chunk) { return row * kRowBytes + (chunk ^ row % 8) * 16; };
  constexpr int kInputRows = kWithStages ? 1 : kGroups;  // of a lane; others lie behind the first
  int weights_at[kSteps];
  int inputs_at[kInputRows][kSteps / 2];
  MOEBENCH_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    const int row = min(gpu::warp_id() * kWarpRows + lane % 16, tile_rows - 1);
    weights_at[step] = gpu::keep(chunk_of(row, 2 * step + lane / 16));
    if (step % 2 != 0) continue;
    MOEBENCH_UNROLL
    for (int n = 0; n < kInputRows; ++n) {
      int token = n * kGroupTokens + lane % 8;
      if (!kWithStages) token = min(token, num_tokens - 1);
      inputs_at[n][step / 2] = gpu::keep(chunk_of(token, 2 * step + lane / 8));
    }
  }
  // The box that is loaded next, of the stage whose turn it is, and where it lies.
  Turn next{stages};
  int next_box = 0;
  int next_column_tile = 0;
  const unsigned char* next_weights = ring;
  const unsigned char* next_inputs = kWithStages ? ring + kBoxes * of_box : inputs;
  using Mine = Fragments<kGroups>;
  const auto load_step = [&](Mine& to, int step) {
    gpu::load_matrices(to.weights[step], next_weights + weights_at[step]);
    if (step % 2 != 0) return;
    MOEBENCH_UNROLL
    for (int n = 0; n < kGroups; ++n) {
      const int row = n % kInputRows;
      gpu::load_matrices(to.inputs[n][step / 2],
                         next_inputs + inputs_at[row][step / 2] + (n - row) * kGroupBytes);
    }
  };
  const auto begin_loading = [&] {
    if (next_box == 0) gpu::mbarrier_wait(&full[next.stage], next.parity);
  };
  const auto end_loading = [&] {
    const bool is_last = ++next_column_tile == column_tiles;
    next_weights += of_box;
    next_inputs += kGroups * kGroupBytes;
    if (++next_box < kBoxes && !is_last) return;
    gpu::sync_warp();
    if (lane == 0) gpu::mbarrier_arrive(&empty[next.stage]);
    next.advance();
    next_box = 0;
    next_weights = ring + next.stage * of_stage;
    if (kWithStages) next_inputs = next_weights + kBoxes * of_box;
    if (!is_last) return;
    next_column_tile = 0;
    if (!kWithStages) next_inputs = inputs;
  };

  float sums[kGroups][4] = {};
  float biases[2] = {};
  int tile = block;
  int column_tile = 0;
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
  // Multiplies a box, and loads the one after it if there is one: between products, which wait for
  // each other.
  const auto multiply = [&](const Mine& now, Mine& after, bool more) {
    if (column_tile == 0) begin_tile();
    MOEBENCH_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      MOEBENCH_UNROLL
      for (int n = 0; n < kGroups; ++n) {
        const auto& in = now.inputs[n][step / 2];
        gpu::multiply_bf16(sums[n], now.weights[step], {in[step % 2 * 2], in[step % 2 * 2 + 1]});
      }
      if (!more) continue;
      if (step == 0) begin_loading();
      load_step(after, step);
    }
    if (more) end_loading();
    if (++column_tile < column_tiles) return;
    end_tile();
    column_tile = 0;
    tile += blocks;
  };

  const int count = tiles * column_tiles;  // boxes
  Mine fragments[2];
  begin_loading();
  MOEBENCH_UNROLL
  for (int step = 0; step < kSteps; ++step) load_step(fragments[0], step);
  end_loading();
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

// Stages of the ring: all that fit. 0: not even two do.
template <int kGroups>
int choose_stages(int tile_rows, std::int64_t cols) {
  const auto most = static_cast<int>(gpu::device_info().shared_bytes_per_block) - kBarrierBytes;
  const int stages = std::min(
      (most - inputs_bytes<kGroups>(static_cast<int>(cols))) / stage_bytes<kGroups>(tile_rows),
      kMostStages);
  return stages >= 2 ? stages : 0;
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
    const uint4* rounded =
        rounded_x<Format::kBf16>(args, take_rounded(workspace, num_tokens, cols), context.stream,
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
      args.x.data, reinterpret_cast<const uint4*>(args.rounded.data), static_cast<int>(num_tokens),
      rows, stages);
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
    .knows_bf16 = has_bf16_weights,
};

}  // namespace moebench::linear
