// Weights of a tile of keys as 2^(score - base), and what a thread keeps of the two rows that it
// has of a product of tensor cores, mma's or wgmma's: both give it columns 8n + 2t and the next, t
// its place among the four threads that share the rows.
//
// A row's base stays until a thread's weights of a tile come to more than 2^16: then the tile is
// weighed again, by its largest score, and sums are rescaled. So hardly ever is there a maximum to
// be found or a sum to rescale. Tiles that a row does not see leave it as it is.
#pragma once

#include <cstdint>

#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

constexpr float kLowest = -1.0e30F;  // below any score, and finite: differences stay numbers
constexpr float kMost = 0x1p16F;     // of weights in a tile, before a row's base is raised

// kBeginsAtLargest: the base is the largest score of the first tile that a row sees after clear(),
// which is found before anything is weighed. Otherwise that tile is the first to be weighed again:
// less code, and slower where rows begin anew often.
template <int kHeadDim, int kTileKeys, bool kBeginsAtLargest>
struct BasedRows {
  using Scores = float[kTileKeys / 2];
  // As the second product wants them on its left side, 16 keys each.
  using Weights = std::uint32_t[kTileKeys / 16][4];

  float sums[kHeadDim / 2];
  float base[2];   // of the exponents
  float total[2];  // of this thread's weights

  MOEBENCH_DEVICE void clear() {
    MOEBENCH_UNROLL
    for (float& sum : sums) sum = 0;
    base[0] = base[1] = kLowest;
    total[0] = total[1] = 0;
  }

  // Turns the scores of the tile that begins at position `tile` into weights, and makes totals and
  // sums ready for them. The rows see positions [first, last]. `anew`: they may have been cleared
  // since the tile before.
  MOEBENCH_DEVICE void weigh(Scores& scores, Weights& weights, int tile, const int (&first)[2],
                             const int (&last)[2], float scale, bool anew) {
    const bool hides = hide(scores, tile, first, last);
    const bool begins = anew || hides;
    if constexpr (kBeginsAtLargest) {
      if (gpu::any(gpu::kAllLanes, begins)) begin_at_largest(scores, tile, first, last, scale);
    }
    float added[2];
    weigh_by_base(scores, weights, scale, added);
    const bool beyond[2] = {added[0] > kMost, added[1] > kMost};
    if (gpu::any(gpu::kAllLanes, beyond[0] || beyond[1])) {
      raise_base(scores, beyond, scale);
      weigh_by_base(scores, weights, scale, added);
    }
    total[0] += added[0];
    total[1] += added[1];
  }

  // Scores of positions that a row does not see become minus infinity; whether a row may not see
  // all of the tile, or the position before it.
  MOEBENCH_DEVICE static bool hide(Scores& scores, int tile, const int (&first)[2],
                                   const int (&last)[2]) {
    const float nothing = gpu::float_from_bits(0xff800000U);  // minus infinity
    const int column = gpu::lane_id() % 4 * 2;
    bool hides = false;
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      if (first[i] < tile + (kBeginsAtLargest ? 0 : 1) && last[i] >= tile + kTileKeys - 1) continue;
      hides = true;
      const int low = first[i] - tile - column;
      const int high = last[i] - tile - column;
      MOEBENCH_UNROLL
      for (int n = 0; n < kTileKeys / 8; ++n) {
        MOEBENCH_UNROLL
        for (int c = 0; c < 2; ++c) {
          if (8 * n + c < low || 8 * n + c > high) scores[4 * n + 2 * i + c] = nothing;
        }
      }
    }
    return hides;
  }

  // The sum of weights of row i, which its four threads have in parts.
  MOEBENCH_DEVICE float total_of_row(int i) const {
    float all = total[i];
    all += gpu::shuffle_xor(gpu::kAllLanes, all, 1);
    all += gpu::shuffle_xor(gpu::kAllLanes, all, 2);
    return all;
  }

  // And what they add to this thread's totals.
  MOEBENCH_DEVICE void weigh_by_base(const Scores& scores, Weights& weights, float scale,
                                     float (&added)[2]) const {
    added[0] = added[1] = 0;
    MOEBENCH_UNROLL
    for (int k = 0; k < kTileKeys / 16; ++k) {
      MOEBENCH_UNROLL
      for (int j = 0; j < 4; ++j) {  // both rows, then both rows 8 columns on
        const float* pair = &scores[8 * k + 2 * j];
        const float first = gpu::exp2_fast(pair[0] * scale - base[j % 2]);
        const float second = gpu::exp2_fast(pair[1] * scale - base[j % 2]);
        added[j % 2] += first + second;
        weights[k][j] = gpu::pack_bf16(first, second);
      }
    }
  }

  MOEBENCH_DEVICE static float largest_of(const Scores& scores, int i) {
    float most = kLowest;
    MOEBENCH_UNROLL
    for (int n = 0; n < kTileKeys / 8; ++n) {
      most = fmaxf(most, fmaxf(scores[4 * n + 2 * i], scores[4 * n + 2 * i + 1]));
    }
    most = fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 1));
    return fmaxf(most, gpu::shuffle_xor(gpu::kAllLanes, most, 2));
  }

 private:
  MOEBENCH_DEVICE void begin_at_largest(const Scores& scores, int tile, const int (&first)[2],
                                        const int (&last)[2], float scale) {
    bool begins = false;
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      begins = begins || (base[i] == kLowest && last[i] >= tile && first[i] < tile + kTileKeys);
    }
    if (!gpu::any(gpu::kAllLanes, begins)) return;
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float most = largest_of(scores, i);
      if (base[i] == kLowest && most > kLowest) base[i] = most * scale;
    }
  }

  // Rows that went beyond in one of their four threads get their largest score as a base.
  MOEBENCH_DEVICE void raise_base(const Scores& scores, const bool (&beyond)[2], float scale) {
    float factors[2];
    MOEBENCH_UNROLL
    for (int i = 0; i < 2; ++i) {
      const float most = largest_of(scores, i);
      const unsigned threads = gpu::ballot(gpu::kAllLanes, beyond[i]) >> gpu::lane_id() / 4 * 4;
      const float raised = (threads & 15U) != 0 ? most * scale : base[i];
      factors[i] = gpu::exp2_fast(base[i] - raised);
      base[i] = raised;
      total[i] *= factors[i];
    }
    MOEBENCH_UNROLL
    for (int j = 0; j < kHeadDim / 2; ++j) sums[j] *= factors[j / 2 % 2];
  }
};

}  // namespace
}  // namespace moebench::attention
