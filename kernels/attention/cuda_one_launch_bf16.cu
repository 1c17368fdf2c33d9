// cuda_one_launch_bf16: the attention half of a layer for one token in one launch: norm, query, key
// and value with rotation and cache, attention, and its product with what follows it. For what a
// boundary between launches costs, and because memory is kept busy across it. Hopper; weights of
// bf16 or float8, and a cache of either.
//
// One block an SM; all run at once and wait for each other by words that show by themselves that
// they are there: no fence stands between who writes and who reads (grid_turn.cuh). Four warps of a
// block do nothing but ask for weights, those of query, key and value through a ring, and behind
// them its rows of the last product, which all stay: they come while the other warps attend.
//
// A. Every block normalises the whole row, multiplies its pairs of rows, and shows what came out.
// B. Blocks (key/value head, split of the positions) load the keys and values of the positions
//    before this token, wait for their queries and this token's, and attend. What a split found is
//    shown, unless it is the only one. A key or value of float8 has one scale, which wants all of
//    it: the block of its last split encodes it.
// C. The blocks of a key/value head share out its columns and join the splits, each some columns.
// D. Every block reads what all heads found, and multiplies its rows, which have arrived.
//
// What multiplies has the bits of rms_norm/cuda_block, linear/cuda_stream_bf16, rope and kv_write;
// attention is float32, with the exponentials of cuda_split_kv and other splits: they depend on the
// position and the GPU alone. Where nothing is around it, it runs as cuda_decode_stream_mma.
#include <algorithm>
#include <string>
#include <type_traits>

#include "kernels/attention/add_halves.cuh"
#include "kernels/attention/attention.h"
#include "kernels/attention/kv_device.cuh"
#include "kernels/attention/query_rows.cuh"
#include "kernels/core/grid_turn.cuh"
#include "kernels/formats/device_encode.cuh"
#include "kernels/fused/norm_row.cuh"
#include "kernels/fused/rotation.cuh"

namespace moebench::attention {
namespace {

constexpr int kConsumers = fused::kRowThreads;
constexpr int kWarps = kConsumers / gpu::kWarp;
constexpr int kProducers = 4;  // warps: asking costs one about a hundred cycles a copy
constexpr int kThreads = kConsumers + kProducers * gpu::kWarp;
// Of a thread: what the producers give back the consumers take, who hold eight heads' sums.
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
static_assert(kConsumers * kConsumerRegisters + (kThreads - kConsumers) * kProducerRegisters <=
              65536 / kThreads / 8 * 8 * kThreads);

// A tile of query, key and value: up to eight pairs of rows that are rotated together, the lower
// ones first. It comes in pieces of so many bytes of each row; so do the rows of the last product,
// all together. A step is the 16 bytes of a row that each lane of a quad takes, and warp w takes
// steps w, w + 8, ..., as in row_stream.cuh, whose order the inputs have, too.
constexpr int kTilePairs = 8;
constexpr int kTileRows = 2 * kTilePairs;
constexpr int kStepBytes = 64;
constexpr int kPieceSteps = 24;
constexpr int kPieceBytes = kPieceSteps * kStepBytes;
constexpr int kStages = 7;
constexpr int kOutPieceSteps = 16;
constexpr int kOutPieceBytes = kOutPieceSteps * kStepBytes;
constexpr int kMostOutPieces = 8;
constexpr int kMostOutRows = 64;  // of a block, in the last product
constexpr int kOutTiles = 2;      // multiplied together
constexpr int kOutPasses = kMostOutRows / (kOutTiles * kTileRows);
// Pieces under way, each about 22 KB at gpt-oss's sizes: more bring nothing, and what else an SM
// asks for waits behind them.
constexpr int kUnderWay = 2;

constexpr int kHeads = 8;  // that share a key/value head
constexpr int kMostHeadDim = 64;
constexpr int kMostQuery = kMostOutPieces * kOutPieceBytes / 2;  // columns of all heads, in bf16
constexpr int kMostKeys = 1024;
constexpr int kMostKvHeads = 32;
constexpr int kMostSplits = 16;  // lanes that join
constexpr int kMostItems = 128;  // key/value heads times splits
constexpr int kLanes = 8;        // of a key or value
constexpr int kSlots = gpu::kWarp / kLanes;
constexpr int kBatch = 4;                           // rows of a slot that are loaded together
constexpr int kStride = kWarps * kSlots;            // positions from one of them to the next
constexpr int kChunk = kBatch * kStride;            // positions
constexpr int kSplitStep = kChunk / 2;              // splits are multiples of these, or one chunk
constexpr float kLowest = -3.0e38F;                 // below any score, and finite
constexpr std::uint32_t kIsThere = 1U << 16;        // beside a bf16
constexpr std::uint32_t kNegativeZeros = 1U << 31;  // of two bf16: the second

// Columns that a lane takes of a row in a step, in units of eight.
template <Format kWeights>
constexpr int kRun = gpu::DeviceFormat<kWeights>::kValues;
template <Format kWeights>
constexpr int kUnits = kRun<kWeights> / 8;
constexpr int run_of(Format weights) {
  return weights == Format::kBf16 ? kRun<Format::kBf16> : kRun<Format::kFp8E4m3>;
}
MOEBENCH_HOST_DEVICE int bytes_of(int columns, int run) { return columns / run * 16; }
// Where unit `unit` of inputs lies.
template <Format kWeights>
MOEBENCH_DEVICE int place_of(int unit) {
  constexpr int kOfRun = kUnits<kWeights>;
  const int run = unit / kOfRun;
  return (run / 4 * kOfRun + unit % kOfRun) * 4 + run % 4;
}

// Columns 2 pair, 2 pair + 1 of four codes of float8.
MOEBENCH_DEVICE std::uint32_t e4m3_pair(std::uint32_t codes, int pair) {
  return gpu::multiply_bf16x2(gpu::e4m3_bits(codes, pair), gpu::power_of_two_bf16x2(120));
}

// What the blocks of a launch leave for each other: zeros where there is nothing yet.
struct Shown {
  std::uint32_t query[kMostQuery];                        // floats, rotated
  std::uint32_t key_value[2][kMostKeys];                  // bf16 and kIsThere; or floats' bits + 1
  std::uint32_t found[kMostQuery / 2];                    // by all heads: pairs of bf16
  std::uint32_t sums[kMostItems][kHeads * kMostHeadDim];  // of splits, floats
  std::uint32_t stats[kMostItems][kHeads][2];             // the largest score, the sum of weights
};
struct Signals {
  Shown at[2];  // by the grid's turn
  int turn;
};
static_assert(sizeof(Signals) <= kAttentionSignalBytes);

struct DeviceProduct {
  const unsigned char* weight;
  const float* scales;  // of rows of float8
  const float* bias;    // null: none
};

struct Work {
  fused::DeviceNorm norm;
  DeviceProduct parts[3];  // query, key, value
  int pairs[3];            // of rows of each
  DeviceProduct output;
  int hidden_size;
  int num_heads;
  DeviceKv kv;
  const float* cos;
  const float* sin;
  const float* sinks;  // null: none
  float scale;         // the contract's times log2 e
  int window;
  int most_splits;
  float* out;
  Signals* signals;
};

// The block's share of `count`.
struct Share {
  int begin, count;
};
MOEBENCH_DEVICE Share share_of_block(int count) {
  const auto begin = static_cast<int>(static_cast<std::int64_t>(count) * blockIdx.x / gridDim.x);
  const auto end =
      static_cast<int>(static_cast<std::int64_t>(count) * (blockIdx.x + 1) / gridDim.x);
  return {begin, end - begin};
}

// Rows of so many bytes in shared memory: every other one half a row of banks further, so that the
// quads of two neighbours meet different banks.
MOEBENCH_HOST_DEVICE int row_offset(int row, int bytes) {
  return row * bytes + (row + 1) / 2 * kStepBytes;
}
constexpr int kStageBytes = kTileRows * kPieceBytes + kTilePairs * kStepBytes;

// Of the last product, in so many rows.
MOEBENCH_HOST_DEVICE int out_stage_bytes(int rows) { return row_offset(rows, kOutPieceBytes); }
MOEBENCH_HOST_DEVICE int num_out_pieces(int row_bytes) {
  return (row_bytes + kOutPieceBytes - 1) / kOutPieceBytes;
}

// Dynamic shared memory: the ring and, later in its place, the pieces of the last product; then the
// inputs of both products.
struct Places {
  int x, found, bytes;
};
MOEBENCH_HOST_DEVICE Places places_of(int hidden_size, int query_size, int out_row_bytes,
                                      int out_rows) {
  const int rows = num_out_pieces(out_row_bytes) * out_stage_bytes(out_rows);
  const int ring = kStages * kStageBytes;
  const int x = rows > ring ? rows : ring;
  return {x, x + 2 * hidden_size, x + 2 * hidden_size + 2 * query_size};
}

// Where pair `pair` of rows of query, key and value stands.
template <int kHeadDim>
struct Pair {
  int part, head, column;

