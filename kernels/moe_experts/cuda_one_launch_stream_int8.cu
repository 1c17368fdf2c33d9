// cuda_one_launch_stream_int8: cuda_one_launch_fp8 with weights that stream through shared memory:
// norm, router's product and choice, gate and up, down, for one token in one launch that keeps
// memory busy from the choice to the end. Hopper, MXFP4 experts.
//
// One block an SM, of two teams of six warps that multiply and one warp that chooses the experts
// and then asks for weights. A tile is up to 24 rows of an expert with their scales, two bulk
// copies into a stage of one ring; a team takes all of a tile, each of its warps some of the
// columns. All tiles of gate and up are asked for and, without a pause, those of down: they do not
// depend on activations, and pile up in the ring while blocks wait for each other. What is under
// way is bounded, since what is asked for early makes later what is asked for late.
//
// Arithmetic. Codes become signed bytes, twice their value, by two looks into tables of eight: byte
// i of byte_permute(table, codes) is table[c], or 0 for codes with a sign; the same with signs
// turned over is -v for those with a sign, and -1 for the others but zero, so that the first table
// has v + 1. Both are multiplied, into the same sums: warps wait for what permutes bytes, shifts
// and joins them, which an SM issues at half the rate of other instructions, and not for IMMA. So
// a word's high half comes from a dot product, which another pipe does.
// Inputs are 14 bits and a sign of the largest of 32 as two signed bytes. Sums over a block of 32
// are exact.
//
// As in cuda_digits_fp8, mma's B has two columns for each of the four lanes of a quad, zeros but
// for the columns of weights that the lane has: so accumulators are sums of one block of 32, and
// the lane that gets them has its scale. A warp takes the same four steps of 128 columns of every
// row of its team.
//
// One piece of code multiplies all tiles, of gate and up and of down. Of 132 blocks one has 44 or
// 40 rows of an expert's gate and up in gpt-oss, two tiles, and 22 of down, one. With five pieces,
// for tiles of different sizes, and tiles listed by loops that were unrolled, it was slower
// (docs/gpu.md).
//
// A. The first eight warps normalise the whole row; the router's product is dealt out to warps; the
//    last warp reads all sums and chooses.
// B. Gate and up go expert by expert, and those of the first two are shown to all blocks while
//    those of the others are multiplied. At their end a block says so.
// C. Down of the first two, one a team, fills the time until all blocks have said it; then down of
//    the others.
//
// cuda_one_launch_readers_int8 has three more warps, which make digits of the first two experts'
// activations during B, and teams that wait for the others' words and not for what blocks say. It
// has not been timed yet.
//
// Where nothing is to be routed, x and the choice are given. What the router's part does not take
// is refused; other experts run as cuda_digits_fp8.
#include <algorithm>
#include <type_traits>

#include "kernels/moe_experts/one_launch.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kTeams = 2;
constexpr int kTeamWarps = 6;
constexpr int kTeamThreads = kTeamWarps * gpu::kWarp;
constexpr int kWarps = kTeams * kTeamWarps;  // that multiply
constexpr int kMultipliers = kWarps * gpu::kWarp;
// kReads: with warps that read what the first round has activated.
constexpr int kReaders = 3;
template <bool kReads>
constexpr int kThreads = kMultipliers + (kReads ? 1 + kReaders : 1) * gpu::kWarp;
constexpr int kWarpSteps = kSteps / kTeamWarps;
static_assert(kSteps % kTeamWarps == 0 && kUnits == kMultipliers);
// A round has a pair a team.
constexpr int kRounds = kMostPairs / kTeams;
static_assert(kMostPairs % kTeams == 0);
// A lane has a row of each eight of a tile.
constexpr int kLaneRows = 3;
constexpr int kTileRows = 8 * kLaneRows;
constexpr int kMostPairTiles = 4;  // of a block, of a pair, in each of the two products
constexpr int kMostTiles = kMostPairTiles * kMostPairs;
constexpr int kMostPairRows = kMostPairTiles * kTileRows;  // of a block
static_assert(kMostPairRows * kMostPairs == kMultipliers);
// The rows of a team's tiles in a round have a thread each, and all tiles a lane.
static_assert(kMostPairTiles * kTileRows <= kTeamThreads && 2 * kMostTiles == gpu::kWarp);
// In which rows of gate and up are dealt out: those of two activations, which are shown together.
constexpr int kGateUpUnit = 4;
constexpr int kMostStages = 8;
constexpr int kBytesUnderWay = 72 << 10;    // of a block; see row_stream.cuh's
constexpr int kArriver = kMultipliers - 1;  // says to the grid that the block is there
constexpr float kMostF16 = 65504.0F;

// Some neighbouring rows of an expert, in the order in which they are copied.
struct Tile {
  const unsigned char* data;
  const unsigned char* scales;  // with what is before them in their first 16 bytes
  int scale_bytes;              // likewise, in whole 16 bytes
  int scale_offset;             // of the first row's
  int pair;
  int row;
  int rows;
};
// Those of gate and up first, in the order of pairs, then of down.
struct Tiles {
  Tile at[2 * kMostTiles];
  int of_gate_up;  // of a pair
  int of_down;     // likewise
  int gate_up;     // of all pairs
  int all;
};

