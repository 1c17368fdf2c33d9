// cuda_folded_fp8: decode steps of up to 64 tokens on Hopper, MXFP4 weights. Seven instructions
// decode eight of them, where cuda_direct_bf16 takes seventeen and is held back by them.
//
// A weight is multiplied as float8 (E4M3, wgmma), with the scale of its block folded into it: of
// the four blocks of 128 columns of a row (a chunk), the largest scale is the chunk's, and a block
// whose scale is 2^d less has its values times 2^(6 - d) as E4M3 has them, exactly up to d = 14. A
// table of eight bytes for each d turns four codes into four bytes with one PRMT whose selector is
// the codes themselves: the fourth bit of a selector repeats the chosen byte's sign, which is 0.
// So one product takes the positive weights, zeros in the place of the others, and a second one,
// of the codes with their signs turned over, subtracts the negative ones.
//
// Lane t of a quad loads and decodes block t of a chunk. Word i of its 16 bytes are the lane's
// columns of the chunk's product i; B has the inputs in the same order: byte 4 t + j of K is column
// 32 t + 8 i + j of the chunk, byte 16 + 4 t + j the one 4 further on.
//
// Inputs are two digits of E4M3: x over a power of two that a token has for each chunk, and 16
// times what the first digit leaves. Together they have the 8 bits of a bf16. The first half of B's
// columns are the first digits of up to 8 (or 16) tokens, the others the second ones. At a chunk's
// end its sums are scaled to floats: the tensor cores' own sums are short.
//
// Rows of all selected experts, one expert after the other, are dealt out to one block an SM: four
// teams of four warps. A tile is up to 64 rows of an expert; team k takes chunks k, k + 4, ... of
// each row, and loads the next ones into the registers that it has just decoded, also across
// tiles. The inputs of the expert after this one come to shared memory in the meantime. The first
// kernel computes gate and up rows and their activation, the second down rows, a third adds up the
// slots in order.
//
// An expert with more than 8 (16) tokens counts as several. Other formats, more tokens and other
// shapes run as cuda_direct_bf16.
#include <algorithm>

#include "kernels/moe_experts/combine.cuh"
#include "kernels/moe_experts/digits.cuh"
#include "kernels/moe_experts/experts.cuh"
#include "kernels/moe_experts/selection.cuh"

