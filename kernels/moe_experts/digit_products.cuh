// The products of a decode step of one sequence, MXFP4 weights, on Hopper: what the variants share
// that cuda_digits_fp8.cu describes.
#pragma once

#include <cstddef>

#include "kernels/formats/direct_rows.cuh"
#include "kernels/moe_experts/one_token.cuh"

namespace moebench::moe_experts {

constexpr int kTeams = 4;
constexpr int kThreads = kTeams * 4 * gpu::kWarp;
constexpr int kTile = 64;      // rows
constexpr int kMostTiles = 8;  // of a block
constexpr int kPairRows = kTile / kMostPairs;
constexpr int kTeamSteps = 6;
static_assert(kSteps == kTeams * kTeamSteps);
constexpr int kDigitBytes = 256;  // of a wgmma's B: 8 columns of 32

// The experts of the token's pairs, past the last one the last again: loaded before anything else,
// since what is asked for behind the weights arrives behind them.
struct Experts {
  int ids[kMostPairs];

  // Of memory that the kernel does not write; and of shared memory.
  MOEBENCH_DEVICE Experts(const std::int32_t* expert_ids, int num_pairs) {
    MOEBENCH_UNROLL
    for (int p = 0; p < kMostPairs; ++p) {
      ids[p] = gpu::load_constant(expert_ids + min(p, num_pairs - 1));
    }
  }
  template <int kPlaces>
  MOEBENCH_DEVICE Experts(const std::int32_t (&expert_ids)[kPlaces], int num_pairs) {
    static_assert(kPlaces >= kMostPairs);
    MOEBENCH_UNROLL
    for (int p = 0; p < kMostPairs; ++p) ids[p] = expert_ids[min(p, num_pairs - 1)];
  }
  MOEBENCH_DEVICE int of(int pair) const {
    int id = ids[0];
    MOEBENCH_UNROLL
    for (int p = 1; p < kMostPairs; ++p) id = pair >= p ? ids[p] : id;
    return id;
  }
};

// Some rows of an expert (or of each); none past the end.
struct Place {
  int pair;
  int row;
  int rows;
};

// Room for the scales of a tile's rows of each of kPairs experts, with what is before and behind
// them in whole 16 bytes.
template <int kPairs>
constexpr int kScaleBytes = kTile / kPairs* kMostScaleBytes + 32;

// Dynamic shared memory of a block whose columns are those of kPairs. Last what need not be there
// for more tiles than the block has.
template <int kPairs>
struct Shared {
  alignas(128) unsigned char digits[kSteps * 4][kPairs][kDigitBytes];
  int exponents[kPairs][kBlocks];
  float totals[kMostTiles][kTeams][kTile];
  alignas(16) unsigned char scales[kMostTiles][kPairs][kScaleBytes<kPairs>];
};
template <int kPairs>
constexpr std::size_t shared_bytes(std::int64_t tiles) {
  return offsetof(Shared<kPairs>, scales) +
         static_cast<std::size_t>(tiles) * sizeof(Shared<kPairs>::scales[0]);
}
template <int kPairs>
MOEBENCH_DEVICE Shared<kPairs>& shared() {
  return *reinterpret_cast<Shared<kPairs>*>(gpu::dynamic_shared());
}

// Their digits, where B wants them. Unit 4 b + i is columns of block b and has two of the rows of
// product i of step b / 4: even columns in the first 16 of K, odd ones in the others. By whole
// warps, lanes with adjacent units; fence_async_proxy and a barrier must follow.
template <int kPairs>
MOEBENCH_DEVICE void store_digits(int pair, int unit, const float (&x)[8]) {
  Shared<kPairs>& s = shared<kPairs>();
  float most = 0;
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) most = fmaxf(most, fabsf(x[j]));
  const int exponent = exponent_of(quad_max(most));
  const float factor = gpu::power_of_two(7 - exponent);  // the largest goes to 128 .. 256
  std::uint32_t digits[2][2] = {};                       // [digit][even, odd]
  MOEBENCH_UNROLL
  for (int j = 0; j < 8; ++j) {
    const float value = x[j] * factor;
    const std::uint32_t first = gpu::float_to_e4m3(value);
    const std::uint32_t second = gpu::float_to_e4m3((value - gpu::e4m3_to_float(first)) * 16.0F);
    digits[0][j % 2] |= first << (j / 2 * 8);
    digits[1][j % 2] |= second << (j / 2 * 8);
  }
  const int block = unit / 4;
  const int t = block % 4;
  unsigned char* tile = s.digits[block / 4 * 4 + unit % 4][pair];
  MOEBENCH_UNROLL
  for (int digit = 0; digit < 2; ++digit) {
    MOEBENCH_UNROLL
    for (int odd = 0; odd < 2; ++odd) {
      const std::uint32_t word = digits[digit][odd];
      *reinterpret_cast<uint4*>(tile + odd * 128 + (2 * t + digit) * 16) =
          uint4{t == 0 ? word : 0, t == 1 ? word : 0, t == 2 ? word : 0, t == 3 ? word : 0};
    }
  }
  // With the 2^6 of weights and the 2^7 of inputs: what a scale's exponent is to be raised by.
  if (unit % 4 == 0) s.exponents[pair][block] = exponent - 1;
}

