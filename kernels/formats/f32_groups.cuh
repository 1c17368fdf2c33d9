// Products in f32 with rows of weights in any format, 16 bytes of several rows at a time: what
// linear/cuda_rows_f32 and router/cuda_cluster share, so that both have the same bits.
//
// Lanes of a warp take groups l, l + 32, ... of a row; if column_splits says so, warps share a row,
// warp w of s taking the groups 32 w + l, 32 (w + s) + l, ... A lane adds up in the order of
// columns, then come warp_sum and finish_row. So a sum's order depends on the columns and the
// format alone.
#pragma once

#include "kernels/formats/device_decode.cuh"

namespace moebench::gpu {

// 16 bytes of each row, and their scales.
template <int kRows>
struct RowGroup {
  uint4 bytes[kRows];
  std::uint32_t scales[kRows];
};

template <Format kFormat, int kRows>
MOEBENCH_DEVICE RowGroup<kRows> load_group(const EncodedRow (&rows)[kRows], int group) {
  using Weights = DeviceFormat<kFormat>;
  RowGroup<kRows> g;
  MOEBENCH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    g.bytes[r] = load_streaming(rows[r].data + group * std::int64_t{16});
    g.scales[r] = Weights::load_scale(rows[r], group * Weights::kValues);
  }
  return g;
}

// A group's columns are used 8 at a time (4 if there are no more).
template <Format kFormat>
constexpr int kGroupPiece = DeviceFormat<kFormat>::kValues < 8 ? DeviceFormat<kFormat>::kValues : 8;

// Adds the products of one piece of a group to sums. `x` is at the tokens' rows, `column` the
// piece's first.
template <Format kFormat, int kRows, int kTokens>
MOEBENCH_DEVICE void multiply_piece(const RowGroup<kRows>& group, int piece,
                                    const float* const (&x)[kTokens], int column,
                                    float (&sums)[kRows][kTokens]) {
  using Weights = DeviceFormat<kFormat>;
  constexpr int kInWord = Weights::kValues / 4;
  constexpr int kWords = kGroupPiece<kFormat> / kInWord;
  float weights[kRows][kGroupPiece<kFormat>];
  MOEBENCH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    MOEBENCH_UNROLL
    for (int w = 0; w < kWords; ++w) {
      const int word = piece * kWords + w;
      float of_word[kInWord];
      Weights::decode_word(word_of(group.bytes[r], word), Weights::scale_of(group.scales[r], word),
                           of_word);
      MOEBENCH_UNROLL
      for (int i = 0; i < kInWord; ++i) weights[r][w * kInWord + i] = of_word[i];
    }
  }
  MOEBENCH_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kGroupPiece<kFormat>; i += 4) {
      const float4 xs = *reinterpret_cast<const float4*>(x[t] + column + i);
      MOEBENCH_UNROLL
      for (int r = 0; r < kRows; ++r) {
        sums[r][t] += weights[r][i] * xs.x;
        sums[r][t] += weights[r][i + 1] * xs.y;
        sums[r][t] += weights[r][i + 2] * xs.z;
        sums[r][t] += weights[r][i + 3] * xs.w;
      }
    }
  }
}

template <Format kFormat, int kRows, int kTokens>
MOEBENCH_DEVICE void multiply_group(const RowGroup<kRows>& group, const float* const (&x)[kTokens],
                                    int column, float (&sums)[kRows][kTokens]) {
  constexpr int kPieces = DeviceFormat<kFormat>::kValues / kGroupPiece<kFormat>;
  if constexpr (kTokens < 4) {
    MOEBENCH_UNROLL
    for (int piece = 0; piece < kPieces; ++piece) {
      multiply_piece<kFormat>(group, piece, x, column + piece * kGroupPiece<kFormat>, sums);
    }
  } else {
    MOEBENCH_NO_UNROLL  // or else more is decoded ahead than there are registers for
        for (int piece = 0; piece < kPieces; ++piece) {
      multiply_piece<kFormat>(group, piece, x, column + piece * kGroupPiece<kFormat>, sums);
    }
  }
}

// Warps that share a row: the more the better, as long as every lane has at least two groups.
constexpr int kMostSplits = 4;
inline int column_splits(int groups) {
  int splits = kMostSplits;
  while (splits > 1 && groups < 2 * kWarp * splits) splits /= 2;
  return splits;
}

// The sum of a row from those of its warps; `bias` null: none.
template <Format kFormat, class SumOfSplit>
MOEBENCH_DEVICE float finish_row(int splits, SumOfSplit&& sum_of_split, const EncodedRow& row,
                                 const float* bias) {
  float sum = 0;
  for (int split = 0; split < splits; ++split) sum += sum_of_split(split);
  sum *= DeviceFormat<kFormat>::row_factor(row);
  if (bias != nullptr) sum += *bias;
  return sum;
}

}  // namespace moebench::gpu
