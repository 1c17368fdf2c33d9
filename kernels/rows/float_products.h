// Row products in float32: one running sum per (row, token), columns in ascending order.
//
// A few tokens: weights are decoded in registers as they stream by, so that a decoding step runs at
// the speed of memory. More: sixteen rows are decoded once into scratch, and tiles of six tokens
// pass over them.
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/rows/decode.h"
#include "kernels/rows/products.h"

namespace moebench::rows {
// Each file that includes this compiles it for another processor: nothing here may be shared by the
// linker.
namespace {

// Writes eight sums of one token, those of rows that exist.
template <class S>
void finish(const RowProduct& p, std::int64_t row, std::int64_t token, typename S::F32 sums) {
  float* out = p.out + token * p.out_stride + (row - p.begin_row);
  if (row + kRowGroup <= p.end_row) {
    S::store(out, p.bias != nullptr ? S::add(sums, S::load(p.bias + row)) : sums);
    return;
  }
  float lanes[kRowGroup];
  S::store(lanes, sums);
  for (std::int64_t r = row; r < p.end_row; ++r) {
    out[r - row] = lanes[r - row] + (p.bias != nullptr ? p.bias[r] : 0.0F);
  }
}

// Where the bytes of kGroups consecutive groups of rows begin.
template <int kGroups>
struct GroupBytes {
  const std::byte* data[kGroups];
  const std::byte* scales[kGroups];

