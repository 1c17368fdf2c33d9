// The products of attention's half of a layer in one launch: how weights come, and what multiplies
// them. Lanes and runs are those of row_stream.cuh, and of query, key and value in bf16 the order
// of every sum.
#pragma once

#include "kernels/attention/one_launch.cuh"
#include "kernels/core/gpu_numbers.cuh"
#include "kernels/formats/device_decode.cuh"
#include "kernels/fused/rotation.cuh"

namespace moebench::attention {
namespace {

// A tile of query, key and value: up to eight pairs of rows that are rotated together, the lower
// ones first. It comes in pieces of so many bytes of each row; the rows of the last product, which
// follow each other, come in pieces of whole rows: memory gives long runs sooner (22 rows of 8 KB,
// 132 blocks, 44 KB under way on an H200: 7.7 us a launch, 8.6 by 1,024 bytes of each row). A step
// is the 16 bytes of a row that each lane of a quad takes, and warp w takes steps w, w + 8, ..., as
// in row_stream.cuh, whose order the inputs have, too.
constexpr int kTilePairs = 8;
constexpr int kTileRows = 2 * kTilePairs;
constexpr int kStepBytes = 64;
constexpr int kPieceSteps = 24;
constexpr int kPieceBytes = kPieceSteps * kStepBytes;
constexpr int kStages = 7;
constexpr int kOutPieceBytes = 24 << 10;  // and up to a row more
constexpr int kMostOutPieces = 16;
constexpr int kMostOutRows = 64;  // of a block, in the last product
constexpr int kOutTiles = 2;      // multiplied together
constexpr int kOutPasses = kMostOutRows / (kOutTiles * kTileRows);
// Pieces under way, each about 22 KB at gpt-oss's sizes: more bring nothing, and what else an SM
// asks for waits behind them.
constexpr int kUnderWay = 3;
constexpr int kOutUnderWay = 2;

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

// Rows of so many bytes in shared memory: every other one half a row of banks further, so that the
// quads of two neighbours meet different banks.
MOEBENCH_HOST_DEVICE int row_offset(int row, int bytes) {
  return row * bytes + (row + 1) / 2 * kStepBytes;
}
constexpr int kStageBytes = kTileRows * kPieceBytes + kTilePairs * kStepBytes;

// Of a piece of the last product.
MOEBENCH_HOST_DEVICE int out_piece_rows(int row_bytes) {
  return (kOutPieceBytes + row_bytes - 1) / row_bytes;
}

// Dynamic shared memory: the ring and, later in its place, the pieces of the last product; then the
// inputs of both products; and what the router's product takes (RouterPart), if it is to be done.
struct Places {
  int x, found, router, bytes;
};
// Two floats of each row; and its weights two by two, of which the first and last may be another's.
MOEBENCH_HOST_DEVICE int router_bytes(int rows, int num_experts) {
  return static_cast<int>(sizeof(float)) * (2 * rows + (rows / 2 + 1) * num_experts);
}
MOEBENCH_HOST_DEVICE Places places_of(int hidden_size, int query_size, int out_row_bytes,
                                      int out_rows, int num_experts) {
  const int rows = row_offset(out_rows, out_row_bytes);
  const int ring = kStages * kStageBytes;
  const int x = rows > ring ? rows : ring;
  const int found = x + 2 * hidden_size;
  const int router = found + 2 * query_size;
  return {x, found, router, router + (num_experts > 0 ? router_bytes(out_rows, num_experts) : 0)};
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
  int num_pieces;      // of a tile
  int out_piece_rows;  // of the last product

  MOEBENCH_DEVICE int tiles() const { return (pairs.count + kTilePairs - 1) / kTilePairs; }
  // The pairs of a tile, as even as can be: what is under way is counted in pieces. Tiles lack
  // fewer pairs together than one has, which needs no division: that takes as long as a product.
  MOEBENCH_DEVICE Share pairs_of(int tile) const {
    const int lacking = tiles() * kTilePairs - pairs.count;
    int of_each = 0;
    MOEBENCH_UNROLL
    for (int each = 1; each < kTilePairs; ++each) of_each += lacking >= each * tiles() ? 1 : 0;
    const int size = kTilePairs - of_each;
    const int shorter = lacking - of_each * tiles();  // the first ones, by a pair
    return {pairs.begin + tile * size - (tile < shorter ? tile : shorter),
            size - (tile < shorter ? 1 : 0)};
  }
  MOEBENCH_DEVICE unsigned char* stage(int piece) const {
    return memory + piece % kStages * kStageBytes;
  }
  // Until all rows of the last product are there.
  MOEBENCH_DEVICE void await_out_rows() const {
    for (int p = 0; p * out_piece_rows < out_rows.count; ++p) gpu::mbarrier_wait(&out_full[p], 0);
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
  const unsigned char* from =
      work.output.weight +
      static_cast<std::int64_t>(streams.out_rows.begin + row) * streams.out_row_bytes;
  const int pieces = streams.tiles() * streams.num_pieces;
  int free_stages = 0;
  for (int p = 0; count > p * streams.out_piece_rows; ++p) {
    const int begin = p * streams.out_piece_rows;
    const int end = min(begin + streams.out_piece_rows, count);
    const int bytes = row_offset(end, streams.out_row_bytes);
    for (; free_stages < kStages && bytes > free_stages * kStageBytes; ++free_stages) {
      // The piece of query, key and value that would be the next one there.
      const int turns = (pieces - free_stages + kStages - 1) / kStages;
      if (turns > 0) streams.await_place(free_stages + turns * kStages);
    }
    if (p >= kOutUnderWay) {
      gpu::mbarrier_wait(&streams.out_full[p - kOutUnderWay], 0);
    } else if (pieces + p >= kOutUnderWay) {
      streams.await(pieces + p - kOutUnderWay);
    }
    gpu::Mbarrier* full = &streams.out_full[p];
    const bool is_mine = row >= begin && row < end;
    expect_bytes(full,
                 gpu::count_bits(gpu::ballot(gpu::kAllLanes, is_mine)) * streams.out_row_bytes);
    if (is_mine) {
      gpu::copy_bulk_async(streams.memory + row_offset(row, streams.out_row_bytes), from,
                           streams.out_row_bytes, full);
    }
  }
}

// Inputs. Those of bf16 weights are bf16. Of float8, Hopper makes f16 in an instruction for two
// weights, and nothing else; so its inputs are f16 as well, each times a power of two that keeps
// the largest below 2^16. f16 has 11 bits down to 2^-14 and steps of 2^-24 below: nothing that was
// a bf16 changes unless it is less than 2^-31 of the largest.

// The power of two of a normalised row. None of its values is larger than the largest norm weight
// times the square root of their number, which is known before the row is.
struct RowPower {
  int exponent = 0;

  RowPower() = default;

  // By all consumers before a barrier of theirs, behind which it is made.
  MOEBENCH_DEVICE static void show(const fused::RowPart<4>& row, std::uint32_t (&largest)[kWarps]) {
    float most = 0;
    MOEBENCH_UNROLL
    for (const auto& weights : row.weights) {
      MOEBENCH_UNROLL
      for (const float weight : weights.v) most = fmaxf(most, fabsf(weight));
    }
    const unsigned of_warp = gpu::reduce_max(gpu::kAllLanes, gpu::bits_of(most));
    if (gpu::lane_id() == 0) largest[gpu::warp_id()] = of_warp;
  }
  MOEBENCH_DEVICE explicit RowPower(const std::uint32_t (&largest)[kWarps]) {
    static_assert(fused::kMostHeld <= 1 << 12);
    std::uint32_t most = 0;
    MOEBENCH_UNROLL
    for (const std::uint32_t of_warp : largest) most = of_warp > most ? of_warp : most;
    exponent = 15 - 6 - (gpu::limited_exponent(most >> 23) + 1);
  }
};
// Eight neighbouring inputs.
template <Format kWeights>
MOEBENCH_DEVICE uint4 packed(const float4& a, const float4& b, const RowPower& power) {
  if constexpr (kWeights == Format::kBf16) return gpu::pack_inputs<kWeights>(a, b);
  const float factor = gpu::power_of_two(power.exponent);
  return {gpu::pack_f16(a.x * factor, a.y * factor), gpu::pack_f16(a.z * factor, a.w * factor),
          gpu::pack_f16(b.x * factor, b.y * factor), gpu::pack_f16(b.z * factor, b.w * factor)};
}

// By a warp: of its steps, pairs of bf16 become pairs of f16. What sums are to be multiplied with.
MOEBENCH_DEVICE float make_f16(uint4* x, int num_steps) {
  constexpr int kUnitsOfStep = 4 * kUnits<Format::kFp8E4m3>;
  constexpr int kLoads = kMostQuery / 8 / kConsumers;
  static_assert(gpu::kWarp % kUnitsOfStep == 0);
  constexpr int kStepsOfLoad = gpu::kWarp / kUnitsOfStep * kWarps;
  const int first = gpu::lane_id() / kUnitsOfStep * kWarps + gpu::warp_id();
  uint4* const units = x + first * kUnitsOfStep + gpu::lane_id() % kUnitsOfStep;
  uint4 mine[kLoads] = {};
  std::uint32_t most = 0;
  MOEBENCH_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    if (first + i * kStepsOfLoad < num_steps) mine[i] = units[i * kStepsOfLoad * kUnitsOfStep];
    most = gpu::larger_bf16(most, mine[i]);
  }
  gpu::sync_warp();
  const gpu::BringsToF16 brings(most);
  MOEBENCH_UNROLL
  for (int i = 0; i < kLoads; ++i) {
    if (first + i * kStepsOfLoad < num_steps) {
      units[i * kStepsOfLoad * kUnitsOfStep] = brings(mine[i]);
    }
  }
  gpu::sync_warp();
  return brings.back();
}

// The lane's inputs of a step; zeros where there is none.
template <Format kWeights>
struct Inputs {
  uint4 units[kUnits<kWeights>] = {};