// Twice the values of E2M1 codes, plus one but for zero; and their negatives. In shared memory, as
// the compiler puts constants and parameters into registers anew for every look.
struct Table {
  std::uint32_t first;  // of codes 0 to 3
  std::uint32_t last;
};
struct Tables {
  Table plus_one;
  Table minus;
};

// Dynamic shared memory; the ring follows.
struct Shared {
  // Of what gate and up multiply, and of the pair that a team is at. High, low.
  alignas(128) unsigned char digits[1 + kTeams][kBlocks][2][32];
  alignas(16) unsigned char zeros[32];
  float factors[1 + kTeams][kBlocks];
  float totals[2][kMostTiles][kTeamWarps][kTileRows];  // of gate and up, of down
  float2 ends[kMostPairRows][kMostPairs];  // of down's rows: the bias, the expert's weight
  Tiles tiles;
  Tables tables[2];  // the same, or the compiler finds that all lanes read one, as above
};
constexpr std::size_t kRingAt = (sizeof(Shared) + 127) / 128 * 128;
constexpr std::size_t kStaticShared = 2048;  // not less than that

MOEBENCH_DEVICE Shared& shared() { return *reinterpret_cast<Shared*>(gpu::dynamic_shared()); }
// The row that gate and up multiply, where later the teams' digits will be.
MOEBENCH_DEVICE float* shared_x() {
  static_assert(kTeams * sizeof(Shared::digits[0]) >= kMostCols * sizeof(float));
  return reinterpret_cast<float*>(shared().digits[1]);
}

struct Ring {
  int stages;
  int stage_bytes;
  int scales_at;  // in a stage
};

struct Work : OneLaunch {
  Ring ring;
  bool shows_f16;  // activations, else bf16
};

// What a block's warps tell each other.
struct Told {
  // One a tile and not a stage: teams are not at the same tile, and who is a turn of the ring ahead
  // would take a stage that has nothing yet for one that is full again.
  gpu::Mbarrier* full;
  gpu::Mbarrier* empty;
  gpu::Mbarrier* digits;  // of the first round's activations, by the readers
  std::int32_t (&expert_ids)[kMostPairs];
  float (&expert_weights)[kMostPairs];
};

// A place in the ring, and the parity of its turn.
struct Place {
  int stage = 0;
  unsigned parity = 0;
  MOEBENCH_DEVICE void move(const Ring& ring, int tiles = 1) {
    for (stage += tiles; stage >= ring.stages; stage -= ring.stages) parity ^= 1;
  }
};

MOEBENCH_DEVICE int team_id() { return gpu::warp_id() / kTeamWarps; }
MOEBENCH_DEVICE int team_warp() { return gpu::warp_id() % kTeamWarps; }
// The j-th step of a team's warp.
MOEBENCH_DEVICE int step_of(int warp, int j) { return warp + j * kTeamWarps; }

MOEBENCH_DEVICE void sync_multipliers() { gpu::sync_named(2, kMultipliers); }
// When a block has multiplied gate and up: the arriver's warp waits for the others, which go on.
constexpr int kMultipliedBarrier = 5;
// When a team has multiplied gate and up of a round, likewise. A barrier each: warps that go on may
// come to the next before the last has come to this.
MOEBENCH_DEVICE int round_barrier(int round) { return 6 + round * kTeams + team_id(); }
// The last warp lists the tiles while the others normalise.
template <bool kReads>
MOEBENCH_DEVICE void say_tiles_are_listed() {
  gpu::arrive_named(4, kThreads<kReads>);
}
template <bool kReads>
MOEBENCH_DEVICE void await_tiles() {
  gpu::sync_named(4, kThreads<kReads>);
}
// When that warp has said what down's rows end with, and the others have multiplied down.
constexpr int kEndsBarrier = 6 + kRounds * kTeams;
MOEBENCH_DEVICE void say_ends() { gpu::arrive_named(kEndsBarrier, kMultipliers + gpu::kWarp); }
MOEBENCH_DEVICE void sync_ends() { gpu::sync_named(kEndsBarrier, kMultipliers + gpu::kWarp); }
// Before a block arrives, all that look at the turn must have seen it: in a block without rows of
// gate and up nothing else says so. By the warps that do not multiply, which go on; and by the
// arriver's.
template <bool kReads>
constexpr int kSeeTurn = kThreads<kReads> - kMultipliers + gpu::kWarp;
template <bool kReads>
MOEBENCH_DEVICE void say_turn_is_seen() {
  gpu::arrive_named(3, kSeeTurn<kReads>);
}
template <bool kReads>
MOEBENCH_DEVICE void await_turn_is_seen() {
  gpu::sync_named(3, kSeeTurn<kReads>);
}

// ---- The warp that chooses, and asks for weights ------------------------------------------------