// Eight E2M1 codes as E4M3 over 2^6: columns 0, 2, 4, 6 and 1, 3, 5, 7.
MOEBENCH_DEVICE std::uint32_t even_codes(std::uint32_t codes) {
  return (codes << 2 & 0x1c1c1c1cU) | (codes << 4 & 0x80808080U);
}
MOEBENCH_DEVICE std::uint32_t odd_codes(std::uint32_t codes) {
  return (codes >> 2 & 0x1c1c1c1cU) | (codes & 0x80808080U);
}

// Multiplies the tiles of a Walk:
//
//   first(), after(place)   the block's tiles in turn
//   enter(goes_on)          when the weights of a tile have been asked for; whether others follow
//   rows(place)             data of the lane's rows: of the tile's rows 16 w + g and 16 w + g + 8
//   scales(place, pair)     the scales of its first row (of each of kPairs experts)
//   early(place)            by a warp, before weights are asked for: what the end will need
//   multiplied()            when all is multiplied, by every thread
//   finish(place, early, total)   by the same warp at the end; total(row) is a row's product
//
// While the weights of the first tile are under way, ready() is called, once, to store digits.
// Weights of kAhead steps are in flight.
template <int kPairs, int kAhead, class Walk, class Ready>
MOEBENCH_DEVICE void multiply_digits(const EncodedMatrix& shape, Walk& walk, Ready&& ready) {
  Shared<kPairs>& s = shared<kPairs>();
  const int team = gpu::warp_id() / 4;
  const int warp = gpu::warp_id() % 4;
  const int g = gpu::lane_id() / 4;
  const int t = gpu::lane_id() % 4;
  const auto scale_bytes = static_cast<int>(shape.row_scale_bytes);
  // Of the team's first product: later ones lie further on by a number of 16 bytes, which is what
  // descriptors count in. From one lane, so that all that follows is known to be the warp's.
  const std::uint64_t digits = gpu::shuffle(
      gpu::kAllLanes, gpu::wgmma_descriptor_unswizzled(s.digits[team * 4][0], 128, kDigitBytes), 0);
  // The lane's 16 bytes of a row in the team's steps, and how many steps have them: past the end
  // registers keep what they have, since inputs are zeros there.
  const int first_unit = team * 4 + t;
  const int num_loads = (shape.cols / 32 - first_unit + 4 * kTeams - 1) / (4 * kTeams);
  const auto load = [&](const gpu::LaneRows& rows, int step, int num_loads, uint4& low,
                        uint4& high) {
    load_rows_if(step < num_loads, rows, step * 4 * kTeams * 16, low, high);
  };
  const auto lane_rows = [&](const Place& place) {  // from the lane's first 16 bytes on
    const gpu::LaneRows rows = walk.rows(place);
    return gpu::LaneRows{rows.low + first_unit * 16, rows.high + first_unit * 16};
  };

  Place now = walk.first();
  Place own = now;  // the warp's tile at the end
  for (int i = 0; i < gpu::warp_id() && own.rows > 0; ++i) own = walk.after(own);
  typename Walk::Early early{};
  if (own.rows > 0) early = walk.early(own);
  Place place = now;
  for (int tile = 0; place.rows > 0; place = walk.after(place), ++tile) {
    constexpr int kChunks = kScaleBytes<kPairs> / 16;
    static_assert(kPairs * kChunks <= kThreads);
    const int pair = static_cast<int>(threadIdx.x) / kChunks;
    const int chunk = static_cast<int>(threadIdx.x) % kChunks;
    if (pair >= kPairs) continue;
    const unsigned char* from = walk.scales(place, pair);
    const int before = address_modulo_16(from);
    if (chunk * 16 < before + place.rows * scale_bytes) {
      gpu::copy_async(&s.scales[tile][pair][chunk * 16], from - before + chunk * 16);
    }
  }
  gpu::commit_copies();
  static_assert(kTeamSteps % kAhead == 0);
  uint4 low[kAhead] = {};
  uint4 high[kAhead] = {};
  gpu::LaneRows of_now{};
  if (now.rows > 0) {
    of_now = lane_rows(now);
    MOEBENCH_UNROLL
    for (int step = 0; step < kAhead; ++step) load(of_now, step, num_loads, low[step], high[step]);
  }
  ready();
  gpu::fence_async_proxy();
  gpu::wait_copies<0>();
  gpu::sync_threads();

  MOEBENCH_NO_UNROLL
  for (int tile = 0; now.rows > 0; ++tile) {
    const Place next = walk.after(now);
    const bool goes_on = next.rows > 0;  // else rows that may be named and are not read
    walk.enter(goes_on);
    const gpu::LaneRows of_next =
        lane_rows({goes_on ? next.pair : now.pair, goes_on ? next.row : now.row,
                   goes_on ? next.rows : now.rows});
    const int of_pair = kPairs == 1 ? 0 : warp;
    const unsigned char* scales = s.scales[tile][of_pair] +
                                  address_modulo_16(walk.scales(now, of_pair)) +
                                  (kPairs == 1 ? 16 * warp + g : g) * scale_bytes + first_unit;
    const int* exponents = s.exponents[of_pair] + first_unit;
    float low_total = 0;
    float high_total = 0;
    std::uint32_t a[2][4][4];
    float d[4 * kPairs] = {};
    const auto add = [&](int step, int pair) {
      const int raise = exponents[step * 4 * kTeams];
      const auto factor = [&](int code) {
        const int exponent = code + raise;  // biased
        return gpu::float_from_bits(static_cast<std::uint32_t>(exponent < 0     ? 0
                                                               : exponent > 254 ? 254
                                                                                : exponent)
                                    << 23);
      };
      low_total += (d[4 * pair] + d[4 * pair + 1] * 0.0625F) * factor(scales[step * 4 * kTeams]);
      high_total += (d[4 * pair + 2] + d[4 * pair + 3] * 0.0625F) *
                    factor(scales[8 * scale_bytes + step * 4 * kTeams]);
    };
    // Of the columns, those of the pair whose rows the warp has.
    const auto add_own = [&](int step) {
      if (kPairs == 1 || warp == 0) {
        add(step, 0);
      } else if constexpr (kPairs > 1) {
        if (warp == 1) add(step, 1);
        if (warp == 2) add(step, 2);
        if (warp == 3) add(step, 3);
      }
    };
    MOEBENCH_UNROLL
    for (int step = 0; step < kTeamSteps; ++step) {
      auto& weights = a[step % 2];
      MOEBENCH_UNROLL
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t of_low = gpu::word_of(low[step % kAhead], i);
        const std::uint32_t of_high = gpu::word_of(high[step % kAhead], i);
        weights[i][0] = even_codes(of_low);
        weights[i][1] = even_codes(of_high);
        weights[i][2] = odd_codes(of_low);
        weights[i][3] = odd_codes(of_high);
      }
      if (step + kAhead < kTeamSteps) {
        load(of_now, step + kAhead, num_loads, low[step % kAhead], high[step % kAhead]);
      } else {
        load(of_next, step + kAhead - kTeamSteps, goes_on ? num_loads : 0, low[step % kAhead],
             high[step % kAhead]);
      }
      if (step > 0) {
        gpu::wgmma_wait<0>(d);
        add_own(step - 1);
      }
      gpu::wgmma_fence(weights[0], weights[1], weights[2], weights[3], d);
      MOEBENCH_UNROLL
      for (int i = 0; i < 4; ++i) {
        gpu::wgmma_e4m3(d, weights[i],
                        digits + static_cast<std::uint64_t>((step * kTeams * 4 + i) * kPairs *
                                                            kDigitBytes / 16),
                        i > 0);
      }
      gpu::wgmma_commit();
    }
    gpu::wgmma_wait<0>(d);
    add_own(kTeamSteps - 1);
    MOEBENCH_UNROLL
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      low_total += gpu::shuffle_xor(gpu::kAllLanes, low_total, lanes);
      high_total += gpu::shuffle_xor(gpu::kAllLanes, high_total, lanes);
    }
    if (t == 0) {
      s.totals[tile][team][16 * warp + g] = low_total;
      s.totals[tile][team][16 * warp + g + 8] = high_total;
    }
    now = next;
    of_now = of_next;
  }
  gpu::sync_threads();
  walk.multiplied();
  if (own.rows == 0) return;
  const auto& totals = s.totals[gpu::warp_id()];
  walk.finish(own, early, [&](int row) {
    float sum = 0;
    MOEBENCH_UNROLL
    for (int k = 0; k < kTeams; ++k) sum += totals[k][row];
    return sum;
  });
}

