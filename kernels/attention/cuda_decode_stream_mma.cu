// cuda_decode_stream_mma: for decoding many sequences at once, from a bf16 cache with heads of 64
// of which eight query heads share one (gpt-oss): to read the cache about as fast as memory gives
// it. Everything else is cuda_decode_mma's.
//
// A block of four warps takes a token and a key/value head. Its warps take batches of 32 positions
// in turns, counted from the first that the token sees, so that a window of 128 is a batch a warp
// and nothing more. Each warp has a ring of its own in shared memory, of 16 positions a stage,
// which its lanes fill by copies of 16 bytes, stages ahead of what is computed: nothing waits for
// another warp before the end, and an SM has 100 KiB or more on their way. Where a row lies, which
// takes a look into the page table first, is looked up a batch ahead.
//
//   scores^T [keys, heads]    = K [keys, head_dim] Q^T         (ldmatrix)
//   sums^T [head_dim, heads]  = V^T [head_dim, keys] weights^T (ldmatrix, transposed)
//
// The eight heads are the eight columns of the products. Weights are 2^(score - base); a head's
// base is raised to the largest score so far, and its sums rescaled, only when a score is more than
// 8 beyond it: else there is no maximum to be found. At the end the warps' sums are joined in
// shared memory.
//
// Where tokens are too few to keep all SMs busy, or contexts long, a cluster of up to eight blocks
// has a token and head. All its warps take batches in turns, and the blocks join their sums through
// each other's shared memory. So there is always one launch, and no partial sums in device memory.
// How many blocks depends on how many tokens there are, and on it the order of sums: a token has
// the same bits beside any other tokens, but not beside any number of them.
//
// Counted in machine code: 162 instructions of a warp for a tile of 16 positions, 4 KiB. An SM that
// gets its share of 4.3 TB/s, 8 tiles a microsecond, starts 1,300 then, of 7,000 that it could.
#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr int kHeads = 8;  // that share a key/value head
constexpr int kHeadDim = 64;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * gpu::kWarp;
constexpr int kTile = 16;  // positions of a stage
constexpr int kBatch = gpu::kWarp;
constexpr int kTilesOfBatch = kBatch / kTile;
constexpr int kRowChunks = 8;  // of 16 bytes
constexpr int kRowBytes = kRowChunks * 16;
constexpr int kRowsAtOnce = gpu::kWarp / kRowChunks;
constexpr int kTileChunks = kTile * kRowChunks;
constexpr int kStageChunks = 2 * kTileChunks;  // keys, values
constexpr int kSteps = kHeadDim / 16;
constexpr int kColumns = 4;                          // of a thread that joins
constexpr int kThreadsOfHead = kHeadDim / kColumns;  // that join
constexpr int kMostBlocksOfCluster = 8;
constexpr float kLowest = -3.0e38F;  // below any score, and finite: differences stay numbers
constexpr float kBeyond = 8;         // a base, in powers of two

// Stages of a ring. Two hold a batch, all that a warp has of a window of 128.
constexpr int kStagesOfWindow = 2;
constexpr int kStagesOfContext = 3;
// Blocks that fit an SM: four with three stages, which are 528 on 132 SMs, and 512 items 64 tokens.
template <int kStages>
constexpr int kBlocksOfSm = 12 / kStages;

struct Work {
  const float* queries;
  const float* sinks;
  float* out;
  uint2* rounded;                        // of bf16, instead of `out`; null: not
  const std::uint32_t* rounded_queries;  // pairs of bf16, instead of `queries`; null: not
  float scale;                           // the contract's times log2 e
  int window;
  int num_heads;
  int cluster;     // blocks of a token and key/value head
  int page_shift;  // positions of a page are 1 << page_shift
  int page_rows;   // from a page to the next
};

// What is known of some positions, in memory: of a head its base, its sum of weights, and the
// weighted sums of values; these padded, so that lanes meet in no bank.
struct Found {
  float sums[kHeads][kHeadDim + 4];
  float2 stats[kHeads];
};
static_assert(sizeof(Found) <= kStageChunks * sizeof(uint4));  // lies where its ring began

// The positions that a token sees, as rows of one key/value head.
struct Rows {
  const DeviceKv& kv;
  const std::int32_t* pages;  // of the token's sequence
  int first, last;            // positions
  int head;                   // of keys and values
  int page_shift, page_rows;

