// The products of attention's half of a layer in one launch: how weights come, and what multiplies
// them. Lanes, runs and the order of every sum are those of row_stream.cuh.
#pragma once

#include "kernels/attention/one_launch.cuh"
#include "kernels/formats/device_decode.cuh"
#include "kernels/fused/rotation.cuh"

namespace moebench::attention {
namespace {

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
static_assert(2 * kMostQuery <= kMostOutPieces * kOutPieceBytes);  // in bf16

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
    if (streams.out_rows.count == 0) return;
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

}  // namespace
}  // namespace moebench::attention
