// cuda_flash_splits_mma: the same bits for a token that decodes and for one in a prompt, and fast
// at both. The rows and tiles of flash.cuh, but a row's keys are cut into splits of 256 positions,
// at multiples of 256; what the splits give is joined in their order, each by the same operations:
//
//   up to 128 tokens, and those that are the only ones of their sequences
//                       a block a token, key/value head and split, in which four warps take a tile
//                       each if the cache is bf16 (flash_split_tiles.cuh); a second kernel joins
//   more                192 rows a block, by wgmma (flash_splits_wgmma.cuh), or 128 by mma where
//                       there is no wgmma; it goes over the splits and joins them as it goes
//
// Weights of a split are of a base that hardly ever changes, the largest score of the first tile of
// the split that the row sees (based_weights.cuh): no maximum to be found in each tile.
//
// mma's joined sums of many tokens wait in shared memory, which is touched every four tiles: 34 KB
// more a block, so that two still fit on a multiprocessor.
#include <algorithm>

#include "kernels/attention/flash.cuh"
#include "kernels/attention/flash_split_tiles.cuh"
#include "kernels/attention/flash_splits.cuh"
#include "kernels/attention/flash_splits_wgmma.cuh"
#include "kernels/attention/partials.cuh"

namespace moebench::attention {
namespace {

constexpr int kWarps = 8;  // of a block that goes over all splits
constexpr int kRows = 16 * kWarps;
// Of a block with one token's split: all load, the first computes. Wide rows take more registers.
template <Format kFormat, int kHeadDim>
constexpr int kTokenWarps = kFormat == Format::kF32 || kHeadDim == 128 ? 8 : 4;
constexpr std::int64_t kMostSplitTokens = 128;
// Blocks that keep a large GPU busy: with more, a block takes several splits.
constexpr std::int64_t kManyBlocks = 4096;

template <Format kFormat, int kHeadDim, int kBlockWarps>
using SplitsBlock = FlashBlock<kFormat, kHeadDim, kBlockWarps, BasedWarpRows<kHeadDim>>;

// Block (token of the round, key/value head, split). `scale` is the contract's times log2 e.
template <Format kFormat, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kTokenWarps<kFormat, kHeadDim>* gpu::kWarp,
                                kTokenWarps<kFormat, kHeadDim> == 4 ? 2 : 1)
    attend_split(const float* queries, const uint4* rounded_queries, DeviceKv kv, float scale,
                 int window, int num_tokens, int group, int first_token, Partials partials) {
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const auto token = first_token + static_cast<int>(blockIdx.x);
  const SeenSplits seen = seen_splits(kv.position[token], window);
  if (static_cast<int>(blockIdx.z) >= seen.count) return;
  SplitsBlock<kFormat, kHeadDim, kTokenWarps<kFormat, kHeadDim>> block(
      kv, window, token, 1, num_tokens, static_cast<int>(blockIdx.y), group);
  block.load_queries(queries, rounded_queries);
  for (int split = static_cast<int>(blockIdx.z); split < seen.count;
       split += static_cast<int>(gridDim.z)) {
    block.rows.clear();
    const int begin = (seen.first + split) * kSplit;
    block.take_in(scale, begin, begin + kSplit, [](int) {});
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float total = block.rows.total_of_row(i);
      const int row = block.row_of(i);
      if (block.token_of(row) < 0) continue;
      const std::int64_t head =
          block.head_of(row) - static_cast<std::int64_t>(first_token) * kv.num_kv_heads * group;
      const std::int64_t at = head * partials.most_splits + split;
      if (gpu::lane_id() % 4 == 0) {
        partials.stats[at] = {block.rows.base[i], total};
      }
      float* to = partials.sums + at * kHeadDim + gpu::lane_id() % 4 * 2;
      MOEBENCH_UNROLL
      for (int n = 0; n < kHeadDim / 8; ++n) {
        *reinterpret_cast<float2*>(to + 8 * n) = {block.rows.sums[4 * n + 2 * i],
                                                  block.rows.sums[4 * n + 2 * i + 1]};
      }
    }
  }
}

// Block (token of the round, head), a thread a column. `rounded`: bf16 instead of `out`; null: not.
template <int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kHeadDim)
    join_splits(const std::int32_t* position, const float* sinks, int window, int num_heads,
                int first_token, Partials partials, float* out, std::uint16_t* rounded) {
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const auto token = static_cast<std::int64_t>(first_token) + blockIdx.x;
  const auto head = static_cast<int>(blockIdx.y);
  const auto column = static_cast<int>(threadIdx.x);
  const int splits = seen_splits(position[token], window).count;
  const std::int64_t at =
      (static_cast<std::int64_t>(blockIdx.x) * num_heads + head) * partials.most_splits;
  float base = kLowest;
  float total = 0;
  float sum = 0;
  for (int split = 0; split < splits; ++split) {
    const float2 stats = partials.stats[at + split];
    const Join join(base, stats.x);
    base = join.base;
    total = join.sum(total, stats.y);
    sum = join.sum(sum, partials.sums[(at + split) * kHeadDim + column]);
  }
  const float factor = factor_of_row(base, total, sinks == nullptr ? nullptr : sinks + head);
  const std::int64_t to = (token * num_heads + head) * kHeadDim + column;
  if (rounded != nullptr) {
    rounded[to] = gpu::float_to_bf16(sum * factor);
  } else {
    out[to] = sum * factor;
  }
}