// The block's tiles, as if the first expert were chosen for all pairs: one a lane. The whole warp.
MOEBENCH_DEVICE void list_tiles(const Work& work, Tiles& tiles) {
  const Share of_gate_up(work.gate_up.first.rows, kGateUpUnit);
  const Share of_down(work.down.first.rows);
  const int tiles_of_gate_up = (of_gate_up.end - of_gate_up.begin + kTileRows - 1) / kTileRows;
  const int tiles_of_down = (of_down.end - of_down.begin + kTileRows - 1) / kTileRows;
  const int gate_up = tiles_of_gate_up * work.num_pairs;
  const int all = gate_up + tiles_of_down * work.num_pairs;
  const int lane = gpu::lane_id();
  const bool is_down = lane >= gate_up;
  const int begin = is_down ? of_down.begin : of_gate_up.begin;
  const int end = is_down ? of_down.end : of_gate_up.end;
  const EncodedMatrix& matrix = is_down ? work.down.first : work.gate_up.first;
  const auto number = static_cast<unsigned>(is_down ? lane - gate_up : lane);
  const auto of_pair = static_cast<unsigned>(max(is_down ? tiles_of_down : tiles_of_gate_up, 1));
  const int row = begin + static_cast<int>(number % of_pair) * kTileRows;
  const gpu::EncodedRow first = row_of(matrix, row);
  tiles.at[lane] = {first.data,
                    first.scales,
                    0,
                    0,
                    static_cast<int>(number / of_pair),
                    row,
                    lane < all ? min(end - row, kTileRows) : 0};
  if (lane == 0) {
    tiles.of_gate_up = tiles_of_gate_up;
    tiles.of_down = tiles_of_down;
    tiles.gate_up = gate_up;
    tiles.all = all;
  }
  gpu::sync_warp();
}

// Of the token's experts, where the tiles' bytes are; list_tiles has left where those of the first
// expert are.
MOEBENCH_DEVICE void locate_tiles(const Work& work, const std::int32_t (&expert_ids)[kMostPairs],
                                  Tiles& tiles) {
  const int lane = gpu::lane_id();
  if (lane < tiles.all) {
    Tile& tile = tiles.at[lane];
    const EncodedMatrix& matrix = lane < tiles.gate_up ? work.gate_up.first : work.down.first;
    const std::int64_t rows = static_cast<std::int64_t>(expert_ids[tile.pair]) * matrix.rows;
    const unsigned char* const scales = tile.scales + rows * matrix.row_scale_bytes;
    tile.data += rows * matrix.row_bytes;
    tile.scale_offset = address_modulo_16(scales);
    tile.scales = scales - tile.scale_offset;
    tile.scale_bytes =
        (tile.scale_offset + tile.rows * static_cast<int>(matrix.row_scale_bytes) + 15) / 16 * 16;
  }
  gpu::sync_warp();
}

// Asks for all tiles in turn. The whole warp.
MOEBENCH_DEVICE void ask(const Work& work, const Tiles& tiles, const Told& told) {
  unsigned char* const stages = gpu::dynamic_shared() + kRingAt;
  const auto bytes_of = [&](int i) {
    const Tile& tile = tiles.at[i];
    const Stack& stack = i < tiles.gate_up ? work.gate_up : work.down;
    return tile.rows * static_cast<int>(stack.first.row_bytes) + tile.scale_bytes;
  };
  Place at;
  int landed_tiles = 0;
  int under_way = 0;  // bytes
  for (int i = 0; i < tiles.all; ++i) {
    const int bytes = bytes_of(i);
    while (landed_tiles < i &&
           (under_way + bytes > kBytesUnderWay || landed_tiles + work.ring.stages <= i)) {
      gpu::mbarrier_wait(&told.full[landed_tiles], 0);
      under_way -= bytes_of(landed_tiles++);
    }
    gpu::mbarrier_wait(&told.empty[at.stage], at.parity ^ 1);
    gpu::sync_warp();  // or a lane that is late finds the barrier a turn further
    if (gpu::lane_id() == 0) {
      const Tile& tile = tiles.at[i];
      unsigned char* const to = stages + at.stage * work.ring.stage_bytes;
      gpu::Mbarrier* const full = &told.full[i];
      gpu::mbarrier_arrive_expect_bytes(full, bytes);
      gpu::copy_bulk_async(to, tile.data, bytes - tile.scale_bytes, full);
      gpu::copy_bulk_async(to + work.ring.scales_at, tile.scales, tile.scale_bytes, full);
    }
    under_way += bytes;
    at.move(work.ring);
  }
}

template <Routed kRouted, bool kReads>
MOEBENCH_DEVICE void choose_and_ask(const Work& work, const Told& told) {
  const int lane = gpu::lane_id();
  Tiles& tiles = shared().tiles;
  list_tiles(work, tiles);
  say_tiles_are_listed<kReads>();
  choose<kRouted>(work, told.expert_ids, told.expert_weights, [] { say_turn_is_seen<kReads>(); });
  locate_tiles(work, told.expert_ids, tiles);
  // The biases of down's first rows are asked for before the tiles, and there after them.
  constexpr int kFirst = 4;  // of a lane
  constexpr int kStep = gpu::kWarp / kMostPairs;
  const Share share(work.down.first.rows);
  const int pair = lane % kMostPairs;
  const bool has_pair = pair < work.num_pairs;
  const float weight = has_pair ? told.expert_weights[pair] : 0;
  const float* const bias =
      work.down_bias + share.begin +
      static_cast<std::int64_t>(told.expert_ids[has_pair ? pair : 0]) * work.down.first.rows;
  const int rows = share.end - share.begin;
  int row = lane / kMostPairs;
  float biases[kFirst] = {};
  MOEBENCH_UNROLL
  for (int i = 0; i < kFirst; ++i) {
    if (row + i * kStep < rows) biases[i] = gpu::load_constant(bias + row + i * kStep);
  }
  ask(work, tiles, told);
  MOEBENCH_UNROLL
  for (int i = 0; i < kFirst; ++i) shared().ends[row + i * kStep][pair] = {biases[i], weight};
  MOEBENCH_NO_UNROLL
  for (row += kFirst * kStep; row < rows; row += kStep) {
    shared().ends[row][pair] = {gpu::load_constant(bias + row), weight};
  }
  say_ends();
}

