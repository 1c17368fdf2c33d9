// cuda_one_launch_chunks_fp8: one token's norm, router and experts in one launch, with the bits of
// cuda_grouped_chunks_fp8 behind rms_norm/cuda_block, linear/cuda_rows_f32 and router/cuda_warp.
// For plans whose results do not depend on the batch. Hopper, MXFP4 experts.
//
// Those bits are one sum over chunks of columns in order, by wgmma, so a sum cannot be split among
// warps. A team of four warps takes an expert of the token instead, all of the block's rows of it
// at once (44 of gate and up, 22 of down, of gpt-oss on 132 multiprocessors), column by column: no
// sums to add up between warps, and no tiles that warps begin and end. One more warp chooses the
// experts, and then has their codes copied through a ring of each team, a lane each: boxes of the
// team's rows by 256 columns. Those of down follow those of gate and up without a pause, and wait
// in the ring while blocks wait for each other.
//
// wgmma's B has eight columns. Both digits of pair p's activations are column 2 p + 1, one after
// the other, and before them those of what gate and up multiply column 1: one matrix for all.
//
// A. The first eight warps normalise the whole row; the router's product is dealt out to warps, and
//    digits are made of the row; the last warp reads all sums and chooses.
// B. Gate and up; each block shows what it has activated to all others, as bf16.
// C. Each team reads its expert's activations, as soon as they are there, and makes their digits;
//    down. Then the block's rows of all experts are added up in order.
//
// cuda_one_launch_blocks_fp8 is for plans that are fast: scales are not folded, which takes fewer
// instructions a code; the digits are columns 2 p and 2 p + 1, which takes half the products; and a
// chunk's four products are under way two by two. It is to be what `fast` runs, should it beat
// cuda_one_launch_stream_int8.
//
// Where nothing is to be routed, x and the choice are given. What the router's part does not take
// is refused; more tokens and other experts run as cuda_grouped_chunks_fp8, or cuda_digits_fp8.
#include <algorithm>

#include "kernels/moe_experts/float8_chunks.cuh"
#include "kernels/moe_experts/one_launch.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kTeams = kMostPairs;
constexpr int kTeamThreads = kGroupThreads;
constexpr int kWarps = kTeams * 4;  // that multiply
constexpr int kMultipliers = kWarps * gpu::kWarp;
constexpr int kThreads = kMultipliers + gpu::kWarp;
static_assert(kUnits <= kMultipliers && kChunk == kStepColumns && kMostChunks == kSteps);
constexpr int kStageChunks = 2;
constexpr int kRowBytes = kStageChunks * kChunkBytes;  // of a stage
constexpr int kMostStages = 8;
constexpr int kBytesUnderWay = 72 << 10;  // of a block; see row_stream.cuh's
// In which rows of gate and up are dealt out: those of two activations, which are shown together.
constexpr int kGateUpUnit = 4;
constexpr int kMostDownRows = 128;  // of a block

// Where a pair's digits are among the columns of wgmma's B, of which lane t of a quad has two to
// look at: both are the second, or the first digit is the first. Columns that nobody has written
// give sums that nobody reads. What gate and up multiply is where
// the first pair's activations will be.
template <bool kFolds>
MOEBENCH_DEVICE int column_of(int pair, int digit) {
  return 2 * pair + (kFolds ? 1 : digit);
}
// Of a chunk.
template <bool kFolds>
constexpr int kInputBytes = kFolds ? kPartBytes : kDigitBytes;

// Dynamic shared memory; what differs in size follows.
struct Shared {
  float y[kMostPairs][kMostDownRows];  // of down
  float largest[kWarps];
  std::int32_t expert_ids[kMostPairs];
  float expert_weights[kMostPairs];
  uint2 tables[kTables];
  // Of each team.
  gpu::Mbarrier full[kTeams][kMostStages];
  gpu::Mbarrier empty[kTeams][kMostStages];
  gpu::Mbarrier scales_full[kTeams][2];
  gpu::Mbarrier scales_empty[kTeams][2];
};
constexpr std::size_t kStaticShared = 1024;  // not less than that