// Rows of all the token's experts, one expert after the other.
struct GateUpWalk {
  struct Early {
    float gate_bias;
    float up_bias;
  };
  const Stack* stack;
  const float* bias;
  float* activated;  // [pairs, intermediate_size]
  float alpha;
  float limit;
  int num_pairs;
  int end;  // of the block, in rows of all experts
  Experts experts;

  MOEBENCH_DEVICE Place at(int row) const {
    const int of_expert = stack->first.rows;
    const int pair = row / of_expert;
    const int left = min(end - row, of_expert - row % of_expert);
    return {pair, row % of_expert, left < kTile ? left : kTile};
  }
  MOEBENCH_DEVICE Place first() {
    const Share share(num_pairs * stack->first.rows);
    end = share.end;
    return at(share.begin);
  }
  MOEBENCH_DEVICE Place after(const Place& place) const {
    return at(place.pair * stack->first.rows + place.row + place.rows);
  }
  MOEBENCH_DEVICE void enter(bool) const {}
  MOEBENCH_DEVICE void multiplied() const {}
  MOEBENCH_DEVICE gpu::LaneRows rows(const Place& place) const {
    const EncodedMatrix matrix = matrix_of(*stack, experts.of(place.pair));
    const int row = gpu::warp_id() % 4 * 16 + gpu::lane_id() / 4;
    const int last = place.rows - 1;
    return {row_of(matrix, place.row + min(row, last)).data,
            row_of(matrix, place.row + min(row + 8, last)).data};
  }
  MOEBENCH_DEVICE const unsigned char* scales(const Place& place, int) const {
    return row_of(matrix_of(*stack, experts.of(place.pair)), place.row).scales;
  }
  MOEBENCH_DEVICE Early early(const Place& place) const {
    const int i = gpu::lane_id();
    if (2 * i >= place.rows) return {0, 0};
    const float* from = bias +
                        static_cast<std::int64_t>(experts.of(place.pair)) * stack->first.rows +
                        place.row + 2 * i;
    return {gpu::load_constant(from), gpu::load_constant(from + 1)};
  }
  template <class Total>
  MOEBENCH_DEVICE void finish(const Place& place, const Early& early, Total&& total) const {
    const int i = gpu::lane_id();
    if (2 * i < place.rows) activated[activated_by(place)] = activation(early, total);
  }
  // The lane's, and where it goes.
  template <class Total>
  MOEBENCH_DEVICE float activation(const Early& early, Total&& total) const {
    const int i = gpu::lane_id();
    return swiglu(total(2 * i) + early.gate_bias, total(2 * i + 1) + early.up_bias, alpha, limit);
  }
  MOEBENCH_DEVICE int activated_by(const Place& place) const {
    return place.pair * (stack->first.rows / 2) + place.row / 2 + gpu::lane_id();
  }
};