// ---- The warps that multiply --------------------------------------------------------------------

// The unit of 8 columns whose digits for gate and up the thread finds.
MOEBENCH_DEVICE int own_unit() { return static_cast<int>(threadIdx.x); }

// The digits of a unit, by lanes with adjacent units: 14 bits of the largest of four units.
MOEBENCH_DEVICE void store_digits(int place, int unit, const float (&x)[8]) {
  Shared& s = shared();
  float most = 0;
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(x[j]));
  const int exponent = exponent_of(quad_max(most));
  const float factor = gpu::power_of_two(13 - exponent);  // the largest goes to 2^13 .. 2^14
  // Added to a number, leaves it and 128 as an integer in the lowest bits: its second byte is the
  // high digit, and the first the low one and 128.
  constexpr float kRounder = 12582912.0F + 128.0F;
  std::uint32_t digits[2][2];  // [high, low][columns 0 to 3, 4 to 7]
  MOEBENCH_UNROLL
  for (int half = 0; half < 2; ++half) {
    std::uint32_t pairs[2];  // low and high digit of a column, and of the next
    MOEBENCH_UNROLL
    for (int j = 0; j < 2; ++j) {
      const float* const two = x + 4 * half + 2 * j;
      pairs[j] = gpu::byte_permute(gpu::bits_of(two[0] * factor + kRounder),
                                   gpu::bits_of(two[1] * factor + kRounder), 0x5410);
    }
    digits[0][half] = gpu::byte_permute(pairs[0], pairs[1], 0x7531);
    digits[1][half] = gpu::byte_permute(pairs[0], pairs[1], 0x6420) ^ 0x80808080U;
  }
  MOEBENCH_UNROLL
  for (int digit = 0; digit < 2; ++digit) {
    *reinterpret_cast<uint2*>(&s.digits[place][unit / 4][digit][unit % 4 * 8]) = {digits[digit][0],
                                                                                  digits[digit][1]};
  }
  // Weights are doubled.
  if (unit % 4 == 0) s.factors[place][unit / 4] = gpu::power_of_two(exponent - 14);
}

// What a lane multiplies weights of half of its steps by: columns of B, and the factors of its
// blocks.
constexpr int kHalfSteps = kWarpSteps / 2;
static_assert(kWarpSteps % 2 == 0);
struct Columns {
  std::uint32_t digits[kHalfSteps][8];
  float factors[kHalfSteps];

  // Of digits that are there. Lanes whose columns of B are zeros read those.
  MOEBENCH_DEVICE Columns(int place, int half) {
    const Shared& s = shared();
    const int g = gpu::lane_id() / 4;
    const int t = gpu::lane_id() % 4;
    MOEBENCH_UNROLL
    for (int j = 0; j < kHalfSteps; ++j) {
      const int block = step_of(team_warp(), half * kHalfSteps + j) * 4 + t;
      factors[j] = s.factors[place][block];
      const auto* from =
          reinterpret_cast<const uint4*>(g / 2 == t ? s.digits[place][block][g % 2] : s.zeros);
      MOEBENCH_UNROLL
      for (int h = 0; h < 2; ++h) {
        const uint4 some = from[h];
        MOEBENCH_UNROLL
        for (int i = 0; i < 4; ++i) digits[j][4 * h + i] = gpu::word_of(some, i);
      }
    }
  }
};
// Where a lane's parts of a tile lie in a stage. Its rows are `row`, and 8 and 16 further on; rows
// of 1440 bytes are a quarter of the banks apart, so the quads that read together take rows two
// apart.
struct LanePlaces {
  int row;
  int data[kWarpSteps];    // of that row
  int scales[kWarpSteps];  // likewise
  int next_data;           // from one row of the lane to the next
  int next_scales;

  MOEBENCH_DEVICE LanePlaces(const EncodedMatrix& shape, int scales_at) {
    const int g = gpu::lane_id() / 4;
    row = (g & 4) | (g & 1) << 1 | (g >> 1 & 1);
    const auto row_bytes = static_cast<int>(shape.row_bytes);
    const auto scale_bytes = static_cast<int>(shape.row_scale_bytes);
    MOEBENCH_UNROLL
    for (int j = 0; j < kWarpSteps; ++j) {
      const int block = step_of(team_warp(), j) * 4 + gpu::lane_id() % 4;
      const int inside = min(block, scale_bytes - 1);  // past the end inputs are zeros
      data[j] = row * row_bytes + inside * 16;
      scales[j] = scales_at + row * scale_bytes + inside;
    }
    next_data = 8 * row_bytes;
    next_scales = 8 * scale_bytes;
  }
};

MOEBENCH_DEVICE std::uint32_t bytes_of(const Table& table, std::uint32_t codes) {
  return gpu::byte_permute(table.first, table.last, codes);
}