// Where in dynamic shared memory things are.
struct Layout {
  int digits;
  int scales;       // of a tile of each team, and of the next; first, the row to be multiplied
  int scale_bytes;  // of one
  int stages;
  int stage_bytes;
  int num_stages;  // of a team
  int bytes;
};

struct Work : OneLaunch {
  // Rows of a tile, and of a copy: as many as the block has that has most, up to 64.
  int gate_up_box_rows;
  int down_box_rows;
  Layout layout;
};

MOEBENCH_DEVICE Shared& shared() { return *reinterpret_cast<Shared*>(gpu::dynamic_shared()); }
// The row that gate and up multiply, where later the scales of every team's second tile will be.
MOEBENCH_DEVICE float* shared_x(const Layout& layout) {
  return reinterpret_cast<float*>(gpu::dynamic_shared() + layout.scales +
                                  kTeams * layout.scale_bytes);
}
MOEBENCH_DEVICE unsigned char* scales_of(const Layout& layout, int team, int buffer) {
  return gpu::dynamic_shared() + layout.scales + (buffer * kTeams + team) * layout.scale_bytes;
}
MOEBENCH_DEVICE unsigned char* stages_of(const Layout& layout, int team) {
  return gpu::dynamic_shared() + layout.stages + team * layout.num_stages * layout.stage_bytes;
}

MOEBENCH_DEVICE void sync_multipliers() { gpu::sync_named(2, kMultipliers); }
// When experts are chosen, and all have looked at the grid's turn.
MOEBENCH_DEVICE void say_chosen() { gpu::arrive_named(3, kThreads); }
MOEBENCH_DEVICE void sync_chosen() { gpu::sync_named(3, kThreads); }
// When the row's digits are there, and its place is free.
MOEBENCH_DEVICE void say_row_is_read() { gpu::arrive_named(4, kThreads); }
MOEBENCH_DEVICE void await_row_is_read() { gpu::sync_named(4, kThreads); }

// A place in a ring, and the parity of its turn.
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  MOEBENCH_DEVICE void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

// A team's tiles are numbered on from gate and up to down; of each it has scales in one of two
// places.
MOEBENCH_DEVICE unsigned parity_of_tile(int number) {
  return static_cast<unsigned>(number / 2 % 2);
}

// What a block has of each expert in one of the two products.
struct Rows {
  const EncodedMatrix* first;  // of the first expert
  Share share;
  int box_rows;
  MOEBENCH_DEVICE Rows(const Work& work, bool down)
      : first(down ? &work.down.first : &work.gate_up.first),
        share(first->rows, down ? kUnitRows : kGateUpUnit),
        box_rows(down ? work.down_box_rows : work.gate_up_box_rows) {}
  MOEBENCH_DEVICE int tile_rows(int row) const { return min(share.end - row, kGroupRows); }
};

// ---- The warp that chooses, and has codes copied ------------------------------------------------

// The codes of a lane's pair.
struct Copier {
  const Layout& layout;
  int team;
  Turn turn{};
  Turn landed{};
  int under_way = 0;