namespace moebench::moe_experts {
namespace {

constexpr int kMostTokens = 64;
constexpr int kManyPairs = 5;  // of an expert: with more, groups are of 16 tokens instead of 8
constexpr int kTeams = 4;
constexpr int kThreads = kTeams * 4 * gpu::kWarp;
constexpr int kTile = 64;  // rows
constexpr int kTeamSteps = 6;
constexpr int kChunk = 128;  // columns
constexpr int kChunks = kTeams * kTeamSteps;
constexpr int kMostColumns = kChunks * kChunk;
constexpr int kUnitRows = 2;  // in which rows are dealt out

constexpr int kHalfBytes = 8 * 16;  // of a product's B

// Of kernels for groups of kTokens.
template <int kTokens>
struct Sizing {
  static constexpr int kParts = kTokens / 8;
  // Steps whose weights are in flight.
  static constexpr int kAhead = kTokens == 8 ? 3 : 2;
  static_assert(kTeamSteps % kAhead == 0);
  // Whether there is room for the inputs of the group to come.
  static constexpr bool kStaged = kTokens == 8;
  // B of a product: [digit][part][half of K][token of the part], 16 bytes each; a chunk has four.
  // The 16 bytes between two products keep their writers out of each other's banks.
  static constexpr int kPartBytes = 2 * kHalfBytes;
  static constexpr int kDigitBytes = kParts * kPartBytes;
  static constexpr int kProductBytes = 2 * kDigitBytes + 16;
};

// Room for the scales of a tile's rows, with what is before and behind them in whole 16 bytes.
constexpr int kScaleBytes = kTile * (kMostColumns / 32) + 32;
constexpr int kTotalStride = kTile + 4;  // conflict-free

template <int kTokens>
struct Shared {
  alignas(128) unsigned char digits[kChunks * 4 * Sizing<kTokens>::kProductBytes];
  float inputs[Sizing<kTokens>::kStaged ? kTokens : 1][kMostColumns];  // of the group to come
  // Of a chunk of a token's inputs; before them zeros.
  float factors[kTeams + kChunks][kTokens];
  uint2 tables[kTables];
  alignas(16) unsigned char scales[2][kScaleBytes];
  alignas(16) float totals[2][kTeams][kTokens][kTotalStride];
  Selection selection;
};
template <int kTokens>
MOEBENCH_DEVICE Shared<kTokens>& shared() {
  return *reinterpret_cast<Shared<kTokens>*>(gpu::dynamic_shared());
}

// Some rows of a group's expert; none (or fewer) past the end.
struct Place {
  int group;
  int row;
  int rows;
};

// The digits of `size` tokens' inputs, and zeros up to whole chunks; row(i) are the i-th token's,
// in shared memory or not. Barriers must be before and, with fence_async_proxy, behind.
template <int kTokens, class Row>
MOEBENCH_DEVICE void store_digits(int size, int cols, Row&& row) {
  using Sized = Sizing<kTokens>;
  Shared<kTokens>& s = shared<kTokens>();
  // A warp takes two chunks of a token: 16 lanes with 8 columns each. Several of them at a time
  // where the inputs have a way to go.
  constexpr int kWarps = kThreads / gpu::kWarp;
  constexpr int kAtATime = Sized::kStaged ? 1 : 4;
  const int i = gpu::lane_id() % 4;
  const int t = gpu::lane_id() / 4 % 4;
  const auto token_of = [](int item) { return item / (kChunks / 2); };
  const auto chunk_of = [](int item) { return item % (kChunks / 2) * 2 + gpu::lane_id() / 16; };
  const int items = size * (kChunks / 2);
  MOEBENCH_NO_UNROLL
  for (int first = gpu::warp_id(); first < items; first += kAtATime * kWarps) {
    float4 inputs[kAtATime][2] = {};
    MOEBENCH_UNROLL
    for (int k = 0; k < kAtATime; ++k) {
      const int item = first + k * kWarps;
      const int column = chunk_of(item) * kChunk + 32 * t + 8 * i;
      if (item >= items || column >= cols) continue;
      const auto* from = reinterpret_cast<const float4*>(row(token_of(item)) + column);
      inputs[k][0] = from[0];
      inputs[k][1] = from[1];
    }
    MOEBENCH_UNROLL
    for (int k = 0; k < kAtATime; ++k) {
      const int item = first + k * kWarps;
      if (item >= items) break;
      const int token = token_of(item);
      const int chunk = chunk_of(item);
      const float x[8] = {inputs[k][0].x, inputs[k][0].y, inputs[k][0].z, inputs[k][0].w,
                          inputs[k][1].x, inputs[k][1].y, inputs[k][1].z, inputs[k][1].w};
      float most = 0;
      MOEBENCH_UNROLL
      for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(x[j]));
      MOEBENCH_UNROLL
      for (int lanes = 1; lanes < 16; lanes *= 2) {
        most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, lanes));
      }
      const int exponent = exponent_of(most);
      const float factor = gpu::power_of_two(7 - exponent);  // the largest goes to 128 .. 256
      unsigned char* to = s.digits + (chunk * 4 + i) * Sized::kProductBytes +
                          token / 8 * Sized::kPartBytes + token % 8 * 16 + t * 4;
      MOEBENCH_UNROLL
      for (int half = 0; half < 2; ++half) {
        const uint2 digits = two_digits(x, 4 * half, factor);
        unsigned char* to_half = to + half * kHalfBytes;
        *reinterpret_cast<std::uint32_t*>(to_half) = digits.x;
        *reinterpret_cast<std::uint32_t*>(to_half + Sized::kDigitBytes) = digits.y;
      }
      // With the 2^6 of weights and the 2^7 of inputs.
      if (gpu::lane_id() % 16 == 0)
        s.factors[kTeams + chunk][token] = gpu::power_of_two(exponent - 13);
    }
  }
}

// The block's rows among those of all groups.
struct Share {
  int begin;
  int end;
  MOEBENCH_DEVICE Share(const Selection& selection, const Stack& stack) {
    // In 32 bits, whose division takes a fraction of the time: fewer than 2^20, see takes().
    const auto units = static_cast<unsigned>(selection.num_groups * (stack.first.rows / kUnitRows));
    begin = static_cast<int>(units * blockIdx.x / gridDim.x) * kUnitRows;
    end = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x) * kUnitRows;
  }
  MOEBENCH_DEVICE Place at(const Stack& stack, int group, int row) const {
    const int left = min(end - group * stack.first.rows - row, stack.first.rows - row);
    return {group, row, min(left, kTile)};
  }
  MOEBENCH_DEVICE Place first(const Stack& stack) const {
    return at(stack, begin / stack.first.rows, begin % stack.first.rows);
  }
  MOEBENCH_DEVICE Place after(const Stack& stack, const Place& place) const {
    const bool ends = place.row + place.rows == stack.first.rows;
    return at(stack, place.group + static_cast<int>(ends), ends ? 0 : place.row + place.rows);
  }
};