  MOEBENCH_DEVICE void take(const uint4* x, int step) {
    MOEBENCH_UNROLL
    for (int u = 0; u < kUnits<kWeights>; ++u) {
      units[u] = x[(step * kUnits<kWeights> + u) * 4 + gpu::lane_id() % 4];
    }
  }
};

// Sums of two rows: [0] is the lower row's, in the first lane of its quad, and [2] the higher
// one's. Of float8, of which a step has as many products again, two of each that do not wait for
// each other.
template <Format kWeights>
struct Sums {
  float of[kUnits<kWeights>][4] = {};

  // The rows' 16 bytes of a step by the inputs.
  MOEBENCH_DEVICE void add(const uint4& low, const uint4& high, const Inputs<kWeights>& x) {
    if constexpr (kWeights == Format::kBf16) {
      const uint4& in = x.units[0];
      gpu::multiply_bf16(of[0], {low.x, high.x, low.y, high.y}, {in.x, in.y});
      gpu::multiply_bf16(of[0], {low.z, high.z, low.w, high.w}, {in.z, in.w});
    } else {
      const auto multiply = [](float(&sums)[4], std::uint32_t low, std::uint32_t high,
                               std::uint32_t first, std::uint32_t second) {
        gpu::multiply_f16(sums,
                          {gpu::e4m3_to_f16x2(low, 0), gpu::e4m3_to_f16x2(high, 0),
                           gpu::e4m3_to_f16x2(low, 1), gpu::e4m3_to_f16x2(high, 1)},
                          {first, second});
      };
      multiply(of[0], low.x, high.x, x.units[0].x, x.units[0].y);
      multiply(of[1], low.z, high.z, x.units[1].x, x.units[1].y);
      multiply(of[0], low.y, high.y, x.units[0].z, x.units[0].w);
      multiply(of[1], low.w, high.w, x.units[1].z, x.units[1].w);
    }
  }
  MOEBENCH_DEVICE float total(int i) const {
    float sum = of[0][i];
    MOEBENCH_UNROLL
    for (int u = 1; u < kUnits<kWeights>; ++u) sum += of[u][i];
    return sum;
  }
};
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

// Of the rows of two tiles, by warp: added in their order.
struct Partial {
  float of[2][kWarps][kTileRows];
  std::uint32_t largest[kWarps];  // see RowPower

