// cuda_one_launch_stream_int8: cuda_one_launch_fp8 with weights that stream through shared memory:
// norm, router's product and choice, gate and up, down, for one token in one launch that keeps
// memory busy from the choice to the end. Hopper, MXFP4 experts.
//
// One block an SM, of twelve warps that multiply and one that chooses the experts and then asks for
// weights. A tile is up to 16 rows of an expert with their scales, two bulk copies into a stage of
// one ring. All tiles of gate and up are asked for and, without a pause, those of down: they do not
// depend on activations, and pile up in the ring while blocks wait for each other. What is under
// way is bounded, since what is asked for early makes later what is asked for late.
//
// Arithmetic. Codes become signed bytes, twice their value, by two looks into tables of eight: byte
// i of byte_permute(table, codes) is table[c], or 0 for codes with a sign; the same with signs
// turned over is -v for those with a sign, and -1 for the others but zero, so that the first table
// has v + 1. Both are multiplied, into the same sums. Inputs are 14 bits and a sign of the largest
// of 32 as two signed bytes. Sums over a block of 32 are exact.
//
// As in cuda_digits_fp8, mma's B has two columns for each of the four lanes of a quad, zeros but
// for the columns of weights that the lane has: so accumulators are sums of one block of 32, and
// the lane that gets them has its scale. A warp takes the same two steps of 128 columns of every
// row: its inputs stay in registers. Warps wait for nothing but the ring until all tiles are done.
//
// A. The first eight warps normalise the whole row; the router's product is dealt out to warps; the
//    last warp reads all sums and chooses.
// B. When gate and up are multiplied, a block says so, a little ahead of what it activates.
// C. When all have said it, each warp reads its columns of what they have activated.
//
// Where nothing is to be routed, x and the choice are given. What the router's part does not take
// is refused; other experts run as cuda_digits_fp8.
#include <algorithm>

#include "kernels/moe_experts/one_launch.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kWarps = 12;  // that multiply
constexpr int kMultipliers = kWarps * gpu::kWarp;
constexpr int kThreads = kMultipliers + gpu::kWarp;
constexpr int kWarpSteps = kSteps / kWarps;
static_assert(kSteps % kWarps == 0 && kUnits == kMultipliers);
constexpr int kTileRows = 16;
constexpr int kMostTiles = 24;  // of a block, in each of the two products
constexpr int kMostPairRows = kMostTiles / kMostPairs * kTileRows;  // of down, of a block
static_assert(kMostTiles * kTileRows <= kMultipliers && kMostPairRows * kMostPairs == kMultipliers);
constexpr int kMostStages = 8;
constexpr int kBytesUnderWay = 72 << 10;   // of a block; see row_stream.cuh's
constexpr int kWaiter = kMultipliers - 1;  // the thread that waits for the grid
constexpr int kRowWarps = fused::kRowThreads / gpu::kWarp;

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
struct Tiles {
  Tile at[2 * kMostTiles];
  int gate_up;
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
  alignas(128) unsigned char digits[kMostPairs][kBlocks][2][32];  // high, low
  float factors[kMostPairs][kBlocks];
  float totals[kMostTiles][kWarps][kTileRows];
  Tiles tiles;
  Tables tables;
};
constexpr std::size_t kRingAt = (sizeof(Shared) + 127) / 128 * 128;
constexpr std::size_t kStaticShared = 2048;  // not less than that

MOEBENCH_DEVICE Shared& shared() { return *reinterpret_cast<Shared*>(gpu::dynamic_shared()); }
// The row that gate and up multiply, where later digits of the second pair on will be.
MOEBENCH_DEVICE float* shared_x() {
  static_assert((kMostPairs - 1) * sizeof(Shared::digits[0]) >= kMostCols * sizeof(float));
  return reinterpret_cast<float*>(shared().digits[1]);
}

struct Ring {
  int stages;
  int stage_bytes;
  int scales_at;  // in a stage
};

struct Work : OneLaunch {
  Ring ring;
};

