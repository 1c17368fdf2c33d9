// cuda_rows_bf16: for few tokens, by tensor cores: the weight streams through once for up to 64
// tokens, at the cost of a few instructions a weight.
//
// 16 rows of the weight are the A operand of an m16n8k16 product, 8 tokens the B operand. Lane l of
// a warp, with g = l / 4 and t = l % 4, supplies rows g and g + 8 of A and token g of B, each at
// columns 2t, 2t + 1, 2t + 8, 2t + 9 of the 16. Which of the weight's columns those stand for is
// free, as long as A and B agree. So lane t takes 16 contiguous bytes of a row (a "run": 8, 16 or
// 32 columns), decodes them to pairs of bf16 in registers, and hands them out two pairs per
// product; and x is read in the same order. No shuffles, no weights in shared memory.
//
//   step s of a row: | run of t = 0 | run of t = 1 | run of t = 2 | run of t = 3 |
//
// The 8 warps of a block share its rows, each taking every 8th step, with the loads of several
// steps in flight; their sums are added in order. Up to 8 tokens are read as they are; of more,
// a small kernel first makes bf16 in the order in which lanes read them.
//
// The same products in the same order whatever the number of tokens: an output does not depend on
// the batch. Several layers of the same x are one launch, and share what was made of it.
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * gpu::kWarp;
constexpr int kTokens = 8;     // of a product
constexpr int kMostTiles = 8;  // of kTokens, in a block

template <Format kFormat>
constexpr int kStep = 4 * Run<kFormat>::kValues;  // columns

template <Format kFormat>
int num_steps(std::int64_t cols) {
  return static_cast<int>((cols + kStep<kFormat> - 1) / kStep<kFormat>);
}

// prepared[block][step][chunk][tile][lane] for whole blocks of `tiles` tiles and whole steps: one
// thread for each.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads)
    prepare_inputs(const float* x, uint4* prepared, int num_tokens, int cols, int tiles,
                   std::int64_t count) {
  constexpr int kChunks = Run<kFormat>::kChunks;
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int lane = static_cast<int>(i % gpu::kWarp);
  const int tile = static_cast<int>(i / gpu::kWarp % tiles);
  const std::int64_t chunks = i / (gpu::kWarp * tiles);
  const int steps = (cols + kStep<kFormat> - 1) / kStep<kFormat>;
  const int run = static_cast<int>(chunks / kChunks % steps) * 4 + lane % 4;
  const int column = run * Run<kFormat>::kValues + static_cast<int>(chunks % kChunks) * 8;
  const std::int64_t token = (chunks / kChunks / steps * tiles + tile) * kTokens + lane / 4;
  prepared[i] =
      read_inputs<kFormat>(x + token * cols + column, token < num_tokens && column < cols);
}