  MOEBENCH_DEVICE Pair(const Work& work, int pair) : part(0) {
    while (part < 2 && pair >= work.pairs[part]) pair -= work.pairs[part++];
    head = pair / (kHeadDim / 2);
    column = pair % (kHeadDim / 2);
  }
  MOEBENCH_DEVICE int row(bool is_high) const {
    return head * kHeadDim + column + (is_high ? kHeadDim / 2 : 0);
  }
};

// What all threads of a block know of its weights and where they come to.
template <int kHeadDim>
struct Streams {
  unsigned char* memory;
  gpu::Mbarrier* full;      // of stages
  gpu::Mbarrier* empty;     // likewise
  gpu::Mbarrier* out_full;  // of pieces of the last product
  Share pairs;
  Share out_rows;
  int row_bytes;
  int out_row_bytes;
  int num_pieces;  // of a tile
  int out_stage_bytes;

  MOEBENCH_DEVICE int tiles() const { return (pairs.count + kTilePairs - 1) / kTilePairs; }
  // The pairs of a tile, as even as can be: what is under way is counted in pieces.
  MOEBENCH_DEVICE Share pairs_of(int tile) const {
    const int begin = pairs.count * tile / tiles();
    return {pairs.begin + begin, pairs.count * (tile + 1) / tiles() - begin};
  }
  MOEBENCH_DEVICE unsigned char* stage(int piece) const {
    return memory + piece % kStages * kStageBytes;
  }
  MOEBENCH_DEVICE unsigned char* out_stage(int piece) const {
    return memory + piece * out_stage_bytes;
  }
  // Until the piece, counted over all tiles, is there.
  MOEBENCH_DEVICE void await(int piece) const {
    gpu::mbarrier_wait(&full[piece % kStages], static_cast<unsigned>(piece / kStages) & 1U);
  }
  // Until what was in the place of the piece has been read; of pieces behind the last, too.
  MOEBENCH_DEVICE void await_place(int piece) const {
    gpu::mbarrier_wait(&empty[piece % kStages], static_cast<unsigned>(piece / kStages + 1) & 1U);
  }
};

// By a warp whose lanes ask for rows of a piece next: how many bytes they will be, maybe none.
MOEBENCH_DEVICE void expect_bytes(gpu::Mbarrier* full, int bytes) {
  if (gpu::lane_id() == 0) {
    if (bytes > 0) {
      gpu::mbarrier_arrive_expect_bytes(full, bytes);
    } else {
      gpu::mbarrier_arrive(full);
    }
  }
  gpu::sync_warp();
}

// The producer warps: query, key and value.
template <int kHeadDim>
MOEBENCH_DEVICE void ask_for_pairs(const Work& work, const Streams<kHeadDim>& streams) {
  const int producer = gpu::warp_id() - kWarps;
  // Lanes 0 .. 3 take a row each.
  const int r = gpu::lane_id() * kProducers + producer;
  const int i = r % kTilePairs;
  int piece = 0;
  for (int tile = 0; tile < streams.tiles(); ++tile) {
    const Share pairs = streams.pairs_of(tile);
    const bool has_row = r < kTileRows && i < pairs.count;
    const unsigned char* from = nullptr;
    if (has_row) {
      const Pair<kHeadDim> pair(work, pairs.begin + i);
      from = work.parts[pair.part].weight +
             static_cast<std::int64_t>(pair.row(r >= kTilePairs)) * streams.row_bytes;
    }
    const int rows =
        2 * ((producer < pairs.count ? 1 : 0) + (producer + kProducers < pairs.count ? 1 : 0));
    for (int p = 0; p < streams.num_pieces; ++p, ++piece) {
      const int begin = p * kPieceBytes;
      const int left = streams.row_bytes - begin;
      const int bytes = left < kPieceBytes ? left : kPieceBytes;
      streams.await_place(piece);
      if (piece >= kUnderWay) streams.await(piece - kUnderWay);
      gpu::Mbarrier* full = &streams.full[piece % kStages];
      expect_bytes(full, rows * bytes);
      if (has_row) {
        gpu::copy_bulk_async(streams.stage(piece) + row_offset(r, kPieceBytes), from + begin, bytes,
                             full);
      }
    }
  }
}

// Then the rows of the last product, into the same memory as it is given back. Each of the four
// warps takes every fourth row, a lane each.
template <int kHeadDim>
MOEBENCH_DEVICE void ask_for_out_rows(const Work& work, const Streams<kHeadDim>& streams) {
  static_assert(kMostOutRows <= gpu::kWarp * kProducers);
  const int producer = gpu::warp_id() - kWarps;
  const int row = gpu::lane_id() * kProducers + producer;
  const int count = streams.out_rows.count;
  const int rows = (count - producer + kProducers - 1) / kProducers;
  const unsigned char* from =
      work.output.weight +
      static_cast<std::int64_t>(streams.out_rows.begin + row) * streams.out_row_bytes;
  const int pieces = streams.tiles() * streams.num_pieces;
  int free_stages = 0;
  for (int p = 0; p * kOutPieceBytes < streams.out_row_bytes; ++p) {
    const int begin = p * kOutPieceBytes;
    const int left = streams.out_row_bytes - begin;
    const int bytes = left < kOutPieceBytes ? left : kOutPieceBytes;
    const int end = (p + 1) * streams.out_stage_bytes;
    for (; free_stages < kStages && free_stages * kStageBytes < end; ++free_stages) {
      // The piece of query, key and value that would be the next one there.
      const int turns = (pieces - free_stages + kStages - 1) / kStages;
      if (turns > 0) streams.await_place(free_stages + turns * kStages);
    }
    if (p >= kUnderWay) {
      gpu::mbarrier_wait(&streams.out_full[p - kUnderWay], 0);
    } else if (pieces + p >= kUnderWay) {
      streams.await(pieces + p - kUnderWay);
    }
    gpu::Mbarrier* full = &streams.out_full[p];
    expect_bytes(full, rows * bytes);
    if (row < count) {
      gpu::copy_bulk_async(streams.out_stage(p) + row_offset(row, kOutPieceBytes), from + begin,
                           bytes, full);
    }
  }
}

// The lane's inputs of a step.
template <Format kWeights>
struct Inputs {
  uint4 units[kUnits<kWeights>];

  MOEBENCH_DEVICE Inputs(const uint4* x, int step) {
    MOEBENCH_UNROLL
    for (int u = 0; u < kUnits<kWeights>; ++u) {
      units[u] = x[(step * kUnits<kWeights> + u) * 4 + gpu::lane_id() % 4];
    }
  }
};

// The lane's run of a row in a step, as pairs of bf16.
template <Format kWeights>
struct RowRun {
  std::uint32_t pairs[kRun<kWeights> / 2];