  // The warp's sums of eight rows, each in the first lane of its quad.
  MOEBENCH_DEVICE void store(int tile, int first, float sum) {
    if (gpu::lane_id() % 4 == 0) of[tile][gpu::warp_id()][first + gpu::lane_id() / 4] = sum;
  }
  MOEBENCH_DEVICE float total(int tile, int row) const {
    float sum = 0;
    MOEBENCH_UNROLL
    for (int w = 0; w < kWarps; ++w) sum += of[tile][w][row];
    return sum;
  }
};

// What the end of a tile of query, key and value takes from memory, by a warp, a lane a row. The
// warps take turns, and each loads what it needs long before: where a tile takes less than a
// latency of a busy memory, these would follow one another.
template <Format kWeights, int kHeadDim>
struct TileEnd {
  bool has_row;
  int part = 0;
  int row = 0;  // of the part
  float factor[2] = {1, 1};
  float bias[2] = {-0.0F, -0.0F};  // what leaves a sum as it is
  float cos = 1;
  float sin = 0;

  MOEBENCH_DEVICE TileEnd(const Work& work, const Streams<kHeadDim>& streams, int tile)
      : has_row(false) {
    if (tile >= streams.tiles()) return;
    const Share pairs = streams.pairs_of(tile);
    const int i = gpu::lane_id() % kTilePairs;
    has_row = gpu::lane_id() < kTileRows && i < pairs.count;
    if (!has_row) return;
    const Pair<kHeadDim> pair(work, pairs.begin + i);
    part = pair.part;
    row = pair.row(gpu::lane_id() >= kTilePairs);
    const DeviceProduct& product = work.parts[part];
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      factor[h] = load_factor<kWeights>(product, pair.row(h == 1));
      if (product.bias != nullptr) bias[h] = gpu::load_constant(product.bias + pair.row(h == 1));
    }
    if (part == 2) return;
    cos = gpu::load_constant(work.cos + pair.column);
    sin = gpu::load_constant(work.sin + pair.column);
  }
  MOEBENCH_DEVICE float result(const float (&sums)[2]) const {
    float value[2];
    MOEBENCH_UNROLL
    for (int h = 0; h < 2; ++h) {
      value[h] = times_factor<kWeights>(sums[h], factor[h]) + bias[h];
    }
    const bool is_high = gpu::lane_id() >= kTilePairs;
    if (part == 2) return is_high ? value[1] : value[0];
    return is_high ? fused::rotated_high(value[0], value[1], cos, sin)
                   : fused::rotated_low(value[0], value[1], cos, sin);
  }
};

// A. The consumers: query, key and value. x was multiplied by `power`.
template <Format kWeights, Format kCache, int kHeadDim>
MOEBENCH_DEVICE void multiply_pairs(const Work& work, const Streams<kHeadDim>& streams,
                                    const Token& token, const uint4* x, const RowPower& power,
                                    Partial& partial, Shown& shown) {
  // Of all tiles together, but for more than there are warps.
  TileEnd<kWeights, kHeadDim> end(work, streams, gpu::warp_id());
  constexpr int kRounds = kPieceSteps / kWarps;
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int num_steps = streams.row_bytes / kStepBytes;
  const std::int64_t place = kv_offset(work.kv, token.sequence, token.position, 0);
  int piece = 0;
  for (int tile = 0; tile < streams.tiles(); ++tile) {
    const Share pairs = streams.pairs_of(tile);
    const int row = lane / 4 < pairs.count ? lane / 4 : pairs.count - 1;
    const int low = row_offset(row, kPieceBytes) + lane % 4 * 16;
    const int high = row_offset(kTilePairs + row, kPieceBytes) + lane % 4 * 16;
    Sums<kWeights> sums;
    MOEBENCH_NO_UNROLL
    for (int p = 0; p < streams.num_pieces; ++p, ++piece) {
      const int begin = p * kPieceSteps + warp;
      streams.await(piece);
      const unsigned char* rows = streams.stage(piece) + warp * kStepBytes;
      // All loads first, and no branch between them.
      uint4 runs[kRounds][2] = {};
      Inputs<kWeights> in[kRounds];
      MOEBENCH_UNROLL
      for (int r = 0; r < kRounds; ++r) {
        const int step = begin + r * kWarps;
        if (step >= num_steps) continue;
        runs[r][0] = *reinterpret_cast<const uint4*>(rows + low + r * kWarps * kStepBytes);
        runs[r][1] = *reinterpret_cast<const uint4*>(rows + high + r * kWarps * kStepBytes);
        in[r].take(x, step);
      }
      MOEBENCH_UNROLL
      for (int r = 0; r < kRounds; ++r) sums.add(runs[r][0], runs[r][1], in[r]);
      gpu::sync_warp();
      if (lane == 0) gpu::mbarrier_arrive(&streams.empty[piece % kStages]);
    }
    const float input_factor = kWeights == Format::kBf16 ? 1 : gpu::power_of_two(-power.exponent);
    partial.store(tile % 2, 0, sums.total(0) * input_factor);
    partial.store(tile % 2, kTilePairs, sums.total(2) * input_factor);
    // Who writes these sums again has passed the next tile's barrier, and so has who reads them
    // now.
    sync_consumers();
    if (warp != tile % kWarps) continue;
    if (end.has_row) {
      const int i = lane % kTilePairs;
      const float totals[2] = {partial.total(tile % 2, i), partial.total(tile % 2, i + kTilePairs)};
      const float result = end.result(totals);
      if (end.part == 0) {
        gpu::store_relaxed(&shown.query[end.row], gpu::shown(result));
      } else if constexpr (kCache == Format::kFp8E4m3) {
        // 0 for one NaN alone, which no instruction makes.
        gpu::store_relaxed(&shown.key_value[end.part - 1][end.row], gpu::bits_of(result) + 1);
      } else {
        const std::uint16_t bits = gpu::float_to_bf16(result);
        gpu::store_relaxed(&shown.key_value[end.part - 1][end.row], kIsThere | bits);
        unsigned char* to = (end.part == 1 ? work.kv.keys : work.kv.values) + place;
        reinterpret_cast<std::uint16_t*>(to)[end.row] = bits;
      }
    }
    end = TileEnd<kWeights, kHeadDim>(work, streams, tile + kWarps);
  }
}

// The last product. Its rows are multiplied in groups of eight, each lane's 16 bytes of a row as
// they lie: of the sixteen rows of A, the first eight are the first and third pair of a lane's
// four, the others the second and fourth. So even columns of B have the inputs of the former, odd
// ones those of the latter, and a row's sum is that of two, on the diagonal, in the first lane of
// its quad. Nothing is moved between registers, and no group waits for another.
constexpr int kOutGroups = 2 * kOutTiles;  // of a pass
constexpr int kAheadGroups = 3;            // gpt-oss has no more on a GPU of 132 SMs
// A round is a step of each warp.
template <Format kWeights>
constexpr int kOutRounds = kMostQuery / (4 * kRun<kWeights>) / kWarps;

struct OutRows {
  const unsigned char* memory;
  int num_steps;
  int places[kOutGroups];  // of the lane's rows