  GroupBytes(const MatrixView& weight, std::int64_t row) {
    const Codec& c = codec(weight.format);
    for (int g = 0; g < kGroups; ++g) {
      const auto first = static_cast<std::size_t>(row + g * kRowGroup);
      data[g] = weight.data + first * c.row_data_bytes(weight.cols);
      scales[g] = weight.scales + first * c.row_scale_bytes(weight.cols);
    }
  }
};

// Bytes of the scales of one block in eight rows.
template <class W>
std::int64_t scale_stride(const MatrixView& weight) {
  if constexpr (W::kBlock == 0) return 0;
  return static_cast<std::int64_t>(codec(weight.format).row_scale_bytes(W::kBlock)) * kRowGroup;
}

constexpr std::int64_t kVectorBytes = 32;
constexpr std::int64_t kLineBytes = 64;

// How far ahead of its use memory is asked for: far enough for its latency, near enough to stay in
// the first cache. (Hardware prefetchers stop at every page of 4 KiB.) `offset` is within one of
// `groups` that are read side by side and `group_bytes` long: past its end comes what is read next,
// the same place of the group that many further on.
constexpr std::int64_t kPrefetchBytes = 1024;
[[maybe_unused]] std::int64_t prefetch_distance(std::int64_t offset, std::int64_t group_bytes,
                                                int groups) {
  return offset + kPrefetchBytes < group_bytes ? kPrefetchBytes
                                               : kPrefetchBytes + (groups - 1) * group_bytes;
}

// kTokens tokens by kGroups groups of eight rows, weights decoded on the way.
template <class S, class W, int kTokens, int kGroups>
void stream_tile(const RowProduct& p, std::int64_t row, std::int64_t token) {
  using F32 = typename S::F32;
  const MatrixView& weight = p.weight;
  GroupBytes<kGroups> group(weight, row);
  const float* x[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    x[t] = p.x[token + t];
  }
  F32 sums[kTokens][kGroups];
  for (auto& of_token : sums) {
    for (F32& sum : of_token) sum = S::zero();
  }
  const std::int64_t block = W::kBlock > 0 ? W::kBlock : weight.cols;
  const std::int64_t stride = scale_stride<W>(weight);
  const auto row_bytes =
      static_cast<std::int64_t>(codec(weight.format).row_data_bytes(weight.cols));
  const std::int64_t end = row_bytes * kRowGroup;
  std::int64_t offset = 0;
  for (std::int64_t begin = 0, b = 0; begin < weight.cols; begin += block, ++b) {
    F32 scale[kGroups];
    for (int g = 0; g < kGroups; ++g) {
      scale[g] = W::template scale<S>(group.scales[g] + b * stride, weight.tensor_scale);
    }
    for (std::int64_t c = begin; c < begin + block; c += W::kColumns, offset += kVectorBytes) {
      F32 w[kGroups][W::kColumns];
      if (offset % kLineBytes == 0) {
        const std::int64_t ahead = prefetch_distance(offset, end, kGroups);
        for (int g = 0; g < kGroups; ++g) S::prefetch(group.data[g] + offset + ahead);
      }
      for (int g = 0; g < kGroups; ++g) {
        W::template decode<S>(S::load_words(group.data[g] + offset), scale[g], w[g]);
      }
      for (int i = 0; i < W::kColumns; ++i) {
        for (int t = 0; t < kTokens; ++t) {
          const F32 input = S::set(x[t][c + i]);
          for (int g = 0; g < kGroups; ++g) {
            sums[t][g] = S::multiply_add(w[g][i], input, sums[t][g]);
          }
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int g = 0; g < kGroups; ++g) {
      finish<S>(p, row + g * kRowGroup, token + t, sums[t][g]);
    }
  }
}

// Decodes one group of rows into panel[c * 16 + lane].
template <class S, class W>
void decode_group(const MatrixView& weight, std::int64_t row, float* panel) {
  using F32 = typename S::F32;
  const GroupBytes<1> group(weight, row);
  const std::int64_t block = W::kBlock > 0 ? W::kBlock : weight.cols;
  const std::int64_t stride = scale_stride<W>(weight);
  const std::byte* data = group.data[0];
  for (std::int64_t begin = 0, b = 0; begin < weight.cols; begin += block, ++b) {
    const F32 scale = W::template scale<S>(group.scales[0] + b * stride, weight.tensor_scale);
    for (std::int64_t c = begin; c < begin + block; c += W::kColumns, data += kVectorBytes) {
      F32 w[W::kColumns];
      S::prefetch(data + kPrefetchBytes);
      W::template decode<S>(S::load_words(data), scale, w);
      for (int i = 0; i < W::kColumns; ++i) S::store(panel + (c + i) * 2 * kRowGroup, w[i]);
    }
  }
}

// kTokens tokens by the sixteen rows (or eight, kGroups = 1) of a decoded panel.
template <class S, int kTokens, int kGroups>
void panel_tile(const RowProduct& p, std::int64_t row, std::int64_t token) {
  using F32 = typename S::F32;
  const float* x[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    x[t] = p.x[token + t];
  }
  F32 sums[kTokens][kGroups];
  for (auto& of_token : sums) {
    for (F32& sum : of_token) sum = S::zero();
  }
  const float* w = p.scratch;
  for (std::int64_t c = 0; c < p.weight.cols; ++c, w += 2 * kRowGroup) {
    F32 column[kGroups];
    for (int g = 0; g < kGroups; ++g) column[g] = S::load(w + g * kRowGroup);
    for (int t = 0; t < kTokens; ++t) {
      const F32 input = S::set(x[t][c]);
      for (int g = 0; g < kGroups; ++g) {
        sums[t][g] = S::multiply_add(column[g], input, sums[t][g]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int g = 0; g < kGroups; ++g) {
      finish<S>(p, row + g * kRowGroup, token + t, sums[t][g]);
    }
  }
}

template <class S, class W, int kGroups>
void stream_tokens(const RowProduct& p, std::int64_t row) {
  std::int64_t token = 0;
  for (; token + 4 <= p.num_tokens; token += 4) stream_tile<S, W, 4, kGroups>(p, row, token);
  switch (p.num_tokens - token) {
    case 1:
      return stream_tile<S, W, 1, kGroups>(p, row, token);
    case 2:
      return stream_tile<S, W, 2, kGroups>(p, row, token);
    case 3:
      return stream_tile<S, W, 3, kGroups>(p, row, token);
    default:
      return;
  }
}

template <class S, class W, int kGroups>
void panel_tokens(const RowProduct& p, std::int64_t row) {
  for (int g = 0; g < kGroups; ++g) {
    decode_group<S, W>(p.weight, row + g * kRowGroup, p.scratch + g * kRowGroup);
  }
  std::int64_t token = 0;
  for (; token + 6 <= p.num_tokens; token += 6) panel_tile<S, 6, kGroups>(p, row, token);
  switch (p.num_tokens - token) {
    case 1:
      return panel_tile<S, 1, kGroups>(p, row, token);
    case 2:
      return panel_tile<S, 2, kGroups>(p, row, token);
    case 3:
      return panel_tile<S, 3, kGroups>(p, row, token);
    case 4:
      return panel_tile<S, 4, kGroups>(p, row, token);
    case 5:
      return panel_tile<S, 5, kGroups>(p, row, token);
    default:
      return;
  }
}

template <class S, class W>
void multiply_floats(const RowProduct& p) {
  // Up to how many tokens decoding the weights again for every four (from the second-level cache)
  // beats decoding them once into memory.
  constexpr std::int64_t kStreamed = W::kColumns <= 2 ? 16 : 4;
  std::int64_t row = p.begin_row;
  if (p.num_tokens == 1) {
    // Four groups: four running sums in flight, to hide the latency of multiply-add.
    for (; row + 3 * kRowGroup < p.end_row; row += 4 * kRowGroup) {
      stream_tile<S, W, 1, 4>(p, row, 0);
    }
  }
  for (; row + kRowGroup < p.end_row; row += 2 * kRowGroup) {
    p.num_tokens <= kStreamed ? stream_tokens<S, W, 2>(p, row) : panel_tokens<S, W, 2>(p, row);
  }
  if (row < p.end_row) {
    p.num_tokens <= kStreamed ? stream_tokens<S, W, 1>(p, row) : panel_tokens<S, W, 1>(p, row);
  }
}

[[maybe_unused]] std::size_t nothing_to_prepare(std::int64_t) { return 0; }

template <class S, class W>
struct Floats {
  static constexpr RowProducts kProducts = {nothing_to_prepare, nullptr, multiply_floats<S, W>};
};

// In the order of enum Format.
template <class S>
const RowProducts& float_products(Format format) {
  static constexpr RowProducts kAll[] = {
      Floats<S, DecodeF32>::kProducts,   Floats<S, DecodeBf16>::kProducts,
      Floats<S, DecodeF16>::kProducts,   Floats<S, DecodeFp8>::kProducts,
      Floats<S, DecodeInt8>::kProducts,  Floats<S, DecodeInt4>::kProducts,
      Floats<S, DecodeMxfp8>::kProducts, Floats<S, DecodeMxfp4>::kProducts,
      Floats<S, DecodeNvfp4>::kProducts};
  return kAll[static_cast<std::size_t>(format)];
}

}  // namespace
}  // namespace moebench::rows