// What a block's warps tell each other.
struct Told {
  gpu::Mbarrier* full;
  gpu::Mbarrier* empty;
  std::int32_t (&expert_ids)[kMostPairs];
  float (&expert_weights)[kMostPairs];
};

// A place in the ring, and the parity of its turn.
struct Place {
  int stage = 0;
  unsigned parity = 0;
  MOEBENCH_DEVICE void move(const Ring& ring) {
    if (++stage < ring.stages) return;
    stage = 0;
    parity ^= 1;
  }
};

MOEBENCH_DEVICE void sync_multipliers() { gpu::sync_named(2, kMultipliers); }
// Before a block arrives, its last warp must have seen the turn: in a block without rows of gate
// and up nothing else says so. By that warp, which goes on; and by the waiter's.
MOEBENCH_DEVICE void say_turn_is_seen() { gpu::arrive_named(3, 2 * gpu::kWarp); }
MOEBENCH_DEVICE void await_turn_is_seen() { gpu::sync_named(3, 2 * gpu::kWarp); }

// ---- The warp that chooses, and asks for weights ------------------------------------------------

// The block's tiles, as far as they do not depend on the choice. The whole warp.
MOEBENCH_DEVICE void list_tiles(const Work& work, Tiles& tiles) {
  int count = 0;
  const auto add = [&](int pair, int row, int rows) {
    if (count % gpu::kWarp == gpu::lane_id()) {
      tiles.at[count].pair = pair;
      tiles.at[count].row = row;
      tiles.at[count].rows = rows;
    }
    ++count;
  };
  const int of_expert = work.gate_up.first.rows;
  const Share all(work.num_pairs * of_expert);
  int pair = all.begin / of_expert;
  int row = all.begin % of_expert;
  for (int left = all.end - all.begin; left > 0;) {
    const int rows = min(min(left, of_expert - row), kTileRows);
    add(pair, row, rows);
    left -= rows;
    row += rows;
    if (row == of_expert) {
      row = 0;
      ++pair;
    }
  }
  const int gate_up = count;
  const Share each(work.down.first.rows);
  for (pair = 0; pair < work.num_pairs; ++pair) {
    for (row = each.begin; row < each.end; row += kTileRows) {
      add(pair, row, min(each.end - row, kTileRows));
    }
  }
  if (gpu::lane_id() == 0) {
    tiles.gate_up = gate_up;
    tiles.all = count;
  }
}