  MOEBENCH_DEVICE void take(const unsigned char* row) {
    gpu::DeviceFormat<kWeights>::decode_bf16(*reinterpret_cast<const uint4*>(row), 0, pairs);
  }
};
// Two rows' runs by the inputs: sums[0] is the lower row's, in the first lane of its quad, and
// sums[2] the higher one's.
template <Format kWeights>
MOEBENCH_DEVICE void multiply_step(const RowRun<kWeights>& low, const RowRun<kWeights>& high,
                                   const Inputs<kWeights>& x, float (&sums)[4]) {
  const auto& a = low.pairs;
  const auto& b = high.pairs;
  MOEBENCH_UNROLL
  for (int u = 0; u < kUnits<kWeights>; ++u) {
    const uint4& in = x.units[u];
    const int i = 4 * u;
    gpu::multiply_bf16(sums, {a[i], b[i], a[i + 1], b[i + 1]}, {in.x, in.y});
    gpu::multiply_bf16(sums, {a[i + 2], b[i + 2], a[i + 3], b[i + 3]}, {in.z, in.w});
  }
}
// What a row's sum is multiplied with.
template <Format kWeights>
MOEBENCH_DEVICE float load_factor(const DeviceProduct& product, int row) {
  if constexpr (kWeights == Format::kFp8E4m3) return gpu::load_constant(product.scales + row);
  return 1.0F;
}
template <Format kWeights>
MOEBENCH_DEVICE float times_factor(float sum, float factor) {
  if constexpr (kWeights == Format::kFp8E4m3) return gpu::multiply(sum, factor);
  return sum;
}

MOEBENCH_DEVICE void sync_consumers() { gpu::sync_named(1, kConsumers); }

// Of the rows of two tiles, by warp: added in their order.
struct Partial {
  float of[2][kWarps][kTileRows];

  MOEBENCH_DEVICE void store(int tile, const float (&sums)[4]) {
    if (gpu::lane_id() % 4 != 0) return;
    of[tile][gpu::warp_id()][gpu::lane_id() / 4] = sums[0];
    of[tile][gpu::warp_id()][gpu::lane_id() / 4 + kTilePairs] = sums[2];
  }
  MOEBENCH_DEVICE float total(int tile, int row) const {
    float sum = 0;
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) sum += of[tile][w][row];
    return sum;
  }
};

// Words that others write meanwhile, as soon as none is zero.
MOEBENCH_DEVICE bool are_there(const uint4& words) {
  return words.x != 0 && words.y != 0 && words.z != 0 && words.w != 0;
}
MOEBENCH_DEVICE uint4 await_words(const std::uint32_t* from) {
  while (true) {
    const uint4 words = gpu::load_relaxed(reinterpret_cast<const uint4*>(from));
    if (are_there(words)) return words;
    gpu::spin_on();
  }
}
MOEBENCH_DEVICE void show_pair(std::uint32_t* to, float first, float second) {
  const std::uint32_t pair = gpu::pack_bf16(first, second);
  gpu::store_relaxed(to, pair == 0 ? kNegativeZeros : pair);
}

// Where the token stands, and its positions' splits.
struct Token {
  int position;
  int sequence;
  int first;  // position that it sees
  int split_size;
  int splits;

  MOEBENCH_DEVICE Token(const Work& work)
      : position(work.kv.position[0]), sequence(work.kv.sequence[0]) {
    first = work.window > 0 && position >= work.window ? position - work.window + 1 : 0;
    const int count = position - first + 1;
    const int most = kSplitStep * work.most_splits;
    split_size = count <= kChunk ? kChunk : (count + most - 1) / most * kSplitStep;
    splits = (count + split_size - 1) / split_size;
  }
};

// A. The consumers: query, key and value.
template <Format kWeights, Format kCache, int kHeadDim>
MOEBENCH_DEVICE void multiply_pairs(const Work& work, const Streams<kHeadDim>& streams,
                                    const Token& token, const uint4* x, Partial& partial,
                                    Shown& shown) {
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int num_steps = streams.row_bytes / kStepBytes;
  const std::int64_t place = kv_offset(work.kv, token.sequence, token.position, 0);
  int piece = 0;
  for (int tile = 0; tile < streams.tiles(); ++tile) {
    const Share pairs = streams.pairs_of(tile);
    // The warps take turns to end a tile, a lane a row.
    const bool is_high = lane >= kTilePairs;
    const int i = lane % kTilePairs;
    const bool ends = warp == tile % kWarps && lane < kTileRows && i < pairs.count;
    const Pair<kHeadDim> pair(work, pairs.begin + (i < pairs.count ? i : 0));
    float factor[2] = {1, 1};
    float bias[2] = {};
    float cos = 1;
    float sin = 0;
    const DeviceProduct& product = work.parts[pair.part];
    const float* const biases = product.bias;
    if (ends) {
      factor[0] = load_factor<kWeights>(product, pair.row(false));
      factor[1] = load_factor<kWeights>(product, pair.row(true));
    }
    if (ends && biases != nullptr) {
      bias[0] = gpu::load_constant(biases + pair.row(false));
      bias[1] = gpu::load_constant(biases + pair.row(true));
    }
    if (ends && pair.part < 2) {
      cos = gpu::load_constant(work.cos + pair.column);
      sin = gpu::load_constant(work.sin + pair.column);
    }

    const int row = lane / 4 < pairs.count ? lane / 4 : pairs.count - 1;
    const int low = row_offset(row, kPieceBytes) + lane % 4 * 16;
    const int high = row_offset(kTilePairs + row, kPieceBytes) + lane % 4 * 16;
    float sums[4] = {};
    MOEBENCH_NO_UNROLL
    for (int p = 0; p < streams.num_pieces; ++p, ++piece) {
      const int begin = p * kPieceSteps;
      streams.await(piece);
      const unsigned char* rows = streams.stage(piece);
      MOEBENCH_UNROLL
      for (int s = warp; s < kPieceSteps; s += kWarps) {
        if (begin + s >= num_steps) break;
        RowRun<kWeights> runs[2];
        runs[0].take(rows + low + s * kStepBytes);
        runs[1].take(rows + high + s * kStepBytes);
        multiply_step(runs[0], runs[1], Inputs<kWeights>(x, begin + s), sums);
      }
      gpu::sync_warp();
      if (lane == 0) gpu::mbarrier_arrive(&streams.empty[piece % kStages]);
    }
    partial.store(tile % 2, sums);
    // Who writes these sums again has passed the next tile's barrier, and so has who reads them
    // now.
    sync_consumers();
    if (!ends) continue;
    float value[2];
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      value[h] = times_factor<kWeights>(partial.total(tile % 2, i + h * kTilePairs), factor[h]);
      if (biases != nullptr) value[h] += bias[h];
    }
    float result = is_high ? value[1] : value[0];
    if (pair.part < 2) {
      result = is_high ? fused::rotated_high(value[0], value[1], cos, sin)
                       : fused::rotated_low(value[0], value[1], cos, sin);
    }
    const int at = pair.row(is_high);
    if (pair.part == 0) {
      gpu::store_relaxed(&shown.query[at], gpu::shown(result));
    } else if constexpr (kCache == Format::kFp8E4m3) {
      // 0 for one NaN alone, which no instruction makes.
      gpu::store_relaxed(&shown.key_value[pair.part - 1][at], gpu::bits_of(result) + 1);
    } else {
      const std::uint16_t bits = gpu::float_to_bf16(result);
      gpu::store_relaxed(&shown.key_value[pair.part - 1][at], kIsThere | bits);
      unsigned char* to = (pair.part == 1 ? work.kv.keys : work.kv.values) + place;
      reinterpret_cast<std::uint16_t*>(to)[at] = bits;
    }
  }
}

// What attention needs of shared memory.
template <int kHeadDim>
struct Attending {
  float sinks[kMostQuery / kHeadDim];  // of all heads, in powers of two
  float query[kHeads][kHeadDim];
  std::uint32_t key_value[2][kHeadDim / 2];  // this token's: pairs of bf16
  float scales[2];                           // of float8, likewise
  float sums[kWarps][kHeads][kHeadDim];
  float2 stats[kWarps][kHeads];
};

