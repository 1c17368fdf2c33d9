// Products of a few tokens with rows of weights on Hopper's tensor cores, at the speed of memory:
// one block an SM, whose last warps do nothing but ask for weights.
//
// A block walks over tiles, each up to 16 neighbouring rows of a matrix. A tile is cut into pieces
// of up to kPieceBytes of each row. Producer warps copy pieces into a ring in shared memory
// (cp.async.bulk, one copy a row: memory sees long runs, and nobody holds registers for what is in
// flight). Teams of warps take tiles in turns and multiply them, each through a ring of its own: in
// one for all, a team that is far ahead takes a barrier that is a turn behind for one that is full.
// What the rings hold does not depend on the activations, so a kernel can fill them while the
// kernel before it still runs (wait_for_previous_kernel).
//
// Lanes, runs and the order of every sum are those of cuda_rows_bf16 and tensor_rows.cuh: a step is
// the 16 bytes of a row that each lane of a quad takes; steps s, s + 8, s + 16, ... are one of
// eight sums, which are added in order. So the results are theirs, bit for bit, and do not depend
// on the number of tokens, on how rows are dealt to blocks, on teams or on where pieces end.
//
// One team of eight warps suits formats that cost a lane little beside the memory; where decoding
// is work (4 bits), several teams of four warps, each of which has two of the eight sums, hide its
// latency and have less to do between tiles.
//
// Hopper makes f16 of two float8 in one instruction, and bf16 in five. So streams of float8 can have
// inputs of f16 (kInputs): each token's times a power of two that keeps its largest below 2^15. f16
// has 11 bits down to 2^-14 and steps of 2^-24 below: no bf16 changes unless it is less than 2^-31
// of the largest, and sums keep their bits.
#pragma once

#include "kernels/core/gpu.cuh"
#include "kernels/core/gpu_numbers.cuh"
#include "kernels/formats/device_decode.cuh"

namespace moebench::gpu {

// Some neighbouring rows of a matrix.
struct RowTile {
  const unsigned char* data;    // of the first row
  const unsigned char* scales;  // likewise; null if the format has none
  float tensor_scale;
  int num_rows;  // 1 .. 16

  // How many rows behind the first the r-th lies.
  MOEBENCH_DEVICE static int offset_of(int r) { return r; }
};
// Two runs of neighbouring rows: after the first `low_rows`, `skip` rows are left out.
struct SplitRowTile : RowTile {
  int low_rows;
  int skip;

  MOEBENCH_DEVICE int offset_of(int r) const { return r < low_rows ? r : r + skip; }
};

// Bytes of a row and of its scales.
struct RowSize {
  std::int64_t data;
  std::int64_t scales;
};

// Rows are copied one by one, and a lane loads the scales that it needs ahead of time. (Rows in
// boxes by tensor maps, with a tile's scales in one copy, were no faster on an H200.)
template <Format kFormat, int kTokenTiles, int kTeams = 1, Format kInputs = Format::kBf16>
class RowStream {
  using Weights = DeviceFormat<kFormat>;
  static constexpr bool kOnF16 = kInputs == Format::kF16;
  static_assert(kInputs == Format::kBf16 || (kOnF16 && kFormat == Format::kFp8E4m3));
  static constexpr int kRun = Weights::kValues < 8 ? 8 : Weights::kValues;  // columns of a lane
  static constexpr int kLoads = kRun / Weights::kValues;                    // of 16 bytes
  static constexpr int kRunBytes = 16 * kLoads;
  static constexpr int kStepBytes = 4 * kRunBytes;
  static constexpr int kUnits = kRun / 8;  // units of 8 columns in a run
  static constexpr int kSums = 8;          // into which a row's steps are dealt
  static constexpr int kTeamWarps = kTeams == 1 ? kSums : kSums / 2;
  static constexpr int kChains = kSums / kTeamWarps;  // sums of a warp
  static constexpr int kPieceBytes = (kTeams == 1 ? 1536 : 1024) * kLoads;
  static constexpr int kPieceSteps = kPieceBytes / kStepBytes;
  static_assert(kPieceSteps % kSums == 0);
  // Rows of a piece, half a row of banks apart: the quads of two rows meet different banks.
  static constexpr int kRowStride = kPieceBytes + 64;
  static constexpr int kRounds = kPieceSteps / kTeamWarps;
  static constexpr int kBuffers = kTeams == 1 ? 2 : 1;  // of a team's sums
  static constexpr bool kHasScales = Weights::kWordsPerScale > 0;