// Of the token's experts, where the tiles' bytes are.
MOEBENCH_DEVICE void locate_tiles(const Work& work, const std::int32_t (&expert_ids)[kMostPairs],
                                  Tiles& tiles) {
  for (int i = gpu::lane_id(); i < tiles.all; i += gpu::kWarp) {
    Tile& tile = tiles.at[i];
    const EncodedMatrix matrix =
        matrix_of(i < tiles.gate_up ? work.gate_up : work.down, expert_ids[tile.pair]);
    const gpu::EncodedRow row = row_of(matrix, tile.row);
    tile.data = row.data;
    tile.scale_offset = address_modulo_16(row.scales);
    tile.scales = row.scales - tile.scale_offset;
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
  Place landed;
  int landed_tiles = 0;
  int under_way = 0;  // bytes
  for (int i = 0; i < tiles.all; ++i) {
    const int bytes = bytes_of(i);
    while (landed_tiles < i &&
           (under_way + bytes > kBytesUnderWay || landed_tiles + work.ring.stages <= i)) {
      gpu::mbarrier_wait(&told.full[landed.stage], landed.parity);
      landed.move(work.ring);
      under_way -= bytes_of(landed_tiles++);
    }
    gpu::mbarrier_wait(&told.empty[at.stage], at.parity ^ 1);
    gpu::sync_warp();  // or a lane that is late finds the barrier a turn further
    if (gpu::lane_id() == 0) {
      const Tile& tile = tiles.at[i];
      unsigned char* const to = stages + at.stage * work.ring.stage_bytes;
      gpu::Mbarrier* const full = &told.full[at.stage];
      gpu::mbarrier_arrive_expect_bytes(full, bytes);
      gpu::copy_bulk_async(to, tile.data, bytes - tile.scale_bytes, full);
      gpu::copy_bulk_async(to + work.ring.scales_at, tile.scales, tile.scale_bytes, full);
    }
    under_way += bytes;
    at.move(work.ring);
  }
}

template <bool kRoutes>
MOEBENCH_DEVICE void choose_and_ask(const Work& work, const Told& told) {
  MOEBENCH_SHARED(float, logits, [kMostExperts]);
  const int lane = gpu::lane_id();
  if constexpr (kRoutes) {
    const Router& router = work.router;
    float bias[kHeldExperts] = {};
    if (router.bias != nullptr) {
      MOEBENCH_UNROLL
      for (int h = 0; h < kHeldExperts; ++h) {
        const int expert = lane + h * gpu::kWarp;
        if (expert < router.num_experts) bias[h] = gpu::load_constant(router.bias + expert);
      }
    }
    gpu::wait_for_previous_kernel();
    const unsigned turn = gpu::grid_turn(&work.signals->turn);
    await_logits(router, work.signals->at[turn], bias, logits);
    say_turn_is_seen();
    gpu::sync_warp();
    fused::choose_experts<kHeldExperts>(logits, router.num_experts, work.num_pairs, told.expert_ids,
                                        told.expert_weights);
  } else {
    gpu::wait_for_previous_kernel();
    if (lane < work.num_pairs) {
      told.expert_ids[lane] = gpu::load_constant(work.expert_ids + lane);
      told.expert_weights[lane] = gpu::load_constant(work.expert_weights + lane);
    }
    say_turn_is_seen();
  }
  gpu::sync_warp();
  Tiles& tiles = shared().tiles;
  locate_tiles(work, told.expert_ids, tiles);
  ask(work, tiles, told);
}

// ---- The warps that multiply --------------------------------------------------------------------

// A warp's steps are w and w + kWarps; its units of 8 columns those of its steps, a lane each.
MOEBENCH_DEVICE int own_unit() {
  constexpr int kStepUnits = kStepColumns / 8;
  static_assert(kWarpSteps * kStepUnits == gpu::kWarp);
  const int lane = gpu::lane_id();
  return (lane / kStepUnits * kWarps + gpu::warp_id()) * kStepUnits + lane % kStepUnits;
}

// The digits of a unit, by lanes with adjacent units: 14 bits of the largest of four units.
MOEBENCH_DEVICE void store_digits(int pair, int unit, const float (&x)[8]) {
  Shared& s = shared();
  float most = 0;
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(x[j]));
  const int exponent = exponent_of(quad_max(most));
  const float factor = power_of_two(13 - exponent);  // the largest goes to 2^13 .. 2^14
  // Added to a number, leaves it as an integer in the lowest bits.
  constexpr float kRounder = 12582912.0F;
  std::uint32_t digits[2][2] = {};  // [high, low][columns 0 to 3, 4 to 7]
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) {
    const std::uint32_t value = gpu::bits_of(x[j] * factor + kRounder) - gpu::bits_of(kRounder);
    digits[0][j / 4] |= ((value + 128U) >> 8 & 0xffU) << (j % 4 * 8);
    digits[1][j / 4] |= (value & 0xffU) << (j % 4 * 8);
  }
  MOEBENCH_UNROLL
  for (int digit = 0; digit < 2; ++digit) {
    *reinterpret_cast<uint2*>(&s.digits[pair][unit / 4][digit][unit % 4 * 8]) = {digits[digit][0],
                                                                                 digits[digit][1]};
  }
  // Weights are doubled.
  if (unit % 4 == 0) s.factors[pair][unit / 4] = power_of_two(exponent - 14);
}

// What a lane multiplies weights by: columns of B, and the factors of its blocks.
struct Columns {
  std::uint32_t digits[kWarpSteps][8];
  float factors[kWarpSteps];