// A key/value head and a split of the positions [begin, end).
struct Item {
  int kv_head, split, begin, end;
  int at;  // in Shown

  MOEBENCH_DEVICE Item(const Work& work, const Token& token, int item)
      : kv_head(item % work.kv.num_kv_heads), split(item / work.kv.num_kv_heads) {
    begin = token.first + split * token.split_size;
    const int behind = token.position + 1;
    end = begin + token.split_size < behind ? begin + token.split_size : behind;
    at = kv_head * work.most_splits + split;
  }
};

// Keys and values of a chunk of positions, four of the lane's slot, as they are stored.
template <Format kCache, int kHeadDim>
struct Chunk {
  static constexpr int kColumns = kHeadDim / kLanes;
  using Columns = KvColumns<kCache, kColumns>;

  Columns keys[kBatch];
  Columns values[kBatch];

  // Of chunk `begin`, the lane's b-th position.
  MOEBENCH_DEVICE static int position(int begin, int b) {
    return begin + b * kStride + gpu::warp_id() * kSlots + gpu::lane_id() / kLanes;
  }
  MOEBENCH_DEVICE static int column() { return gpu::lane_id() % kLanes * kColumns; }

  // Those before the token.
  MOEBENCH_DEVICE void load(const DeviceKv& kv, const Token& token, const Item& item, int begin) {
    *this = {};
    MOEBENCH_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      const int at = position(begin, b);
      if (at >= item.end || at >= token.position) continue;
      const std::int64_t offset = kv_offset(kv, token.sequence, at, item.kv_head);
      load(keys[b], kv.keys + offset);
      load(values[b], kv.values + offset);
    }
  }
  MOEBENCH_DEVICE static void load(Columns& to, const unsigned char* row) {
    if constexpr (kCache == Format::kBf16 && kColumns == 8) {
      // Not where the compiler would like to have it: later.
      const uint4 words = gpu::load_streaming(row + 2 * column());
      to.words[0] = words.x;
      to.words[1] = words.y;
      to.words[2] = words.z;
      to.words[3] = words.w;
    } else {
      to.load(row, static_cast<int>(kHeadDim * sizeof(to.words) / kColumns), column());
    }
  }
};

// The columns of a key or value as pairs of bf16, still to be multiplied with `scale`, which those
// of bf16 have not.
template <Format kCache, int kColumns>
struct Pairs {
  std::uint32_t of[kColumns / 2];
  float scale;

  MOEBENCH_DEVICE void take(const KvColumns<kCache, kColumns>& stored) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns / 2; ++i) {
      if constexpr (kCache == Format::kBf16) {
        of[i] = stored.words[i];
      } else {
        of[i] = e4m3_pair(stored.words[i / 2], i % 2);
      }
    }
    if constexpr (kCache != Format::kBf16) scale = stored.decoded_scale();
  }
  MOEBENCH_DEVICE void decode(float (&values)[kColumns]) const {
    MOEBENCH_UNROLL
    for (int i = 0; i < kColumns; i += 2) {
      values[i] = gpu::low_bf16(of[i / 2]);
      values[i + 1] = gpu::high_bf16(of[i / 2]);
    }
  }
  MOEBENCH_DEVICE float scaled(float value) const {
    return kCache == Format::kBf16 ? value : value * scale;
  }
};

// A chunk, so.
template <Format kCache, int kHeadDim>
struct Decoded {
  using Stored = Chunk<kCache, kHeadDim>;
  Pairs<kCache, Stored::kColumns> keys[kBatch];
  Pairs<kCache, Stored::kColumns> values[kBatch];

  MOEBENCH_DEVICE void take(const Stored& chunk) {
    MOEBENCH_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      keys[b].take(chunk.keys[b]);
      values[b].take(chunk.values[b]);
    }
  }
  // And the token's own, if it is among them.
  MOEBENCH_DEVICE void add_own(const Token& token, const Item& item, int begin,
                               const Attending<kHeadDim>& shared) {
    MOEBENCH_UNROLL
    for (int b = 0; b < kBatch; ++b) {
      const int at = Stored::position(begin, b);
      if (at >= item.end || at != token.position) continue;
      MOEBENCH_UNROLL
      for (int i = 0; i < Stored::kColumns / 2; ++i) {
        keys[b].of[i] = shared.key_value[0][Stored::column() / 2 + i];
        values[b].of[i] = shared.key_value[1][Stored::column() / 2 + i];
      }
      if constexpr (kCache != Format::kBf16) {
        keys[b].scale = shared.scales[0];
        values[b].scale = shared.scales[1];
      }
    }
  }
};

// Adds a chunk to what the warp has found: `largest` (of all its slots) and `total` (of the lane's)
// of head lane % 8, `sum` of [head, column].
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void attend_chunk(const Decoded<kCache, kHeadDim>& chunk, int begin, int end,
                                  const float (&query)[kHeads][kHeadDim], float& largest,
                                  float& total, float (&sum)[kHeads * kHeadDim / kLanes]) {
  using Stored = Chunk<kCache, kHeadDim>;
  constexpr int kColumns = Stored::kColumns;
  float weight[kBatch];  // first: the score of head lane % 8
  float most = largest;
  MOEBENCH_UNROLL
  for (int b = 0; b < kBatch; ++b) weight[b] = kLowest;
  MOEBENCH_UNROLL
  for (int first = 0; first < kBatch; first += 2) {
    if (begin + first * kStride >= end) break;
    float key[2][kColumns];
    MOEBENCH_UNROLL
    for (int b = 0; b < 2; ++b) chunk.keys[first + b].decode(key[b]);
    float score[2][kHeads];
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      float q[kColumns];
      MOEBENCH_UNROLL
      for (int c = 0; c < kColumns; c += 4) {
        const auto four = *reinterpret_cast<const float4*>(&query[h][Stored::column() + c]);
        q[c] = four.x;
        q[c + 1] = four.y;
        q[c + 2] = four.z;
        q[c + 3] = four.w;
      }
      MOEBENCH_UNROLL
      for (int b = 0; b < 2; ++b) {
        score[b][h] = 0;
        MOEBENCH_UNROLL
        for (int c = 0; c < kColumns; ++c) score[b][h] += q[c] * key[b][c];
      }
    }
    MOEBENCH_UNROLL
    for (int b = 0; b < 2; ++b) {
      add_halves<4>(score[b], 4);
      add_halves<2>(score[b], 2);
      add_halves<1>(score[b], 1);
      if (Stored::position(begin, first + b) < end) {
        weight[first + b] = chunk.keys[first + b].scaled(score[b][0]);
      }
      most = fmaxf(most, weight[first + b]);
    }
  }
  MOEBENCH_UNROLL
  for (int offset = kLanes; offset < gpu::kWarp; offset *= 2) {
    most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, offset));
  }
  const float factor = gpu::exp2_fast(largest - most);
  largest = most;
  total *= factor;
  MOEBENCH_UNROLL
  for (int b = 0; b < kBatch; ++b) {
    weight[b] = Stored::position(begin, b) < end ? gpu::exp2_fast(weight[b] - most) : 0;
    total += weight[b];
  }
  MOEBENCH_UNROLL
  for (int h = 0; h < kHeads; ++h) {
    const float of_head = gpu::shuffle(gpu::kAllLanes, factor, h);
    MOEBENCH_UNROLL
    for (int c = 0; c < kColumns; ++c) sum[h * kColumns + c] *= of_head;
  }
  MOEBENCH_UNROLL
  for (int b = 0; b < kBatch; ++b) {
    if (begin + b * kStride >= end) break;
    float value[kColumns];
    chunk.values[b].decode(value);
    const float scaled = chunk.values[b].scaled(weight[b]);
    MOEBENCH_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const float of_head =
          gpu::shuffle(gpu::kAllLanes, scaled, gpu::lane_id() / kLanes * kLanes + h);
      MOEBENCH_UNROLL
      for (int c = 0; c < kColumns; ++c) sum[h * kColumns + c] += of_head * value[c];
    }
  }
}