  MOEBENCH_DEVICE void copy_tile(const Rows& rows, int expert, int row, int number,
                                 const gpu::TensorMap& codes, int most_under_way) {
    Shared& s = shared();
    const int buffer = number % 2;
    const EncodedMatrix& first = *rows.first;
    const int row_of_all = expert * first.rows + row;
    const unsigned char* const scales = row_of(first, row_of_all).scales;
    const int offset = address_modulo_16(scales);
    const int bytes =
        (offset + rows.tile_rows(row) * static_cast<int>(first.row_scale_bytes) + 15) / 16 * 16;
    gpu::mbarrier_wait(&s.scales_empty[team][buffer], parity_of_tile(number) ^ 1);
    gpu::mbarrier_arrive_expect_bytes(&s.scales_full[team][buffer], bytes);
    gpu::copy_bulk_async(scales_of(layout, team, buffer), scales - offset, bytes,
                         &s.scales_full[team][buffer]);
    const int steps = (num_chunks(first.cols) + kStageChunks - 1) / kStageChunks;
    for (int step = 0; step < steps; ++step) {
      while (under_way >= most_under_way) {
        gpu::mbarrier_wait(&s.full[team][landed.stage], landed.parity);
        landed.advance(layout.num_stages);
        --under_way;
      }
      gpu::mbarrier_wait(&s.empty[team][turn.stage], turn.parity ^ 1);
      gpu::mbarrier_arrive_expect_bytes(&s.full[team][turn.stage], rows.box_rows * kRowBytes);
      gpu::load_tile_async(stages_of(layout, team) + turn.stage * layout.stage_bytes, codes,
                           step * kRowBytes, row_of_all, &s.full[team][turn.stage]);
      turn.advance(layout.num_stages);
      ++under_way;
    }
  }
};

template <Routed kRouted>
MOEBENCH_DEVICE void choose_and_copy(const Work& work, const gpu::TensorMap& gate_up_codes,
                                     const gpu::TensorMap& down_codes) {
  Shared& s = shared();
  choose<kRouted>(work, s.expert_ids, s.expert_weights, [] {});
  say_chosen();
  const int pair = gpu::lane_id();
  const bool copies = pair < work.num_pairs;
  const int expert = copies ? s.expert_ids[pair] : 0;
  Copier copier{work.layout, pair};
  int number = 0;
  MOEBENCH_NO_UNROLL
  for (int phase = 0; phase < 2; ++phase) {
    const bool is_down = phase == 1;
    const Rows rows(work, is_down);
    const gpu::TensorMap& codes = is_down ? down_codes : gate_up_codes;
    const int most_under_way = max(
        1,
        min(kBytesUnderWay / (work.num_pairs * rows.box_rows * kRowBytes), work.layout.num_stages));
    for (int row = rows.share.begin; row < rows.share.end; row += kGroupRows) {
      if (number == 1) await_row_is_read();
      if (copies) copier.copy_tile(rows, expert, row, number, codes, most_under_way);
      gpu::sync_warp();
      ++number;
    }
  }
  if (number < 2) await_row_is_read();
}

// ---- The teams that multiply --------------------------------------------------------------------

// From one lane, so that the compiler knows them to be the warp's.
struct Member {
  int team;
  // Of a tile, the warp's. Where a team has rows for some of its warps only, each team's are
  // others, so that all schedulers have as much to do.
  int first_row;
  MOEBENCH_DEVICE Member()
      : team(gpu::shuffle(gpu::kAllLanes, gpu::warp_id() / 4, 0)),
        first_row(gpu::shuffle(gpu::kAllLanes, gpu::warp_id() % 4 ^ gpu::warp_id() / 4, 0) * 16) {}
};

MOEBENCH_DEVICE float largest_of(const float (&x)[8]) {
  float most = 0;
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(x[j]));
  return most;
}
// To `largest`, of a warp.
MOEBENCH_DEVICE void show_largest(float most) {
  most = gpu::warp_max(most);
  if (gpu::lane_id() == 0) shared().largest[gpu::warp_id()] = most;
}