// Tile `number`, in the ring's stage `at`, by the team's columns of digits in `place`: what the
// warp has of its rows, to `totals`. Calls prepare() when the first codes are loaded: then digits
// must be there.
template <class Prepare>
MOEBENCH_DEVICE void multiply_tile(const Work& work, const Tables& tables, const Told& told,
                                   int number, int place, const LanePlaces& places, const Place& at,
                                   float (&totals)[kTileRows], const Prepare& prepare) {
  constexpr std::uint32_t kSigns = 0x88888888U;
  const unsigned char* const stage =
      gpu::dynamic_shared() + kRingAt + at.stage * work.ring.stage_bytes;
  float sums[kLaneRows] = {};
  gpu::mbarrier_wait(&told.full[number], 0);  // then the tile is located, too
  const unsigned char* const scales_at = stage + shared().tiles.at[number].scale_offset;
  MOEBENCH_UNROLL
  for (int half = 0; half < 2; ++half) {
    uint4 codes[kHalfSteps][kLaneRows];
    std::uint32_t scales[kHalfSteps][kLaneRows];
    MOEBENCH_UNROLL
    for (int j = 0; j < kHalfSteps; ++j) {
      const int step = half * kHalfSteps + j;
      MOEBENCH_UNROLL
      for (int r = 0; r < kLaneRows; ++r) {
        codes[j][r] =
            *reinterpret_cast<const uint4*>(stage + places.data[step] + r * places.next_data);
        scales[j][r] = scales_at[places.scales[step] + r * places.next_scales];
      }
    }
    if (half == 0) prepare();
    const Columns columns(place, half);
    if (half == 1) {
      gpu::sync_warp();
      if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&told.empty[at.stage]);
    }
    // Of rows 0 and 1; of row 2, which is in both rows of A, by a table each. All chains of
    // products hide each other's latency.
    std::int32_t first[kHalfSteps][4] = {};
    std::int32_t last[kHalfSteps][4] = {};
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      MOEBENCH_UNROLL
      for (int j = 0; j < kHalfSteps; ++j) {
        std::uint32_t plus[kLaneRows][2];  // of codes 0 to 3, and 4 to 7
        std::uint32_t minus[kLaneRows][2];
        MOEBENCH_UNROLL
        for (int r = 0; r < kLaneRows; ++r) {
          const std::uint32_t word = gpu::word_of(codes[j][r], i);
          const std::uint32_t turned = word ^ kSigns;
          plus[r][0] = bytes_of(tables.plus_one, word);
          plus[r][1] = bytes_of(tables.plus_one, gpu::high_half(word));
          minus[r][0] = bytes_of(tables.minus, turned);
          minus[r][1] = bytes_of(tables.minus, gpu::high_half(turned));
        }
        const std::uint32_t b[2] = {columns.digits[j][2 * i], columns.digits[j][2 * i + 1]};
        gpu::multiply_int8(first[j], {plus[0][0], plus[1][0], plus[0][1], plus[1][1]}, b);
        gpu::multiply_int8(first[j], {minus[0][0], minus[1][0], minus[0][1], minus[1][1]}, b);
        gpu::multiply_int8(last[j], {plus[2][0], minus[2][0], plus[2][1], minus[2][1]}, b);
      }
    }
    MOEBENCH_UNROLL
    for (int j = 0; j < kHalfSteps; ++j) {
      const std::int32_t exact[kLaneRows] = {
          first[j][0] * 256 + first[j][1], first[j][2] * 256 + first[j][3],
          (last[j][0] + last[j][2]) * 256 + (last[j][1] + last[j][3])};
      MOEBENCH_UNROLL
      for (int r = 0; r < kLaneRows; ++r) {
        sums[r] += static_cast<float>(exact[r]) * columns.factors[j] *
                   gpu::float_from_bits(scales[j][r] << 23);
      }
    }
  }
  MOEBENCH_UNROLL
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    MOEBENCH_UNROLL
    for (float& sum : sums) sum += gpu::shuffle_xor(gpu::kAllLanes, sum, lanes);
  }
  if (gpu::lane_id() % 4 != 0) return;
  MOEBENCH_UNROLL
  for (int r = 0; r < kLaneRows; ++r) totals[places.row + 8 * r] = sums[r];
}

// The sum of what a team's warps have of a row.
MOEBENCH_DEVICE float total_of(const float (&of_tile)[kTeamWarps][kTileRows], int row) {
  float sum = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < kTeamWarps; ++w) sum += of_tile[w][row];
  return sum;
}

// What blocks show each other of an activation.
MOEBENCH_DEVICE std::uint32_t short_of(const Work& work, float value) {
  return shown_short(work.shows_f16 ? gpu::float_to_f16(value) : gpu::float_to_bf16(value));
}

// Where the thread's row of gate and up is, of its team's tiles first, first + kTeams, ... of a
// round.
struct ActivatedRow {
  int tile;
  int row;  // of it
  bool is_there;
  MOEBENCH_DEVICE ActivatedRow(const Tiles& tiles, int first, int end)
      : tile(first + static_cast<int>(threadIdx.x) % kTeamThreads / kTileRows * kTeams),
        row(static_cast<int>(threadIdx.x) % kTeamThreads % kTileRows),
        is_there(tile < end && row < tiles.at[tile].rows) {}
};