// This token's key and value, of a head: by a warp, four columns a lane.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void await_key_value(const Work& work, const Token& token, const Item& item,
                                     const Shown& shown, Attending<kHeadDim>& to) {
  const int i = 4 * gpu::lane_id();  // key, then value
  const int which = i / kHeadDim;
  const int column = i % kHeadDim;
  const bool is_inside = which < 2;
  uint4 words = {0, 0, 0, 0};
  if (is_inside) words = await_words(&shown.key_value[which][item.kv_head * kHeadDim + column]);
  if constexpr (kCache == Format::kBf16) {
    if (!is_inside) return;
    std::uint32_t* pairs = &to.key_value[which][column / 2];
    pairs[0] = (words.x & 0xffffU) | words.y << 16;
    pairs[1] = (words.z & 0xffffU) | words.w << 16;
  } else {
    gpu::sync_warp();
    const auto number = [&](std::uint32_t word) {
      return is_inside ? gpu::float_from_bits(word - 1) : 0.0F;
    };
    const float v[4] = {number(words.x), number(words.y), number(words.z), number(words.w)};
    float largest = 0;
    MOEBENCH_UNROLL
    for (int c = 0; c < 4; ++c) largest = fmaxf(largest, fabsf(v[c]));
    largest = gpu::block_max<kHeadDim / 4>(largest);
    const float scale = gpu::scale_for<kCache>(largest, 1.0F).value;
    if (!is_inside) return;
    std::uint32_t codes = 0;
    MOEBENCH_UNROLL
    for (int c = 0; c < 4; ++c) codes |= gpu::element_code<kCache>(v[c], scale) << 8 * c;
    to.key_value[which][column / 2] = e4m3_pair(codes, 0);
    to.key_value[which][column / 2 + 1] = e4m3_pair(codes, 1);
    unsigned char* row = (which == 0 ? work.kv.keys : work.kv.values) +
                         kv_offset(work.kv, token.sequence, token.position, item.kv_head);
    *reinterpret_cast<std::uint32_t*>(row + column) = codes;
    if (column > 0) return;
    to.scales[which] = scale;
    *reinterpret_cast<float*>(row + kHeadDim) = scale;
  }
}

// The queries of an item, and this token's key and value if it is the item's last position.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void await_queries(const Work& work, const Token& token, const Item& item,
                                   const Shown& shown, Attending<kHeadDim>& to) {
  constexpr int kThreadsOfQueries = kHeads * kHeadDim / 4;
  static_assert(kThreadsOfQueries % gpu::kWarp == 0 && 2 * kMostHeadDim / 4 <= gpu::kWarp);
  static_assert(kThreadsOfQueries + gpu::kWarp <= kConsumers);
  const auto thread = static_cast<int>(threadIdx.x);
  const int group = work.num_heads / work.kv.num_kv_heads;
  if (thread < kThreadsOfQueries) {
    const int head = 4 * thread / kHeadDim;
    float4 four = {0, 0, 0, 0};
    if (head < group) {
      const uint4 words = await_words(shown.query + item.kv_head * group * kHeadDim + 4 * thread);
      four = {
          gpu::float_from_bits(words.x) * work.scale, gpu::float_from_bits(words.y) * work.scale,
          gpu::float_from_bits(words.z) * work.scale, gpu::float_from_bits(words.w) * work.scale};
    }
    *reinterpret_cast<float4*>(&to.query[head][4 * thread % kHeadDim]) = four;
  } else if (item.end == token.position + 1 && gpu::warp_id() == kThreadsOfQueries / gpu::kWarp) {
    await_key_value<kCache>(work, token, item, shown, to);
  }
}

// What the warps found of a column, of the positions of an item.
struct Found {
  float largest;
  float total;
  float sum[2];
};
// With the head's sink: the two columns.
MOEBENCH_DEVICE void show_head(float sink, const Found& found, std::uint32_t* to) {
  const float most = fmaxf(found.largest, sink);
  const float weight = gpu::exp2_fast(found.largest - most);
  const float total = found.total * weight + gpu::exp2_fast(sink - most);
  show_pair(to, found.sum[0] * weight / total, found.sum[1] * weight / total);
}

// B. An item; `stored` is its first chunk, as far as it is in the cache. Later ones take its place:
// in one of their own, ptxas has them in local memory.
template <Format kCache, int kHeadDim>
MOEBENCH_DEVICE void attend(const Work& work, const Token& token, const Item& item,
                            Chunk<kCache, kHeadDim>& stored, Attending<kHeadDim>& shared,
                            Shown& shown) {
  using Stored = Chunk<kCache, kHeadDim>;
  constexpr int kColumns = Stored::kColumns;
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int slot = lane / kLanes;
  Decoded<kCache, kHeadDim> chunk;
  chunk.take(stored);
  // Of an item before this one, all have read the queries.
  await_queries<kCache>(work, token, item, shown, shared);
  sync_consumers();
  float largest = kLowest;
  float total = 0;
  float sum[kHeads * kColumns] = {};
  MOEBENCH_NO_UNROLL
  for (int begin = item.begin; begin < item.end; begin += kChunk) {
    Stored next = {};
    if (begin + kChunk < item.end) next.load(work.kv, token, item, begin + kChunk);
    chunk.add_own(token, item, begin, shared);
    attend_chunk(chunk, begin, item.end, shared.query, largest, total, sum);
    stored = next;
    chunk.take(stored);
  }
  MOEBENCH_UNROLL
  for (int offset = kLanes; offset < gpu::kWarp; offset *= 2) {
    total += gpu::shuffle_xor(gpu::kAllLanes, total, offset);
  }
  // The slots' sums: a lane is left with two heads.
  add_halves<4 * kColumns>(sum, kLanes);
  add_halves<2 * kColumns>(sum, 2 * kLanes);
  const int head = (slot & 1) * 4 + (slot & 2);
  MOEBENCH_UNROLL
  for (int i = 0; i < 2 * kColumns; ++i) {
    shared.sums[warp][head + i / kColumns][Stored::column() + i % kColumns] = sum[i];
  }
  if (slot == 0) shared.stats[warp][lane] = {largest, total};
  sync_consumers();
  const int group = work.num_heads / work.kv.num_kv_heads;
  for (int i = static_cast<int>(threadIdx.x); i < group * kHeadDim / 2; i += kConsumers) {
    const int h = 2 * i / kHeadDim;
    const int column = 2 * i % kHeadDim;
    Found found{kLowest, 0, {0, 0}};
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) found.largest = fmaxf(found.largest, shared.stats[w][h].x);
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) {
      const float factor = gpu::exp2_fast(shared.stats[w][h].x - found.largest);
      found.total += factor * shared.stats[w][h].y;
      MOEBENCH_UNROLL
      for (int c = 0; c < 2; ++c) found.sum[c] += factor * shared.sums[w][h][column + c];
    }
    if (token.splits == 1) {
      const int of_all = item.kv_head * group + h;
      show_head(shared.sinks[of_all], found, shown.found + (of_all * kHeadDim + column) / 2);
      continue;
    }
    std::uint32_t* sums = shown.sums[item.at] + h * kHeadDim + column;
    gpu::store_relaxed(sums, gpu::shown(found.sum[0]));
    gpu::store_relaxed(sums + 1, gpu::shown(found.sum[1]));
    if (column == 0) {
      gpu::store_relaxed(&shown.stats[item.at][h][0], gpu::shown(found.largest));
      gpu::store_relaxed(&shown.stats[item.at][h][1], gpu::shown(found.total));
    }
  }
}