// The digits of columns 8 unit ... of a row of inputs, in a column of B; those behind the last
// column, up to whole chunks, are zeros. A product is of a unit of each of a chunk's four blocks
// where scales are folded, and of a block where they are not.
template <bool kFolds>
MOEBENCH_DEVICE void store_digits(const Layout& layout, int pair, int unit, const float (&x)[8],
                                  float factor) {
  const int block = unit / 4;
  const int product = kFolds ? unit % 4 : block % 4;
  const int word = kFolds ? block % 4 : unit % 4;
  unsigned char* const to = gpu::dynamic_shared() + layout.digits +
                            block / 4 * kInputBytes<kFolds> + product * kProductBytes + word * 4;
  MOEBENCH_UNROLL
  for (int half = 0; half < 2; ++half) {  // even columns, odd
    const std::uint32_t low = both_digits(x[half], x[half + 2], factor);
    const std::uint32_t high = both_digits(x[half + 4], x[half + 6], factor);
    MOEBENCH_UNROLL
    for (int digit = 0; digit < 2; ++digit) {
      *reinterpret_cast<std::uint32_t*>(to + half * kHalfBytes +
                                        (kFolds ? digit * kDigitBytes : 0) +
                                        column_of<kFolds>(pair, digit) * 16) =
          gpu::byte_permute(low, high, digit == 0 ? 0x5410U : 0x7632U);
    }
  }
}

// The stages of a team's ring, over one tile after the other.
template <bool kFolds>
struct Feed {
  const Layout& layout;
  gpu::Mbarrier* full;
  gpu::Mbarrier* empty;
  const unsigned char* stages;
  Turn turn{};
  std::uint64_t digits = 0;  // descriptor of the first chunk's
  int step = 0;              // of a tile
  bool has_rows = false;

  static constexpr int kInputBytes = moe_experts::kInputBytes<kFolds>;
  MOEBENCH_DEVICE bool decodes() const { return has_rows; }
  MOEBENCH_DEVICE int next() const { return turn.stage; }
  MOEBENCH_DEVICE void wait() const { gpu::mbarrier_wait(&full[turn.stage], turn.parity); }
  struct Taken {
    int stage;
    std::uint64_t inputs;
  };
  MOEBENCH_DEVICE Taken take() {
    // From one lane, so that it is known to be the warp's.
    const int stage = gpu::shuffle(gpu::kAllLanes, turn.stage, 0);
    turn.advance(layout.num_stages);
    const auto chunk = static_cast<std::uint64_t>(kStageChunks * step++);
    return {stage, digits + chunk * (kInputBytes / 16)};
  }
  MOEBENCH_DEVICE const unsigned char* codes(int stage) const {
    return stages + stage * layout.stage_bytes;
  }
  MOEBENCH_DEVICE void release(int stage) const {
    gpu::sync_warp();
    if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&empty[stage]);
  }
  MOEBENCH_DEVICE void release_before(int stage, bool some) const {
    gpu::sync_warp();
    if (some && gpu::lane_id() == 0) {
      gpu::mbarrier_arrive(&empty[(stage == 0 ? layout.num_stages : stage) - 1]);
    }
  }
};

// What a lane has of a tile in the end: of an even row and the one behind it.
struct Pair {
  int row;
  bool is_there;
  float first;
  float second;
};