// When the team has multiplied them: activations of the rows, for all blocks. By as many warps as
// rows want; the others go on.
MOEBENCH_DEVICE void activate(const Work& work, int first, int end, float bias, unsigned turn,
                              int round) {
  const int rows = (end - first + kTeams - 1) / kTeams * kTileRows;
  if (rows <= 0) return;
  if (team_warp() * gpu::kWarp >= rows) {
    return gpu::arrive_named(round_barrier(round), kTeamThreads);
  }
  gpu::sync_named(round_barrier(round), kTeamThreads);
  const ActivatedRow own(shared().tiles, first, end);
  const float total = own.is_there ? total_of(shared().totals[0][own.tile], own.row) + bias : 0;
  const float up = gpu::shuffle_down(gpu::kAllLanes, total, 1);
  const float activated = swiglu(total, up, work.alpha, work.limit);
  const float after = gpu::shuffle_down(gpu::kAllLanes, activated, 2);
  if (own.is_there && own.row % kGateUpUnit == 0) {
    static_assert(kGateUpUnit == 4 && kTileRows % kGateUpUnit == 0);
    const Tile& tile = shared().tiles.at[own.tile];
    gpu::store_relaxed(shown_pairs(work, turn, tile.pair) + (tile.row + own.row) / kGateUpUnit,
                       short_of(work, activated) | short_of(work, after) << 16);
  }
}

// The digits of a team's warp's columns of an expert's activations, as soon as they are there.
MOEBENCH_DEVICE void read_activations(const Work& work, unsigned turn, int pair, int team_warp,
                                      int place) {
  constexpr int kStepUnits = kStepColumns / 8;
  constexpr int kLaneUnits = kWarpSteps * kStepUnits / gpu::kWarp;
  const int cols = work.down.first.cols;
  const std::uint32_t* const from = shown_pairs(work, turn, pair);
  const auto unit_of = [&](int u) {
    const int i = u * gpu::kWarp + gpu::lane_id();
    return step_of(team_warp, i / kStepUnits) * kStepUnits + i % kStepUnits;
  };
  uint4 shorts[kLaneUnits] = {};  // all are asked for before the first is used
  bool is_there = false;
  while (!is_there) {
    MOEBENCH_UNROLL
    for (int u = 0; u < kLaneUnits; ++u) {
      if (8 * unit_of(u) >= cols) continue;
      shorts[u] = gpu::load_relaxed(reinterpret_cast<const uint4*>(from) + unit_of(u));
    }
    is_there = true;
    MOEBENCH_UNROLL
    for (int u = 0; u < kLaneUnits; ++u) {
      is_there &= gpu::are_there(shorts[u]) || 8 * unit_of(u) >= cols;
    }
    if (!is_there) gpu::spin_on();
  }
  gpu::sync_warp();
  const auto store = [&](auto&& value_of) {
    MOEBENCH_UNROLL
    for (int u = 0; u < kLaneUnits; ++u) {
      float x[8];
      MOEBENCH_UNROLL
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t word = gpu::word_of(shorts[u], i / 2);
        x[i] = value_of(i % 2 == 0 ? word & 0xffffU : word >> 16);
      }
      store_digits(place, unit_of(u), x);
    }
  };
  // Where there are none, zeros of either.
  if (work.shows_f16) {
    store([](std::uint32_t bits) { return gpu::f16_to_float(static_cast<std::uint16_t>(bits)); });
  } else {
    store([](std::uint32_t bits) { return gpu::float_from_bits(bits << 16); });
  }
  gpu::sync_warp();
}

// The readers: digits of the first round's activations, which are there before the block has
// multiplied the second round's rows.
MOEBENCH_DEVICE void read_first_round(const Work& work, const Told& told) {
  gpu::wait_for_previous_kernel();
  const unsigned turn = gpu::grid_turn(&work.signals->turn);
  say_turn_is_seen<true>();
  await_tiles<true>();  // and the place is free where digits go
  const Tiles& tiles = shared().tiles;
  // No use in asking sooner.
  if (tiles.gate_up > 0) gpu::mbarrier_wait(&told.full[tiles.gate_up - 1], 0);
  const int reader = gpu::warp_id() - kWarps - 1;
  if (tiles.of_down > 0) {
    MOEBENCH_NO_UNROLL
    for (int i = reader; i < min(kTeams, work.num_pairs) * kTeamWarps; i += kReaders) {
      read_activations(work, turn, i / kTeamWarps, i % kTeamWarps, 1 + i / kTeamWarps);
    }
  }
  if (gpu::lane_id() == 0) gpu::mbarrier_arrive(told.digits);
}