 public:
  // Asking costs a warp about a hundred cycles a copy, whatever its size: four of them keep up.
  static constexpr int kProducerWarps = 4;
  static constexpr int kRows = 16;
  static constexpr int kTokens = 8 * kTokenTiles;
  static constexpr int kTeamThreads = kTeamWarps * kWarp;
  static constexpr int kConsumers = kTeams * kTeamThreads;  // threads
  static constexpr int kThreads = kConsumers + kProducerWarps * kWarp;
  static constexpr int kMostStages = kTeams == 1 ? 7 : 2;  // of a team's ring
  static constexpr std::size_t kStageBytes = std::size_t{kRows} * kRowStride;
  static constexpr int kSumStride = kRows + 4;  // conflict-free
  static constexpr std::size_t kStaticSharedBytes =
      sizeof(float) * kTeams * kBuffers * kSums * kTokens * kSumStride + 16 * kTeams * kMostStages +
      (kOnF16 ? sizeof(float) * kTokens : 0);

  // Units of a token's inputs, and the bytes that they take one after the other.
  MOEBENCH_HOST_DEVICE static int num_units(int cols) { return num_steps(cols) * kUnits * 4; }
  // Units of 16 bytes from one token's inputs to the next one's: an odd number of half rows of
  // banks, so that the quads of two tokens never meet in a bank.
  MOEBENCH_HOST_DEVICE static int token_stride(int cols) {
    return (num_units(cols) + 7) / 8 * 8 + 4;
  }
  // Of dynamic shared memory: the teams' rings, of so many stages each, then the inputs.
  static std::size_t shared_bytes(int cols, int num_tokens, int stages) {
    return static_cast<std::size_t>(kTeams * stages) * kStageBytes +
           static_cast<std::size_t>(num_tokens) * static_cast<std::size_t>(token_stride(cols)) *
               sizeof(uint4);
  }

  // Every thread of the block, before anything else; ends with a barrier.
  MOEBENCH_DEVICE RowStream(int cols, RowSize size, int stages)
      : cols_(cols),
        size_(size),
        stages_(stages),
        num_steps_(num_steps(cols)),
        num_pieces_((num_steps_ + kPieceSteps - 1) / kPieceSteps),
        ring_(dynamic_shared()),
        inputs_(reinterpret_cast<uint4*>(ring_ + kTeams * stages * kStageBytes)) {
    MOEBENCH_SHARED(Mbarrier, barriers, [2 * kTeams * kMostStages]);
    full_ = barriers;
    empty_ = barriers + kTeams * kMostStages;
    if constexpr (kOnF16) {
      MOEBENCH_SHARED(float, factors, [kTokens]);
      factors_ = factors;
    }
    if (threadIdx.x == 0) {
      init_ring(full_, empty_, kTeams * stages, kTeamProducers, kTeamWarps);
    }
    sync_threads();
  }

  MOEBENCH_DEVICE static bool is_consumer() { return threadIdx.x < kConsumers; }
  // Of a producer warp.
  MOEBENCH_DEVICE static int producer() { return warp_id() - kConsumers / kWarp; }
  // The thread's number in its team.
  MOEBENCH_DEVICE static int team_thread() { return static_cast<int>(threadIdx.x) % kTeamThreads; }

  // A Walk stands at a tile: done() past the last one, advance(n) by n tiles, tile() the tile, a
  // RowTile or a SplitRowTile.

  // The producer warps: ask for all tiles. What fits into the rings is asked for at once; then
  // comes ready(), once, and from then on at_tile(walk) before a tile is asked for, and once at the
  // end.
  template <class Walk, class Ready, class AtTile>
  MOEBENCH_DEVICE void produce(Walk walk, Ready&& ready, AtTile&& at_tile) const {
    const int team = kTeams == 1 ? 0 : producer();
    const int row = kTeams == 1 ? lane_id() * kTeamProducers + producer() : lane_id();
    int asked = 0;
    Ring at{0, 1};
    for (walk.advance(team); !walk.done(); walk.advance(kTeams)) {
      const auto t = walk.tile();
      const int num_rows = kTeams == 1
                               ? (t.num_rows - producer() + kTeamProducers - 1) / kTeamProducers
                               : t.num_rows;
      for (int piece = 0; piece < num_pieces_; ++piece) {
        if (asked == stages_) ready();
        if (asked >= stages_ && (piece == 0 || asked == stages_)) at_tile(walk);
        ++asked;
        const std::int64_t begin = static_cast<std::int64_t>(piece) * kPieceBytes;
        const std::int64_t left = size_.data - begin;
        const int bytes = left < kPieceBytes ? static_cast<int>(left) : kPieceBytes;
        const int stage = team * stages_ + at.stage;
        mbarrier_wait(&empty_[stage], at.parity);
        if constexpr (kTeams == 1) {
          const int most = pieces_under_way(t.num_rows);
          if (asked > most) {
            const bool this_round = at.stage >= most;
            mbarrier_wait(&full_[at.stage - most + (this_round ? 0 : stages_)],
                          this_round ? at.parity ^ 1 : at.parity);
          }
        }
        if (lane_id() == 0) mbarrier_arrive_expect_bytes(&full_[stage], num_rows * bytes);
        sync_warp();
        if (row < t.num_rows) {
          copy_bulk_async(ring_ + stage * kStageBytes + row * kRowStride,
                          t.data + t.offset_of(row) * size_.data + begin, bytes, &full_[stage]);
        }
        move(at, 1);
      }
    }
    if (asked <= stages_) ready();
    at_tile(walk);
  }

