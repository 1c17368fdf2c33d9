// Products of a few tokens with rows of weights on tensor cores, weights read by the lanes that
// multiply them: no ring in shared memory, no producers, little code between two tiles.
//
// A block of eight warps walks over tiles of up to 16 rows. A tile is cut into pieces of kRounds
// steps a warp; while a warp multiplies one piece, the loads of the next are in flight to its
// registers. Two blocks an SM have 64 to 96 KB in flight between them, which is what memory needs,
// and one computes while the other waits at the barrier that ends a tile. Scales come as 8 bytes a
// thread, a tile's together, through shared memory: byte by byte, each lane those of its rows, the
// load units are the bottleneck.
//
// Lanes, runs and the order of every sum are those of row_stream.cuh, so results are the same bits:
// a step is the 16 bytes of a row that each lane of a quad takes; steps s, s + 8, s + 16, ... are
// one of eight sums, which are added in order.
#pragma once

#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_decode.cuh"

namespace moebench::gpu {

// Where the 16 rows of a tile are, as a lane sees it: of its rows lane / 4 and lane / 4 + 8.
struct LaneRows {
  const unsigned char* low;
  const unsigned char* high;
};

// Formats of 4 bits: 16 bytes hold 32 columns, and their scales 1 or 2 bytes.
template <Format kFormat>
class DirectRows {
  using Weights = DeviceFormat<kFormat>;
  static constexpr int kRun = Weights::kValues;  // columns of a lane's 16 bytes
  static_assert(kRun == 32 && Weights::kWordsPerScale > 0);
  static constexpr int kUnits = kRun / 8;  // units of 8 columns in a run
  static constexpr int kPairs = kRun / 2;
  static constexpr int kRounds = 3;  // steps of a warp in a piece
  static constexpr int kScaleBytes = kFormat == Format::kMxfp4 ? 1 : 2;  // of a run
  static constexpr int kScaleLoads = 2;                                  // of 8 bytes, of a thread

 public:
  static constexpr int kWarps = 8;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = 16;
  static constexpr int kTokens = 8;
  static constexpr int kSumStride = kRows + 4;  // conflict-free
  static constexpr std::size_t kStaticSharedBytes =
      sizeof(float) * 2 * kWarps * kTokens * kSumStride;

  // Units of 16 bytes of a token's inputs: 8 columns each, up to whole pieces.
  MOEBENCH_HOST_DEVICE static int num_units(int cols) {
    return num_pieces(cols) * kRounds * kWarps * kUnits * 4;
  }
  // From one token's inputs to the next one's: an odd number of half rows of banks, so that the
  // quads of two tokens never meet in a bank.
  MOEBENCH_HOST_DEVICE static int token_stride(int cols) { return num_units(cols) + 4; }
  // Where unit `unit` (columns 8 unit .. 8 unit + 7) of a token's inputs lies.
  MOEBENCH_HOST_DEVICE static int place_of(int unit) {
    const int run = unit / kUnits;
    return (run / 4 * kUnits + unit % kUnits) * 4 + run % 4;
  }
  // Of dynamic shared memory: inputs of so many tokens, and the scales of two tiles.
  static std::size_t shared_bytes(int cols, std::int64_t row_scale_bytes, int num_tokens) {
    return static_cast<std::size_t>(num_tokens) * static_cast<std::size_t>(token_stride(cols)) *
               sizeof(uint4) +
           2 * static_cast<std::size_t>(scale_stage_bytes(static_cast<int>(row_scale_bytes)));
  }
  // Whether a tile's scales, of rows that lie `adjacent` together, can be copied by 8 bytes.
  static bool takes_scales(std::int64_t row_scale_bytes, int adjacent) {
    return row_scale_bytes * adjacent % 8 == 0 &&
           row_scale_bytes * kRows <= std::int64_t{8} * kScaleLoads * kThreads;
  }

  MOEBENCH_DEVICE DirectRows(int cols, std::int64_t row_scale_bytes)
      : cols_(cols),
        num_pieces_(num_pieces(cols)),
        last_unit_(cols / kRun - 1),
        row_scale_bytes_(static_cast<int>(row_scale_bytes)),
        scales_(dynamic_shared()),
        inputs_(reinterpret_cast<uint4*>(scales_ + 2 * scale_stage_bytes(row_scale_bytes_))) {}

  MOEBENCH_DEVICE uint4* inputs_of(int token) const {
    return inputs_ + token * token_stride(cols_);
  }