// All products of the block's rows: rounds of gate and up, in which the teams take turns at tiles,
// then rounds of down, in which each takes those of a pair.
template <bool kReads>
MOEBENCH_DEVICE void multiply_all(const Work& work, const Told& told, const Tables& tables,
                                  const unsigned (&turn)[1]) {
  await_tiles<kReads>();
  const Tiles& tiles = shared().tiles;
  const auto thread = static_cast<int>(threadIdx.x);
  // The team's first tile of a round of gate and up, and the end of all teams'.
  const auto end_of = [&](int rounds) {
    return min(rounds * kTeams, work.num_pairs) * tiles.of_gate_up;
  };
  const auto first_of = [&](int round) {
    const int begin = end_of(round);
    return begin + (team_id() + kTeams - begin % kTeams) % kTeams;
  };
  MOEBENCH_NO_UNROLL
  for (int phase = 0; phase < 2 * kRounds; ++phase) {
    const bool is_down = phase >= kRounds;
    const int pair = (phase - kRounds) * kTeams + team_id();  // of down
    if (phase == 2 * kRounds - 1) {
      if constexpr (kReads) {
        clear<kMultipliers>(*work.signals, turn[0] ^ 1);
      } else {
        if (thread == kArriver) gpu::wait_for_grid(&work.signals->turn, turn[0]);
        sync_multipliers();
      }
      gpu::let_next_kernel_start();
    }
    if (is_down && (pair >= work.num_pairs || tiles.of_down == 0)) continue;
    const auto read_pair = [&] {
      read_activations(work, turn[0], pair, team_warp(), 1 + team_id());
    };
    if (!kReads && is_down) read_pair();
    int next = is_down ? tiles.gate_up + pair * tiles.of_down : first_of(phase);
    const int end = is_down ? next + tiles.of_down : end_of(phase + 1);
    float bias = 0;
    if (const ActivatedRow own(tiles, next, is_down ? 0 : end); own.is_there) {
      gpu::mbarrier_wait(&told.full[next], 0);  // then the experts are known, too
      const Tile& tile = tiles.at[own.tile];
      const std::int64_t expert = told.expert_ids[tile.pair];
      bias = gpu::load_constant(work.gate_up_bias + expert * work.gate_up.first.rows + tile.row +
                                own.row);
    }
    const LanePlaces places(is_down ? work.down.first : work.gate_up.first, work.ring.scales_at);
    Place at;
    at.move(work.ring, next);
    MOEBENCH_NO_UNROLL
    while (next < end) {
      float(&totals)[kTeamWarps][kTileRows] =
          is_down ? shared().totals[1][next - tiles.gate_up] : shared().totals[0][next];
      multiply_tile(work, tables, told, next, is_down ? 1 + team_id() : 0, places, at,
                    totals[team_warp()], [&] {
                      if (!kReads || !is_down || next != tiles.gate_up + pair * tiles.of_down)
                        return;
                      if (phase == kRounds) return gpu::mbarrier_wait(told.digits, 0);
                      read_pair();
                    });
      const int step = is_down ? 1 : kTeams;
      at.move(work.ring, step);
      next += step;
    }
    if (is_down) continue;
    activate(work, first_of(phase), end, bias, turn[0], phase);
    if (phase < kRounds - 1) continue;
    if (gpu::warp_id() == kArriver / gpu::kWarp) {
      gpu::sync_named(kMultipliedBarrier, kMultipliers);
      await_turn_is_seen<kReads>();
      if (thread == kArriver) gpu::arrive_at_grid(&work.signals->turn);
    } else {
      gpu::arrive_named(kMultipliedBarrier, kMultipliers);
    }
  }
  if constexpr (!kReads) clear<kMultipliers>(*work.signals, turn[0] ^ 1);
  // Outputs of the block's rows.
  const Share share(work.down.first.rows);
  constexpr int kWarpRows = gpu::kWarp / kMostPairs;
  const int pair = gpu::lane_id() / kWarpRows;
  const int row = gpu::warp_id() * kWarpRows + gpu::lane_id() % kWarpRows;
  const bool has_row = pair < work.num_pairs && share.begin + row < share.end;
  sync_ends();
  float sum = 0;
  if (has_row) {
    const auto& of_tile = shared().totals[1][pair * tiles.of_down + row / kTileRows];
    const float2 end = shared().ends[row][pair];
    sum = end.y * (total_of(of_tile, row % kTileRows) + end.x);
  }
  sum += gpu::shuffle_xor(gpu::kAllLanes, sum, kWarpRows);
  sum += gpu::shuffle_xor(gpu::kAllLanes, sum, 2 * kWarpRows);
  if (has_row && pair == 0) work.out[share.begin + row] = sum;
}

template <Routed kRouted, bool kReads>
__global__ void MOEBENCH_BOUNDS(kThreads<kReads>, 1)
    one_launch_stream(MOEBENCH_GRID_CONSTANT Work work) {
  MOEBENCH_SHARED(gpu::Mbarrier, barriers, [2 * kMostTiles + kMostStages + 1]);
  MOEBENCH_SHARED(std::int32_t, expert_ids, [kMostPairs]);
  MOEBENCH_SHARED(float, expert_weights, [kMostPairs]);
  MOEBENCH_SHARED(unsigned, turn, [1]);
  gpu::Mbarrier* const empty = barriers + 2 * kMostTiles;
  const Told told{barriers, empty, empty + kMostStages, expert_ids, expert_weights};
  const bool multiplies = threadIdx.x < kMultipliers;
  if (gpu::warp_id() == kWarps) {
    const int lane = gpu::lane_id();
    gpu::mbarrier_init(&told.full[lane], 1);
    if (lane < kMostStages) gpu::mbarrier_init(&told.empty[lane], kTeamWarps);
    if (lane == 0) gpu::mbarrier_init(told.digits, kReaders);
    gpu::fence_mbarrier_init();
  }
  if (threadIdx.x == 0) {
    for (Tables& tables : shared().tables) {
      tables = {{0x04030200U, 0x0d090705U}, {0xfdfeff00U, 0xf4f8fafcU}};
    }
    for (unsigned char& zero : shared().zeros) zero = 0;
  }
  gpu::sync_threads();
  if (!multiplies) {
    if (kReads && gpu::warp_id() > kWarps) return read_first_round(work, told);
    return choose_and_ask<kRouted, kReads>(work, told);
  }
  Inputs inputs;
  if constexpr (kRouted != Routed::kBefore) {
    normalise_and_show_sums<kWarps, kRouted>(work, shared_x(), turn, [] { sync_multipliers(); });
    inputs = load_inputs(shared_x(), work.gate_up.first.cols, own_unit());
  } else {
    gpu::wait_for_previous_kernel();
    inputs = load_inputs(work.x, work.gate_up.first.cols, own_unit());
    if (threadIdx.x == kArriver) turn[0] = gpu::grid_turn(&work.signals->turn);
    sync_multipliers();
  }
  store_digits(0, own_unit(), inputs.x);
  sync_multipliers();
  const Tables tables = shared().tables[gpu::lane_id() % 2];
  multiply_all<kReads>(work, told, tables, turn);
}