// Asks the second-level cache for a tile, each warp for some of its rows: loads to registers, of
// which there are too few for more of them, then find it there.
MOEBENCH_DEVICE void prefetch(const Selection& selection, const Stack& stack, const Place& place) {
  constexpr int kRows = kTile / (kThreads / gpu::kWarp);
  const int row = gpu::warp_id() * kRows;
  const int rows = min(place.rows - row, kRows);
  if (gpu::lane_id() != 0 || rows <= 0) return;
  const EncodedMatrix matrix = matrix_of(stack, selection.group[place.group].expert);
  gpu::prefetch_bulk(row_of(matrix, place.row + row).data,
                     rows * static_cast<int>(matrix.row_bytes));
}

// Multiplies the block's tiles of the rows of all groups, one group after the other, by a Walk with
// these members:
//
//   stack, selection
//   kWaits               whether inputs are the previous kernel's: if so, weights are asked for
//                        before it is waited for
//   inputs(group, i)     a row of floats: of the group's i-th token
//   prefetch_next()      in the last tile, by all threads: what the kernel after this one will read
//   ahead(place, i)      by thread i, early: what the end will need
//   finish(place, i, early, totals)   by thread i; totals are [team][token][row]
template <int kTokens, class Walk>
MOEBENCH_DEVICE void multiply_folded(const Walk& walk) {
  using Sized = Sizing<kTokens>;
  constexpr int kAhead = Sized::kAhead;
  constexpr int kRounds = kTeamSteps / kAhead;
  constexpr int kParts = Sized::kParts;
  Shared<kTokens>& s = shared<kTokens>();
  const EncodedMatrix& shape = walk.stack->first;
  const auto thread = static_cast<int>(threadIdx.x);
  const int team = gpu::warp_id() / 4;
  const int warp = gpu::warp_id() % 4;
  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  const auto scale_bytes = static_cast<int>(shape.row_scale_bytes);

  const Share share(s.selection, *walk.stack);
  if (share.begin == share.end) return;
  const auto matrix_at = [&](const Place& place) {
    return matrix_of(*walk.stack, s.selection.group[place.group].expert);
  };
  const auto copy_inputs = [&](int group) {
    if (!Sized::kStaged || group * shape.rows >= share.end) return;
    const int pieces = shape.cols / 4;
    const int count = s.selection.group[group].size * pieces;
    MOEBENCH_NO_UNROLL
    for (int i = thread; i < count; i += kThreads) {
      const int token = i / pieces;
      const int column = i % pieces * 4;
      gpu::copy_async(&s.inputs[token][column], walk.inputs(group, token) + column);
    }
  };
  const auto copy_scales = [&](const Place& place, int parity) {
    static_assert(kScaleBytes / 16 <= kThreads);
    const unsigned char* from = row_of(matrix_at(place), place.row).scales;
    const int before = address_modulo_16(from);
    if (thread * 16 < before + place.rows * scale_bytes) {
      gpu::copy_async(&s.scales[parity][thread * 16], from - before + thread * 16);
    }
  };

  // The lane's 16 bytes of a row in the team's steps, and how many steps have them: past the end
  // registers keep what they have, since inputs are zeros there.
  const int first_unit = team * 4 + t;
  const int num_loads = (shape.cols / 32 - first_unit + 4 * kTeams - 1) / (4 * kTeams);
  const auto load = [&](const gpu::LaneRows& rows, int step, int num_loads, uint4& low,
                        uint4& high) {
    load_rows_if(step < num_loads, rows, step * 4 * kTeams * 16, low, high);
  };
  const auto lane_rows = [&](const Place& place) {  // from the lane's first 16 bytes on
    const EncodedMatrix matrix = matrix_at(place);
    const int row = 16 * warp + g;
    const int last = place.rows - 1;
    return gpu::LaneRows{row_of(matrix, place.row + min(row, last)).data + first_unit * 16,
                         row_of(matrix, place.row + min(row + 8, last)).data + first_unit * 16};
  };
  // Of the team's first product: later ones lie further on by a number of 16 bytes, which is what
  // descriptors count in. From one lane, so that all that follows is known to be the warp's.
  const std::uint64_t first_digits =
      gpu::shuffle(gpu::kAllLanes,
                   gpu::wgmma_descriptor_unswizzled(s.digits + team * 4 * Sized::kProductBytes,
                                                    kHalfBytes, Sized::kPartBytes),
                   0);

  Place now = share.first(*walk.stack);
  const auto store = [&](int group) {
    store_digits<kTokens>(s.selection.group[group].size, shape.cols, [&](int i) {
      return Sized::kStaged ? s.inputs[i] : walk.inputs(group, i);
    });
  };
  // Asked for behind the weights, inputs would arrive behind them.
  if (!Walk::kWaits) copy_inputs(now.group);
  copy_scales(now, 0);
  gpu::commit_copies();
  bool has_digits = false;  // of the tile's group
  if (!Sized::kStaged && !Walk::kWaits) {
    prefetch(s.selection, *walk.stack, now);
    store(now.group);
    has_digits = true;
  }
  uint4 low[kAhead] = {};
  uint4 high[kAhead] = {};
  gpu::LaneRows rows = lane_rows(now);  // of the next loads
  MOEBENCH_UNROLL
  for (int step = 0; step < kAhead; ++step) load(rows, step, num_loads, low[step], high[step]);
  if (!has_digits) prefetch(s.selection, *walk.stack, now);
  make_tables<kThreads>(s.tables);
  if (thread < kTeams * kTokens) s.factors[thread / kTokens][thread % kTokens] = 0;
  if (Walk::kWaits) {
    gpu::wait_for_previous_kernel();
    copy_inputs(now.group);
    gpu::commit_copies();
  }
  gpu::wait_copies<0>();
  gpu::fence_async_proxy();
  gpu::sync_threads();

  MOEBENCH_NO_UNROLL
  for (int parity = 0; now.rows > 0; parity ^= 1) {
    if (!has_digits) {
      store(now.group);
      gpu::fence_async_proxy();
      gpu::sync_threads();
      copy_inputs(now.group + 1);
    }
    const Place next = share.after(*walk.stack, now);
    const bool goes_on = next.rows > 0;
    if (goes_on) {
      copy_scales(next, parity ^ 1);
    } else {
      walk.prefetch_next();
    }
    gpu::commit_copies();

    // Of the round, each: the chunks' scales, factors and first digits.
    const unsigned char* scales = s.scales[parity] +
                                  address_modulo_16(row_of(matrix_at(now), now.row).scales) +
                                  (16 * warp + g) * scale_bytes + first_unit;
    const float* factors = &s.factors[team][2 * t];
    std::uint64_t digits = first_digits;
    int left = num_loads;
    float totals[kParts][4] = {};  // rows g, g + 8; of each, the part's tokens 2 t, 2 t + 1
    std::uint32_t a[2][2][2][4];
    float d[8 * kParts] = {};
    typename Walk::Early early{};
    // Chunks' scales, of rows g and (above) g + 8: of the next products and of those under way.
    std::uint32_t base = 0;
    std::uint32_t base_under_way = 0;
    uint2 of_low{};  // tables
    uint2 of_high{};
    // Step -1 adds zeros.
    const auto add = [&](int step) {
      const float of_rows[2] = {
          gpu::float_from_bits(base_under_way << 23),
          gpu::float_from_bits(base_under_way << 7 & 0x7f800000U),
      };
      MOEBENCH_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const float2 of_tokens =
            *reinterpret_cast<const float2*>(factors + (step + 1) * kTeams * kTokens + 8 * part);
        MOEBENCH_UNROLL
        for (int j = 0; j < 4; ++j) {
          totals[part][j] += (d[4 * part + j] + d[4 * (kParts + part) + j] * 0.0625F) *
                             (j % 2 == 0 ? of_tokens.x : of_tokens.y) * of_rows[j / 2];
        }
      }
    };
    const auto read_scales = [&](int step) {
      std::uint32_t own = 0;
      if (step < left) {
        own = scales[step * 4 * kTeams] |
              static_cast<std::uint32_t>(scales[8 * scale_bytes + step * 4 * kTeams]) << 16;
      }
      base_under_way = base;
      base = fold_scales(own, s.tables, of_low, of_high);
    };
    read_scales(0);
    // Rolled up: otherwise the compiler keeps all that is to be added until the tile's end.
    MOEBENCH_NO_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      // Some warps' rows in each round: all at once would stand before the loads of the moment.
      if (goes_on && gpu::warp_id() * kRounds / (kThreads / gpu::kWarp) == round) {
        prefetch(s.selection, *walk.stack, next);
      }
      int left_to_load = left - kAhead;
      if (round + 1 < kRounds) {
        rows.low += kAhead * 4 * kTeams * 16;
        rows.high += kAhead * 4 * kTeams * 16;
      } else {
        left_to_load = 0;
        early = walk.ahead(now, thread);
        if (goes_on) {
          rows = lane_rows(next);
          left_to_load = num_loads;
        }
      }
      MOEBENCH_UNROLL
      for (int step = 0; step < kAhead; ++step) {
        MOEBENCH_UNROLL
        for (int half = 0; half < 2; ++half) {
          auto& weights = a[half];
          MOEBENCH_UNROLL
          for (int i = 0; i < 2; ++i) {
            const std::uint32_t codes_low = gpu::word_of(low[step], 2 * half + i);
            const std::uint32_t codes_high = gpu::word_of(high[step], 2 * half + i);
            MOEBENCH_UNROLL
            for (int sign = 0; sign < 2; ++sign) {
              const std::uint32_t turn = sign == 0 ? 0 : 0x88888888U;
              const std::uint32_t of_row = codes_low ^ turn;
              const std::uint32_t of_row_8 = codes_high ^ turn;
              weights[i][sign][0] = gpu::byte_permute(of_low.x, of_low.y, of_row);
              weights[i][sign][1] = gpu::byte_permute(of_high.x, of_high.y, of_row_8);
              weights[i][sign][2] = gpu::byte_permute(of_low.x, of_low.y, of_row >> 16);
              weights[i][sign][3] = gpu::byte_permute(of_high.x, of_high.y, of_row_8 >> 16);
            }
          }
          if (half == 1) {
            load(rows, step, left_to_load, low[step], high[step]);
            // What takes long, while products run.
            read_scales(step + 1);
          }
          if (half == 0) {
            gpu::wgmma_wait<0>(d);
            add(step - 1);
            gpu::wgmma_fence(weights[0][0], weights[0][1], weights[1][0], weights[1][1], d);
          } else {
            gpu::wgmma_fence(weights[0][0], weights[0][1], weights[1][0], weights[1][1]);
          }
          MOEBENCH_UNROLL
          for (int i = 0; i < 2; ++i) {
            const std::uint64_t b =
                digits + static_cast<std::uint64_t>((step * kTeams * 4 + 2 * half + i) *
                                                    (Sized::kProductBytes / 16));
            gpu::wgmma_e4m3(d, weights[i][0], b, half > 0 || i > 0);
            gpu::wgmma_e4m3_negated(d, weights[i][1], b);
          }
          gpu::wgmma_commit();
          // Until the weights of the first half may be replaced.
          if (half == 1) gpu::wgmma_wait<1>();
        }
      }
      scales += kAhead * 4 * kTeams;
      factors += kAhead * kTeams * kTokens;
      digits += kAhead * kTeams * 4 * (Sized::kProductBytes / 16);
      left -= kAhead;
    }
    gpu::wgmma_wait<0>(d);
    add(-1);
    MOEBENCH_UNROLL
    for (int part = 0; part < kParts; ++part) {
      MOEBENCH_UNROLL
      for (int j = 0; j < 4; ++j) {
        s.totals[parity][team][8 * part + 2 * t + j % 2][16 * warp + g + j / 2 * 8] =
            totals[part][j];
      }
    }
    gpu::wait_copies<0>();
    gpu::sync_threads();
    walk.finish(now, thread, early, s.totals[parity]);
    has_digits = next.group == now.group;
    now = next;
  }
}