// Tile `number` of a team, from `row` on: the lane's two rows by a column of B.
template <bool kFolds>
MOEBENCH_DEVICE Pair multiply_tile(const Work& work, const Rows& rows, const float* biases,
                                   const Member& member, int row, int number, int pair_of_digits,
                                   float factor, Feed<kFolds>& feed) {
  Shared& s = shared();
  const int team = member.team;
  const int buffer = number % 2;
  const int tile_rows = rows.tile_rows(row);
  gpu::mbarrier_wait(&s.scales_full[team][buffer], parity_of_tile(number));
  const int expert = s.expert_ids[team];  // known then
  const int own = member.first_row + even_row_of_warp<kFolds>();
  const int t = gpu::lane_id() % 4;
  Pair pair{row + own, own < tile_rows && t == pair_of_digits, 0, 0};
  float2 bias{0, 0};
  if (pair.is_there) {
    const float* const from =
        biases + static_cast<std::int64_t>(expert) * rows.first->rows + pair.row;
    bias = {gpu::load_constant(from), gpu::load_constant(from + 1)};
  }
  // Rows past the end repeat the last two.
  const int read = min(own, tile_rows - 2);
  const auto scale_bytes = static_cast<int>(rows.first->row_scale_bytes);
  const int row_of_all = expert * rows.first->rows + row;
  const unsigned char* const scales = scales_of(work.layout, team, buffer) +
                                      address_modulo_16(row_of(*rows.first, row_of_all).scales) +
                                      read * scale_bytes + t;
  // Not folded: some lanes take the odd row first, and have others' codes read.
  const int odd_first = kFolds ? 0 : gpu::lane_id() / 16;
  const int codes_row = kFolds ? read : min(member.first_row + codes_row_of_warp(), tile_rows - 1);
  const int block = kFolds ? t : gpu::lane_id() / 16;
  const ChunkRows<kFolds> of_lane{
      scales + odd_first * scale_bytes, scales + (1 - odd_first) * scale_bytes, scale_bytes,
      rows.first->cols / 32 - t,
      static_cast<std::uint32_t>(codes_row * kRowBytes + (block ^ codes_row % 8) * 16)};
  feed.digits =
      gpu::shuffle(gpu::kAllLanes,
                   gpu::wgmma_descriptor_unswizzled(gpu::dynamic_shared() + work.layout.digits,
                                                    kHalfBytes, kPartBytes),
                   0);
  feed.step = 0;
  feed.has_rows = member.first_row < tile_rows;
  const int chunks = num_chunks(rows.first->cols);
  float low = 0;
  float high = 0;
  if constexpr (kFolds) {
    float totals[4] = {};
    sum_folded<true, kStageChunks>(of_lane, chunks, s.tables, feed, totals);
    low = totals[1];
    high = totals[3];
  } else {
    float totals[2] = {};
    sum_blocks_of_few<kStageChunks>(of_lane, chunks, feed, totals);
    low = totals[0];
    high = totals[1];
  }
  gpu::sync_warp();
  if (gpu::lane_id() == 0) gpu::mbarrier_arrive(&s.scales_empty[team][buffer]);
  pair.first = (odd_first != 0 ? high : low) * factor + bias.x;
  pair.second = (odd_first != 0 ? low : high) * factor + bias.y;
  return pair;
}

// What the warp has activated of its expert, for all blocks.
template <bool kFolds>
MOEBENCH_DEVICE void show_activated(const Work& work, unsigned turn, int team, const Pair& own) {
  const std::uint32_t activated =
      shown_short(swiglu_fast(own.first, own.second, work.alpha, work.limit));
  // Of the row two further on, which another quad has: even_row_of_warp().
  const std::uint32_t after = gpu::shuffle_xor(gpu::kAllLanes, activated, kFolds ? 8 : 4);
  if (!own.is_there || own.row % kGateUpUnit != 0) return;
  gpu::store_relaxed(shown_pairs(work, turn, team) + own.row / kGateUpUnit,
                     activated | after << 16);
}