  // Where the rows of a batch lie, one a lane: first the page, from memory, and later the row. What
  // lies behind the last is the last: its scores do not count.
  struct Place {
    int page, slot;
  };
  MOEBENCH_DEVICE Place look_up(int batch) const {
    const int wanted = first + batch * kBatch + gpu::lane_id();
    const int position = wanted < last ? wanted : last;
    const int page = position >> page_shift;
    return {gpu::load_constant(pages + page), position - (page << page_shift)};
  }
  // In rows of 128 bytes, which reach 512 GiB far.
  MOEBENCH_DEVICE std::uint32_t row(const Place& place) const {
    return static_cast<std::uint32_t>(place.page) * static_cast<std::uint32_t>(page_rows) +
           static_cast<std::uint32_t>(place.slot * kv.num_kv_heads + head);
  }
};

// A warp's share of these, through its ring: batches `first`, first + step, ...
struct Stream {
  const Rows& rows;
  uint4* ring;
  int step;
  int tiles;         // of all those batches
  int in_last_tile;  // positions
  int batch;         // to look up next
  Rows::Place ahead;
  std::uint32_t row = 0;  // the lane's of the batch that is being copied
  const unsigned char* keys;
  const unsigned char* values;  // the lane's chunk of row 0
  int to[2];  // the lane's place in a tile: of rows 0 to 3 together, and of rows 4 to 7

  MOEBENCH_DEVICE Stream(const Rows& all_rows, uint4* memory, int first, int all_warps)
      : rows(all_rows), ring(memory), step(all_warps), batch(first + all_warps) {
    ahead = rows.look_up(first);
    const int count = rows.last - rows.first + 1;
    const int batches = (count + kBatch - 1) / kBatch;
    const int mine = first < batches ? (batches - first + step - 1) / step : 0;
    const int in_last_batch = count - (first + (mine - 1) * step) * kBatch;
    const int last_tiles = in_last_batch > kTile ? kTilesOfBatch : 1;
    in_last_tile = in_last_batch - (last_tiles - 1) * kTile;
    // From one lane, so that the compiler knows the branches taken on it to be the warp's.
    tiles = gpu::shuffle(gpu::kAllLanes, mine > 0 ? (mine - 1) * kTilesOfBatch + last_tiles : 0, 0);
    const int chunk = gpu::lane_id() % kRowChunks;
    const int row_of_four = gpu::lane_id() / kRowChunks;
    keys = rows.kv.keys + chunk * 16;
    values = rows.kv.values + chunk * 16;
    to[0] = row_of_four * kRowChunks + (chunk ^ row_of_four);
    to[1] = (row_of_four + kRowsAtOnce) * kRowChunks + (chunk ^ (row_of_four + kRowsAtOnce));
  }

  // Begins to copy a tile; to be called for every one in turn, and beyond.
  MOEBENCH_DEVICE void copy(int tile, int stage) {
    if (tile < tiles) {
      const int in_batch = tile % kTilesOfBatch * kTile;
      if (in_batch == 0) {
        row = rows.row(ahead);
        ahead = rows.look_up(batch);
        batch += step;
      }
      uint4* const tile_keys = ring + stage * kStageChunks;
      MOEBENCH_UNROLL
      for (int i = 0; i < kTile / kRowsAtOnce; ++i) {
        const std::uint32_t from = gpu::shuffle(
            gpu::kAllLanes, row, in_batch + gpu::lane_id() / kRowChunks + i * kRowsAtOnce);
        uint4* at = tile_keys + to[i % 2] + i / 2 * 2 * kRowsAtOnce * kRowChunks;
        gpu::copy_async(at, keys + std::uint64_t{from} * kRowBytes);
        gpu::copy_async(at + kTileChunks, values + std::uint64_t{from} * kRowBytes);
      }
    }
    gpu::commit_copies();
  }
};

// What a lane knows of its heads: lane 4g + t of heads 2t and 2t + 1, columns g and g + 8 of 16.
struct Heads {
  float base[2] = {kLowest, kLowest};
  float total[2] = {};  // of the lane's own keys
  float sum[kSteps][4] = {};