// C. The item's part of its head's columns: four of them and all splits by sixteen lanes.
template <int kHeadDim>
MOEBENCH_DEVICE void join_splits(const Work& work, const Token& token, const Item& item,
                                 const float* sinks, Shown& shown) {
  const int group = work.num_heads / work.kv.num_kv_heads;
  const int units = group * kHeadDim / 4;
  const int split = static_cast<int>(threadIdx.x) % kMostSplits;
  const int last = units * (item.split + 1) / token.splits;
  for (int begin = units * item.split / token.splits; begin < last;
       begin += kConsumers / kMostSplits) {
    const int unit = begin + static_cast<int>(threadIdx.x) / kMostSplits;
    const int h = 4 * unit / kHeadDim;
    float largest = kLowest;
    float total = 0;
    float sum[4] = {};
    if (unit < last && split < token.splits) {
      const int at = item.kv_head * work.most_splits + split;
      const std::uint32_t* stats = shown.stats[at][h];
      std::uint32_t first = 0;
      std::uint32_t second = 0;
      uint4 words = {0, 0, 0, 0};
      while (true) {
        words = gpu::load_relaxed(reinterpret_cast<const uint4*>(shown.sums[at] + 4 * unit));
        first = gpu::load_relaxed(stats);
        second = gpu::load_relaxed(stats + 1);
        if (are_there(words) && first != 0 && second != 0) break;
        gpu::spin_on();
      }
      largest = gpu::float_from_bits(first);
      total = gpu::float_from_bits(second);
      sum[0] = gpu::float_from_bits(words.x);
      sum[1] = gpu::float_from_bits(words.y);
      sum[2] = gpu::float_from_bits(words.z);
      sum[3] = gpu::float_from_bits(words.w);
    }
    gpu::sync_warp();
    float most = largest;
    MOEBENCH_UNROLL
    for (int lanes = kMostSplits / 2; lanes > 0; lanes /= 2) {
      most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, lanes));
    }
    const float factor = gpu::exp2_fast(largest - most);
    total *= factor;
    MOEBENCH_UNROLL
    for (float& s : sum) s *= factor;
    MOEBENCH_UNROLL
    for (int lanes = kMostSplits / 2; lanes > 0; lanes /= 2) {
      total += gpu::shuffle_xor(gpu::kAllLanes, total, lanes);
      MOEBENCH_UNROLL
      for (float& s : sum) s += gpu::shuffle_xor(gpu::kAllLanes, s, lanes);
    }
    if (unit >= last || split >= 2) continue;
    const int head = item.kv_head * group + h;
    const Found found{most, total, {split == 0 ? sum[0] : sum[2], split == 0 ? sum[1] : sum[3]}};
    show_head(sinks[head], found,
              shown.found + (item.kv_head * group * kHeadDim + 4 * unit) / 2 + split);
  }
}

// What all heads found, as soon as it is there, into `to`.
template <Format kWeights>
MOEBENCH_DEVICE void await_found(const Work& work, int words, const Shown& shown, uint4* to) {
  // Until some is there, one warp asks for a word of each key/value head: asking for all of them
  // all the time would be as much as the weights.
  if (gpu::warp_id() == 0) {
    const int of_head = words / work.kv.num_kv_heads;
    while (true) {
      const bool is_there = gpu::lane_id() < work.kv.num_kv_heads &&
                            gpu::load_relaxed(&shown.found[gpu::lane_id() * of_head]) != 0;
      if (gpu::any(gpu::kAllLanes, is_there)) break;
      gpu::spin_on();
    }
  }
  sync_consumers();
  constexpr int kLoads = kMostQuery / 2 / 4 / kConsumers;
  uint4 mine[kLoads] = {};
  MOEBENCH_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kConsumers;
    if (4 * at < words)
      mine[i] = gpu::load_relaxed(reinterpret_cast<const uint4*>(shown.found) + at);
  }
  MOEBENCH_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kConsumers;
    if (4 * at >= words) continue;
    if (!are_there(mine[i])) mine[i] = await_words(shown.found + 4 * at);
    to[place_of<kWeights>(at)] = mine[i];
  }
  sync_consumers();
}

// Rows of the last product are multiplied in groups of eight. Where in a piece the lane's row of
// one lies.
constexpr int kOutGroups = 2 * kOutTiles;
MOEBENCH_DEVICE int place_of_out_row(int group, int count) {
  const int row = group * kTilePairs + gpu::lane_id() / 4;
  return row_offset(row < count ? row : count - 1, kOutPieceBytes) + gpu::lane_id() % 4 * 16;
}

// What is decoded of them while the block waits for what all heads found, as much as registers
// hold: of most pieces all groups but the last, which gpt-oss has not on a GPU of 132 SMs. Nothing
// of bf16, which needs no decoding.
constexpr int kRounds = kOutPieceSteps / kWarps;  // of a piece: steps of a warp
template <Format kWeights>
constexpr int kAheadPieces = kWeights == Format::kBf16 ? 0 : 3;
template <Format kWeights>
struct Ahead {
  RowRun<kWeights> runs[kAheadPieces<kWeights>][kRounds][kOutGroups - 1];

  template <int kHeadDim>
  MOEBENCH_DEVICE void take(const Streams<kHeadDim>& streams) {
    const int num_steps = streams.out_row_bytes / kStepBytes;
    int places[kOutGroups - 1];
    MOEBENCH_UNROLL
    for (int g = 0; g < kOutGroups - 1; ++g) {
      places[g] = place_of_out_row(g, streams.out_rows.count);
    }
    MOEBENCH_UNROLL
    for (int p = 0; p < kAheadPieces<kWeights>; ++p) {
      if (p * kOutPieceSteps >= num_steps) break;
      gpu::mbarrier_wait(&streams.out_full[p], 0);
      MOEBENCH_UNROLL
      for (int r = 0; r < kRounds; ++r) {
        const int s = r * kWarps + gpu::warp_id();
        if (p * kOutPieceSteps + s >= num_steps) break;
        const unsigned char* step = streams.out_stage(p) + s * kStepBytes;
        MOEBENCH_UNROLL
        for (int g = 0; g < kOutGroups - 1; ++g) runs[p][r][g].take(step + places[g]);
      }
    }
  }
};
template <>
struct Ahead<Format::kBf16> {
  template <int kHeadDim>
  MOEBENCH_DEVICE void take(const Streams<kHeadDim>&) {}
};