// Of the team's expert, as soon as they are there: its activations' digits; gives what products
// with them are to be multiplied by. All teams come to its barriers.
template <bool kFolds>
MOEBENCH_DEVICE float read_activated(const Work& work, unsigned turn, int team) {
  constexpr int kTeamUnits = kUnits / kTeamThreads;
  static_assert(kUnits % kTeamThreads == 0);
  const int cols = work.down.first.cols;
  const auto unit_of = [](int u) {
    return u * kTeamThreads + static_cast<int>(threadIdx.x) % kTeamThreads;
  };
  uint4 shorts[kTeamUnits] = {};  // all are asked for before the first is used
  const auto is_missing = [&](int u) {
    return team < work.num_pairs && 8 * unit_of(u) < cols && !gpu::are_there(shorts[u]);
  };
  bool are_missing = true;
  while (are_missing) {
    MOEBENCH_UNROLL
    for (int u = 0; u < kTeamUnits; ++u) {
      if (!is_missing(u)) continue;
      const std::uint32_t* const from = shown_pairs(work, turn, team);
      shorts[u] = gpu::load_relaxed(reinterpret_cast<const uint4*>(from) + unit_of(u));
    }
    are_missing = false;
    MOEBENCH_UNROLL
    for (int u = 0; u < kTeamUnits; ++u) are_missing |= is_missing(u);
    if (are_missing) gpu::spin_on();
  }
  float x[kTeamUnits][8];
  float most = 0;
  MOEBENCH_UNROLL
  for (int u = 0; u < kTeamUnits; ++u) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t word = gpu::word_of(shorts[u], i);
      x[u][2 * i] = gpu::low_bf16(word);
      x[u][2 * i + 1] = gpu::high_bf16(word);
    }
    most = fmaxf(most, largest_of(x[u]));
  }
  show_largest(most);
  // Nobody multiplies any more, and experts' weights are there.
  sync_chosen();
  most = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < 4; ++w) most = fmaxf(most, shared().largest[4 * team + w]);
  const int exponent = exponent_of(most);
  const float factor = digits_factor(exponent);
  MOEBENCH_UNROLL
  for (int u = 0; u < kTeamUnits; ++u) {
    if (unit_of(u) >= num_chunks(cols) * (kChunk / 8)) continue;
    store_digits<kFolds>(work.layout, team, unit_of(u), x[u], factor);
  }
  gpu::fence_async_proxy();
  sync_multipliers();
  return products_factor<kFolds>(exponent);
}

template <bool kFolds, Routed kRouted>
MOEBENCH_DEVICE void multiply_all(const Work& work) {
  MOEBENCH_SHARED(unsigned, turn_of_grid, [1]);
  Shared& s = shared();
  const auto thread = static_cast<int>(threadIdx.x);
  const int cols = work.gate_up.first.cols;
  Inputs inputs{};
  const float* x = work.x;
  if constexpr (kRouted != Routed::kBefore) {
    float* const row = shared_x(work.layout);
    normalise_and_show_sums<kWarps, kRouted>(work, row, turn_of_grid, [] { sync_multipliers(); });
    x = row;
  } else {
    gpu::wait_for_previous_kernel();
    if (thread == kMultipliers - 1) turn_of_grid[0] = gpu::grid_turn(&work.signals->turn);
  }
  if (thread < kUnits) inputs = load_inputs(x, cols, thread);
  show_largest(largest_of(inputs.x));
  sync_multipliers();
  const unsigned turn = turn_of_grid[0];
  float most = 0;
  MOEBENCH_UNROLL
  for (const float of_warp : s.largest) most = fmaxf(most, of_warp);
  const int exponent = exponent_of(most);
  if (thread < num_chunks(cols) * (kChunk / 8)) {
    store_digits<kFolds>(work.layout, 0, thread, inputs.x, digits_factor(exponent));
  }
  gpu::fence_async_proxy();
  say_row_is_read();
  sync_multipliers();

  const Member member;
  const int team = member.team;
  Feed<kFolds> feed{work.layout, s.full[team], s.empty[team], stages_of(work.layout, team)};
  int number = 0;
  float factor = products_factor<kFolds>(exponent);
  const bool has_pair = team < work.num_pairs;
  // Unrolled, or ptxas does not see that warps go through it as one, and works out descriptors for
  // each lane: 360 instructions to two chunks instead of 264.
  MOEBENCH_UNROLL
  for (int phase = 0; phase < 2; ++phase) {
    const bool is_down = phase == 1;
    if (is_down) {
      clear<kMultipliers>(*work.signals, turn ^ 1);
      factor = read_activated<kFolds>(work, turn, team);
      if (thread == 0) gpu::arrive_at_grid(&work.signals->turn);
      gpu::let_next_kernel_start();
    }
    const Rows rows(work, is_down);
    for (int row = rows.share.begin; has_pair && row < rows.share.end; row += kGroupRows) {
      const Pair own =
          multiply_tile<kFolds>(work, rows, is_down ? work.down_bias : work.gate_up_bias, member,
                                row, number, is_down ? team : 0, factor, feed);
      ++number;
      if (!is_down) {
        show_activated<kFolds>(work, turn, team, own);
      } else if (own.is_there) {
        s.y[team][own.row - rows.share.begin] = own.first;
        s.y[team][own.row + 1 - rows.share.begin] = own.second;
      }
    }
  }
  sync_multipliers();
  const Share share(work.down.first.rows);
  for (int row = thread; row < share.end - share.begin; row += kMultipliers) {
    float sum = 0;
    for (int pair = 0; pair < work.num_pairs; ++pair) {
      sum += s.expert_weights[pair] * s.y[pair][row];
    }
    work.out[share.begin + row] = sum;
  }
}