  // Of digits that the warp has stored.
  MOEBENCH_DEVICE void read(int pair) {
    const Shared& s = shared();
    const int g = gpu::lane_id() / 4;
    const int t = gpu::lane_id() % 4;
    MOEBENCH_UNROLL
    for (int j = 0; j < kWarpSteps; ++j) {
      const int block = (gpu::warp_id() + j * kWarps) * 4 + t;
      factors[j] = s.factors[pair][block];
      const auto* from = reinterpret_cast<const uint4*>(s.digits[pair][block][g % 2]);
      MOEBENCH_UNROLL
      for (int h = 0; h < 2; ++h) {
        uint4 some = {0, 0, 0, 0};
        if (g / 2 == t) some = from[h];
        MOEBENCH_UNROLL
        for (int i = 0; i < 4; ++i) digits[j][4 * h + i] = gpu::word_of(some, i);
      }
    }
  }
};

// Where a lane's parts of a tile lie in a stage. Its rows are low and low + 8; rows of 1440 bytes
// are a quarter of the banks apart, so the quads that read together take rows two apart.
struct LanePlaces {
  int low_row;
  int data[kWarpSteps];    // of the low row
  int scales[kWarpSteps];  // likewise
  int high_data;           // from there on
  int high_scales;

  MOEBENCH_DEVICE LanePlaces(const EncodedMatrix& shape, int scales_at) {
    const int g = gpu::lane_id() / 4;
    low_row = (g & 4) | (g & 1) << 1 | (g >> 1 & 1);
    const auto row_bytes = static_cast<int>(shape.row_bytes);
    const auto scale_bytes = static_cast<int>(shape.row_scale_bytes);
    MOEBENCH_UNROLL
    for (int j = 0; j < kWarpSteps; ++j) {
      const int block = (gpu::warp_id() + j * kWarps) * 4 + gpu::lane_id() % 4;
      const int inside = min(block, scale_bytes - 1);  // past the end inputs are zeros
      data[j] = low_row * row_bytes + inside * 16;
      scales[j] = scales_at + low_row * scale_bytes + inside;
    }
    high_data = 8 * row_bytes;
    high_scales = 8 * scale_bytes;
  }
};

MOEBENCH_DEVICE std::uint32_t bytes_of(const Table& table, std::uint32_t codes) {
  return gpu::byte_permute(table.first, table.last, codes);
}