  // Fills shared memory with the rows of `count` tokens, row(i) being the i-th, of floats, and with
  // zeros up to whole pieces. Every thread; a barrier must follow.
  template <class Row>
  MOEBENCH_DEVICE void stage_inputs(int count, Row&& row) const {
    const int units = num_units(cols_);
    for (int token = 0; token < count; ++token) {
      const float* from = row(token);
      uint4* to = inputs_of(token);
      for (int unit = static_cast<int>(threadIdx.x); unit < units; unit += kThreads) {
        uint4 values = {0, 0, 0, 0};
        if (8 * unit < cols_) {
          const auto* unit_from = reinterpret_cast<const float4*>(from + 8 * unit);
          values = pack_inputs<kFormat>(unit_from[0], unit_from[1]);
        }
        to[place_of(unit)] = values;
      }
    }
  }

  // What a walk over tiles is to multiply(), by a Walk with these members:
  //
  //   Place               a tile, of which Place::rows is the number of rows, 0 past the last one
  //   after(place)        the next one
  //   rows(place)         its LaneRows
  //   scales(place, i)    8 bytes of its scales, the i-th as rows lie one after the other; past the
  //                       last row any that may be read
  //   enter(place)        the inputs of the column lane / 4; called by every thread before the tile
  //                       is multiplied, may end with a barrier
  //   ahead(place, i)     by threads i < kFinishThreads, early: what the end will need
  //   finish(place, i, early, total)  by the same threads; total(row, token) is a product's sum,
  //                       still without the row's factor
  //
  // Before the loads of the first tile have come, ready() is called, once.
  template <class Walk, class Ready>
  MOEBENCH_DEVICE void multiply(Walk& walk, typename Walk::Place first, Ready&& ready) const {
    MOEBENCH_SHARED(float, partial, [2][kWarps][kTokens][kSumStride]);
    using Place = typename Walk::Place;
    const int warp = warp_id();
    const int g = lane_id() / 4;
    const int t = lane_id() % 4;
    Place now = first;
    Piece a;
    Piece b;
    if (now.rows > 0) load(walk.rows(now), 0, a);
    Place next = now.rows > 0 ? walk.after(now) : now;
    uint2 words[kScaleLoads];
    if (now.rows > 0) load_scales(walk, now, words);
    ready();
    if (now.rows == 0) return;
    store_scales(words, 0);
    if (next.rows > 0) load_scales(walk, next, words);
    sync_threads();

    LaneRows rows = walk.rows(now);
    int piece = 0;
    int parity = 0;     // of the tile
    int first_end = 0;  // the warp that finishes the tile, with those behind it
    const uint4* x = nullptr;
    float sums[4] = {};
    typename Walk::Early early{};
    const auto end_thread = [&] { return ((warp - first_end) & (kWarps - 1)) * kWarp + lane_id(); };
    const auto multiply_one = [&](const Piece& loaded, Piece& coming) {
      const bool is_last = piece + 1 == num_pieces_;
      if (is_last && next.rows > 0) rows = walk.rows(next);
      if (!is_last || next.rows > 0) load(rows, is_last ? 0 : piece + 1, coming);
      if (piece == 0) {
        x = walk.enter(now) + t;
        if (end_thread() < Walk::kFinishThreads) early = walk.ahead(now, end_thread());
        MOEBENCH_UNROLL
        for (float& sum : sums) sum = 0;
      }
      multiply_piece(loaded, piece, scales_ + parity * scale_stage_bytes(row_scale_bytes_), x,
                     sums);
      if (!is_last) {
        ++piece;
        return;
      }
      auto& of_tile = partial[parity];
      MOEBENCH_UNROLL
      for (int j = 0; j < 4; ++j) of_tile[warp][2 * t + j % 2][8 * (j / 2) + g] = sums[j];
      const Place after_next = next.rows > 0 ? walk.after(next) : next;
      // Who still reads these of the last tile has not passed that one's barrier.
      if (next.rows > 0) store_scales(words, parity ^ 1);
      if (after_next.rows > 0) load_scales(walk, after_next, words);
      sync_threads();
      if (end_thread() < Walk::kFinishThreads) {
        walk.finish(now, end_thread(), early, [&](int row, int token) {
          float sum = 0;
          MOEBENCH_UNROLL
          for (int w = 0; w < kWarps; ++w) sum += of_tile[w][token][row];
          return sum;
        });
      }
      first_end = (first_end + Walk::kFinishThreads / kWarp) & (kWarps - 1);
      piece = 0;
      parity ^= 1;
      now = next;
      next = after_next;
    };
    while (true) {
      multiply_one(a, b);
      if (now.rows == 0) break;
      multiply_one(b, a);
      if (now.rows == 0) break;
    }
  }

 private:
  struct Piece {
    uint4 low[kRounds];
    uint4 high[kRounds];
  };