template <bool kFolds, Routed kRouted>
__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    one_launch_chunks(MOEBENCH_GRID_CONSTANT Work work,
                      MOEBENCH_GRID_CONSTANT gpu::TensorMap gate_up_codes,
                      MOEBENCH_GRID_CONSTANT gpu::TensorMap down_codes) {
  Shared& s = shared();
  if (gpu::warp_id() == kWarps && gpu::lane_id() < kTeams) {
    const int team = gpu::lane_id();
    gpu::init_ring(s.full[team], s.empty[team], kMostStages, 1, 4);
    gpu::init_ring(s.scales_full[team], s.scales_empty[team], 2, 1, 4);
  }
  if constexpr (kFolds) make_tables<kThreads>(s.tables);
  gpu::sync_threads();
  if (gpu::warp_id() == kWarps) {
    return choose_and_copy<kRouted>(work, gate_up_codes, down_codes);
  }
  multiply_all<kFolds, kRouted>(work);
}

// ---- On the host --------------------------------------------------------------------------------

std::int64_t box_rows(std::int64_t rows, int unit) {
  return std::min<std::int64_t>(kGroupRows, most_rows_of_block(rows, unit));
}

// Of no stages if there is no room.
template <bool kFolds>
Layout layout_of(const Problem& problem) {
  const auto cols = std::max(problem.hidden_size, problem.intermediate_size);
  const std::int64_t rows = std::max(box_rows(2 * problem.intermediate_size, kGateUpUnit),
                                     box_rows(problem.hidden_size, kUnitRows));
  const auto up_to = [](std::int64_t bytes, int multiple) {
    return (bytes + multiple - 1) / multiple * multiple;
  };
  const std::int64_t scale_bytes = up_to(rows * (cols / 32) + 32, 16);
  const std::int64_t digits = up_to(sizeof(Shared), 128);
  const std::int64_t scales =
      digits + num_chunks(static_cast<int>(cols)) * std::int64_t{kInputBytes<kFolds>};
  const std::int64_t stages =
      up_to(scales + kTeams * scale_bytes +
                std::max<std::int64_t>(kTeams * scale_bytes, problem.hidden_size * sizeof(float)),
            1024);
  const std::int64_t stage_bytes = up_to(rows * kRowBytes, 1024);
  const auto room =
      static_cast<std::int64_t>(gpu::device_info().shared_bytes_per_block - kStaticShared) - stages;
  const std::int64_t num_stages =
      std::clamp<std::int64_t>(room / (kTeams * stage_bytes), 0, kMostStages);
  return {static_cast<int>(digits),
          static_cast<int>(scales),
          static_cast<int>(scale_bytes),
          static_cast<int>(stages),
          static_cast<int>(stage_bytes),
          static_cast<int>(num_stages),
          static_cast<int>(stages + kTeams * num_stages * stage_bytes)};
}