// The products of a tile's rows with the warp's columns, to `totals`. `kBoth`: it has more than
// eight rows. taken() is called as soon as the stage has been read.
template <bool kBoth, class Taken>
MOEBENCH_DEVICE void multiply_tile(const Tables& tables, const unsigned char* stage,
                                   int scale_offset, const LanePlaces& places,
                                   const Columns& columns, float (&totals)[kTileRows],
                                   Taken&& taken) {
  uint4 low[kWarpSteps];
  uint4 high[kWarpSteps] = {};
  std::uint32_t low_scales[kWarpSteps];
  std::uint32_t high_scales[kWarpSteps] = {};
  MOEBENCH_UNROLL
  for (int j = 0; j < kWarpSteps; ++j) {
    const unsigned char* data = stage + places.data[j];
    const unsigned char* scales = stage + places.scales[j] + scale_offset;
    low[j] = *reinterpret_cast<const uint4*>(data);
    low_scales[j] = *scales;
    if constexpr (kBoth) {
      high[j] = *reinterpret_cast<const uint4*>(data + places.high_data);
      high_scales[j] = scales[places.high_scales];
    }
  }
  taken();
  float low_total = 0;
  float high_total = 0;
  MOEBENCH_UNROLL
  for (int j = 0; j < kWarpSteps; ++j) {
    std::int32_t sums[4] = {};
    const std::uint32_t(&digits)[8] = columns.digits[j];
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t b[2] = {digits[2 * i], digits[2 * i + 1]};
      constexpr std::uint32_t kSigns = 0x88888888U;
      const std::uint32_t of_low = gpu::word_of(low[j], i);
      const std::uint32_t of_high = gpu::word_of(high[j], i);
      const std::uint32_t low_turned = of_low ^ kSigns;
      const std::uint32_t high_turned = of_high ^ kSigns;
      const Table& plus = tables.plus_one;
      const Table& minus = tables.minus;
      if constexpr (kBoth) {
        gpu::multiply_int8(sums,
                           {bytes_of(plus, of_low), bytes_of(plus, of_high),
                            bytes_of(plus, of_low >> 16), bytes_of(plus, of_high >> 16)},
                           b);
        gpu::multiply_int8(sums,
                           {bytes_of(minus, low_turned), bytes_of(minus, high_turned),
                            bytes_of(minus, low_turned >> 16), bytes_of(minus, high_turned >> 16)},
                           b);
      } else {  // what both tables have of a row is in two rows of A
        gpu::multiply_int8(sums,
                           {bytes_of(plus, of_low), bytes_of(minus, low_turned),
                            bytes_of(plus, of_low >> 16), bytes_of(minus, low_turned >> 16)},
                           b);
      }
    }
    if constexpr (!kBoth) {
      sums[0] += sums[2];
      sums[1] += sums[3];
    }
    const auto scaled = [&](std::int32_t high_digits, std::int32_t low_digits,
                            std::uint32_t scale) {
      const float product = static_cast<float>(high_digits * 256 + low_digits) * columns.factors[j];
      return product * gpu::float_from_bits(scale << 23);
    };
    low_total += scaled(sums[0], sums[1], low_scales[j]);
    if constexpr (kBoth) high_total += scaled(sums[2], sums[3], high_scales[j]);
  }
  MOEBENCH_UNROLL
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    low_total += gpu::shuffle_xor(gpu::kAllLanes, low_total, lanes);
    if constexpr (kBoth) high_total += gpu::shuffle_xor(gpu::kAllLanes, high_total, lanes);
  }
  if (gpu::lane_id() % 4 == 0) {
    totals[places.low_row] = low_total;
    if constexpr (kBoth) totals[places.low_row + 8] = high_total;
  }
}

// The next tile of the ring, as the block's `tile`-th of its product.
MOEBENCH_DEVICE void take_tile(const Work& work, const Tables& tables, const Told& told,
                               const Tile& tile, int number, const LanePlaces& places,
                               const Columns& columns, Place& at) {
  const unsigned char* const stage =
      gpu::dynamic_shared() + kRingAt + at.stage * work.ring.stage_bytes;
  gpu::mbarrier_wait(&told.full[at.stage], at.parity);
  float(&totals)[kTileRows] = shared().totals[number][gpu::warp_id()];
  const auto taken = [&] {
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&told.empty[at.stage]);
  };
  if (tile.rows > 8) {
    multiply_tile<true>(tables, stage, tile.scale_offset, places, columns, totals, taken);
  } else {
    multiply_tile<false>(tables, stage, tile.scale_offset, places, columns, totals, taken);
  }
  at.move(work.ring);
}

// The sum of what the warps have of a row.
MOEBENCH_DEVICE float total_of(int tile, int row) {
  float sum = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < kWarps; ++w) sum += shared().totals[tile][w][row];
  return sum;
}