template <int kTokens>
using Totals = float[kTeams][kTokens][kTotalStride];

template <int kTokens>
struct GateUpWalk {
  static constexpr bool kWaits = false;
  struct Early {
    float gate_bias;
    float up_bias;
  };
  const Stack* stack;
  const Stack* down;
  const Selection* selection;
  const float* x;
  const float* bias;
  float* activated;  // [pairs, intermediate_size]
  float alpha;
  float limit;

  MOEBENCH_DEVICE const float* inputs(int group, int i) const {
    return x + static_cast<std::int64_t>(selection->token_at(selection->group[group].first + i)) *
                   stack->first.cols;
  }
  MOEBENCH_DEVICE void prefetch_next() const {
    prefetch(*selection, *down, Share(*selection, *down).first(*down));
  }
  MOEBENCH_DEVICE Early ahead(const Place& place, int i) const {
    const int gate = i % (kTile / 2) * 2;
    if (gate >= place.rows) return {0, 0};
    const float* from =
        bias + static_cast<std::int64_t>(selection->group[place.group].expert) * stack->first.rows +
        place.row + gate;
    return {gpu::load_constant(from), gpu::load_constant(from + 1)};
  }
  MOEBENCH_DEVICE void finish(const Place& place, int i, const Early& early,
                              const Totals<kTokens>& totals) const {
    const Group& group = selection->group[place.group];
    const int gate = i % (kTile / 2) * 2;
    const int token = i / (kTile / 2);
    static_assert(kTile / 2 * kTokens <= kThreads);
    if (gate >= place.rows || token >= group.size) return;
    float gate_sum = early.gate_bias;
    float up_sum = early.up_bias;
    MOEBENCH_UNROLL
    for (int k = 0; k < kTeams; ++k) {
      const float2 of_team = *reinterpret_cast<const float2*>(&totals[k][token][gate]);
      gate_sum += of_team.x;
      up_sum += of_team.y;
    }
    activated[static_cast<std::int64_t>(selection->pair_at(group.first + token)) *
                  (stack->first.rows / 2) +
              (place.row + gate) / 2] = swiglu(gate_sum, up_sum, alpha, limit);
  }
};

