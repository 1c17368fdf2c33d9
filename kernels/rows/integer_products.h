// Row products of weights whose codes are small integers with inputs made integers too, in blocks
// of 32: exact within a block, one float32 multiply-add per block.
//
// 4-bit codes are looked up as unsigned bytes, code + offset (E2M1 doubled: 0 to 24; int4: 0 to
// 15), so that the instruction that multiplies unsigned by signed bytes needs no work on signs. A
// block's products are all added in 16 bits, where they may wrap around: the sum without the offset
// is at most 16 * 12 * 127 = 24384 in a lane, so starting from -offset * (sum of the lane's inputs)
// brings the true value back, and one instruction per block widens it.
//
// Two groups of rows (16) by up to 4 tokens share registers. Few tokens: codes are looked up as the
// weights stream by. More: once, into a panel in the second-level cache, and tiles of tokens pass
// over it.
//
// Only for AVX2: S is Avx2. (A template all the same, so that the linker keeps it apart.)
#pragma once

#include "kernels/rows/float_products.h"

namespace moebench::rows {
namespace {

constexpr std::int64_t kInputBlock = 32;

// --- Inputs --------------------------------------------------------------------------------------
//
// A record is one block of one token: kPlanes * 32 signed bytes (or 32 int16), a float scale and,
// for 4-bit weights, where the 16-bit sums start: two int16 for each plane and each block of
// weights. Records of the kInputTile tokens of a tile stand side by side, then those of the next
// block: a tile is read from front to back.
//
// Within eight columns the order is 0 2 4 6 1 3 5 7: a word of weights holds eight codes of a row,
// and masking it leaves the even columns, shifting it the odd ones.

template <int kPlanes, int kBlock>
constexpr std::int64_t kNibbleRecord = kPlanes* kInputBlock + 4 +
                                       4 * kPlanes*(kInputBlock / kBlock);
constexpr std::int64_t kByteRecord = 2 * kInputBlock + 4;

// The largest magnitude of a block; also a sum that is NaN unless all of it is finite.
template <class S>
float block_magnitude(const typename S::F32 (&x)[4], float* zero_if_finite) {
  const auto all_but_sign = S::set_words(0x7fffffff);
  auto largest = S::zero();
  auto zeros = S::zero();
  for (const auto& v : x) {
    largest = S::max(largest, S::as_float(S::bit_and(S::as_words(v), all_but_sign)));
    zeros = S::multiply_add(v, S::zero(), zeros);
  }
  *zero_if_finite = S::sum(zeros);
  return S::largest(largest);
}

// Rounds a block to integers of at most `limit`, as 32 int16 in order. Returns the scale.
template <class S>
float quantize_block(const float* x, float limit, typename S::I32 (&halves)[2]) {
  typename S::F32 v[4];
  for (int i = 0; i < 4; ++i) v[i] = S::load(x + 8 * i);
  float zero = 0.0F;
  const float largest = block_magnitude<S>(v, &zero);
  // Below the smallest normal float / limit the inverse would overflow; such blocks are zeros.
  const float inverse = largest > limit * 0x1p-120F ? limit / largest : 0.0F;
  const auto factor = S::set(inverse);
  for (int i = 0; i < 2; ++i) {
    halves[i] = S::pack_words(S::to_words(S::mul(v[2 * i], factor)),
                              S::to_words(S::mul(v[2 * i + 1], factor)));
  }
  return largest / limit + zero;
}

template <class S>
typename S::I32 evens_then_odds_of_bytes(typename S::I32 bytes) {
  static constexpr std::uint8_t kOrder[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  return S::look_up_bytes(bytes, S::byte_table(kOrder));
}

// Where the sums of one plane start: -offset * (sum of the inputs that a 16-bit lane will meet).
template <class S, int kBlock>
void store_starts(typename S::I32 bytes, std::int16_t offset, std::byte* to) {
  const auto pairs = S::multiply_halves(S::dot_bytes(S::set_bytes(1), bytes),
                                        S::set_halves(static_cast<std::int16_t>(-offset)));
  std::int32_t low = 0;
  std::int32_t high = 0;
  S::sum_word_halves(pairs, &low, &high);
  if constexpr (kBlock == 32) {
    low = S::add_two_halves(low, high);
  } else {
    std::memcpy(to + 4, &high, 4);
  }
  std::memcpy(to, &low, 4);
}

template <class S, class W, int kPlanes>
void prepare_nibble_input(const float* x, std::int64_t cols, std::byte* tile, std::int64_t slot,
                          std::int64_t first_column) {
  constexpr float kLimit = kPlanes == 1 ? 127.0F : 16319.0F;  // 127 * 128 + 63
  constexpr std::int64_t kRecord = kNibbleRecord<kPlanes, W::kBlock>;
  constexpr std::int64_t kStarts = 4 * (kInputBlock / W::kBlock);
  std::byte* to = tile + (first_column / kInputBlock * kInputTile + slot) * kRecord;
  for (std::int64_t c = 0; c < cols; c += kInputBlock, to += kInputTile * kRecord) {
    typename S::I32 halves[2];
    const float scale = W::kUnit * quantize_block<S>(x + c, kLimit, halves);
    typename S::I32 planes[2];
    if constexpr (kPlanes == 1) {
      planes[0] = S::pack_halves(halves[0], halves[1]);
    } else {
      typename S::I32 high[2];
      typename S::I32 low[2];
      for (int i = 0; i < 2; ++i) {
        high[i] = S::shift_signed_halves(S::add_halves(halves[i], S::set_halves(64)), 7);
        low[i] = S::sub_halves(halves[i], S::shift_left_halves(high[i], 7));
      }
      planes[0] = S::pack_halves(high[0], high[1]);
      planes[1] = S::pack_halves(low[0], low[1]);
    }
    std::memcpy(to + 32 * kPlanes, &scale, sizeof(scale));
    for (int i = 0; i < kPlanes; ++i) {
      const auto ordered = evens_then_odds_of_bytes<S>(planes[i]);
      S::store_words(to + 32 * i, ordered);
      store_starts<S, W::kBlock>(ordered, W::kOffset, to + 32 * kPlanes + 4 + kStarts * i);
    }
  }
}

// int16, within four columns 0 2 1 3.
template <class S>
void prepare_byte_input(const float* x, std::int64_t cols, std::byte* tile, std::int64_t slot,
                        std::int64_t first_column) {
  static constexpr std::uint8_t kOrder[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
  std::byte* to = tile + (first_column / kInputBlock * kInputTile + slot) * kByteRecord;
  for (std::int64_t c = 0; c < cols; c += kInputBlock, to += kInputTile * kByteRecord) {
    typename S::I32 halves[2];
    const float scale = quantize_block<S>(x + c, 32767.0F, halves);
    for (int i = 0; i < 2; ++i) {
      S::store_words(to + 32 * i, S::look_up_bytes(halves[i], S::byte_table(kOrder)));
    }
    std::memcpy(to + 64, &scale, sizeof(scale));
  }
}

// --- Weights -------------------------------------------------------------------------------------

struct NibblesInt4 {
  static constexpr int kBlock = 32;
  static constexpr std::int16_t kOffset = 8;
  static constexpr float kUnit = 1.0F;
  using Decode = DecodeInt4;
  template <class S>
  static typename S::I32 codes(typename S::I32 nibbles) {
    return nibbles;
  }
};

template <class DecodeType>
struct NibblesE2m1 {
  static constexpr int kBlock = DecodeType::kBlock;
  static constexpr std::int16_t kOffset = 12;
  static constexpr float kUnit = 0.5F;  // codes are doubled values
  using Decode = DecodeType;
  template <class S>
  static typename S::I32 codes(typename S::I32 nibbles) {
    static constexpr std::uint8_t kTable[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                12, 11, 10, 9,  8,  6,  4,  0};
    return S::look_up_bytes(S::byte_table(kTable), nibbles);
  }
};

// --- Products ------------------------------------------------------------------------------------

// Sixteen rows as bytes: for each block of 32 columns 8 vectors of codes of each of two groups of
// rows, alternating, and the scales of the block's rows as floats.
template <class W>
constexpr std::int64_t kPanelBlock = 16 * kVectorBytes +
                                     (kInputBlock / W::kBlock) * 2 * kVectorBytes;

// The codes of one step (8 columns): even and odd columns of the first group, then of the second.
template <class S, class W, int kGroups>
void look_up_codes(const std::byte* const* data, std::int64_t offset, typename S::I32* codes) {
  const auto mask = S::set_bytes(15);
  for (int g = 0; g < kGroups; ++g) {
    const auto words = S::load_words(data[g] + offset);
    codes[2 * g] = W::template codes<S>(S::bit_and(words, mask));
    codes[2 * g + 1] = W::template codes<S>(S::bit_and(S::shift_right_halves(words, 4), mask));
  }
}

template <class S, class W, int kGroups>
void fill_panel(const RowProduct& p, std::int64_t row) {
  const std::int64_t scale_bytes = scale_stride<typename W::Decode>(p.weight);
  GroupBytes<kGroups> group(p.weight, row);
  auto* panel = reinterpret_cast<std::byte*>(p.scratch);
  std::int64_t offset = 0;
  const std::int64_t blocks = p.weight.cols / kInputBlock;
  for (std::int64_t b = 0; b < blocks; ++b, panel += kPanelBlock<W>) {
    for (int step = 0; step < 4; ++step, offset += kVectorBytes) {
      typename S::I32 codes[2 * kGroups];
      if (step % 2 == 0) {
        const std::int64_t ahead = prefetch_distance(offset, blocks * 4 * kVectorBytes, kGroups);
        for (int g = 0; g < kGroups; ++g) S::prefetch(group.data[g] + offset + ahead);
      }
      look_up_codes<S, W, kGroups>(group.data, offset, codes);
      for (int i = 0; i < 2 * kGroups; ++i) {
        S::store_words(panel + (4 * step + i) * kVectorBytes, codes[i]);
      }
    }
    auto* floats = reinterpret_cast<float*>(panel + 16 * kVectorBytes);
    for (int s = 0; s < kInputBlock / W::kBlock; ++s) {
      for (int g = 0; g < kGroups; ++g) {
        S::store(floats + (2 * s + g) * kRowGroup,
                 W::Decode::template scale<S>(group.scales[g], p.weight.tensor_scale));
        group.scales[g] += scale_bytes;
      }
    }
  }
}

// kTokens tokens, `token` the first of its tile, by kGroups groups of rows. The panel is full, or
// the codes are looked up on the way.
template <class S, class W, int kPlanes, int kTokens, int kGroups, bool kPanel>
void nibble_tile(const RowProduct& p, std::int64_t row, std::int64_t token) {
  using F32 = typename S::F32;
  using I32 = typename S::I32;
  constexpr int kSubs = kInputBlock / W::kBlock;  // blocks of weights in one of inputs
  constexpr int kSteps = 4 / kSubs;               // of 8 columns, under one scale
  constexpr std::int64_t kRecord = kNibbleRecord<kPlanes, W::kBlock>;
  const std::int64_t scale_bytes = scale_stride<typename W::Decode>(p.weight);
  GroupBytes<kGroups> group(p.weight, row);
  const auto* panel = reinterpret_cast<const std::byte*>(p.scratch);
  const std::int64_t blocks = p.weight.cols / kInputBlock;
  const std::byte* x = p.prepared + (token / kInputTile * blocks * kInputTile) * kRecord +
                       token % kInputTile * kRecord;
  F32 sums[kTokens][kGroups];
  for (auto& of_token : sums) {
    for (F32& sum : of_token) sum = S::zero();
  }
  const I32 ones = S::set_halves(1);
  std::int64_t offset = 0;
  for (std::int64_t b = 0; b < blocks; ++b, x += kInputTile * kRecord, panel += kPanelBlock<W>) {
    const std::int64_t ahead = prefetch_distance(offset, blocks * 4 * kVectorBytes, kGroups);
    for (int s = 0; s < kSubs; ++s) {
      I32 lanes[kTokens][kPlanes][kGroups];
      for (int t = 0; t < kTokens; ++t) {
        for (int plane = 0; plane < kPlanes; ++plane) {
          const I32 start =
              S::broadcast_word(x + t * kRecord + 32 * kPlanes + 4 + 4 * (kSubs * plane + s));
          for (int g = 0; g < kGroups; ++g) lanes[t][plane][g] = start;
        }
      }
#pragma GCC unroll 4
      for (int step = kSteps * s; step < kSteps * (s + 1); ++step, offset += kVectorBytes) {
        I32 codes[2 * kGroups];
        if constexpr (kPanel) {
          for (int i = 0; i < 2 * kGroups; ++i) {
            codes[i] = S::load_words(panel + (4 * step + i) * kVectorBytes);
          }
        } else {
          if (step % 2 == 0) {
            for (int g = 0; g < kGroups; ++g) S::prefetch(group.data[g] + offset + ahead);
          }
          look_up_codes<S, W, kGroups>(group.data, offset, codes);
        }
        for (int odd = 0; odd < 2; ++odd) {
          for (int t = 0; t < kTokens; ++t) {
            for (int plane = 0; plane < kPlanes; ++plane) {
              const I32 input =
                  S::broadcast_word(x + t * kRecord + 32 * plane + 8 * step + 4 * odd);
              for (int g = 0; g < kGroups; ++g) {
                lanes[t][plane][g] = S::opaque(
                    S::add_halves(lanes[t][plane][g], S::dot_bytes(codes[2 * g + odd], input)));
              }
            }
          }
        }
      }
      F32 scale[kGroups];
      for (int g = 0; g < kGroups; ++g) {
        scale[g] = kPanel ? S::load(reinterpret_cast<const float*>(panel + 16 * kVectorBytes) +
                                    (2 * s + g) * kRowGroup)
                          : W::Decode::template scale<S>(group.scales[g], p.weight.tensor_scale);
        group.scales[g] += scale_bytes;
      }
      for (int t = 0; t < kTokens; ++t) {
        const F32 input_scale = S::broadcast_float(x + t * kRecord + 32 * kPlanes);
        for (int g = 0; g < kGroups; ++g) {
          I32 dot = S::dot_halves(lanes[t][0][g], ones);
          if constexpr (kPlanes == 2) {
            dot = S::add_words(S::shift_left(dot, 7), S::dot_halves(lanes[t][1][g], ones));
          }
          sums[t][g] = S::multiply_add(S::to_float(dot), S::mul(scale[g], input_scale), sums[t][g]);
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

// int8 weights, widened to int16: even columns of a word, then odd ones.
template <class S, int kTokens, int kGroups>
void byte_tile(const RowProduct& p, std::int64_t row, std::int64_t token) {
  using F32 = typename S::F32;
  using I32 = typename S::I32;
  GroupBytes<kGroups> group(p.weight, row);
  const std::int64_t blocks = p.weight.cols / kInputBlock;
  const std::byte* x = p.prepared + (token / kInputTile * blocks * kInputTile) * kByteRecord +
                       token % kInputTile * kByteRecord;
  F32 sums[kTokens][kGroups];
  for (auto& of_token : sums) {
    for (F32& sum : of_token) sum = S::zero();
  }
  std::int64_t offset = 0;
  for (std::int64_t b = 0; b < blocks; ++b, x += kInputTile * kByteRecord) {
    const std::int64_t ahead = prefetch_distance(offset, blocks * 8 * kVectorBytes, kGroups);
    I32 dots[kTokens][kGroups];
    for (auto& of_token : dots) {
      for (I32& dot : of_token) dot = S::set_words(0);
    }
#pragma GCC unroll 8
    for (int step = 0; step < 8; ++step, offset += kVectorBytes) {
      I32 codes[2][kGroups];
      for (int g = 0; g < kGroups; ++g) {
        if (step % 2 == 0) S::prefetch(group.data[g] + offset + ahead);
        const I32 words = S::load_words(group.data[g] + offset);
        codes[0][g] = S::shift_signed_halves(S::shift_left_halves(words, 8), 8);
        codes[1][g] = S::shift_signed_halves(words, 8);
      }
      for (int odd = 0; odd < 2; ++odd) {
        for (int t = 0; t < kTokens; ++t) {
          const I32 input = S::broadcast_word(x + t * kByteRecord + 8 * step + 4 * odd);
          for (int g = 0; g < kGroups; ++g) {
            dots[t][g] = S::opaque(S::add_words(dots[t][g], S::dot_halves(codes[odd][g], input)));
          }
        }
      }
    }
    for (int g = 0; g < kGroups; ++g) {
      const F32 scale = S::load_f16(group.scales[g] + 2 * kRowGroup * b);
      for (int t = 0; t < kTokens; ++t) {
        const F32 input_scale = S::broadcast_float(x + t * kByteRecord + 64);
        sums[t][g] =
            S::multiply_add(S::to_float(dots[t][g]), S::mul(scale, input_scale), sums[t][g]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int g = 0; g < kGroups; ++g) {
      finish<S>(p, row + g * kRowGroup, token + t, sums[t][g]);
    }
  }
}

// Covers tokens from `token` on with tiles of kTokens, and the rest with smaller ones.
template <class Tile, int kTokens, int kGroups, bool kPanel>
void tile_tokens(const RowProduct& p, std::int64_t row, std::int64_t token) {
  for (; token + kTokens <= p.num_tokens; token += kTokens) {
    Tile::template run<kTokens, kGroups, kPanel>(p, row, token);
  }
  if constexpr (kTokens > 1) {
    if (token < p.num_tokens) tile_tokens<Tile, kTokens - 1, kGroups, kPanel>(p, row, token);
  }
}

template <class S, class W, int kPlanes>
struct Nibbles {
  // Eight running sums of 16 bits, in registers.
  static constexpr int kTokens = kInputTile / kPlanes;
  // More tokens than this are worth a panel.
  static constexpr std::int64_t kStreamed = 4;

  template <int kCount, int kGroups, bool kPanel>
  static void run(const RowProduct& p, std::int64_t row, std::int64_t token) {
    nibble_tile<S, W, kPlanes, kCount, kGroups, kPanel>(p, row, token);
  }
  template <int kGroups>
  static void multiply_groups(const RowProduct& p, std::int64_t row) {
    if (p.num_tokens <= kStreamed) {
      tile_tokens<Nibbles, kTokens, kGroups, false>(p, row, 0);
      return;
    }
    fill_panel<S, W, kGroups>(p, row);
    tile_tokens<Nibbles, kTokens, kGroups, true>(p, row, 0);
  }
  static void multiply(const RowProduct& p) {
    std::int64_t row = p.begin_row;
    for (; row + kRowGroup < p.end_row; row += 2 * kRowGroup) multiply_groups<2>(p, row);
    if (row < p.end_row) multiply_groups<1>(p, row);
  }
  static std::size_t prepared_bytes(std::int64_t cols) {
    return static_cast<std::size_t>(cols / kInputBlock * kNibbleRecord<kPlanes, W::kBlock>);
  }
  static constexpr RowProducts kProducts = {prepared_bytes, prepare_nibble_input<S, W, kPlanes>,
                                            multiply};
};

template <class S>
struct Bytes {
  template <int kCount, int kGroups, bool kPanel>
  static void run(const RowProduct& p, std::int64_t row, std::int64_t token) {
    byte_tile<S, kCount, kGroups>(p, row, token);
  }
  static void multiply(const RowProduct& p) {
    std::int64_t row = p.begin_row;
    for (; row + kRowGroup < p.end_row; row += 2 * kRowGroup) {
      tile_tokens<Bytes, kInputTile, 2, false>(p, row, 0);
    }
    if (row < p.end_row) tile_tokens<Bytes, kInputTile, 1, false>(p, row, 0);
  }
  static std::size_t prepared_bytes(std::int64_t cols) {
    return static_cast<std::size_t>(cols / kInputBlock * kByteRecord);
  }
  static constexpr RowProducts kProducts = {prepared_bytes, prepare_byte_input<S>, multiply};
};

template <class S, int kPlanes>
const RowProducts& integer_products(Format format) {
  switch (format) {
    case Format::kInt8:
      return Bytes<S>::kProducts;
    case Format::kInt4:
      return Nibbles<S, NibblesInt4, kPlanes>::kProducts;
    case Format::kMxfp4:
      return Nibbles<S, NibblesE2m1<DecodeMxfp4>, kPlanes>::kProducts;
    case Format::kNvfp4:
      return Nibbles<S, NibblesE2m1<DecodeNvfp4>, kPlanes>::kProducts;
    default:
      return float_products<S>(format);
  }
}

}  // namespace
}  // namespace moebench::rows