// The row that gate and up multiply, normalised, and the warp's sums of the router; leaves the turn
// in `turn`.
MOEBENCH_DEVICE Inputs normalise(const Work& work, unsigned (&turn)[1]) {
  float* const x = shared_x();
  const Router& router = work.router;
  const fused::DeviceNorm& norm = router.norm;
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = work.gate_up.first.cols;
  // What does not depend on the kernel before.
  using Row = fused::RowPart<4>;
  const bool has_row = thread < fused::kRowThreads;
  Row row;
  if (has_row) row.load_weights(norm.weight, cols);
  // First the warps that do not normalise.
  const int tasks = router.num_experts * router.splits;
  int task = static_cast<int>(blockIdx.x) +
             (gpu::warp_id() + kWarps - kRowWarps) % kWarps * static_cast<int>(gridDim.x);
  RowSplit split;
  if (task < tasks) split.load(router, cols, task);
  gpu::wait_for_previous_kernel();

  if (has_row) {
    row.load_row(norm.x, norm.addend, cols);
    if (blockIdx.x == gridDim.x - 1) row.store_row(norm.sum, cols);
    row.normalise(
        fused::row_scale(gpu::block_sum<fused::kRowThreads>(
                             row.squares(), [] { gpu::sync_named(1, fused::kRowThreads); }),
                         cols, norm.epsilon));
    row.store_row(x, cols);
  }
  if (thread == kWaiter) turn[0] = gpu::grid_turn(&work.signals->turn);
  sync_multipliers();
  Shown& shown = work.signals->at[turn[0]];
  for (; task < tasks; task += kWarps * static_cast<int>(gridDim.x)) {
    const float sum = split.multiply(router, cols, task, x);
    if (gpu::lane_id() == 0) {
      gpu::store_relaxed(&shown.sums[task / router.splits][task % router.splits], gpu::shown(sum));
    }
    const int next = task + kWarps * static_cast<int>(gridDim.x);
    if (next < tasks) split.load(router, cols, next);
  }
  return load_inputs(x, cols, own_unit());
}

// Gate and up: activations of the block's rows, for all blocks.
MOEBENCH_DEVICE void activate(const Work& work, const Told& told, const Columns& columns,
                              const Tables& tables, unsigned turn, Place& at) {
  const Tiles& tiles = shared().tiles;
  const auto thread = static_cast<int>(threadIdx.x);
  const int count = tiles.gate_up;
  const int own = thread / kTileRows;  // the tile of the thread's row at the end
  const int row = thread % kTileRows;
  const bool has_row = own < count && row < tiles.at[own].rows;
  float bias = 0;
  if (count > 0) {
    gpu::mbarrier_wait(&told.full[at.stage], at.parity);  // then the experts are known, too
    if (has_row) {
      const std::int64_t expert = told.expert_ids[tiles.at[own].pair];
      bias = gpu::load_constant(work.gate_up_bias + expert * work.gate_up.first.rows +
                                tiles.at[own].row + row);
    }
  }
  const LanePlaces places(work.gate_up.first, work.ring.scales_at);
  MOEBENCH_NO_UNROLL
  for (int i = 0; i < count; ++i)
    take_tile(work, tables, told, tiles.at[i], i, places, columns, at);
  sync_multipliers();
  if (gpu::warp_id() == kWaiter / gpu::kWarp) await_turn_is_seen();
  if (thread == kWaiter) gpu::arrive_at_grid(&work.signals->turn);
  const float total = own < count ? total_of(own, row) + bias : 0;
  const float up = gpu::shuffle_down(gpu::kAllLanes, total, 1);
  if (has_row && row % 2 == 0) {
    float* const to = work.signals->at[turn].activated + tiles.at[own].pair * work.down.first.cols +
                      (tiles.at[own].row + row) / 2;
    gpu::store_relaxed(reinterpret_cast<std::uint32_t*>(to),
                       gpu::shown(swiglu(total, up, work.alpha, work.limit)));
  }
}

// The digits of the warp's columns of all experts' activations, as soon as they are there.
MOEBENCH_DEVICE void read_activations(const Work& work, unsigned turn) {
  const int cols = work.down.first.cols;
  const int unit = own_unit();
  const float* const activated = work.signals->at[turn].activated;
  Inputs inputs[kMostPairs];  // all are asked for before the first is used
  bool are_there = false;
  while (!are_there) {
    MOEBENCH_UNROLL
    for (int pair = 0; pair < kMostPairs; ++pair) {
      inputs[pair] = load_shown(activated + min(pair, work.num_pairs - 1) * cols, cols, unit);
    }
    are_there = true;
    MOEBENCH_UNROLL
    for (const Inputs& some : inputs) {
      MOEBENCH_UNROLL
      for (const float x : some.x) are_there &= gpu::bits_of(x) != 0;
    }
    are_there |= 8 * unit >= cols;
    if (!are_there) gpu::spin_on();
  }
  gpu::sync_warp();
  MOEBENCH_UNROLL
  for (int pair = 0; pair < kMostPairs; ++pair) store_digits(pair, unit, inputs[pair].x);
  gpu::sync_warp();
}