  // Thread `thread` of `threads` that call this together: fills shared memory with the rows of
  // `count` tokens, row(i) being the i-th, and with zeros up to whole steps. Rows are floats, or
  // bf16 in the order of decoded weights (pack_inputs). A barrier must follow.
  template <class Row>
  MOEBENCH_DEVICE void stage_inputs(int count, Row&& row, int thread, int threads) const {
    const int units = num_units(cols_);
    const int stride = token_stride(cols_);
    for (int i = thread; i < count * units; i += threads) {
      const int token = i / units;
      const int unit = i % units;
      uint4 values = {0, 0, 0, 0};
      if (8 * unit < cols_) values = read_unit(row(token), 8 * unit);
      inputs_[token * stride + place_of(unit)] = values;
    }
  }
  // All consumers, behind a barrier, if inputs are f16: makes them of the bf16 that are staged. A
  // barrier must follow.
  MOEBENCH_DEVICE void make_f16(int count) const {
    for (int token = warp_id(); token < count; token += kConsumers / kWarp) {
      uint4* const units = inputs_of(token);
      std::uint32_t most = 0;
      for (int i = lane_id(); i < num_units(cols_); i += kWarp) most = larger_bf16(most, units[i]);
      const BringsToF16 brings(most);
      for (int i = lane_id(); i < num_units(cols_); i += kWarp) units[i] = brings(units[i]);
      if (lane_id() == 0) factors_[token] = brings.back();
    }
  }
  // Where unit `unit` (columns 8 unit .. 8 unit + 7) of a token's inputs lies.
  MOEBENCH_HOST_DEVICE static int place_of(int unit) {
    const int run = unit / kUnits;
    return (run / 4 * kUnits + unit % kUnits) * 4 + run % 4;
  }
  MOEBENCH_DEVICE uint4* inputs_of(int token) const {
    return inputs_ + token * token_stride(cols_);
  }