// The same rows of each of the token's experts.
struct DownWalk {
  struct Early {
    float bias[kMostPairs];
  };
  const Stack* stack;
  const float* bias;
  const float* expert_weights;
  float* out;
  int num_pairs;
  int end;
  Experts experts;

  MOEBENCH_DEVICE Place at(int row) const {
    return {0, row, end - row < kPairRows ? end - row : kPairRows};
  }
  MOEBENCH_DEVICE Place first() {
    const Share share(stack->first.rows);
    end = share.end;
    return at(share.begin);
  }
  MOEBENCH_DEVICE Place after(const Place& place) const { return at(place.row + place.rows); }
  MOEBENCH_DEVICE void enter(bool) const {}
  MOEBENCH_DEVICE void multiplied() const {}
  MOEBENCH_DEVICE gpu::LaneRows rows(const Place& place) const {
    const EncodedMatrix matrix = matrix_of(*stack, experts.of(gpu::warp_id() % 4));
    const int row = gpu::lane_id() / 4;
    const int last = place.rows - 1;
    return {row_of(matrix, place.row + min(row, last)).data,
            row_of(matrix, place.row + min(row + 8, last)).data};
  }
  MOEBENCH_DEVICE const unsigned char* scales(const Place& place, int pair) const {
    return row_of(matrix_of(*stack, experts.of(pair)), place.row).scales;
  }
  MOEBENCH_DEVICE Early early(const Place& place) const {
    const int i = gpu::lane_id();
    Early early{};
    if (i >= place.rows) return early;
    MOEBENCH_UNROLL
    for (int pair = 0; pair < kMostPairs; ++pair) {
      early.bias[pair] = gpu::load_constant(
          bias + static_cast<std::int64_t>(experts.of(pair)) * stack->first.rows + place.row + i);
    }
    return early;
  }
  template <class Total>
  MOEBENCH_DEVICE void finish(const Place& place, const Early& early, Total&& total) const {
    const int i = gpu::lane_id();
    if (i >= place.rows) return;
    float sum = 0;
    MOEBENCH_UNROLL
    for (int pair = 0; pair < kMostPairs; ++pair) {
      if (pair >= num_pairs) break;
      sum += expert_weights[pair] * (total(pair * kPairRows + i) + early.bias[pair]);
    }
    out[place.row + i] = sum;
  }
};