// Down: outputs of the block's rows.
MOEBENCH_DEVICE void project(const Work& work, const Told& told, const Tables& tables,
                             unsigned turn, Place& at) {
  const Tiles& tiles = shared().tiles;
  const auto thread = static_cast<int>(threadIdx.x);
  const Share share(work.down.first.rows);
  const int pair = thread % kMostPairs;  // of the thread's row at the end
  const int row = share.begin + thread / kMostPairs;
  const bool has_row = pair < work.num_pairs && row < share.end;
  float bias = 0;
  float weight = 0;
  if (has_row) {
    gpu::mbarrier_wait(&told.full[at.stage], at.parity);  // then the experts are known, too
    const std::int64_t expert = told.expert_ids[pair];
    weight = told.expert_weights[pair];
    bias = gpu::load_constant(work.down_bias + expert * work.down.first.rows + row);
  }
  if (thread == kWaiter) gpu::wait_for_grid(&work.signals->turn, turn);
  sync_multipliers();
  gpu::let_next_kernel_start();
  read_activations(work, turn);
  const LanePlaces places(work.down.first, work.ring.scales_at);
  Columns columns;
  int of_pair = -1;
  MOEBENCH_NO_UNROLL
  for (int i = tiles.gate_up; i < tiles.all; ++i) {
    const Tile& tile = tiles.at[i];
    if (tile.pair != of_pair) columns.read(tile.pair);
    of_pair = tile.pair;
    take_tile(work, tables, told, tile, i - tiles.gate_up, places, columns, at);
  }
  clear<kMultipliers>(work.signals->at[turn ^ 1]);
  sync_multipliers();
  float sum = 0;
  if (has_row) {
    const int in_share = row - share.begin;
    const int pair_tiles = (share.end - share.begin + kTileRows - 1) / kTileRows;
    sum =
        weight * (total_of(pair * pair_tiles + in_share / kTileRows, in_share % kTileRows) + bias);
  }
  sum += gpu::shuffle_xor(gpu::kAllLanes, sum, 1);
  sum += gpu::shuffle_xor(gpu::kAllLanes, sum, 2);
  if (has_row && pair == 0) work.out[row] = sum;
}