  // Scores of keys g and g + 8 into weights, in place; keys from `positions` on do not count.
  MOEBENCH_DEVICE void weigh(float (&scores)[4], int positions, float scale) {
    if (positions < kTile) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 4; ++c) {
        if (gpu::lane_id() / 4 + c / 2 * 8 >= positions) scores[c] = kLowest;
      }
    }
    float most[2] = {fmaxf(scores[0], scores[2]) * scale, fmaxf(scores[1], scores[3]) * scale};
    const bool beyond = most[0] > base[0] + kBeyond || most[1] > base[1] + kBeyond;
    if (gpu::any(gpu::kAllLanes, beyond)) raise_base(most);
    MOEBENCH_UNROLL
    for (int c = 0; c < 4; ++c) {
      scores[c] = gpu::exp2_fast(fmaf(scores[c], scale, -base[c % 2]));
      total[c % 2] += scores[c];
    }
  }

  // To the largest score so far, of all heads.
  MOEBENCH_DEVICE void raise_base(float (&most)[2]) {
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      MOEBENCH_UNROLL
      for (int lanes = 4; lanes < gpu::kWarp; lanes *= 2) {
        most[h] = fmaxf(most[h], gpu::shuffle_xor(gpu::kAllLanes, most[h], lanes));
      }
      const float raised = fmaxf(base[h], most[h]);
      const float factor = gpu::exp2_fast(base[h] - raised);
      base[h] = raised;
      total[h] *= factor;
      MOEBENCH_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        sum[s][h] *= factor;
        sum[s][h + 2] *= factor;
      }
    }
  }

  MOEBENCH_DEVICE void leave(Found& found) {
    const int g = gpu::lane_id() / 4;
    const int t = gpu::lane_id() % 4;
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      MOEBENCH_UNROLL
      for (int lanes = 4; lanes < gpu::kWarp; lanes *= 2) {
        total[h] += gpu::shuffle_xor(gpu::kAllLanes, total[h], lanes);
      }
      if (g == 0) found.stats[2 * t + h] = {base[h], total[h]};
    }
    MOEBENCH_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      MOEBENCH_UNROLL
      for (int c = 0; c < 4; ++c) {
        found.sums[2 * t + c % 2][16 * s + g + c / 2 * 8] = sum[s][c];
      }
    }
  }
};

// Four columns of a head, of all positions that `count` parts found, at most kMost; found_by(i) is
// that of part i.
struct Columns {
  float largest, total;
  float4 sum;
};
template <int kMost, class FoundBy>
MOEBENCH_DEVICE Columns join(int count, int head, int column, const FoundBy& found_by) {
  Columns all{kLowest, 0, {0, 0, 0, 0}};
  float2 stats[kMost];
  float4 sums[kMost];
  MOEBENCH_UNROLL
  for (int i = 0; i < kMost; ++i) {
    stats[i] = {kLowest, 0};
    sums[i] = {0, 0, 0, 0};
    if (i >= count) continue;
    const Found& found = found_by(i);
    stats[i] = found.stats[head];
    sums[i] = *reinterpret_cast<const float4*>(&found.sums[head][column]);
    all.largest = fmaxf(all.largest, stats[i].x);
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < kMost; ++i) {
    const float factor = gpu::exp2_fast(stats[i].x - all.largest);
    all.total += factor * stats[i].y;
    all.sum.x += factor * sums[i].x;
    all.sum.y += factor * sums[i].y;
    all.sum.z += factor * sums[i].z;
    all.sum.w += factor * sums[i].w;
  }
  return all;
}

// `head` among those of all tokens.
MOEBENCH_DEVICE void write(const Work& work, std::int64_t head, int column, const Columns& all) {
  const float* sink = work.sinks != nullptr ? work.sinks + head % work.num_heads : nullptr;
  const float factor = factor_of_row(all.largest, all.total, sink);
  const float4 four{all.sum.x * factor, all.sum.y * factor, all.sum.z * factor, all.sum.w * factor};
  const std::int64_t at = head * kHeadDim + column;
  if (work.rounded != nullptr) {
    work.rounded[at / 4] = {gpu::pack_bf16(four.x, four.y), gpu::pack_bf16(four.z, four.w)};
  } else {
    *reinterpret_cast<float4*>(work.out + at) = four;
  }
}

