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
// Counted for a tile of 192 rows, in cycles of an SM: products 768; exponents 768 (16 a cycle);
// instructions 830 (276 of each of 12 warps, of which joining is 23; four start in a cycle), where
// cuda_flash_wgmma has 550 for as many keys: half a stage at a time is half as much between two
// barriers. A prediction, not a measurement: 1.2 to 1.4 ms for 8,192 tokens of gpt-oss-20b in a
// layer with full attention (cuda_flash_wgmma: 1.03, measured), 20 to 23 ms for all layers (16.9).
// Measured since then, a prefill of 8,192 tokens in all: 146 ms, 160 by mma, 133 with
// cuda_flash_wgmma and what else `fast` has.
#pragma once

#include "kernels/attention/based_weights.cuh"
#include "kernels/attention/flash_splits.cuh"
#include "kernels/attention/wgmma_rows.cuh"

namespace moebench::attention {
namespace {

constexpr int kHalfKeys = kStageKeys / 2;  // a tile's, of which a stage has two
static_assert(kSplit % kHalfKeys == 0);

// Where the tile at this position begins in its stage.
MOEBENCH_DEVICE int key_of_stage(int tile) { return tile & (kStageKeys - 1); }

struct SplitRows : BasedRows<64, kHalfKeys, true> {
  float joined[32];  // as `sums`, of the splits before
  float joined_base[2];
  float joined_total[2];
  int first[2];  // positions that the rows see of the run at hand
  int last[2];

  MOEBENCH_DEVICE void begin() {
    clear();
    MOEBENCH_UNROLL
    for (float& sum : joined) sum = 0;
    joined_base[0] = joined_base[1] = kLowest;
    joined_total[0] = joined_total[1] = 0;
  }

  MOEBENCH_DEVICE void find_seen(const Work& work, const Item& item, const DeviceKv& kv,
                                 const Run& run) {
    find_positions(work, item, kv, run, last);
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) first[i] = work.window > 0 ? last[i] - work.window + 1 : 0;
  }

  // Sums of the split are then to be written, not added to: instead of zeros for which ptxas takes
  // two instructions each. A zero's sign, which may differ, is lost in the next join.
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
      base[i] = kLowest;
      total[i] = 0;
    }
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
    int tile = at.low / kHalfKeys * kHalfKeys;
    SplitRows rows;
    rows.begin();
    rows.find_seen(work, item, kv, at.run);
    SplitRows::Scores scores;
    gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
    group.multiply_keys<64>(scores, ring.stage(), key_of_stage(tile));
    gpu::wgmma_wait<0>(scores);
    bool adds = false;  // to sums of the split
    MOEBENCH_NO_UNROLL
    for (bool some = true; some;) {
      SplitRows::Weights weights;
      rows.weigh(scores, weights, tile, rows.first, rows.last, work.scale, tile % kSplit == 0);
      const int stage = ring.stage();
      const int first_value = key_of_stage(tile);
      tile += kHalfKeys;
      const bool ends_split = tile % kSplit == 0;
      const bool ends_run = tile >= at.high;
      // From one lane, so that the compiler knows the branches taken on it to be the warp's.
      some = gpu::shuffle(gpu::kAllLanes, static_cast<int>(!ends_run || at.run.end < item.end),
                          0) != 0;
      if (ends_run && some) {
        at.begin(kv, work.window, at.run.end, item.end);
        tile = at.low / kHalfKeys * kHalfKeys;
      }
      const bool ends_stage = ends_run || key_of_stage(tile) == 0;
      if (ends_stage) {
        ++ring.count;
        if (some) gpu::mbarrier_wait(&full[ring.stage()], ring.parity());
      }
      group.take_turn();
      group.multiply_values(rows.sums, weights, stage, first_value, adds);
      adds = !ends_split;
      if (some) {
        group.multiply_keys<64>(scores, ring.stage(), key_of_stage(tile));
        group.pass_turn();
        if (ends_run) rows.find_seen(work, item, kv, at.run);
        gpu::wgmma_wait<1>(rows.sums, weights);
        if (ends_stage) group.release(empty, stage);
        if (ends_split) rows.join_split();
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