template <int kTokens>
struct DownWalk {
  static constexpr bool kWaits = true;
  using Early = float;  // bias
  const Stack* stack;
  const Selection* selection;
  const float* activated;
  const float* bias;
  float* products;  // [pairs, hidden_size]

  MOEBENCH_DEVICE const float* inputs(int group, int i) const {
    return activated +
           static_cast<std::int64_t>(selection->pair_at(selection->group[group].first + i)) *
               stack->first.cols;
  }
  MOEBENCH_DEVICE void prefetch_next() const {}
  MOEBENCH_DEVICE Early ahead(const Place& place, int i) const {
    const int row = i % kTile;
    if (row >= place.rows) return 0;
    return gpu::load_constant(
        bias + static_cast<std::int64_t>(selection->group[place.group].expert) * stack->first.rows +
        place.row + row);
  }
  MOEBENCH_DEVICE void finish(const Place& place, int i, Early early,
                              const Totals<kTokens>& totals) const {
    const Group& group = selection->group[place.group];
    const int row = i % kTile;
    if (row >= place.rows) return;
    for (int token = i / kTile; token < group.size; token += kThreads / kTile) {
      float sum = early;
      MOEBENCH_UNROLL
      for (int k = 0; k < kTeams; ++k) sum += totals[k][token][row];
      products[static_cast<std::int64_t>(selection->pair_at(group.first + token)) *
                   stack->first.rows +
               place.row + row] = sum;
    }
  }
};