// Blocks (token, key/value head); or, if kJoins, clusters of blocks. Lane 4g + t.
template <int kStages, bool kJoins>
__global__ void MOEBENCH_BOUNDS(kThreads, kBlocksOfSm<kStages>)
    attend_streams(Work work, DeviceKv kv) {
  constexpr int kRingChunks = kStages * kStageChunks;
  auto* rings = reinterpret_cast<uint4*>(gpu::dynamic_shared());
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  const int blocks = kJoins ? work.cluster : 1;
  const int rank = kJoins ? static_cast<int>(gpu::cluster_rank()) : 0;
  const int item = static_cast<int>(blockIdx.x) / blocks;
  const int token = item / kv.num_kv_heads;
  const std::int64_t first_head = static_cast<std::int64_t>(item) * kHeads;  // of all tokens'
  const int position = kv.position[token];
  const Rows rows{
      kv,
      kv.page_tables + static_cast<std::int64_t>(kv.sequence[token]) * kv.pages_per_sequence,
      work.window > 0 && position >= work.window ? position - work.window + 1 : 0,
      position,
      item % kv.num_kv_heads,
      work.page_shift,
      work.page_rows};
  uint4* ring = rings + gpu::warp_id() * kRingChunks;
  Stream stream(rows, ring, rank * kWarps + gpu::warp_id(), kWarps * blocks);
  MOEBENCH_NO_UNROLL
  for (int stage = 0; stage < kStages; ++stage) stream.copy(stage, stage);

  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  std::uint32_t query[kSteps][2];
  MOEBENCH_UNROLL
  for (int s = 0; s < kSteps; ++s) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const std::int64_t at = (first_head + g) * kHeadDim + 16 * s + 8 * i + 2 * t;
      if (work.rounded_queries != nullptr) {
        query[s][i] = work.rounded_queries[at / 2];
      } else {
        const auto two = *reinterpret_cast<const float2*>(work.queries + at);
        query[s][i] = gpu::pack_bf16(two.x, two.y);
      }
    }
  }
  // The lane's row of one of four matrices: of keys 0-7 and 8-15 in one chunk, then in the next; of
  // values 0-7 in two neighbouring chunks, then 8-15. A chunk c lies at c ^ (row % 8), so that step
  // s is at this ^ 2s.
  const int in_matrix = gpu::lane_id() % 8;
  const int matrix = gpu::lane_id() / 8;
  const int key_at = (in_matrix + matrix % 2 * 8) * kRowChunks + (matrix / 2 ^ in_matrix);
  const int value_at = (in_matrix + matrix / 2 * 8) * kRowChunks + (matrix % 2 ^ in_matrix);

  Heads heads;
  int stage = 0;
  MOEBENCH_NO_UNROLL
  for (int tile = 0; tile < stream.tiles; ++tile) {
    gpu::wait_copies<kStages - 1>();
    gpu::sync_warp();  // every lane's copies
    const uint4* keys = ring + stage * kStageChunks;
    const uint4* values = keys + kTileChunks;
    float scores[4] = {};  // of keys g and g + 8, heads 2t and 2t + 1
    MOEBENCH_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      std::uint32_t fragment[4];
      gpu::load_matrices(fragment, keys + (key_at ^ 2 * s));
      gpu::multiply_bf16(scores, fragment, query[s]);
    }
    heads.weigh(scores, tile + 1 < stream.tiles ? kTile : stream.in_last_tile, work.scale);
    // Of head g: keys 2t, 2t + 1, then 2t + 8, 2t + 9.
    const std::uint32_t weights[2] = {gpu::transpose_matrix(gpu::pack_bf16(scores[0], scores[1])),
                                      gpu::transpose_matrix(gpu::pack_bf16(scores[2], scores[3]))};
    MOEBENCH_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      std::uint32_t fragment[4];
      gpu::load_matrices_transposed(fragment, values + (value_at ^ 2 * s));
      gpu::multiply_bf16(heads.sum[s], fragment, weights);
    }
    gpu::sync_warp();  // all have read the stage
    stream.copy(tile + kStages, stage);
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }

  // No copy is under way: the groups after the last tile's are empty.
  heads.leave(*reinterpret_cast<Found*>(ring));
  gpu::sync_threads();
  const int head = static_cast<int>(threadIdx.x) / kThreadsOfHead;
  const int column = static_cast<int>(threadIdx.x) % kThreadsOfHead * kColumns;
  const Columns found = join<kWarps>(kWarps, head, column, [&](int warp) -> const Found& {
    return *reinterpret_cast<const Found*>(rings + warp * kRingChunks);
  });
  if constexpr (!kJoins) {
    write(work, first_head + head, column, found);
  } else {
    // A stage on, where no warp's are.
    auto* mine = reinterpret_cast<Found*>(rings + kStageChunks);
    *reinterpret_cast<float4*>(&mine->sums[head][column]) = found.sum;
    if (column == 0) mine->stats[head] = {found.largest, found.total};
    gpu::sync_cluster();
    const int heads_of_block = kHeads / blocks;
    if (head / heads_of_block == rank) {
      write(work, first_head + head, column,
            join<kMostBlocksOfCluster>(blocks, head, column, [&](int block) -> const Found& {
              return *gpu::cluster_pointer(mine, static_cast<unsigned>(block));
            }));
    }
    gpu::sync_cluster();  // all have read this block's memory
  }
}

