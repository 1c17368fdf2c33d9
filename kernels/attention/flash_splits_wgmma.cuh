// The prompts' part of cuda_flash_splits_mma on Hopper, where the cache is bf16 with heads of 64:
// the same steps in the same order by wgmma, which has mma's bits (docs/gpu.md).
//
// The blocks of wgmma_rows.cuh: three groups of four warps with 64 rows each share stages of 128
// keys and values. A group takes a stage in two tiles of 64 keys, as the mma kernels do, so that a
// thread has registers for all that it keeps of two rows: 32 scores, 16 words of weights, 32 sums
// of the split at hand and 32 of the splits before, joined. Its loop is cuda_flash_wgmma's:
//
//   weights = of tile j, from its scores                              (exponents)
//   sums += weights x values of tile j                                (tensor cores)
//   scores = queries x keys of tile j + 1                             (tensor cores)
//   at a split's end: sums are joined with those before, while scores are computed
//
#pragma once

#include "kernels/attention/based_weights.cuh"
#include "kernels/attention/flash_splits.cuh"
#include "kernels/attention/wgmma_rows.cuh"

namespace moebench::attention {
namespace {

// A tile of 64 keys that an item sees, in the stage that `Tiles` is at.
constexpr int kHalfKeys = kStageKeys / 2;
static_assert(kSplit % kHalfKeys == 0);

// Which half of a stage comes first, and what comes after it.
MOEBENCH_DEVICE int first_half(const Tiles& at) { return at.low < at.tile + kHalfKeys ? 0 : 1; }
enum NextTile : int { kNone, kOfThisStage, kOfNextStage };
// From one lane, so that the compiler knows the branches taken on it to be the warp's.
MOEBENCH_DEVICE int next_tile(const Tiles& at, int half, int end) {
  int next = kNone;
  if (half == 0 && at.tile + kHalfKeys < at.high) {
    next = kOfThisStage;
  } else if (at.tile + kStageKeys < at.high || at.run.end < end) {
    next = kOfNextStage;
  }
  return gpu::shuffle(gpu::kAllLanes, next, 0);
}

struct SplitRows : BasedRows<64, kHalfKeys, true> {
  float joined[32];  // as `sums`, of the splits before
  float joined_base[2];
  float joined_total[2];
  int last[2];  // positions

  MOEBENCH_DEVICE void clear_all() {
    clear();
    MOEBENCH_UNROLL
    for (float& sum : joined) sum = 0;
    joined_base[0] = joined_base[1] = kLowest;
    joined_total[0] = joined_total[1] = 0;
  }

  MOEBENCH_DEVICE void weigh_tile(Scores& scores, Weights& weights, int tile, const Work& work) {
    int first[2];
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) first[i] = work.window > 0 ? last[i] - work.window + 1 : 0;
    weigh(scores, weights, tile, first, last, work.scale);
  }

  MOEBENCH_DEVICE void join_split() {
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const Join join(joined_base[i], base[i]);
      joined_base[i] = join.base;
      joined_total[i] = join.sum(joined_total[i], total_of_row(i));
      MOEBENCH_UNROLL
      for (int n = 0; n < 8; ++n) {
        MOEBENCH_UNROLL
        for (int c = 4 * n + 2 * i; c < 4 * n + 2 * i + 2; ++c) {
          joined[c] = join.sum(joined[c], sums[c]);
        }
      }
    }
    clear();
  }
};

MOEBENCH_DEVICE void multiply_splits(const Work& work, const DeviceKv& kv, uint4* stages,
                                     gpu::Mbarrier* full, gpu::Mbarrier* empty) {
  const RowsGroup<RowsBlock<Format::kBf16>::kGroups> group(stages);
  Ring ring;
  Item item{};
  MOEBENCH_NO_UNROLL
  for (int round = 0; find_item(work, kv.num_kv_heads, round, item); ++round) {
    group.take_queries<64>(work, item, kv.num_kv_heads);
    Tiles at;
    at.begin(kv, work.window, item.begin, item.end);
    SplitRows rows;
    rows.clear_all();
    find_positions(work, item, kv, at.run, rows.last);
    int half = first_half(at);
    SplitRows::Scores scores;
    gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
    group.multiply_keys<64>(scores, ring.stage(), half * kHalfKeys);
    gpu::wgmma_wait<0>(scores);
    MOEBENCH_NO_UNROLL
    for (int next = kOfThisStage; next != kNone;) {
      const int stage = ring.stage();
      const int tile = at.tile + half * kHalfKeys;
      const int first_value = half * kHalfKeys;
      SplitRows::Weights weights;
      rows.weigh_tile(scores, weights, tile, work);
      next = next_tile(at, half, item.end);
      bool new_run = false;
      if (next == kOfThisStage) {
        half = 1;
      } else {
        ++ring.count;
        if (next == kOfNextStage) {
          new_run = at.advance(kv, work.window, item.end);
          half = first_half(at);
          gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
        }
      }
      group.take_turn();
      group.multiply_values(rows.sums, weights, stage, first_value);
      if (next != kNone) {
        group.multiply_keys<64>(scores, ring.stage(), half * kHalfKeys);
        group.pass_turn();
        if (new_run) find_positions(work, item, kv, at.run, rows.last);
        gpu::wgmma_wait<1>(rows.sums, weights);
        if (next == kOfNextStage) group.release(empty, stage);
        if ((tile + kHalfKeys) % kSplit == 0) rows.join_split();
        gpu::wgmma_wait<0>(scores);
      } else {
        group.pass_turn();
        gpu::wgmma_wait<0>(rows.sums, weights);
        group.release(empty, stage);
      }
    }
    rows.join_split();
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      write_row<64>(work, item, kv.num_kv_heads, i, rows.joined_base[i], rows.joined_total[i],
                    rows.joined);
    }
  }
  group.end();
}

__global__ void MOEBENCH_BOUNDS(RowsBlock<Format::kBf16>::kThreads, 1)
    attend_all_by_wgmma(Work work, DeviceKv kv, MOEBENCH_GRID_CONSTANT gpu::TensorMap keys,
                        MOEBENCH_GRID_CONSTANT gpu::TensorMap values) {
  attend_in_rows<Format::kBf16, 64>(work, kv, keys, values,
                                    [&](uint4* stages, gpu::Mbarrier* full, gpu::Mbarrier* empty) {
                                      multiply_splits(work, kv, stages, full, empty);
                                    });
}

}  // namespace
}  // namespace moebench::attention