// Asks the second-level cache for the rows of an expert that a block is to multiply by what it
// activates. One thread.
MOEBENCH_DEVICE void prefetch_down(const Stack& down, int expert) {
  const EncodedMatrix matrix = matrix_of(down, expert);
  const Share share(matrix.rows);
  if (share.end > share.begin) {
    gpu::prefetch_bulk(row_of(matrix, share.begin).data,
                       (share.end - share.begin) * static_cast<int>(matrix.row_bytes));
  }
}

// The digits of the activations of all the token's experts, by a whole block. Where the token has
// fewer, the last one's again. load(pair, unit) gives 8 columns, and again until
// is_there(unit, inputs).
template <class Load, class IsThere>
MOEBENCH_DEVICE void store_activations(int num_pairs, Load&& load, IsThere&& is_there) {
  constexpr int kShares = kMostPairs * kUnits / kThreads;
  static_assert(kMostPairs * kUnits % kThreads == 0);
  const auto item = [](int share) { return share * kThreads + static_cast<int>(threadIdx.x); };
  Inputs inputs[kShares];  // all are asked for before the first is used
  bool are_there = false;
  while (!are_there) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kShares; ++i) {
      inputs[i] = load(min(item(i) / kUnits, num_pairs - 1), item(i) % kUnits);
    }
    are_there = true;
    MOEBENCH_UNROLL
    for (int i = 0; i < kShares; ++i) are_there &= is_there(item(i) % kUnits, inputs[i]);
  }
  gpu::sync_warp();
  MOEBENCH_UNROLL
  for (int i = 0; i < kShares; ++i) {
    store_digits<kMostPairs>(item(i) / kUnits, item(i) % kUnits, inputs[i].x);
  }
}

// Tiles that a block has at most. Its rows begin anywhere, and may be of two experts.
struct Tiles {
  std::int64_t gate_up;
  std::int64_t down;

  Tiles(std::int64_t pairs, std::int64_t gate_up_rows, std::int64_t down_rows, int num_sms) {
    const auto of_block = [&](std::int64_t rows) {
      return ((rows + kUnitRows - 1) / kUnitRows + num_sms - 1) / num_sms * kUnitRows;
    };
    const std::int64_t rows = of_block(pairs * gate_up_rows);
    gate_up = rows > gate_up_rows ? kMostTiles + 1 : rows / kTile + 2;
    down = (of_block(down_rows) + kPairRows - 1) / kPairRows;
  }
};
// Whether the problem is one that this is for, on the device that is planned for.
inline bool takes(const Problem& problem) {
  if (problem.num_tokens != 1 || problem.top_k > kMostPairs || problem.format != Format::kMxfp4) {
    return false;
  }
  const std::int64_t gate_up_rows = 2 * problem.intermediate_size;
  const Tiles tiles(problem.top_k, gate_up_rows, problem.hidden_size, gpu::device_info().num_sms);
  const auto fits = [&](std::int64_t rows, std::int64_t cols) {
    const auto scale_bytes = static_cast<std::int64_t>(codec(Format::kMxfp4).row_scale_bytes(cols));
    // Copies of scales take whole 16 bytes.
    return cols <= kSteps * kStepColumns && rows % kUnitRows == 0 &&
           problem.num_experts * rows * scale_bytes % 16 == 0;
  };
  return tiles.gate_up <= kMostTiles && tiles.down <= kMostTiles &&
         fits(gate_up_rows, problem.hidden_size) &&
         fits(problem.hidden_size, problem.intermediate_size);
}
inline bool takes(const Args& args) {
  return args.down.format == args.gate_up.format &&
         takes({args.gate_up.format, args.expert_ids.shape[0], args.gate_up.cols, args.down.cols,
                args.gate_up.count, args.expert_ids.shape[1]});
}

}  // namespace moebench::moe_experts