template <int kTokens>
MOEBENCH_DEVICE const Selection* select_by_block(const std::int32_t* expert_ids,
                                                 const Sizes& sizes) {
  Selection& selection = shared<kTokens>().selection;
  if (gpu::warp_id() == 0) select<kTokens>(expert_ids, sizes, selection);
  gpu::sync_threads();
  return &selection;
}

template <int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    folded_gate_up(Sizes sizes, Stack gate_up, Stack down, const float* bias, const float* x,
                   const std::int32_t* expert_ids, float alpha, float limit, float* activated) {
  gpu::wait_for_previous_kernel();
  // After the wait: whoever starts now finds the ids complete.
  gpu::let_next_kernel_start();
  const Selection* selection = select_by_block<kTokens>(expert_ids, sizes);
  multiply_folded<kTokens>(
      GateUpWalk<kTokens>{&gate_up, &down, selection, x, bias, activated, alpha, limit});
}

template <int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, 1)
    folded_down(Sizes sizes, Stack down, const float* bias, const float* activated,
                const std::int32_t* expert_ids, float* products) {
  gpu::let_next_kernel_start();
  const Selection* selection = select_by_block<kTokens>(expert_ids, sizes);
  multiply_folded<kTokens>(DownWalk<kTokens>{&down, selection, activated, bias, products});
}