template <bool kRoutes>
__global__ void MOEBENCH_BOUNDS(kThreads, 1) one_launch_stream(MOEBENCH_GRID_CONSTANT Work work) {
  MOEBENCH_SHARED(gpu::Mbarrier, barriers, [2 * kMostStages]);
  MOEBENCH_SHARED(std::int32_t, expert_ids, [kMostPairs]);
  MOEBENCH_SHARED(float, expert_weights, [kMostPairs]);
  MOEBENCH_SHARED(unsigned, turn, [1]);
  const Told told{barriers, barriers + kMostStages, expert_ids, expert_weights};
  const bool multiplies = threadIdx.x < kMultipliers;
  if (!multiplies) {
    if (gpu::lane_id() == 0) gpu::init_ring(told.full, told.empty, work.ring.stages, 1, kWarps);
    if (gpu::lane_id() == 0) {
      shared().tables = {{0x04030200U, 0x0d090705U}, {0xfdfeff00U, 0xf4f8fafcU}};
    }
    list_tiles(work, shared().tiles);
  }
  gpu::sync_threads();
  if (!multiplies) {
    choose_and_ask<kRoutes>(work, told);
    return;
  }
  Inputs inputs;
  if constexpr (kRoutes) {
    inputs = normalise(work, turn);
  } else {
    gpu::wait_for_previous_kernel();
    inputs = load_inputs(work.x, work.gate_up.first.cols, own_unit());
    if (threadIdx.x == kWaiter) turn[0] = gpu::grid_turn(&work.signals->turn);
    sync_multipliers();
  }
  store_digits(0, own_unit(), inputs.x);
  gpu::sync_warp();
  Columns columns;
  columns.read(0);
  Place at;
  const Tables tables = shared().tables;
  activate(work, told, columns, tables, turn[0], at);
  project(work, told, tables, turn[0], at);
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
  const int num_sms = gpu::device_info().num_sms;
  const auto of_block = [&](std::int64_t rows) {
    return ((rows + kUnitRows - 1) / kUnitRows + num_sms - 1) / num_sms * kUnitRows;
  };
  const auto fits = [&](std::int64_t rows, std::int64_t cols) {
    const auto scale_bytes = static_cast<std::int64_t>(codec(Format::kMxfp4).row_scale_bytes(cols));
    // Copies of scales take whole 16 bytes.
    return cols <= kMostCols && cols % 32 == 0 && rows % kUnitRows == 0 &&
           problem.num_experts * rows * scale_bytes % 16 == 0;
  };
  const std::int64_t gate_up_rows = 2 * problem.intermediate_size;
  // Rows begin anywhere, and may be of several experts: each but the last can end inside a tile.
  const std::int64_t gate_up = of_block(problem.top_k * gate_up_rows);
  const std::int64_t tiles =
      gate_up / kTileRows + 1 +
      std::min(gate_up / std::max<std::int64_t>(gate_up_rows, 1) + 1, problem.top_k - 1);
  return tiles <= kMostTiles && of_block(problem.hidden_size) <= kMostPairRows &&
         fits(gate_up_rows, problem.hidden_size) &&
         fits(problem.hidden_size, problem.intermediate_size) &&
         ring_for(problem.hidden_size, problem.intermediate_size).stages >= 2;
}
bool takes(const Args& args) {
  return args.down.format == args.gate_up.format &&
         takes({args.gate_up.format, args.expert_ids.shape[0], args.gate_up.cols, args.down.cols,
                args.gate_up.count, args.expert_ids.shape[1]});
}

void run(const Args& args, Context& context) {
  const bool routes = has_router(args);
  if (!routes && !takes(args)) return cuda_digits_fp8.run(args, context);
  const Work work{one_launch_of(args, context, takes(args)),
                  ring_for(args.gate_up.cols, args.down.cols)};
  const std::size_t bytes = kRingAt + static_cast<std::size_t>(work.ring.stages) *
                                          static_cast<std::size_t>(work.ring.stage_bytes);
  gpu::launch(routes ? one_launch_stream<true> : one_launch_stream<false>,
              {.grid = {static_cast<unsigned>(gpu::device_info().num_sms)},
               .block = kThreads,
               .shared_bytes = bytes,
               .stream = context.stream,
               .overlap_previous = true,
               .cooperative = true,
               .shared_percent = gpu::shared_percent_for(bytes, 1)},
              routes ? "moe_experts/cuda_one_launch_stream_int8 (with the router)"
                     : "moe_experts/cuda_one_launch_stream_int8",
              work);
}

}  // namespace

const Variant cuda_one_launch_stream_int8 = {
    .name = "cuda_one_launch_stream_int8",
    .backend = "cuda",
    .summary =
        "one token: norm, router and experts in one launch that streams MXFP4 codes through "
        "shared memory, decoded to int8 (Hopper)",
    .rounds = "activations: 14 bits of the largest of 32, accumulate: exact in blocks of 32, f32",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = [](const Problem& problem) { return cuda_digits_fp8.unsupported(problem); },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          return cuda_digits_fp8.workspace_bytes(problem, num_threads);
        },
    .run = run,
    .normalises =
        [](const Problem& problem) { return route_unsupported(problem, takes(problem)).empty(); },
};

}  // namespace moebench::moe_experts