// The ring for such rows; of no stages if there is no room.
Ring ring_for(std::int64_t gate_up_cols, std::int64_t down_cols) {
  const Codec& c = codec(Format::kMxfp4);
  const auto cols = std::max(gate_up_cols, down_cols);
  const auto data_bytes = kTileRows * static_cast<std::int64_t>(c.row_data_bytes(cols));
  const auto scale_bytes = kTileRows * static_cast<std::int64_t>(c.row_scale_bytes(cols)) + 32;
  const std::int64_t stage_bytes = (data_bytes + scale_bytes + 127) / 128 * 128;
  const auto room = static_cast<std::int64_t>(gpu::device_info().shared_bytes_per_block) -
                    static_cast<std::int64_t>(kRingAt + kStaticShared);
  const auto stages = std::clamp<std::int64_t>(room / stage_bytes, 0, kMostStages);
  return {static_cast<int>(stages), static_cast<int>(stage_bytes), static_cast<int>(data_bytes)};
}

// Whether the problem is one that this is for, on the device that is planned for.
bool takes(const Problem& problem) {
  if (problem.num_tokens != 1 || problem.top_k > kMostPairs || problem.format != Format::kMxfp4) {
    return false;
  }
  const auto fits = [&](std::int64_t rows, std::int64_t cols, int unit) {
    const auto scale_bytes = static_cast<std::int64_t>(codec(Format::kMxfp4).row_scale_bytes(cols));
    // Copies of scales take whole 16 bytes.
    return cols <= kMostCols && cols % 32 == 0 && rows % unit == 0 &&
           problem.num_experts * rows * scale_bytes % 16 == 0;
  };
  const std::int64_t gate_up_rows = 2 * problem.intermediate_size;
  const std::int64_t pair_tiles =
      (most_rows_of_block(gate_up_rows, kGateUpUnit) + kTileRows - 1) / kTileRows;
  return pair_tiles <= kMostPairTiles &&
         most_rows_of_block(problem.hidden_size, kUnitRows) <= kMostPairRows &&
         fits(gate_up_rows, problem.hidden_size, kGateUpUnit) &&
         fits(problem.hidden_size, problem.intermediate_size, kUnitRows) &&
         ring_for(problem.hidden_size, problem.intermediate_size).stages >= 2;
}
bool takes(const Args& args) {
  return args.down.format == args.gate_up.format &&
         takes({args.gate_up.format, args.expert_ids.shape[0], args.gate_up.cols, args.down.cols,
                args.gate_up.count, args.expert_ids.shape[1]});
}

constexpr LaunchNames kStreamNames = {"moe_experts/cuda_one_launch_stream_int8",
                                      "moe_experts/cuda_one_launch_stream_int8 (with the router)",
                                      "moe_experts/cuda_one_launch_stream_int8 (router ahead)"};
constexpr LaunchNames kReadersNames = {"moe_experts/cuda_one_launch_readers_int8",
                                       "moe_experts/cuda_one_launch_readers_int8 (with the router)",
                                       "moe_experts/cuda_one_launch_readers_int8 (router ahead)"};

template <bool kReads>
void run(const Args& args, Context& context) {
  const Routed routed = routed_of(args);
  if (routed == Routed::kBefore && !takes(args)) return cuda_digits_fp8.run(args, context);
  // The largest activation: a gate far below zero gives less than 1 / alpha.
  const float most = std::max(args.swiglu_limit, 1 / args.swiglu_alpha) * (args.swiglu_limit + 1);
  const Work work{one_launch_of(args, context, takes(args)),
                  ring_for(args.gate_up.cols, args.down.cols), most < kMostF16};
  const std::size_t bytes = kRingAt + static_cast<std::size_t>(work.ring.stages) *
                                          static_cast<std::size_t>(work.ring.stage_bytes);
  gpu::launch(with_routed(routed, [](auto known) { return one_launch_stream<known(), kReads>; }),
              one_launch_config(context, kThreads<kReads>, bytes),
              launch_name(kReads ? kReadersNames : kStreamNames, routed), work);
}

constexpr std::string_view kRoundsTo =
    "activations: f16, 14 bits of the largest of 32, accumulate: exact in blocks of 32, f32";

}  // namespace

constinit const Variant cuda_one_launch_stream_int8 = one_launch_variant<takes, cuda_digits_fp8>(
    "cuda_one_launch_stream_int8",
    "one token: norm, router and experts in one launch that streams MXFP4 codes through "
    "shared memory, decoded to int8 (Hopper)",
    kRoundsTo, run<false>, true);
constinit const Variant cuda_one_launch_readers_int8 = one_launch_variant<takes, cuda_digits_fp8>(
    "cuda_one_launch_readers_int8",
    "cuda_one_launch_stream_int8 with warps that read activations, and no wait for the grid",
    kRoundsTo, run<true>, true);

}  // namespace moebench::moe_experts
