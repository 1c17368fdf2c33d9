// Sorting the pairs of a token and a slot by expert, on the device, and cutting every expert's
// pairs into tiles: what the variants for many tokens begin with. Beside it, x is rounded to bf16.
//
// One block an expert. It counts every expert's pairs, so that it knows where its own begin, and
// then writes these in order, which makes the result the same every time.
#pragma once

#include "kernels/moe_experts/combine.cuh"
#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {

// Some pairs of one expert: positions [first, first + count) of the sorted list.
struct Tile {
  int expert;
  int first;
  int count;
};

struct Groups {
  int* pairs;      // [num_pairs]: token * top_k + slot, by expert, in order
  int* begin;      // [num_experts + 1]: where each expert's pairs begin
  Tile* tiles;     // [most_tiles]
  int* num_tiles;  // [1]
};

// However the pairs are spread.
inline std::int64_t most_tiles(std::int64_t num_pairs, std::int64_t num_experts, int tile_tokens) {
  return num_pairs / tile_tokens + (num_pairs < num_experts ? num_pairs : num_experts);
}

// Scratch memory of variants that work on tiles.
struct GroupedScratch {
  Groups groups;
  std::uint16_t* x;          // [num_pairs, hidden_size] bf16, in sorted order
  std::uint16_t* activated;  // [num_pairs, intermediate_size] bf16, in sorted order
  float* projected;          // [num_pairs, hidden_size]
};

inline GroupedScratch take_grouped_scratch(Workspace& workspace, std::int64_t num_pairs,
                                           std::int64_t num_experts, std::int64_t hidden_size,
                                           std::int64_t intermediate_size, int tile_tokens) {
  return {{workspace.take<int>(num_pairs), workspace.take<int>(num_experts + 1),
           workspace.take<Tile>(most_tiles(num_pairs, num_experts, tile_tokens)),
           workspace.take<int>(1)},
          workspace.take<std::uint16_t>(num_pairs * hidden_size),
          workspace.take<std::uint16_t>(num_pairs * intermediate_size),
          workspace.take<float>(num_pairs * hidden_size)};
}
inline GroupedScratch take_grouped_scratch(Context& context, const Sizes& sizes, int tile_tokens) {
  Workspace workspace(context.workspace);
  return take_grouped_scratch(workspace, sizes.num_pairs, sizes.num_experts, sizes.hidden_size,
                              sizes.intermediate_size, tile_tokens);
}
inline std::size_t grouped_scratch_bytes(const Problem& problem, int tile_tokens) {
  Workspace workspace;
  take_grouped_scratch(workspace, problem.num_tokens * problem.top_k, problem.num_experts,
                       problem.hidden_size, problem.intermediate_size, tile_tokens);
  return workspace.used();
}

constexpr int kGroupingWarps = 8;
constexpr int kGroupingThreads = kGroupingWarps * gpu::kWarp;

MOEBENCH_DEVICE int warp_sum(int value) {
  MOEBENCH_UNROLL
  for (int offset = gpu::kWarp / 2; offset > 0; offset /= 2) {
    value += gpu::shuffle_xor(gpu::kAllLanes, value, offset);
  }
  return value;
}

// How an expert's pairs are cut into tiles: of `tokens` each. If the last one would have up to
// `shift`, the one before gives it as many again: two smaller products take less than a large one
// and a small one.
struct TileCut {
  int tokens;
  int shift = 0;

  MOEBENCH_DEVICE int count(int pairs) const { return (pairs + tokens - 1) / tokens; }
  // Where the i-th of `pairs` begins; of the one behind the last, their end.
  MOEBENCH_DEVICE int begin(int pairs, int i) const {
    const int last = count(pairs) - 1;
    if (i > last) return pairs;
    const bool shifts = i == last && last > 0 && pairs - last * tokens <= shift;
    return i * tokens - (shifts ? shift : 0);
  }
};