  template <int kHeadDim>
  MOEBENCH_DEVICE OutRows(const Streams<kHeadDim>& streams, int first)
      : memory(streams.memory + gpu::warp_id() * kStepBytes + gpu::lane_id() % 4 * 16),
        num_steps(streams.out_row_bytes / kStepBytes) {
    MOEBENCH_UNROLL
    for (int g = 0; g < kOutGroups; ++g) {
      const int row = first + g * kTilePairs + gpu::lane_id() / 4;
      const int count = streams.out_rows.count;
      places[g] = row_offset(row < count ? row : count - 1, streams.out_row_bytes);
    }
  }
  MOEBENCH_DEVICE static int step(int round) { return round * kWarps + gpu::warp_id(); }
  MOEBENCH_DEVICE bool has(int round) const { return step(round) < num_steps; }
  MOEBENCH_DEVICE uint4 run(int round, int group) const {
    return *reinterpret_cast<const uint4*>(memory + places[group] + round * (kWarps * kStepBytes));
  }
};

// A row's 16 bytes as tensor cores take them.
template <Format kWeights>
struct OutRun {
  uint4 pairs[kUnits<kWeights>];

  MOEBENCH_DEVICE void take(const uint4& bytes) {
    if constexpr (kWeights == Format::kBf16) {
      pairs[0] = bytes;
    } else {
      MOEBENCH_UNROLL
      for (int u = 0; u < 2; ++u) {
        const std::uint32_t low = gpu::word_of(bytes, 2 * u);
        const std::uint32_t high = gpu::word_of(bytes, 2 * u + 1);
        pairs[u] = {gpu::e4m3_to_f16x2(low, 0), gpu::e4m3_to_f16x2(low, 1),
                    gpu::e4m3_to_f16x2(high, 0), gpu::e4m3_to_f16x2(high, 1)};
      }
    }
  }
};

// What is loaded of them while the block waits for what all heads found, as much as registers hold:
// twelve rounds of bf16. Of float8 all there are, of which the first ones are decoded.
template <Format kWeights>
constexpr int kAheadRounds = kWeights == Format::kBf16 ? 12 : kOutRounds<kWeights>;
template <Format kWeights>
constexpr int kDecodedRounds = kWeights == Format::kBf16 ? 0 : kOutRounds<kWeights> / 2;
template <Format kWeights>
struct Ahead {
  static constexpr int kRounds = kAheadRounds<kWeights>;
  static constexpr int kDecoded = kDecodedRounds<kWeights>;
  OutRun<kWeights> decoded[kDecoded > 0 ? kDecoded : 1][kAheadGroups] = {};
  uint4 runs[kRounds][kAheadGroups] = {};