// Whether the step is one that this is for.
bool takes(const Args& args) {
  const auto fits = [](const MatrixStackView& stack) {
    const auto scale_bytes =
        static_cast<std::int64_t>(codec(stack.format).row_scale_bytes(stack.cols));
    // Copies of scales take whole 16 bytes.
    return stack.format == Format::kMxfp4 && stack.cols <= kMostColumns &&
           stack.rows <= 2 * kMostColumns && stack.rows % kUnitRows == 0 &&
           stack.count * stack.rows * scale_bytes % 16 == 0;
  };
  static_assert(kMostPairs * (2 * kMostColumns / kUnitRows) < 1 << 20);
  return args.x.shape[0] <= kMostTokens &&
         static_cast<std::int64_t>(args.expert_ids.size()) <= kMostPairs && fits(args.gate_up) &&
         fits(args.down) &&
         std::max(sizeof(Shared<8>), sizeof(Shared<16>)) + 2048 <=
             gpu::device_info().shared_bytes_per_block;
}

struct Scratch {
  float* activated;  // [num_pairs, intermediate_size]
  float* products;   // [num_pairs, hidden_size]
};
Scratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t hidden_size,
                     std::int64_t intermediate_size) {
  return {workspace.take<float>(num_pairs * intermediate_size),
          workspace.take<float>(num_pairs * hidden_size)};
}

template <int kTokens>
void launch_all(const Args& args, const Sizes& sizes, Context& context) {
  Workspace workspace(context.workspace);
  const Scratch scratch =
      take_scratch(workspace, sizes.num_pairs, sizes.hidden_size, sizes.intermediate_size);
  const gpu::LaunchConfig config{
      .grid = {static_cast<unsigned>(gpu::device_info().num_sms)},
      .block = kThreads,
      .shared_bytes = sizeof(Shared<kTokens>),
      .stream = context.stream,
      .overlap_previous = true,
      .shared_percent = gpu::shared_percent_for(sizeof(Shared<kTokens>), 1)};
  gpu::launch(folded_gate_up<kTokens>, config, "moe_experts/cuda_folded_fp8 (gate, up)", sizes,
              device_stack(args.gate_up), device_stack(args.down), args.gate_up_bias.data,
              args.x.data, args.expert_ids.data, args.swiglu_alpha, args.swiglu_limit,
              scratch.activated);
  gpu::launch(folded_down<kTokens>, config, "moe_experts/cuda_folded_fp8 (down)", sizes,
              device_stack(args.down), args.down_bias.data, scratch.activated, args.expert_ids.data,
              scratch.products);
  launch_combine(args, context, scratch.products, true);
}

void run(const Args& args, Context& context) {
  if (!takes(args)) return cuda_direct_bf16.run(args, context);
  const Sizes sizes = sizes_of(args);
  if (sizes.num_pairs > kManyPairs * sizes.num_experts) {
    launch_all<16>(args, sizes, context);
  } else {
    launch_all<8>(args, sizes, context);
  }
}

}  // namespace

const Variant cuda_folded_fp8 = {
    .name = "cuda_folded_fp8",
    .backend = "cuda",
    .summary =
        "few tokens: MXFP4 weights as float8 with their scales, inputs as two digits (Hopper)",
    .rounds =
        "activations: two float8 digits, weights: 2^-15 of the largest scale of 128 columns, "
        "accumulate: f32, in blocks of 128 of fewer bits",
    .max_nmse = bf16_max_nmse,
    .weight_layout = RowLayout::kRowMajor,
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = cuda_grouped_wgmma_bf16.unsupported(problem);
          return reason.empty() ? cuda_direct_bf16.unsupported(problem) : reason;
        },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          Workspace workspace;
          take_scratch(workspace,
                       std::min<std::int64_t>(
                           std::min<std::int64_t>(problem.num_tokens, kMostTokens) * problem.top_k,
                           kMostPairs),
                       problem.hidden_size, problem.intermediate_size);
          return std::max(workspace.used(), cuda_direct_bf16.workspace_bytes(problem, num_threads));
        },
    .run = run,
};

}  // namespace moebench::moe_experts
