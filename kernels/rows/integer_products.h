// Row products of weights whose codes are small integers with inputs made integers too, in blocks
// of 32: exact within a block, one float32 multiply-add per block.
//
// 4-bit codes are looked up as unsigned bytes, code + offset (E2M1 doubled: 0 to 24; int4: 0 to
// 15), so that the instruction that multiplies unsigned by signed bytes needs no work on signs; the
// offset is undone by starting each block from -offset * (sum of the block's inputs). Four byte
// products of at most 24 * 127 (and their neighbours) fit 16 bits, so they are added there before
// they are widened.
//
// Only for AVX2: S is Avx2. (A template all the same, so that the linker keeps it apart.)
#pragma once

#include "kernels/rows/float_products.h"

namespace moebench::rows {
namespace {

constexpr std::int64_t kInputBlock = 32;

// --- Inputs --------------------------------------------------------------------------------------
//
// A prepared input is, per block: kPlanes * 32 signed bytes (or 32 int16), a float scale and
// 32 / kSub int32 sums. Within eight columns the order is 0 2 4 6 1 3 5 7: a word of weights holds
// eight codes of a row, and masking it leaves the even columns, shifting it the odd ones.

template <int kPlanes, int kSub>
constexpr std::int64_t kNibbleInputStride = kPlanes * kInputBlock + 4 + 4 * (kInputBlock / kSub);
constexpr std::int64_t kByteInputStride = 2 * kInputBlock + 4;

// The largest magnitude of a block; also a sum that is NaN unless all of it is finite.
template <class S>
float block_magnitude(const typename S::F32 (&x)[4], float* zero_if_finite) {
  const auto sign = S::set_words(std::numeric_limits<std::int32_t>::min());
  auto largest = S::zero();
  auto zeros = S::zero();
  for (const auto& v : x) {
    const auto bits = S::as_words(v);
    largest = S::max(largest, S::as_float(S::bit_xor(S::bit_and(bits, sign), bits)));
    zeros = S::multiply_add(v, S::zero(), zeros);
  }
  *zero_if_finite = S::sum(zeros);
  return S::largest(largest);
}

// Rounds a block to integers of at most `limit`, as 32 int16 in order. Returns the scale.
template <class S>
float quantize_block(const float* x, float limit, typename S::I32 (&halves)[2],
                     typename S::F32 (&rounded)[4]) {
  typename S::F32 v[4];
  for (int i = 0; i < 4; ++i) v[i] = S::load(x + 8 * i);
  float zero = 0.0F;
  const float largest = block_magnitude<S>(v, &zero);
  // Below the smallest normal float / limit the inverse would overflow; such blocks are zeros.
  const float inverse = largest > limit * 0x1p-120F ? limit / largest : 0.0F;
  for (int i = 0; i < 4; ++i) rounded[i] = S::round(S::mul(v[i], S::set(inverse)));
  for (int i = 0; i < 2; ++i) {
    halves[i] = S::pack_words(S::to_words(rounded[2 * i]), S::to_words(rounded[2 * i + 1]));
  }
  return largest / limit + zero;
}

template <class S>
typename S::I32 evens_then_odds_of_bytes(typename S::I32 bytes) {
  static constexpr std::uint8_t kOrder[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  return S::look_up_bytes(bytes, S::byte_table(kOrder));
}

template <class S, class W, int kPlanes>
void prepare_nibble_input(const float* x, std::int64_t cols, std::byte* to) {
  constexpr float kLimit = kPlanes == 1 ? 127.0F : 16319.0F;  // 127 * 128 + 63
  constexpr std::int64_t kStride = kNibbleInputStride<kPlanes, W::kBlock>;
  for (std::int64_t c = 0; c < cols; c += kInputBlock, to += kStride) {
    typename S::I32 halves[2];
    typename S::F32 rounded[4];
    const float scale = W::kUnit * quantize_block<S>(x + c, kLimit, halves, rounded);
    if constexpr (kPlanes == 1) {
      S::store_words(to, evens_then_odds_of_bytes<S>(S::pack_halves(halves[0], halves[1])));
    } else {
      typename S::I32 high[2];
      typename S::I32 low[2];
      for (int i = 0; i < 2; ++i) {
        high[i] = S::shift_signed_halves(S::add_halves(halves[i], S::set_halves(64)), 7);
        low[i] = S::sub_halves(halves[i], S::shift_left_halves(high[i], 7));
      }
      S::store_words(to, evens_then_odds_of_bytes<S>(S::pack_halves(high[0], high[1])));
      S::store_words(to + 32, evens_then_odds_of_bytes<S>(S::pack_halves(low[0], low[1])));
    }
    std::memcpy(to + 32 * kPlanes, &scale, sizeof(scale));
    const float first = S::sum(S::add(rounded[0], rounded[1]));  // integers: exact
    const float second = S::sum(S::add(rounded[2], rounded[3]));
    std::int32_t starts[2] = {static_cast<std::int32_t>(-W::kOffset * first),
                              static_cast<std::int32_t>(-W::kOffset * second)};
    if (W::kBlock == 32) starts[0] += starts[1];
    std::memcpy(to + 32 * kPlanes + 4, starts, 4 * (kInputBlock / W::kBlock));
  }
}

// int16, within four columns 0 2 1 3.
template <class S>
void prepare_byte_input(const float* x, std::int64_t cols, std::byte* to) {
  static constexpr std::uint8_t kOrder[16] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15};
  for (std::int64_t c = 0; c < cols; c += kInputBlock, to += kByteInputStride) {
    typename S::I32 halves[2];
    typename S::F32 rounded[4];
    const float scale = quantize_block<S>(x + c, 32767.0F, halves, rounded);
    for (int i = 0; i < 2; ++i) {
      S::store_words(to + 32 * i, S::look_up_bytes(halves[i], S::byte_table(kOrder)));
    }
    std::memcpy(to + 64, &scale, sizeof(scale));
  }
}

// --- Weights -------------------------------------------------------------------------------------

struct NibblesInt4 {
  static constexpr int kBlock = 32;
  static constexpr float kOffset = 8.0F;
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
  static constexpr float kOffset = 12.0F;
  static constexpr float kUnit = 0.5F;  // codes are doubled values
  using Decode = DecodeType;
  template <class S>
  static typename S::I32 codes(typename S::I32 nibbles) {
    static constexpr std::uint8_t kTable[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                12, 11, 10, 9,  8,  6,  4,  0};
    return S::look_up_bytes(S::byte_table(kTable), nibbles);
  }
};

// The sum of products of kCount vectors of codes with as many words of one plane of inputs.
template <class S, int kCount>
typename S::I32 dot_plane(const typename S::I32* codes, const std::byte* x) {
  static_assert(kCount % 4 == 0);
  auto total = S::set_words(0);
  for (int i = 0; i < kCount; i += 4) {
    auto halves = S::dot_bytes(codes[i], S::broadcast_word(x + 4 * i));
    for (int j = 1; j < 4; ++j) {
      halves =
          S::add_halves(halves, S::dot_bytes(codes[i + j], S::broadcast_word(x + 4 * (i + j))));
    }
    total = S::add_words(total, S::dot_halves(halves, S::set_halves(1)));
  }
  return total;
}

template <class S, class W, int kPlanes, int kTokens>
void nibble_tile(const RowProduct& p, std::int64_t row, std::int64_t token) {
  using F32 = typename S::F32;
  using I32 = typename S::I32;
  constexpr int kSubs = kInputBlock / W::kBlock;
  constexpr int kCodes = 8 / kSubs;  // vectors of codes under one scale
  constexpr std::int64_t kStride = kNibbleInputStride<kPlanes, W::kBlock>;
  const GroupBytes bytes = group_bytes(p.weight, row);
  const std::int64_t scale_bytes = scale_stride<typename W::Decode>(p.weight);
  const std::byte* data = bytes.data;
  const std::byte* scales = bytes.scales;
  const std::byte* const* inputs = p.inputs + token;
  F32 sums[kTokens];
  for (F32& sum : sums) sum = S::zero();
  const std::int64_t blocks = p.weight.cols / kInputBlock;
  for (std::int64_t b = 0; b < blocks; ++b) {
    I32 codes[8];
    for (int i = 0; i < 4; ++i, data += kVectorBytes) {
      S::prefetch(data + kPrefetchBytes);
      const I32 words = S::load_words(data);
      const I32 mask = S::set_bytes(15);
      codes[2 * i] = W::template codes<S>(S::bit_and(words, mask));
      codes[2 * i + 1] = W::template codes<S>(S::bit_and(S::shift_right_halves(words, 4), mask));
    }
    F32 scale[kSubs];
    for (int s = 0; s < kSubs; ++s, scales += scale_bytes) {
      scale[s] = W::Decode::template scale<S>(scales, p.weight.tensor_scale);
    }
    for (int t = 0; t < kTokens; ++t) {
      const std::byte* x = inputs[t] + b * kStride;
      const F32 input_scale = S::broadcast_float(x + 32 * kPlanes);
      for (int s = 0; s < kSubs; ++s) {
        const std::byte* at = x + 4 * kCodes * s;
        I32 dot = dot_plane<S, kCodes>(codes + kCodes * s, at);
        if constexpr (kPlanes == 2) {
          dot = S::add_words(S::shift_left(dot, 7),
                             dot_plane<S, kCodes>(codes + kCodes * s, at + 32));
        }
        dot = S::add_words(dot, S::broadcast_word(x + 32 * kPlanes + 4 + 4 * s));
        sums[t] = S::multiply_add(S::to_float(dot), S::mul(scale[s], input_scale), sums[t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) finish<S>(p, row, token + t, sums[t]);
}

// int8 weights, widened to int16: even columns of a word, then odd ones.
template <class S, int kTokens>
void byte_tile(const RowProduct& p, std::int64_t row, std::int64_t token) {
  using F32 = typename S::F32;
  using I32 = typename S::I32;
  const GroupBytes bytes = group_bytes(p.weight, row);
  const std::byte* data = bytes.data;
  const std::byte* scales = bytes.scales;
  const std::byte* const* inputs = p.inputs + token;
  F32 sums[kTokens];
  for (F32& sum : sums) sum = S::zero();
  const std::int64_t blocks = p.weight.cols / kInputBlock;
  for (std::int64_t b = 0; b < blocks; ++b, scales += 2 * kRowGroup) {
    I32 dots[kTokens];
    for (I32& dot : dots) dot = S::set_words(0);
    for (int half = 0; half < 2; ++half) {
      I32 codes[8];
      for (int i = 0; i < 4; ++i, data += kVectorBytes) {
        S::prefetch(data + kPrefetchBytes);
        const I32 words = S::load_words(data);
        codes[2 * i] = S::shift_signed_halves(S::shift_left_halves(words, 8), 8);
        codes[2 * i + 1] = S::shift_signed_halves(words, 8);
      }
      for (int t = 0; t < kTokens; ++t) {
        const std::byte* x = inputs[t] + b * kByteInputStride + 32 * half;
        for (int i = 0; i < 8; ++i) {
          dots[t] =
              S::add_words(dots[t], S::dot_halves(codes[i], S::broadcast_word(x + 4 * i)));
        }
      }
    }
    const F32 scale = S::load_f16(scales);
    for (int t = 0; t < kTokens; ++t) {
      const F32 input_scale = S::broadcast_float(inputs[t] + b * kByteInputStride + 64);
      sums[t] = S::multiply_add(S::to_float(dots[t]), S::mul(scale, input_scale), sums[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) finish<S>(p, row, token + t, sums[t]);
}

// Covers tokens from `token` on with tiles of kTokens, and the rest with smaller ones.
template <class Tile, int kTokens>
void tile_tokens(const RowProduct& p, std::int64_t row, std::int64_t token) {
  for (; token + kTokens <= p.num_tokens; token += kTokens) {
    Tile::template run<kTokens>(p, row, token);
  }
  if constexpr (kTokens > 1) {
    if (token < p.num_tokens) tile_tokens<Tile, kTokens - 1>(p, row, token);
  }
}

template <class S, class W, int kPlanes>
struct Nibbles {
  template <int kTokens>
  static void run(const RowProduct& p, std::int64_t row, std::int64_t token) {
    nibble_tile<S, W, kPlanes, kTokens>(p, row, token);
  }
  static std::size_t prepared_bytes(std::int64_t cols) {
    return static_cast<std::size_t>(cols / kInputBlock * kNibbleInputStride<kPlanes, W::kBlock>);
  }
  static void multiply(const RowProduct& p) {
    for (std::int64_t row = p.begin_row; row < p.end_row; row += kRowGroup) {
      tile_tokens<Nibbles, 8>(p, row, 0);
    }
  }
  static constexpr RowProducts kProducts = {prepared_bytes, prepare_nibble_input<S, W, kPlanes>,
                                            multiply};
};

template <class S>
struct Bytes {
  template <int kTokens>
  static void run(const RowProduct& p, std::int64_t row, std::int64_t token) {
    byte_tile<S, kTokens>(p, row, token);
  }
  static std::size_t prepared_bytes(std::int64_t cols) {
    return static_cast<std::size_t>(cols / kInputBlock * kByteInputStride);
  }
  static void multiply(const RowProduct& p) {
    for (std::int64_t row = p.begin_row; row < p.end_row; row += kRowGroup) {
      tile_tokens<Bytes, 4>(p, row, 0);
    }
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