// Whether the problem is one that this is for, on the device that is planned for.
template <bool kFolds>
bool takes(const Problem& problem) {
  const auto fits = [&](std::int64_t rows, std::int64_t cols, int unit) {
    // Copies of scales take whole 16 bytes.
    const auto scale_bytes = static_cast<std::int64_t>(codec(Format::kMxfp4).row_scale_bytes(cols));
    return cols <= kMostCols && cols % 32 == 0 && rows % unit == 0 && rows * scale_bytes % 16 == 0;
  };
  return problem.num_tokens == 1 && problem.top_k <= kMostPairs &&
         problem.format == Format::kMxfp4 &&
         fits(2 * problem.intermediate_size, problem.hidden_size, kGateUpUnit) &&
         fits(problem.hidden_size, problem.intermediate_size, kGateUpUnit) &&
         most_rows_of_block(problem.hidden_size, kUnitRows) <= kMostDownRows &&
         layout_of<kFolds>(problem).num_stages >= 2;
}
Problem problem_of(const Args& args) {
  return {args.gate_up.format, args.expert_ids.shape[0], args.gate_up.cols,
          args.down.cols,      args.gate_up.count,       args.expert_ids.shape[1]};
}
template <bool kFolds>
bool takes(const Args& args) {
  return args.down.format == args.gate_up.format && takes<kFolds>(problem_of(args)) &&
         are_chunks(args.gate_up, args.gate_up_bias.data) &&
         are_chunks(args.down, args.down_bias.data);
}

constexpr LaunchNames kChunksNames = {"moe_experts/cuda_one_launch_chunks_fp8",
                                      "moe_experts/cuda_one_launch_chunks_fp8 (with the router)",
                                      nullptr};
constexpr LaunchNames kBlocksNames = {"moe_experts/cuda_one_launch_blocks_fp8",
                                      "moe_experts/cuda_one_launch_blocks_fp8 (with the router)",
                                      "moe_experts/cuda_one_launch_blocks_fp8 (router ahead)"};

template <bool kFolds>
void run(const Args& args, Context& context) {
  const Routed routed = routed_of(args);
  const bool is_taken = takes<kFolds>(args);
  if (routed == Routed::kBefore && !is_taken) {
    return (kFolds ? cuda_grouped_chunks_fp8 : cuda_digits_fp8).run(args, context);
  }
  const OneLaunch one_launch = one_launch_of(args, context, is_taken);
  const Problem problem = problem_of(args);
  const Work work{one_launch, static_cast<int>(box_rows(args.gate_up.rows, kGateUpUnit)),
                  static_cast<int>(box_rows(args.down.rows, kUnitRows)),
                  layout_of<kFolds>(problem)};
  const auto bytes = static_cast<std::size_t>(work.layout.bytes);
  const auto codes_of = [](const MatrixStackView& stack, int box_rows) {
    return gpu::device().make_tensor_map({.data = stack.data,
                                          .element_bytes = 1,
                                          .rows = stack.count * stack.rows,
                                          .columns = stack.cols / 2,
                                          .row_bytes = stack.cols / 2,
                                          .tile_rows = box_rows,
                                          .tile_columns = kRowBytes,
                                          .swizzle = kRowBytes});
  };
  gpu::launch(
      with_routed<!kFolds>(routed, [](auto known) { return one_launch_chunks<kFolds, known()>; }),
      one_launch_config(context, kThreads, bytes),
      launch_name(kFolds ? kChunksNames : kBlocksNames, routed), work,
      codes_of(args.gate_up, work.gate_up_box_rows), codes_of(args.down, work.down_box_rows));
}

}  // namespace

constinit const Variant cuda_one_launch_chunks_fp8 =
    one_launch_variant<takes<true>, cuda_grouped_chunks_fp8>(
        "cuda_one_launch_chunks_fp8",
        "one token: norm, router and experts in one launch, else cuda_grouped_chunks_fp8, with its "
        "bits (Hopper)",
        "as cuda_grouped_chunks_fp8, bit for bit", run<true>, false);
constinit const Variant cuda_one_launch_blocks_fp8 =
    one_launch_variant<takes<false>, cuda_digits_fp8>(
        "cuda_one_launch_blocks_fp8",
        "one token: norm, router and experts in one launch, by float8 with scales of their own for "
        "blocks (Hopper)",
        "activations: two float8 digits, accumulate: f32, in blocks of 32 of fewer bits",
        run<false>, true);

}  // namespace moebench::moe_experts