// D. The consumers: rows that have come.
template <Format kWeights, int kHeadDim>
MOEBENCH_DEVICE void multiply_out_rows(const Work& work, const Streams<kHeadDim>& streams,
                                       const float (&factor)[kOutPasses],
                                       const float (&bias)[kOutPasses],
                                       const Ahead<kWeights>& ahead, const uint4* x,
                                       Partial& partial) {
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int num_steps = streams.out_row_bytes / kStepBytes;
  const int count = streams.out_rows.count;
  MOEBENCH_UNROLL
  for (int pass = 0; pass < kOutPasses; ++pass) {
    const int first = pass * kOutTiles * kTileRows;
    if (first >= count) break;
    int places[kOutGroups];
    MOEBENCH_UNROLL
    for (int g = 0; g < kOutGroups; ++g) places[g] = place_of_out_row(pass * kOutGroups + g, count);
    // Decoding rows that are not there takes as long as any.
    const bool has_last =
        kWeights == Format::kBf16 || first + (kOutGroups - 1) * kTilePairs < count;
    float sums[kOutTiles][4] = {};
    constexpr int kAhead = kAheadPieces<kWeights>;
    if constexpr (kAhead > 0) {
      static_assert(kOutTiles == 2);
      MOEBENCH_UNROLL
      for (int i = 0; i < kAhead * kRounds; ++i) {
        const int p = i / kRounds;
        const int s = i % kRounds * kWarps + warp;
        if (pass > 0 || p * kOutPieceSteps + s >= num_steps) break;
        const auto& runs = ahead.runs[p][i % kRounds];
        const Inputs<kWeights> in(x, p * kOutPieceSteps + s);
        RowRun<kWeights> last = {};
        if (has_last) last.take(streams.out_stage(p) + s * kStepBytes + places[kOutGroups - 1]);
        multiply_step(runs[0], runs[1], in, sums[0]);
        multiply_step(runs[2], last, in, sums[1]);
      }
    }
    MOEBENCH_NO_UNROLL
    for (int p = pass == 0 ? kAhead : 0; p * kOutPieceSteps < num_steps; ++p) {
      const int begin = p * kOutPieceSteps;
      gpu::mbarrier_wait(&streams.out_full[p], 0);
      const unsigned char* rows = streams.out_stage(p);
      MOEBENCH_UNROLL
      for (int s = warp; s < kOutPieceSteps; s += kWarps) {
        if (begin + s >= num_steps) break;
        const Inputs<kWeights> in(x, begin + s);
        RowRun<kWeights> runs[kOutGroups] = {};
        MOEBENCH_UNROLL
        for (int g = 0; g < kOutGroups; ++g) {
          if (g + 1 < kOutGroups || has_last) runs[g].take(rows + places[g] + s * kStepBytes);
        }
        MOEBENCH_UNROLL
        for (int t = 0; t < kOutTiles; ++t) {
          multiply_step(runs[2 * t], runs[2 * t + 1], in, sums[t]);
        }
      }
    }
    if (pass > 0) sync_consumers();  // the sums before have been read
    MOEBENCH_UNROLL
    for (int t = 0; t < kOutTiles; ++t) partial.store(t, sums[t]);
    sync_consumers();
    const int row = first + warp * kTileRows + lane;
    if (warp >= kOutTiles || lane >= kTileRows || row >= count) continue;
    float sum = times_factor<kWeights>(partial.total(warp, lane), factor[pass]);
    if (work.output.bias != nullptr) sum += bias[pass];
    work.out[streams.out_rows.begin + row] = sum;
  }
}

// What the launch before has left, so that the next finds nothing. The consumers of all blocks.
MOEBENCH_DEVICE void clear(Shown& shown) {
  auto* words = reinterpret_cast<uint4*>(&shown);
  const auto blocks = static_cast<int>(gridDim.x);
  for (int i = static_cast<int>(threadIdx.x) * blocks + static_cast<int>(blockIdx.x);
       i < static_cast<int>(sizeof(Shown) / sizeof(uint4)); i += kConsumers * blocks) {
    words[i] = {0, 0, 0, 0};
  }
}

template <Format kWeights, Format kCache, int kHeadDim>
__global__ void MOEBENCH_BOUNDS(kThreads, 1) one_launch(MOEBENCH_GRID_CONSTANT Work work) {
  MOEBENCH_SHARED(gpu::Mbarrier, full, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, empty, [kStages]);
  MOEBENCH_SHARED(gpu::Mbarrier, out_full, [kMostOutPieces]);
  MOEBENCH_SHARED(Attending<kHeadDim>, attending, [1]);
  MOEBENCH_SHARED(Partial, partial, [1]);
  MOEBENCH_SHARED(unsigned, turn, [1]);
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    gpu::init_ring(full, empty, kStages, kProducers, kWarps);
    for (gpu::Mbarrier& piece : out_full) gpu::mbarrier_init(&piece, kProducers);
    gpu::fence_mbarrier_init();
  }
  gpu::sync_threads();
  const int query_size = work.num_heads * kHeadDim;
  const int cols = work.hidden_size;
  const int row_bytes = bytes_of(cols, kRun<kWeights>);
  const int out_row_bytes = bytes_of(query_size, kRun<kWeights>);
  const auto most_out_rows = static_cast<int>((cols + gridDim.x - 1) / gridDim.x);
  const Streams<kHeadDim> streams{gpu::dynamic_shared(),
                                  full,
                                  empty,
                                  out_full,
                                  share_of_block(work.pairs[0] + work.pairs[1] + work.pairs[2]),
                                  share_of_block(cols),
                                  row_bytes,
                                  out_row_bytes,
                                  (row_bytes + kPieceBytes - 1) / kPieceBytes,
                                  out_stage_bytes(most_out_rows)};
  if (thread >= kConsumers) {
    gpu::lower_max_registers<kProducerRegisters>();
    ask_for_pairs(work, streams);
    ask_for_out_rows(work, streams);
    return;
  }

  gpu::raise_max_registers<kConsumerRegisters>();

  const Places places = places_of(cols, query_size, out_row_bytes, most_out_rows);
  auto* x = reinterpret_cast<uint4*>(streams.memory + places.x);
  auto* found = reinterpret_cast<uint4*>(streams.memory + places.found);
  float out_factor[kOutPasses] = {};
  float out_bias[kOutPasses] = {};
  using Row = fused::RowPart<4>;
  Row row;
  row.load_weights(work.norm.weight, cols);
  gpu::wait_for_previous_kernel();
  row.load_row(work.norm.x, work.norm.addend, cols);
  const Token token(work);
  if (thread == kConsumers - 1) {
    turn[0] = gpu::grid_turn(&work.signals->turn);
    gpu::arrive_at_grid(&work.signals->turn);
  }
  if (blockIdx.x == gridDim.x - 1) row.store_row(work.norm.sum, cols);
  if (thread < work.num_heads) {
    attending[0].sinks[thread] =
        work.sinks != nullptr ? gpu::load_constant(work.sinks + thread) * kLog2E : kLowest;
  }
  row.normalise(
      fused::row_scale(gpu::block_sum<kConsumers>(row.squares(), [] { sync_consumers(); }), cols,
                       work.norm.epsilon));
  fused::for_each_unit(row, cols / 8, [&](int unit, const float4& first, const float4& second) {
    x[place_of<kWeights>(unit)] = gpu::pack_inputs<kWeights>(first, second);
  });
  sync_consumers();
  Shown& shown = work.signals->at[turn[0]];
  const int num_items = work.kv.num_kv_heads * token.splits;
  const auto blocks = static_cast<int>(gridDim.x);
  const auto block = static_cast<int>(blockIdx.x);
  // What is there of the block's first item comes while the weights do.
  Chunk<kCache, kHeadDim> chunk = {};
  if (block < num_items) {
    const Item item(work, token, block);
    chunk.load(work.kv, token, item, item.begin);
  }
  multiply_pairs<kWeights, kCache>(work, streams, token, x, partial[0], shown);

  for (int i = block; i < num_items; i += blocks) {
    const Item item(work, token, i);
    if (i > block) chunk.load(work.kv, token, item, item.begin);
    attend(work, token, item, chunk, attending[0], shown);
  }
  if (token.splits > 1) {
    for (int i = block; i < num_items; i += blocks) {
      join_splits<kHeadDim>(work, token, Item(work, token, i), attending[0].sinks, shown);
    }
  }
  MOEBENCH_UNROLL
  for (int pass = 0; pass < kOutPasses; ++pass) {
    const int r = (pass * kOutTiles + gpu::warp_id()) * kTileRows + gpu::lane_id();
    if (gpu::warp_id() >= kOutTiles || gpu::lane_id() >= kTileRows || r >= streams.out_rows.count) {
      continue;
    }
    out_factor[pass] = load_factor<kWeights>(work.output, streams.out_rows.begin + r);
    if (work.output.bias == nullptr) continue;
    out_bias[pass] = gpu::load_constant(work.output.bias + streams.out_rows.begin + r);
  }
  clear(work.signals->at[turn[0] ^ 1]);
  Ahead<kWeights> ahead;
  ahead.take(streams);
  await_found<kWeights>(work, query_size / 2, shown, found);
  gpu::let_next_kernel_start();
  multiply_out_rows<kWeights>(work, streams, out_factor, out_bias, ahead, found, partial[0]);
}

// With barriers and what adds up a row, and up to where dynamic shared memory begins.
constexpr std::size_t kStaticSharedBytes =
    (sizeof(Attending<kMostHeadDim>) + sizeof(Partial) + 512 + 1023) / 1024 * 1024;