// A block's part: the pairs of `expert`. `counts` is shared memory for a number per expert.
MOEBENCH_DEVICE void group_pairs(const Sizes& sizes, const std::int32_t* expert_ids, int expert,
                                 const TileCut& cut, int* counts, const Groups& groups) {
  MOEBENCH_SHARED(int, found, [kGroupingWarps]);  // the expert's pairs in each warp's part
  const int thread = static_cast<int>(threadIdx.x);
  for (int e = thread; e < sizes.num_experts; e += kGroupingThreads) counts[e] = 0;
  gpu::sync_threads();
  const int steps = (sizes.num_pairs + kGroupingThreads - 1) / kGroupingThreads;
  const int part = gpu::warp_id() * steps * gpu::kWarp;
  // Calls visit(pair, its expert; -1 past the end) for the warp's pairs in order, by whole warps.
  const auto for_each_pair = [&](auto&& visit) {
    constexpr int kAhead = 8;  // loads before the first is used: their latency is all the time
    for (int first = 0; first < steps; first += kAhead) {
      std::int32_t experts[kAhead];
      MOEBENCH_UNROLL
      for (int s = 0; s < kAhead; ++s) {
        const int pair = part + (first + s) * gpu::kWarp + gpu::lane_id();
        experts[s] = first + s < steps && pair < sizes.num_pairs ? expert_ids[pair] : -1;
      }
      MOEBENCH_UNROLL
      for (int s = 0; s < kAhead; ++s) {
        visit(part + (first + s) * gpu::kWarp + gpu::lane_id(), experts[s]);
      }
    }
  };
  int mine = 0;
  for_each_pair([&](int, std::int32_t of_pair) {
    if (of_pair >= 0) gpu::atomic_add(&counts[of_pair], 1);
    mine += of_pair == expert ? 1 : 0;
  });
  mine = warp_sum(mine);
  if (gpu::lane_id() == 0) found[gpu::warp_id()] = mine;
  gpu::sync_threads();

  int begin = 0;
  int first_tile = 0;
  for (int e = gpu::lane_id(); e < expert; e += gpu::kWarp) {
    begin += counts[e];
    first_tile += cut.count(counts[e]);
  }
  begin = warp_sum(begin);
  first_tile = warp_sum(first_tile);
  const int count = counts[expert];
  const int num_tiles = cut.count(count);
  for (int i = thread; i < num_tiles; i += kGroupingThreads) {
    const int first = cut.begin(count, i);
    groups.tiles[first_tile + i] = {expert, begin + first, cut.begin(count, i + 1) - first};
  }
  if (thread == 0) {
    groups.begin[expert] = begin;
    if (expert == sizes.num_experts - 1) {
      groups.begin[expert + 1] = begin + count;
      groups.num_tiles[0] = first_tile + num_tiles;
    }
  }

  int position = begin;
  for (int w = 0; w < gpu::warp_id(); ++w) position += found[w];
  for_each_pair([&](int pair, std::int32_t of_pair) {
    const bool is_mine = of_pair == expert;
    const unsigned all = gpu::ballot(gpu::kAllLanes, is_mine);
    if (is_mine) {
      groups.pairs[position + gpu::count_bits(all & ((1U << gpu::lane_id()) - 1))] = pair;
    }
    position += gpu::count_bits(all);
  });
}

template <int kThreads>
__global__ void MOEBENCH_BOUNDS(kThreads)
    sort_pairs(Sizes sizes, const std::int32_t* expert_ids, TileCut cut, Groups groups) {
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  group_pairs(sizes, expert_ids, static_cast<int>(blockIdx.x), cut,
              reinterpret_cast<int*>(gpu::dynamic_shared()), groups);
}

inline void launch_sort(const Args& args, Context& context, const TileCut& cut,
                        const Groups& groups) {
  const Sizes sizes = sizes_of(args);
  gpu::launch(sort_pairs<kGroupingThreads>,
              {.grid = {static_cast<unsigned>(sizes.num_experts)},
               .block = kGroupingThreads,
               .shared_bytes = sizeof(int) * static_cast<std::size_t>(sizes.num_experts),
               .stream = context.stream,
               .overlap_previous = true},
              "moe_experts (sort by expert)", sizes, args.expert_ids.data, cut, groups);
}

// gathered: for every sorted pair its token's x as bf16, in the order in which kFormat's weights
// are decoded.
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kGroupingThreads)
    gather(Sizes sizes, Groups groups, const float* x, std::uint16_t* gathered) {
  const std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kGroupingThreads +
                            static_cast<std::int64_t>(threadIdx.x);
  const int units = sizes.hidden_size / 8;
  if (item >= static_cast<std::int64_t>(sizes.num_pairs) * units) return;
  const int token = groups.pairs[item / units] / sizes.top_k;
  reinterpret_cast<uint4*>(gathered)[item] = load_inputs<kFormat>(
      x + static_cast<std::int64_t>(token) * sizes.hidden_size, static_cast<int>(item % units) * 8);
}

template <Format kFormat>
void launch_gather(const Args& args, Context& context, const Groups& groups,
                   std::uint16_t* gathered) {
  const Sizes sizes = sizes_of(args);
  const std::int64_t items = std::int64_t{sizes.num_pairs} * (sizes.hidden_size / 8);
  gpu::launch(gather<kFormat>,
              {.grid = {static_cast<unsigned>((items + kGroupingThreads - 1) / kGroupingThreads)},
               .block = kGroupingThreads,
               .stream = context.stream},
              "moe_experts (gather tokens)", sizes, groups, args.x.data, gathered);
}

// What the `index`-th block works on if every tile of tokens is multiplied with row_tiles tiles of
// rows; false: nothing. Blocks that share a tile of tokens follow each other, and so do the tiles
// of an expert: its weights then come from memory once.
MOEBENCH_DEVICE bool find_tile(const Groups& groups, int index, int row_tiles, Tile& tile,
                               int& row_tile) {
  if (index / row_tiles >= groups.num_tiles[0]) return false;
  tile = groups.tiles[index / row_tiles];
  row_tile = index % row_tiles;
  return true;
}

// A product of a tile of tokens and one of kRows rows, for blocks that walk over all of them.
struct TileProduct {
  int index;
  Tile tile;
  int first_row;
};
template <int kRows>
MOEBENCH_DEVICE bool find_product(const Groups& groups, int row_tiles, TileProduct& product) {
  int row_tile = 0;
  const bool found = find_tile(groups, product.index, row_tiles, product.tile, row_tile);
  product.first_row = row_tile * kRows;
  return found;
}

// Stages of a ring one after the other, round by round.
template <int kStages>
struct RingTurn {
  int stage = 0;
  unsigned parity = 0;  // of the round

  MOEBENCH_DEVICE void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace moebench::moe_experts