  // The consumers: multiplies every tile. `inputs(walk, token)` points to the inputs of the token
  // that the tile has in column `token`, which are not read before wait(walk) returns. ahead(walk)
  // is called earlier, for loads that are needed at the tile's end, and finish(walk, what ahead
  // gave, total) then, with total(row, token) the sum of a row of the tile, still without its
  // factor.
  template <class Walk, class Inputs, class Ahead, class Wait, class Finish>
  MOEBENCH_DEVICE void consume(Walk walk, Inputs&& inputs, Ahead&& ahead, Wait&& wait,
                               Finish&& finish) const {
    MOEBENCH_SHARED(float, partial, [kTeams * kBuffers][kSums][kTokens][kSumStride]);
    const int team = warp_id() / kTeamWarps;
    const int warp = warp_id() % kTeamWarps;
    const int g = lane_id() / 4;
    const int t = lane_id() % 4;
    Ring at{0, 0};
    walk.advance(team);
    if (walk.done()) return;
    std::uint32_t scales[kRounds][2] = {};
    auto next = walk.tile();
    load_scales(next, 0, warp, scales);
    int buffer = 0;
    while (!walk.done()) {
      const auto now = next;
      {
        Walk on = walk;  // walked again below: that costs less than the registers to keep it
        on.advance(kTeams);
        if (!on.done()) next = on.tile();
      }
      const auto early = ahead(walk);
      const uint4* x[kTokenTiles];
      MOEBENCH_UNROLL
      for (int n = 0; n < kTokenTiles; ++n) x[n] = inputs(walk, 8 * n + g) + t;
      const int last = now.num_rows - 1;
      const int low = (g < last ? g : last) * kRowStride;
      const int high = (g + 8 < last ? g + 8 : last) * kRowStride;
      float sums[kChains][kTokenTiles][4] = {};
      MOEBENCH_NO_UNROLL
      for (int piece = 0; piece < num_pieces_; ++piece) {
        std::uint32_t of_piece[kRounds][2];
        MOEBENCH_UNROLL
        for (int r = 0; r < kRounds; ++r) {
          of_piece[r][0] = scales[r][0];
          of_piece[r][1] = scales[r][1];
        }
        const bool is_last = piece + 1 == num_pieces_;
        if constexpr (kHasScales) {
          auto ahead_of_it = now;
          if (is_last) ahead_of_it = next;
          load_scales(ahead_of_it, is_last ? 0 : piece + 1, warp, scales);
        }
        const int stage = team * stages_ + at.stage;
        mbarrier_wait(&full_[stage], at.parity);
        if (piece == 0) wait(walk);
        const unsigned char* rows = ring_ + stage * kStageBytes;
        const int begin = piece * kPieceSteps;
        bool is_simple = true;
        if constexpr (Weights::kMostSimple != 0xffffffffU) {
          std::uint32_t most = 0;
          MOEBENCH_UNROLL
          for (int r = 0; r < kRounds; ++r) most = max(most, max(of_piece[r][0], of_piece[r][1]));
          is_simple = all(kAllLanes, most <= Weights::kMostSimple);
        }
        const auto multiply = [&]<bool kInside, bool kAnyScale>() {
          MOEBENCH_UNROLL
          for (int r = 0; r < kRounds; ++r) {
            const int s = r * kTeamWarps + warp;
            if (!kInside && begin + s >= num_steps_) break;
            multiply_step<kInside, kAnyScale>(rows + low, rows + high, begin, s, of_piece[r], x,
                                              sums[r % kChains]);
          }
        };
        if (!is_simple) {
          multiply.template operator()<false, true>();
        } else if ((begin + kPieceSteps) * 4 * kRun <= cols_) {
          multiply.template operator()<true, false>();
        } else {
          multiply.template operator()<false, false>();
        }
        sync_warp();
        if (lane_id() == 0) mbarrier_arrive(&empty_[stage]);
        move(at, 1);
      }
      auto& of_tile = partial[team * kBuffers + buffer];
      if constexpr (kBuffers == 1) sync_team(team);  // the last tile's sums have been read
      MOEBENCH_UNROLL
      for (int c = 0; c < kChains; ++c) {
        MOEBENCH_UNROLL
        for (int n = 0; n < kTokenTiles; ++n) {
          MOEBENCH_UNROLL
          for (int j = 0; j < 4; ++j) {
            of_tile[warp + c * kTeamWarps][8 * n + 2 * t + j % 2][8 * (j / 2) + g] = sums[c][n][j];
          }
        }
      }
      // Of two buffers: who writes this one again has passed the next tile's barrier, and with it
      // everybody who reads it now.
      sync_team(team);
      finish(walk, early, [&](int row, int token) {
        float sum = 0;
        MOEBENCH_UNROLL
        for (int w = 0; w < kSums; ++w) sum += of_tile[w][token][row];
        if constexpr (kOnF16) sum = gpu::multiply(sum, factors_[token]);
        return sum;
      });
      if constexpr (kBuffers == 2) buffer ^= 1;
      walk.advance(kTeams);
    }
  }
  // All consumers.
  MOEBENCH_DEVICE static void sync_consumers() { sync_named(1, kConsumers); }

 private:
  static constexpr int kTeamProducers = kTeams == 1 ? kProducerWarps : 1;
  static_assert(kTeams == 1 || kTeams == kProducerWarps);

  MOEBENCH_HOST_DEVICE static int num_steps(int cols) { return (cols + 4 * kRun - 1) / (4 * kRun); }
  // How many pieces of so many rows may be under way. More bytes than these bring nothing, and what
  // else an SM asks for, such as the inputs, waits behind them: with 192 KB under way a stage of
  // 192 KB took 11.8 us, with 48 KB 8.9, in a chain of kernels that do nothing else on an H200.
  MOEBENCH_DEVICE int pieces_under_way(int num_rows) const {
    constexpr int kBytesUnderWay = 48 << 10;
    const int pieces = kBytesUnderWay / (num_rows * kPieceBytes);
    return pieces < 1 ? 1 : pieces < stages_ ? pieces : stages_;
  }

  // A place in the ring, and the parity of its turn.
  struct Ring {
    int stage;
    unsigned parity;
  };
  MOEBENCH_DEVICE void move(Ring& at, int pieces) const {
    at.stage += pieces;
    while (at.stage >= stages_) {
      at.stage -= stages_;
      at.parity ^= 1;
    }
  }
  MOEBENCH_DEVICE static void sync_team(int team) { sync_named(8 + team, kTeamThreads); }
  MOEBENCH_DEVICE static uint4 read_unit(const float* row, int column) {
    const auto* from = reinterpret_cast<const float4*>(row + column);
    return pack_inputs<kFormat>(from[0], from[1]);
  }
  MOEBENCH_DEVICE static uint4 read_unit(const std::uint16_t* row, int column) {
    return *reinterpret_cast<const uint4*>(row + column);
  }