  MOEBENCH_HOST_DEVICE static int num_pieces(int cols) {
    constexpr int kColumns = kRounds * kWarps * 4 * kRun;
    return (cols + kColumns - 1) / kColumns;
  }
  MOEBENCH_HOST_DEVICE static int scale_stage_bytes(int row_scale_bytes) {
    return (kRows * row_scale_bytes + 15) / 16 * 16;
  }

  // The lane's 16 bytes of a row in a warp's round: past the end the last ones again, where inputs
  // are zeros.
  MOEBENCH_DEVICE int unit_of(int piece, int round) const {
    const int unit = ((piece * kRounds + round) * kWarps + warp_id()) * 4 + lane_id() % 4;
    return unit < last_unit_ ? unit : last_unit_;
  }
  MOEBENCH_DEVICE void load(const LaneRows& rows, int piece, Piece& to) const {
    MOEBENCH_UNROLL
    for (int r = 0; r < kRounds; ++r) {
      const int offset = unit_of(piece, r) * 16;
      to.low[r] = load_streaming(rows.low + offset);
      to.high[r] = load_streaming(rows.high + offset);
    }
  }

  template <class Walk>
  MOEBENCH_DEVICE void load_scales(const Walk& walk, const typename Walk::Place& place,
                                   uint2 (&words)[kScaleLoads]) const {
    const int count = kRows * row_scale_bytes_ / 8;
    MOEBENCH_UNROLL
    for (int i = 0; i < kScaleLoads; ++i) {
      const int word = static_cast<int>(threadIdx.x) + i * kThreads;
      if (word < count) {
        words[i] = load_constant(reinterpret_cast<const uint2*>(walk.scales(place, word)));
      }
    }
  }
  MOEBENCH_DEVICE void store_scales(const uint2 (&words)[kScaleLoads], int parity) const {
    const int count = kRows * row_scale_bytes_ / 8;
    auto* to = reinterpret_cast<uint2*>(scales_ + parity * scale_stage_bytes(row_scale_bytes_));
    MOEBENCH_UNROLL
    for (int i = 0; i < kScaleLoads; ++i) {
      const int word = static_cast<int>(threadIdx.x) + i * kThreads;
      if (word < count) to[word] = words[i];
    }
  }
  MOEBENCH_DEVICE std::uint32_t scale_of(const unsigned char* scales, int row, int unit) const {
    const unsigned char* of_row = scales + row * row_scale_bytes_;
    if constexpr (kScaleBytes == 1) {
      return of_row[unit];
    } else {
      return reinterpret_cast<const std::uint16_t*>(of_row)[unit];
    }
  }

  MOEBENCH_DEVICE void multiply_piece(const Piece& loaded, int piece, const unsigned char* scales,
                                      const uint4* x, float (&sums)[4]) const {
    std::uint32_t of_low[kRounds];
    std::uint32_t of_high[kRounds];
    bool is_simple = true;
    MOEBENCH_UNROLL
    for (int r = 0; r < kRounds; ++r) {
      const int unit = unit_of(piece, r);
      of_low[r] = scale_of(scales, lane_id() / 4, unit);
      of_high[r] = scale_of(scales, lane_id() / 4 + 8, unit);
      if constexpr (Weights::kMostSimple != 0xffffffffU) {
        is_simple &= max(of_low[r], of_high[r]) <= Weights::kMostSimple;
      }
    }
    const auto multiply_rounds = [&]<bool kAnyScale>() {
      MOEBENCH_UNROLL
      for (int r = 0; r < kRounds; ++r) {
        const int step = (piece * kRounds + r) * kWarps + warp_id();
        std::uint32_t low[kPairs];
        std::uint32_t high[kPairs];
        Weights::template decode_bf16<kAnyScale>(loaded.low[r], of_low[r], low);
        Weights::template decode_bf16<kAnyScale>(loaded.high[r], of_high[r], high);
        MOEBENCH_UNROLL
        for (int u = 0; u < kUnits; ++u) {
          const uint4 in = x[(step * kUnits + u) * 4];
          multiply_bf16(sums, {low[4 * u], high[4 * u], low[4 * u + 1], high[4 * u + 1]},
                        {in.x, in.y});
          multiply_bf16(sums, {low[4 * u + 2], high[4 * u + 2], low[4 * u + 3], high[4 * u + 3]},
                        {in.z, in.w});
        }
      }
    };
    if (Weights::kMostSimple == 0xffffffffU || all(kAllLanes, is_simple)) {
      multiply_rounds.template operator()<false>();
    } else {
      multiply_rounds.template operator()<true>();
    }
  }

  int cols_;
  int num_pieces_;
  int last_unit_;
  int row_scale_bytes_;
  unsigned char* scales_;
  uint4* inputs_;
};

}  // namespace moebench::gpu