  MOEBENCH_DEVICE void take(const OutRows& rows, int round) {
    if (!rows.has(round)) return;
    MOEBENCH_UNROLL
    for (int g = 0; g < kAheadGroups; ++g) {
      if (round < kDecoded) {
        decoded[round][g].take(rows.run(round, g));
      } else {
        runs[round % kRounds][g] = rows.run(round, g);
      }
    }
  }
  template <int kHeadDim>
  MOEBENCH_DEVICE void take(const Streams<kHeadDim>& streams) {
    if (streams.out_rows.count == 0) return;
    const OutRows rows(streams, 0);
    streams.await_out_rows();
    MOEBENCH_UNROLL
    for (int r = 0; r < kRounds; ++r) take(rows, r);
  }
  MOEBENCH_DEVICE OutRun<kWeights> run(int round, int group) const {
    if (round < kDecoded) return decoded[round][group];
    OutRun<kWeights> run;
    run.take(runs[round % kRounds][group]);
    return run;
  }
};

// The lane's inputs of a round: of its column, which is even or odd; zeros where there is none.
template <Format kWeights>
struct OutInputs {
  std::uint32_t pairs[kUnits<kWeights>][2] = {};

  MOEBENCH_DEVICE OutInputs(const OutRows& rows, const uint4* x, int round) {
    if (!rows.has(round)) return;
    const auto* words =
        reinterpret_cast<const std::uint32_t*>(x) + gpu::lane_id() % 4 * 4 + gpu::lane_id() / 4 % 2;
    MOEBENCH_UNROLL
    for (int u = 0; u < kUnits<kWeights>; ++u) {
      const std::uint32_t* from = words + (OutRows::step(round) * kUnits<kWeights> + u) * 16;
      pairs[u][0] = from[0];
      pairs[u][1] = from[2];
    }
  }
};

template <Format kWeights>
MOEBENCH_DEVICE void add_group(float (&sums)[4], const OutRun<kWeights>& run,
                               const OutInputs<kWeights>& in) {
  MOEBENCH_UNROLL
  for (int u = 0; u < kUnits<kWeights>; ++u) {
    const std::uint32_t a[4] = {run.pairs[u].x, run.pairs[u].y, run.pairs[u].z, run.pairs[u].w};
    if constexpr (kWeights == Format::kBf16) {
      gpu::multiply_bf16(sums, a, in.pairs[u]);
    } else {
      gpu::multiply_f16(sums, a, in.pairs[u]);
    }
  }
}

// D. The consumers: rows that have come. `x`: pairs of bf16. Each row's end is finish(row, sum),
// row counted from the block's first, by the thread that has its factor and bias.
template <Format kWeights, int kHeadDim, class Finish>
MOEBENCH_DEVICE void multiply_out_rows(const Work& work, const Streams<kHeadDim>& streams,
                                       const float (&factor)[kOutPasses],
                                       const float (&bias)[kOutPasses], Ahead<kWeights>& ahead,
                                       uint4* x, Partial& partial, const Finish& finish) {
  constexpr int kAhead = kAheadRounds<kWeights>;
  const int warp = gpu::warp_id();
  const int lane = gpu::lane_id();
  const int count = streams.out_rows.count;
  if (count == 0) return;
  float input_factor = 1;
  if constexpr (kWeights == Format::kFp8E4m3) {
    input_factor = make_f16(x, streams.out_row_bytes / kStepBytes);
  }
  MOEBENCH_UNROLL
  for (int pass = 0; pass < kOutPasses; ++pass) {
    const int first = pass * kOutTiles * kTileRows;
    if (first >= count) break;
    const OutRows rows(streams, first);
    float sums[kOutGroups][4] = {};
    if (pass == 0) {
      // As if all rounds were there, so that no branch is between loads and products: inputs of
      // others are zeros.
      MOEBENCH_UNROLL
      for (int r = 0; r < kOutRounds<kWeights>; ++r) {
        const OutInputs<kWeights> in(rows, x, r);
        MOEBENCH_UNROLL
        for (int g = 0; g < kAheadGroups; ++g) add_group(sums[g], ahead.run(r, g), in);
        if (r + kAhead < kOutRounds<kWeights>) ahead.take(rows, r + kAhead);
      }
    }
    MOEBENCH_UNROLL
    for (int g = pass == 0 ? kAheadGroups : 0; g < kOutGroups; ++g) {
      if (first + g * kTilePairs >= count) break;
      MOEBENCH_NO_UNROLL
      for (int r = 0; rows.has(r); ++r) {
        OutRun<kWeights> run;
        run.take(rows.run(r, g));
        add_group(sums[g], run, OutInputs<kWeights>(rows, x, r));
      }
    }
    if (pass > 0) sync_consumers();  // the sums before have been read
    MOEBENCH_UNROLL
    for (int g = 0; g < kOutGroups; ++g) {
      partial.store(g / 2, g % 2 * kTilePairs, (sums[g][0] + sums[g][3]) * input_factor);
    }
    sync_consumers();
    const int row = first + warp * kTileRows + lane;
    if (warp >= kOutTiles || lane >= kTileRows || row >= count) continue;
    float sum = times_factor<kWeights>(partial.total(warp, lane), factor[pass]);
    if (work.output.bias != nullptr) sum += bias[pass];
    finish(row, sum);
  }
}

}  // namespace
}  // namespace moebench::attention