// Block (rows, tokens): 16 kRowTiles rows by 8 kTiles tokens. More than one tile of tokens comes
// from `prepared`.
template <Format kFormat, int kTiles, int kRowTiles>
__global__ void MOEBENCH_BOUNDS(kThreads, kTiles* kRowTiles > 2 ? 1 : 2)
    multiply_runs(const float* x, const uint4* prepared, Parts parts, int num_tokens) {
  constexpr int kChunks = Run<kFormat>::kChunks;
  constexpr int kRows = 16 * kRowTiles;
  constexpr int kDepth = kRowTiles * Run<kFormat>::kLoads == 1 ? 4 : 2;  // steps in flight
  constexpr int kStride = kRows + 4;  // of partial sums: conflict-free
  MOEBENCH_SHARED(float, partial, [kWarps][kTokens][kStride]);
  const int warp = gpu::warp_id();
  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  const Part& part = part_of_block(parts, static_cast<int>(blockIdx.x));
  const Weight& weight = part.weight;
  const int first_row = (static_cast<int>(blockIdx.x) - part.first_block) * kRows;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens * kTiles;
  const int num_runs = weight.cols / Run<kFormat>::kValues;
  const int steps = (num_runs + 3) / 4;

  gpu::EncodedRow rows[2 * kRowTiles];  // beyond the last row: the last again
  MOEBENCH_UNROLL
  for (int r = 0; r < 2 * kRowTiles; ++r) {
    const int row = first_row + 8 * r + g;
    rows[r] = encoded_row(weight, row < weight.rows ? row : weight.rows - 1);
  }
  Run<kFormat> in_flight[kDepth][2 * kRowTiles];
  const auto load = [&](Run<kFormat>(&to)[2 * kRowTiles], int run) {
    MOEBENCH_UNROLL
    for (int r = 0; r < 2 * kRowTiles; ++r) to[r].load(rows[r], run, run < num_runs);
  };
  MOEBENCH_UNROLL
  for (int d = 0; d < kDepth; ++d) load(in_flight[d], (warp + d * kWarps) * 4 + t);
  // Weights do not come from the kernel before: the first are on their way while it finishes.
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();

  const int token = first_token + g;
  x += static_cast<std::int64_t>(token) * weight.cols;
  prepared += static_cast<std::int64_t>(blockIdx.y) * steps * kChunks * kTiles * gpu::kWarp +
              gpu::lane_id();
  float sums[kRowTiles][kTiles][4] = {};
  for (int first_step = warp; first_step < steps; first_step += kWarps * kDepth) {
    MOEBENCH_UNROLL
    for (int d = 0; d < kDepth; ++d) {
      const int step = first_step + d * kWarps;
      if (step >= steps) break;
      std::uint32_t pairs[2 * kRowTiles][Run<kFormat>::kValues / 2];
      MOEBENCH_UNROLL
      for (int r = 0; r < 2 * kRowTiles; ++r) in_flight[d][r].decode(pairs[r]);
      const int run = step * 4 + t;
      load(in_flight[d], run + kDepth * kWarps * 4);
      MOEBENCH_UNROLL
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        MOEBENCH_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          uint4 inputs;
          if constexpr (kTiles == 1) {
            inputs = read_inputs<kFormat>(x + run * Run<kFormat>::kValues + chunk * 8,
                                          token < num_tokens && run < num_runs);
          } else {
            inputs = prepared[static_cast<std::int64_t>(step) * (kChunks * kTiles * gpu::kWarp) +
                              (chunk * kTiles + tile) * gpu::kWarp];
          }
          MOEBENCH_UNROLL
          for (int r = 0; r < kRowTiles; ++r) {
            const auto& low = pairs[2 * r];  // rows g and g + 8 of a row tile
            const auto& high = pairs[2 * r + 1];
            const int p = 4 * chunk;
            gpu::multiply_bf16(sums[r][tile], {low[p], high[p], low[p + 1], high[p + 1]},
                               {inputs.x, inputs.y});
            gpu::multiply_bf16(sums[r][tile], {low[p + 2], high[p + 2], low[p + 3], high[p + 3]},
                               {inputs.z, inputs.w});
          }
        }
      }
    }
  }

  MOEBENCH_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    if (tile > 0) gpu::sync_threads();  // the sums of the tile before have been read
    MOEBENCH_UNROLL
    for (int r = 0; r < kRowTiles; ++r) {
      MOEBENCH_UNROLL
      for (int i = 0; i < 4; ++i) {
        partial[warp][2 * t + i % 2][16 * r + 8 * (i / 2) + g] = sums[r][tile][i];
      }
    }
    gpu::sync_threads();
    const int r = static_cast<int>(threadIdx.x) % kRows;
    const int column = static_cast<int>(threadIdx.x) / kRows;
    const int row = first_row + r;
    const std::int64_t to = first_token + tile * kTokens + column;
    if (column >= kTokens || row >= weight.rows || to >= num_tokens) continue;
    float sum = 0;
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) sum += partial[w][column][r];
    sum = gpu::multiply(sum, gpu::DeviceFormat<kFormat>::row_factor(encoded_row(weight, row)));
    if (part.bias != nullptr) sum += part.bias[row];
    part.out[to * weight.rows + row] = sum;
  }
}