// Block (part of the tokens, key/value head).
template <Format kFormat, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kWarps* gpu::kWarp,
                                kFormat == Format::kBf16 && kHeadDim <= 64 ? 2 : 1)
    attend_all(const float* queries, const uint4* rounded_queries, DeviceKv kv, const float* sinks,
               float scale, int window, int num_tokens, int group, float* out,
               std::uint32_t* rounded) {
  using Block = SplitsBlock<kFormat, kHeadDim, kWarps>;
  constexpr int kThreads = kWarps * gpu::kWarp;
  const int block_tokens = kRows / group;
  // The last tokens see most: their blocks start first.
  const int begin = static_cast<int>(gridDim.x - 1 - blockIdx.x) * block_tokens;
  Block block(kv, window, begin, block_tokens, num_tokens, static_cast<int>(blockIdx.y), group);
  // Each thread's own: no barrier is needed.
  float* joined = reinterpret_cast<float*>(gpu::dynamic_shared() + Block::kBytes) + threadIdx.x;
  float base[2];
  float total[2];
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    base[i] = kLowest;
    total[i] = 0;
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < kHeadDim / 2; ++i) joined[i * kThreads] = 0;
  const auto join_split = [&] {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Join join(base[i], block.rows.base[i]);
      base[i] = join.base;
      total[i] = join.sum(total[i], block.rows.total_of_row(i));
      MOEBENCH_UNROLL
      for (int n = 0; n < kHeadDim / 8; ++n) {
        MOEBENCH_UNROLL
        for (int c = 2 * i; c < 2 * i + 2; ++c) {
          float& sum = joined[(4 * n + c) * kThreads];
          sum = join.sum(sum, block.rows.sums[4 * n + c]);
        }
      }
    }
    block.rows.clear();
  };

  block.load_queries(queries, rounded_queries);
  block.rows.clear();
  block.take_in(scale, 0, kWithoutEnd, [&](int tile) {
    if ((tile + kKeys) % kSplit == 0) join_split();
  });
  join_split();
  MOEBENCH_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int row = block.row_of(i);
    if (block.token_of(row) < 0) continue;
    const float factor =
        factor_of_row(base[i], total[i],
                      sinks == nullptr ? nullptr : sinks + block.kv_head * group + row % group);
    const std::int64_t to = block.head_of(row) * kHeadDim + gpu::lane_id() % 4 * 2;
    MOEBENCH_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      const float2 pair{joined[(4 * n + 2 * i) * kThreads] * factor,
                        joined[(4 * n + 2 * i + 1) * kThreads] * factor};
      if (rounded != nullptr) {
        rounded[to / 2 + 4 * n] = gpu::pack_bf16(pair.x, pair.y);
      } else {
        *reinterpret_cast<float2*>(out + to + 8 * n) = pair;
      }
    }
  }
}

// ---- Launching ----------------------------------------------------------------------------------

const uint4* rounded_queries_of(const Args& args) {
  return reinterpret_cast<const uint4*>(args.rounded_queries.data);
}

template <Format kFormat, int kHeadDim>
bool takes_tiles(std::int64_t group) {
  return kFormat == Format::kBf16 && group <= kTileHeads &&
         sizeof(SplitTiles<kHeadDim>) <= gpu::device_info().shared_bytes_per_block;
}