// The positions that a token can see, at most.
std::int64_t longest(const Args& args) {
  return args.window > 0 ? std::min(args.window, args.max_context) : args.max_context;
}

// What blocks or clusters take: a token and a key/value head.
std::int64_t num_items(const Args& args) { return args.queries.shape[0] * args.kv.num_kv_heads; }

std::int64_t most_blocks_of_cluster() {
  return gpu::needs_compute_capability(90).empty() ? kMostBlocksOfCluster : 1;
}

// Whether the cache is one that is streamed; cuda_decode_mma has the rest.
bool streams(const Args& args) {
  const KvLayerView& kv = args.kv;
  const auto aligned = [](const std::byte* at) {
    return reinterpret_cast<std::uintptr_t>(at) % 16 == 0;
  };
  return kv.format == Format::kBf16 && kv.head_dim == kHeadDim &&
         args.queries.shape[1] == kHeads * kv.num_kv_heads &&
         std::has_single_bit(static_cast<std::uint64_t>(kv.page_size)) &&
         kv.page_stride % kRowBytes == 0 && aligned(kv.keys) && aligned(kv.values) &&
         num_items(args) * most_blocks_of_cluster() <= std::numeric_limits<std::int32_t>::max();
}

// Blocks of an item, so that there are two or more an SM; but a batch at least for each warp. Long
// contexts are taken apart further: they differ more, and the longest may have come last.
int cluster_blocks(const Args& args) {
  constexpr std::int64_t kLong = 4096;
  const std::int64_t wanted =
      (longest(args) > kLong ? 8 : 2) * std::int64_t{gpu::device_info().num_sms};
  int blocks = 1;
  while (blocks < most_blocks_of_cluster() && num_items(args) * blocks < wanted &&
         longest(args) > std::int64_t{kBatch} * kWarps * blocks) {
    blocks *= 2;
  }
  return blocks;
}

template <int kStages, bool kJoins>
void start(const Args& args, int cluster, Context& context) {
  constexpr std::size_t kBytes = std::size_t{kWarps} * kStages * kStageChunks * sizeof(uint4);
  const Work work{
      .queries = args.queries.data,
      .sinks = args.sinks.data,
      .out = args.out.data,
      .rounded = reinterpret_cast<uint2*>(args.rounded.data),
      .rounded_queries = reinterpret_cast<const std::uint32_t*>(args.rounded_queries.data),
      .scale = args.scale * kLog2E,
      .window = static_cast<int>(args.window),
      .num_heads = static_cast<int>(args.queries.shape[1]),
      .cluster = cluster,
      .page_shift = std::countr_zero(static_cast<std::uint64_t>(args.kv.page_size)),
      .page_rows = static_cast<int>(args.kv.page_stride / kRowBytes)};
  gpu::launch(attend_streams<kStages, kJoins>,
              {.grid = {static_cast<unsigned>(num_items(args) * cluster)},
               .block = kThreads,
               .shared_bytes = kBytes,
               .stream = context.stream,
               .cluster = static_cast<unsigned>(cluster),
               .overlap_previous = true,
               .shared_percent = gpu::shared_percent_for(kBytes, kBlocksOfSm<kStages>)},
              "attention/cuda_decode_stream_mma", work, device_kv(args.kv, args.places));
}

void run(const Args& args, Context& context) {
  if (!streams(args)) {
    require(args.rounded.data == nullptr && args.rounded_queries.data == nullptr,
            "run attention: bf16 results and queries are for a bf16 cache that is streamed");
    return cuda_decode_mma.run(args, context);
  }
  const int cluster = cluster_blocks(args);
  if (cluster > 1) {
    start<kStagesOfContext, true>(args, cluster, context);
  } else if (longest(args) > kBatch * kWarps) {
    start<kStagesOfContext, false>(args, 1, context);
  } else {
    start<kStagesOfWindow, false>(args, 1, context);
  }
}

}  // namespace

const Variant cuda_decode_stream_mma = {
    .name = "cuda_decode_stream_mma",
    .backend = "cuda",
    .summary =
        "for decoding many sequences: warps stream a bf16 cache through shared memory, else as "
        "cuda_decode_mma",
    .rounds = "queries, keys, values, weights: bf16, accumulate and softmax sums: f32",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported = [](const Problem& problem) { return cuda_decode_mma.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return cuda_decode_mma.workspace_bytes(problem, num_threads);
        },
    .run = run,
    .knows_bf16 = streams,
};

}  // namespace moebench::attention