  // The lane's scales of a piece. Past the end of a row, the last again: inputs are zeros there.
  template <class Tile>
  MOEBENCH_DEVICE void load_scales(const Tile& tile, int piece, int warp,
                                   std::uint32_t (&scales)[kRounds][2]) const {
    if constexpr (kHasScales) {
      const int g = lane_id() / 4;
      const int last = tile.num_rows - 1;
      // All of a lane's loads in one go: taking them apart, so that those of whole pieces could
      // share an address, made steps 5 to 14 % slower on an H200.
      MOEBENCH_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int row = g + 8 * h < last ? g + 8 * h : last;
        const EncodedRow from{nullptr, tile.scales + tile.offset_of(row) * size_.scales,
                              tile.tensor_scale};
        MOEBENCH_UNROLL
        for (int r = 0; r < kRounds; ++r) {
          const int run = (piece * kPieceSteps + r * kTeamWarps + warp) * 4 + lane_id() % 4;
          scales[r][h] = Weights::load_scale(from, run * kRun < cols_ ? run * kRun : cols_ - kRun);
        }
      }
    }
  }

  template <bool kAnyScale>
  MOEBENCH_DEVICE static void decode_run(const unsigned char* bytes, std::uint32_t scale,
                                         std::uint32_t (&pairs)[kRun / 2]) {
    constexpr int kPairs = Weights::kValues / 2;
    MOEBENCH_UNROLL
    for (int l = 0; l < kLoads; ++l) {
      std::uint32_t some[kPairs];
      const auto& run = *reinterpret_cast<const uint4*>(bytes + 16 * l);
      if constexpr (kOnF16) {
        MOEBENCH_UNROLL
        for (int p = 0; p < kPairs; ++p) some[p] = e4m3_to_f16x2(word_of(run, p / 2), p % 2);
      } else {
        Weights::template decode_bf16<kAnyScale>(run, scale, some);
      }
      MOEBENCH_UNROLL
      for (int p = 0; p < kPairs; ++p) pairs[l * kPairs + p] = some[p];
    }
  }

  // Step begin + s, where `begin` is the first of the rows' piece. kInside: no lane is past the
  // end.
  template <bool kInside, bool kAnyScale>
  MOEBENCH_DEVICE void multiply_step(const unsigned char* low_row, const unsigned char* high_row,
                                     int begin, int s, const std::uint32_t (&scales)[2],
                                     const uint4* const (&x)[kTokenTiles],
                                     float (&sums)[kTokenTiles][4]) const {
    int run = s * 4 + lane_id() % 4;
    if constexpr (!kInside) {
      const int last = cols_ / kRun - 1 - begin * 4;  // inputs past it are zeros
      run = run < last ? run : last;
    }
    const int offset = run * kRunBytes;
    std::uint32_t low[kRun / 2];
    std::uint32_t high[kRun / 2];
    decode_run<kAnyScale>(low_row + offset, scales[0], low);
    decode_run<kAnyScale>(high_row + offset, scales[1], high);
    MOEBENCH_UNROLL
    for (int u = 0; u < kUnits; ++u) {
      const std::uint32_t first[4] = {low[4 * u], high[4 * u], low[4 * u + 1], high[4 * u + 1]};
      const std::uint32_t second[4] = {low[4 * u + 2], high[4 * u + 2], low[4 * u + 3],
                                       high[4 * u + 3]};
      MOEBENCH_UNROLL
      for (int n = 0; n < kTokenTiles; ++n) {
        const uint4 in = x[n][((begin + s) * kUnits + u) * 4];
        if constexpr (kOnF16) {
          multiply_f16(sums[n], first, {in.x, in.y});
          multiply_f16(sums[n], second, {in.z, in.w});
        } else {
          multiply_bf16(sums[n], first, {in.x, in.y});
          multiply_bf16(sums[n], second, {in.z, in.w});
        }
      }
    }
  }

  int cols_;
  RowSize size_;
  int stages_;
  int num_steps_;
  int num_pieces_;
  unsigned char* ring_;
  uint4* inputs_;
  Mbarrier* full_;
  Mbarrier* empty_;
  float* factors_ = nullptr;  // of tokens, if inputs are f16
};

}  // namespace moebench::gpu