// Empty, or why it cannot do what is around attention in such a problem.
std::string around_unsupported(const Problem& problem) {
  const std::string reason = gpu::needs_compute_capability(90);
  if (!reason.empty()) return reason;
  if (problem.num_tokens != 1) return "one token is taken";
  for (const Format format : {problem.weight_format, problem.kv_format}) {
    if (format == Format::kBf16 || format == Format::kFp8E4m3) continue;
    return fmt::format("weights and cache must be bf16 or fp8_e4m3; they are {} and {}",
                       format_name(problem.weight_format), format_name(problem.kv_format));
  }
  const int run = run_of(problem.weight_format);
  if (problem.head_dim != 32 && problem.head_dim != 64) {
    return fmt::format("head_dim {} is not 32 or 64", problem.head_dim);
  }
  const std::string shared = shared_heads_unsupported(problem, kHeads);
  if (!shared.empty()) return shared;
  const std::int64_t query_size = problem.num_heads * problem.head_dim;
  if (query_size > kMostQuery || problem.num_kv_heads > kMostKvHeads ||
      problem.num_kv_heads * problem.head_dim > kMostKeys) {
    return fmt::format("{} and {} heads of {} are too many", problem.num_heads,
                       problem.num_kv_heads, problem.head_dim);
  }
  if (problem.hidden_size <= 0 || problem.hidden_size > fused::kMostHeld ||
      problem.hidden_size % (4 * run) != 0 || query_size % (4 * run) != 0) {
    return fmt::format(
        "hidden_size, up to {}, and the columns of all heads must be multiples of {}; they are {} "
        "and {}",
        fused::kMostHeld, 4 * run, problem.hidden_size, query_size);
  }
  const gpu::DeviceInfo& device = gpu::device_info();
  const std::int64_t out_rows = (problem.hidden_size + device.num_sms - 1) / device.num_sms;
  const auto bytes = static_cast<std::size_t>(
      places_of(static_cast<int>(problem.hidden_size), static_cast<int>(query_size),
                bytes_of(static_cast<int>(query_size), run),
                static_cast<int>(std::min<std::int64_t>(out_rows, kMostOutRows)))
          .bytes);
  if (out_rows > kMostOutRows || bytes + kStaticSharedBytes > device.shared_bytes_per_block) {
    return fmt::format("{} rows of the product behind it are too many for an SM", out_rows);
  }
  return "";
}

template <Format kWeights, Format kCache, int kHeadDim>
void start(const Work& work, gpu::Stream stream) {
  const int num_sms = gpu::device_info().num_sms;
  const int query_size = work.num_heads * kHeadDim;
  const auto bytes = static_cast<std::size_t>(places_of(work.hidden_size, query_size,
                                                        bytes_of(query_size, kRun<kWeights>),
                                                        (work.hidden_size + num_sms - 1) / num_sms)
                                                  .bytes);
  gpu::launch(one_launch<kWeights, kCache, kHeadDim>,
              {.grid = {static_cast<unsigned>(num_sms)},
               .block = kThreads,
               .shared_bytes = bytes,
               .stream = stream,
               .overlap_previous = true,
               .cooperative = true,
               .shared_percent = gpu::shared_percent_for(bytes + kStaticSharedBytes, 1)},
              "attention/cuda_one_launch_bf16", work);
}

// Calls visit(std::integral_constant<Format, f>) for one of those that it takes.
template <class Visitor>
void with_taken(Format format, Visitor&& visit) {
  if (format == Format::kBf16) return visit(std::integral_constant<Format, Format::kBf16>());
  visit(std::integral_constant<Format, Format::kFp8E4m3>());
}

void run(const Args& args, Context& context) {
  const Args::Around& around = args.around;
  if (around.norm.weight.data == nullptr) return cuda_decode_stream_mma.run(args, context);
  const std::int64_t num_heads = args.queries.shape[1];
  const std::int64_t head_dim = args.kv.head_dim;
  const std::int64_t hidden_size = around.output.weight.rows;
  const Problem problem{
      args.kv.format, args.queries.shape[0], num_heads,   args.kv.num_kv_heads,       head_dim,
      args.window,    args.max_context,      hidden_size, around.output.weight.format};
  const std::string reason = around_unsupported(problem);
  require(reason.empty(), "run attention with what is around it: {}", reason);
  Work work{};
  const auto take = [&](const Product& product, std::int64_t rows, std::int64_t cols) {
    const MatrixView& w = product.weight;
    require(w.format == problem.weight_format && w.layout == RowLayout::kRowMajor &&
                w.rows == rows && w.cols == cols &&
                reinterpret_cast<std::uintptr_t>(w.data) % 16 == 0 &&
                reinterpret_cast<std::uintptr_t>(w.scales) % sizeof(float) == 0,
            "run attention with what is around it: weights of {} x {} {}, not {} x {} {} in rows "
            "that are aligned to 16 bytes",
            w.rows, w.cols, format_name(w.format), rows, cols, format_name(problem.weight_format));
    return DeviceProduct{reinterpret_cast<const unsigned char*>(w.data),
                         reinterpret_cast<const float*>(w.scales), product.bias.data};
  };
  const std::int64_t sizes[] = {num_heads * head_dim, args.kv.num_kv_heads * head_dim,
                                args.kv.num_kv_heads * head_dim};
  const Product* products[] = {&around.query, &around.key, &around.value};
  for (int part = 0; part < 3; ++part) {
    work.parts[part] = take(*products[part], sizes[part], hidden_size);
    work.pairs[part] = static_cast<int>(sizes[part] / 2);
  }
  work.output = take(around.output, hidden_size, sizes[0]);
  fused::check_aligned(
      {around.norm.x.data, around.norm.addend.data, around.norm.weight.data, around.norm.sum.data});
  require(context.signals.size() >= kExpertsSignalBytes + sizeof(Signals),
          "run attention with what is around it: {} bytes of signals, of {}",
          context.signals.size(), kExpertsSignalBytes + sizeof(Signals));
  work.norm = fused::device_norm(around.norm);
  work.hidden_size = static_cast<int>(hidden_size);
  work.num_heads = static_cast<int>(num_heads);
  work.kv = device_kv(args.kv, args.places);
  work.cos = around.cos.data;
  work.sin = around.sin.data;
  work.sinks = args.sinks.data;
  work.scale = args.scale * kLog2E;
  work.window = static_cast<int>(args.window);
  const auto blocks = static_cast<std::int64_t>(gpu::device_info().num_sms);
  work.most_splits = static_cast<int>(std::clamp<std::int64_t>(
      std::min<std::int64_t>(blocks, kMostItems) / args.kv.num_kv_heads, 1, kMostSplits));
  work.out = around.out.data;
  work.signals = reinterpret_cast<Signals*>(context.signals.data() + kExpertsSignalBytes);
  with_taken(problem.weight_format, [&](auto weights) {
    with_taken(problem.kv_format, [&](auto cache) {
      if (head_dim == 32) {
        start<weights(), cache(), 32>(work, context.stream);
      } else {
        start<weights(), cache(), 64>(work, context.stream);
      }
    });
  });
}

}  // namespace

const Variant cuda_one_launch_bf16 = {
    .name = "cuda_one_launch_bf16",
    .backend = "cuda",
    .summary =
        "one token's norm, query, key, value, cache, attention and product behind it in one launch "
        "(Hopper); else cuda_decode_stream_mma",
    .rounds = "inputs of products: bf16; of attention, alone: queries, keys, values, weights: bf16",
    .max_nmse = [](const Problem&) { return 2e-5; },
    .unsupported =
        [](const Problem& problem) { return cuda_decode_stream_mma.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return cuda_decode_stream_mma.workspace_bytes(problem, num_threads);
        },
    .run = run,
    .normalises = [](const Problem& problem) { return around_unsupported(problem).empty(); },
};

}  // namespace moebench::attention