template <Format kFormat, int kHeadDim>
void start_splits(const Args& args, Context& context) {
  const std::int64_t num_tokens = args.queries.shape[0];
  const std::int64_t num_heads = args.queries.shape[1];
  const std::int64_t num_kv_heads = args.kv.num_kv_heads;
  const std::int64_t splits = most_splits(args.window, args.max_context, kSplit);
  const std::int64_t tokens = round_tokens(num_tokens, num_heads, kHeadDim, splits);
  Workspace workspace(context.workspace);
  const Partials partials = take_partials(workspace, tokens, num_heads, kHeadDim, splits);
  for (std::int64_t first = 0; first < num_tokens; first += tokens) {
    const std::int64_t count = std::min(tokens, num_tokens - first);
    const std::int64_t blocks = count * num_kv_heads;
    const auto group = static_cast<int>(num_heads / num_kv_heads);
    const gpu::Extent grid{
        static_cast<unsigned>(count), static_cast<unsigned>(num_kv_heads),
        static_cast<unsigned>(std::min(splits, (kManyBlocks + blocks - 1) / blocks))};
    if (takes_tiles<kFormat, kHeadDim>(group)) {
      gpu::launch(attend_split_tiles<kHeadDim>,
                  {.grid = grid,
                   .block = kTileWarps * gpu::kWarp,
                   .shared_bytes = sizeof(SplitTiles<kHeadDim>),
                   .stream = context.stream,
                   .overlap_previous = true},
                  "attention/cuda_flash_splits_mma", args.queries.data, rounded_queries_of(args),
                  device_kv(args.kv, args.places), args.scale * kLog2E,
                  static_cast<int>(args.window), group, static_cast<int>(first), partials);
    } else {
      gpu::launch(
          attend_split<kFormat, kHeadDim>,
          {.grid = grid,
           .block = kTokenWarps<kFormat, kHeadDim> * gpu::kWarp,
           .shared_bytes = SplitsBlock<kFormat, kHeadDim, kTokenWarps<kFormat, kHeadDim>>::kBytes,
           .stream = context.stream,
           .overlap_previous = true},
          "attention/cuda_flash_splits_mma", args.queries.data, rounded_queries_of(args),
          device_kv(args.kv, args.places), args.scale * kLog2E, static_cast<int>(args.window),
          static_cast<int>(num_tokens), group, static_cast<int>(first), partials);
    }
    gpu::launch(join_splits<kHeadDim>,
                {.grid = {static_cast<unsigned>(count), static_cast<unsigned>(num_heads)},
                 .block = kHeadDim,
                 .stream = context.stream,
                 .overlap_previous = true},
                "attention/cuda_flash_splits_mma (join)", args.places.position.data,
                args.sinks.data, static_cast<int>(args.window), static_cast<int>(num_heads),
                static_cast<int>(first), partials, args.out.data,
                reinterpret_cast<std::uint16_t*>(args.rounded.data));
  }
}

template <Format kFormat, int kHeadDim>
void start_all(const Args& args, Context& context) {
  using Block = SplitsBlock<kFormat, kHeadDim, kWarps>;
  const auto num_tokens = static_cast<int>(args.queries.shape[0]);
  const auto group = static_cast<int>(args.queries.shape[1] / args.kv.num_kv_heads);
  const int block_tokens = kRows / group;
  constexpr std::size_t kJoinedBytes = sizeof(float) * kHeadDim / 2 * kWarps * gpu::kWarp;
  gpu::launch(attend_all<kFormat, kHeadDim>,
              {.grid = {static_cast<unsigned>((num_tokens + block_tokens - 1) / block_tokens),
                        static_cast<unsigned>(args.kv.num_kv_heads)},
               .block = kWarps * gpu::kWarp,
               .shared_bytes = Block::kBytes + kJoinedBytes,
               .stream = context.stream},
              "attention/cuda_flash_splits_mma (many tokens)", args.queries.data,
              rounded_queries_of(args), device_kv(args.kv, args.places), args.sinks.data,
              args.scale * kLog2E, static_cast<int>(args.window), num_tokens, group, args.out.data,
              reinterpret_cast<std::uint32_t*>(args.rounded.data));
}

// Whether the many tokens' kernel by wgmma takes a cache: with the same bits as the other.
bool takes_wgmma(const KvLayerView& kv) {
  return kv.format == Format::kBf16 && kv.head_dim == 64 && gpu::needs_wgmma().empty();
}

void run(const Args& args, Context& context) {
  const std::int64_t num_tokens = args.queries.shape[0];
  const bool splits = num_tokens <= kMostSplitTokens || args.num_single == num_tokens;
  if (!splits && args.num_single > 0) {
    run(tokens_of(args, 0, args.num_single), context);
    return run(tokens_of(args, args.num_single, num_tokens - args.num_single), context);
  }
  if (!splits && takes_wgmma(args.kv)) {
    launch_in_rows<Format::kBf16>(
        attend_all_by_wgmma, "attention/cuda_flash_splits_mma (many tokens, wgmma)", args, context);
    return;
  }
  gpu::with_format(args.kv.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    const auto start = [&](auto head_dim) {
      if (splits) {
        start_splits<kFormat, head_dim()>(args, context);
      } else {
        start_all<kFormat, head_dim()>(args, context);
      }
    };
    switch (args.kv.head_dim) {
      case 32:
        return start(std::integral_constant<int, 32>());
      case 64:
        return start(std::integral_constant<int, 64>());
      default:
        return start(std::integral_constant<int, 128>());
    }
  });
}

}  // namespace

const Variant cuda_flash_splits_mma = {
    .name = "cuda_flash_splits_mma",
    .backend = "cuda",
    .summary = "one order of sums for prompts and decoding: splits of 256 keys, joined in order",
    .rounds = "queries, keys, values, weights: bf16, accumulate and softmax sums: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported =
        [](const Problem& problem) {
          // The fewer rows are those of a block with one token.
          return flash_unsupported(problem, 16 * kTokenWarps<Format::kBf16, 64>);
        },
    .workspace_bytes =
        [](const Problem& problem, int) {
          return partials_bytes(problem.num_tokens, problem.num_heads, problem.head_dim,
                                most_splits(problem.window, problem.max_context, kSplit));
        },
    .run = run,
    .knows_bf16 = [](const Args&) { return true; },
};

}  // namespace moebench::attention