// Tiles of 16 rows of a block: two where x is long, to read it half as often. Not where 4-bit
// weights of two would not fit in registers.
template <Format kFormat>
constexpr int row_tiles(int tiles) {
  return tiles == 4 || (tiles == 8 && gpu::DeviceFormat<kFormat>::kValues < 32) ? 2 : 1;
}

// Tiles of a block's tokens.
int choose_tiles(std::int64_t num_tokens) {
  int tiles = 1;
  while (tiles < kMostTiles && tiles * kTokens < num_tokens) tiles *= 2;
  return tiles;
}

// Lanes' reads of all tokens, filled up to whole blocks; none if they are read as they are.
template <Format kFormat>
std::int64_t prepared_count(std::int64_t num_tokens, std::int64_t cols) {
  const std::int64_t in_block = choose_tiles(num_tokens) * kTokens;
  if (in_block == kTokens) return 0;
  const std::int64_t tiles = (num_tokens + in_block - 1) / in_block * (in_block / kTokens);
  return tiles * num_steps<kFormat>(cols) * Run<kFormat>::kChunks * gpu::kWarp;
}

std::size_t workspace_bytes(const Problem& problem, int) {
  Workspace workspace;
  gpu::with_format(problem.format, [&](auto format) {
    workspace.take<uint4>(
        prepared_count<decltype(format)::value>(problem.num_tokens, problem.cols));
  });
  return workspace.used();
}

template <Format kFormat, int kTiles>
void start(const Args& args, const uint4* prepared, gpu::Stream stream) {
  constexpr int kRowTiles = row_tiles<kFormat>(kTiles);
  constexpr int kRows = 16 * kRowTiles;
  constexpr int kInBlock = kTiles * kTokens;
  const auto num_tokens = static_cast<int>(args.x.shape[0]);
  const Parts parts = device_parts(args, kRows);
  gpu::launch(multiply_runs<kFormat, kTiles, kRowTiles>,
              {.grid = {static_cast<unsigned>(parts.blocks),
                        static_cast<unsigned>((num_tokens + kInBlock - 1) / kInBlock)},
               .block = kThreads,
               .stream = stream,
               .overlap_previous = true},
              "linear/cuda_rows_bf16", args.x.data, prepared, parts, num_tokens);
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  const std::int64_t num_tokens = args.x.shape[0];
  gpu::with_format(args.weight.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    Workspace workspace(context.workspace);
    const std::int64_t count = prepared_count<kFormat>(num_tokens, weight.cols);
    auto* prepared = workspace.take<uint4>(count);
    if (count > 0) {
      gpu::launch(prepare_inputs<kFormat>,
                  {.grid = {static_cast<unsigned>((count + kThreads - 1) / kThreads)},
                   .block = kThreads,
                   .stream = context.stream,
                   .overlap_previous = true},
                  "linear/cuda_rows_bf16, inputs", args.x.data, prepared,
                  static_cast<int>(num_tokens), weight.cols, choose_tiles(num_tokens), count);
    }
    switch (choose_tiles(num_tokens)) {
      case 1:
        return start<kFormat, 1>(args, prepared, context.stream);
      case 2:
        return start<kFormat, 2>(args, prepared, context.stream);
      case 4:
        return start<kFormat, 4>(args, prepared, context.stream);
      default:
        return start<kFormat, kMostTiles>(args, prepared, context.stream);
    }
  });
}

}  // namespace

const Variant cuda_rows_bf16 = {
    .name = "cuda_rows_bf16",
    .backend = "cuda",
    .summary = "weight rows stream through tensor cores once for up to 64 tokens",
    .rounds = "activations: bf16, weights: bf16 where they have more bits, accumulate: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = gpu::needs_compute_capability(80);
          return reason.empty() ? groups_unsupported(problem) : reason;
        },
    .workspace_bytes = workspace_bytes,
    .run = run,
    .runs_several = true,
};

}  // namespace moebench::linear
