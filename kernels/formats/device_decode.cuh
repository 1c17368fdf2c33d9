// Decoding weights on the GPU: 16 bytes of a row at a time, in every format.
//
// A row's bytes are those of its codec (see <format>.cpp), row-major. Columns are a multiple of 32,
// so that every row begins at a multiple of 16 bytes and holds whole 16-byte groups.
//
// Three ways to read the 16 bytes that begin at some column:
//
//   decode        floats, exactly what the codec decodes to
//   decode_word   floats of one of the four words, times a scale of the caller's choice. With scale
//                 1 the elements alone, whose sum of products is then multiplied by scale_of and by
//                 row_factor: fewer instructions a weight
//   decode_bf16   pairs of bf16 for tensor cores, a few instructions a pair: bit tricks that place
//                 an element's bits as a bf16's, and one multiplication that mends the exponent and
//                 applies the block's scale. Still to be multiplied by row_factor. Rounds: f32 and
//                 f16 elements, int8's product with its scale, and int4's scale and product; the
//                 others are exact down to 2^-133, where bf16 ends.
//
// decode_bf16 gives columns in order, except for 4-bit formats, where each 8 columns come as
// 0 4 1 5 2 6 3 7: the order that one mask takes two nibbles out of a word in. A sum over columns
// does not mind if its other operand is in the same order, which pack_inputs puts it in.
#pragma once

#include "kernels/core/gpu.cuh"
#include "kernels/formats/format.h"

namespace moebench::gpu {

// One row of a matrix: its elements, and its scales.
struct EncodedRow {
  const unsigned char* data;    // aligned to 16
  const unsigned char* scales;  // null if the format has none; aligned to the size of one scale
  float tensor_scale;
};

MOEBENCH_DEVICE std::uint32_t word_of(const uint4& bytes, int i) {
  return i == 0 ? bytes.x : i == 1 ? bytes.y : i == 2 ? bytes.z : bytes.w;
}

// Float8 E4M3 code (not NaN): its bits moved into a float's are the value over 2^120.
MOEBENCH_DEVICE float e4m3_to_float(std::uint32_t code) {
  return float_from_bits((code & 0x80U) << 24 | (code & 0x7fU) << 20) * 0x1p120F;
}
// 2^(code - 127); code 0 is the subnormal 2^-127.
MOEBENCH_DEVICE float e8m0_to_float(std::uint32_t code) {
  return float_from_bits(code == 0 ? 0x00400000U : code << 23);
}
// E2M1 code: likewise, two bits of exponent and one of mantissa.
MOEBENCH_DEVICE float e2m1_to_float(std::uint32_t code) {
  return float_from_bits((code & 8U) << 28 | (code & 7U) << 22) * 0x1p126F;
}

// 2^exponent in both halves, exponent in [-126, 127].
MOEBENCH_DEVICE std::uint32_t power_of_two_bf16x2(int exponent) {
  return static_cast<std::uint32_t>(exponent + 127) * 0x00800080U;
}

// Columns 2 pair, 2 pair + 1 of four E4M3 codes: bf16 values over 2^120.
MOEBENCH_DEVICE std::uint32_t e4m3_bits(std::uint32_t codes, int pair) {
  const std::uint32_t high = byte_permute(codes, 0, pair == 0 ? 0x1404U : 0x3424U);
  return (high & 0x80008000U) | (high >> 4 & 0x07f007f0U);
}
// Columns pair, pair + 4 of eight E2M1 codes: bf16 values over 2^126. Two copies of a nibble, made
// by one multiplication, have its sign and its other bits where bf16 wants them.
MOEBENCH_DEVICE std::uint32_t e2m1_bits(std::uint32_t codes, int pair) {
  const std::uint32_t two_bytes = pair < 2 ? codes : codes >> 8;
  return (pair % 2 == 0 ? (two_bytes & 0x000f000fU) * 0x1040U
                        : (two_bytes & 0x00f000f0U) * 0x0104U) &
         0x81c081c0U;
}
// Columns pair, pair + 4 of eight int4 codes in [0, 16): bf16 128 + code.
MOEBENCH_DEVICE std::uint32_t int4_plus_128(std::uint32_t codes, int pair) {
  return (codes >> 4 * pair & 0x000f000fU) | 0x43004300U;
}
// Column i of four int8 codes: 2^15 + 128 + code, which float holds exactly.
MOEBENCH_DEVICE float int8_plus_32896(std::uint32_t codes, int i) {
  return float_from_bits(
      byte_permute(codes ^ 0x80808080U, 0x47000000U, 0x7404U + static_cast<unsigned>(i) * 0x10U));
}

// The E8M0 scale times 2^base (-7 or -1 below) goes to bf16 in one factor, unless it is too large:
// then the rest follows in a second one.
// Not kAny: it is known not to be.
template <bool kAny, int kPairs, class Bits>
MOEBENCH_DEVICE void scale_e8m0(std::uint32_t scale, int mend, Bits&& bits,
                                std::uint32_t (&pairs)[kPairs]) {
  if constexpr (!kAny) {
    const std::uint32_t factor = power_of_two_bf16x2(static_cast<int>(scale) - 127 + mend);
    MOEBENCH_UNROLL
    for (int i = 0; i < kPairs; ++i) pairs[i] = multiply_bf16x2(bits(i), factor);
    return;
  }
  const int exponent = static_cast<int>(scale) - 127 + mend;
  const std::uint32_t factor = power_of_two_bf16x2(exponent < 127 ? exponent : 127);
  MOEBENCH_UNROLL
  for (int i = 0; i < kPairs; ++i) pairs[i] = multiply_bf16x2(bits(i), factor);
  if (exponent > 127) {
    const std::uint32_t rest = power_of_two_bf16x2(exponent - 127);
    MOEBENCH_UNROLL
    for (int i = 0; i < kPairs; ++i) pairs[i] = multiply_bf16x2(pairs[i], rest);
  }
}

// What DeviceFormat below is made of:
//   kValues         values in 16 bytes
//   kWordsPerScale  words that share a scale, 0 if there is none but the row's
//   kHasRowFactor   whether row_factor is anything but 1
//   load_scale      the bits of the scales of the 16 bytes at `column`
//   scale_of        the scale of word i, from those bits
//   kMostSimple     scale bits up to this decode without a test for large ones: decode_bf16<false>
template <Format kFormat>
struct FormatParts;

struct WithoutScale {
  static constexpr std::uint32_t kMostSimple = 0xffffffffU;
  static constexpr int kWordsPerScale = 0;
  static constexpr bool kHasRowFactor = false;
  MOEBENCH_DEVICE static std::uint32_t load_scale(const EncodedRow&, int) { return 0; }
  MOEBENCH_DEVICE static float scale_of(std::uint32_t, int) { return 1.0F; }
  MOEBENCH_DEVICE static float row_factor(const EncodedRow&) { return 1.0F; }
};
struct Float16Scale : WithoutScale {
  static constexpr int kWordsPerScale = 4;
  MOEBENCH_DEVICE static std::uint32_t load_scale(const EncodedRow& row, int column) {
    return load_constant(reinterpret_cast<const std::uint16_t*>(row.scales) + column / 32);
  }
  MOEBENCH_DEVICE static float scale_of(std::uint32_t scale, int) {
    return f16_to_float(static_cast<std::uint16_t>(scale));
  }
};
struct E8m0Scale : WithoutScale {
  static constexpr int kWordsPerScale = 4;
  MOEBENCH_DEVICE static std::uint32_t load_scale(const EncodedRow& row, int column) {
    return load_constant(row.scales + column / 32);
  }
  MOEBENCH_DEVICE static float scale_of(std::uint32_t scale, int) { return e8m0_to_float(scale); }
};

template <>
struct FormatParts<Format::kF32> : WithoutScale {
  static constexpr int kValues = 4;
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[1]) {
    v[0] = float_from_bits(word) * scale;
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t,
                                          std::uint32_t (&pairs)[2]) {
    pairs[0] = pack_bf16(float_from_bits(b.x), float_from_bits(b.y));
    pairs[1] = pack_bf16(float_from_bits(b.z), float_from_bits(b.w));
  }
};

template <>
struct FormatParts<Format::kBf16> : WithoutScale {
  static constexpr int kValues = 8;
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[2]) {
    v[0] = low_bf16(word) * scale;
    v[1] = high_bf16(word) * scale;
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t,
                                          std::uint32_t (&pairs)[4]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) pairs[i] = word_of(b, i);
  }
};

template <>
struct FormatParts<Format::kF16> : WithoutScale {
  static constexpr int kValues = 8;
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[2]) {
    v[0] = f16_to_float(static_cast<std::uint16_t>(word)) * scale;
    v[1] = f16_to_float(static_cast<std::uint16_t>(word >> 16)) * scale;
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t,
                                          std::uint32_t (&pairs)[4]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      float v[2];
      decode_word(word_of(b, i), 1.0F, v);
      pairs[i] = pack_bf16(v[0], v[1]);
    }
  }
};

template <>
struct FormatParts<Format::kFp8E4m3> : WithoutScale {
  static constexpr int kValues = 16;
  static constexpr bool kHasRowFactor = true;
  MOEBENCH_DEVICE static float row_factor(const EncodedRow& row) {
    return load_constant(reinterpret_cast<const float*>(row.scales));
  }
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[4]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) v[i] = e4m3_to_float(word >> 8 * i & 255U) * scale;
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t,
                                          std::uint32_t (&pairs)[8]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 8; ++i) {
      pairs[i] = multiply_bf16x2(e4m3_bits(word_of(b, i / 2), i % 2), power_of_two_bf16x2(120));
    }
  }
};

template <>
struct FormatParts<Format::kInt8> : Float16Scale {
  static constexpr int kValues = 16;
  // (32896 + code) scale - 32896 scale in one rounding: both products are exact.
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[4]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) v[i] = fmaf(int8_plus_32896(word, i), scale, -32896.0F * scale);
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t scale,
                                          std::uint32_t (&pairs)[8]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      float v[4];
      decode_word(word_of(b, i), scale_of(scale, i), v);
      pairs[2 * i] = pack_bf16(v[0], v[1]);
      pairs[2 * i + 1] = pack_bf16(v[2], v[3]);
    }
  }
};

template <>
struct FormatParts<Format::kMxfp8> : E8m0Scale {
  static constexpr std::uint32_t kMostSimple = 134;
  static constexpr int kValues = 16;
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[4]) {
    FormatParts<Format::kFp8E4m3>::decode_word(word, scale, v);
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t scale,
                                          std::uint32_t (&pairs)[8]) {
    scale_e8m0<kAnyScale>(
        scale, 120, [&](int i) { return e4m3_bits(word_of(b, i / 2), i % 2); }, pairs);
  }
};

template <>
struct FormatParts<Format::kInt4> : Float16Scale {
  static constexpr int kValues = 32;
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[8]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t pair = int4_plus_128(word, i);
      v[i] = fmaf(low_bf16(pair), scale, -136.0F * scale);
      v[i + 4] = fmaf(high_bf16(pair), scale, -136.0F * scale);
    }
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t scale,
                                          std::uint32_t (&pairs)[16]) {
    constexpr std::uint32_t kOne = 0x3f803f80U;
    constexpr std::uint32_t kMinus136 = 0xc308c308U;
    const float factor = scale_of(scale, 0);
    const std::uint32_t factors = pack_bf16(factor, factor);
    MOEBENCH_UNROLL
    for (int i = 0; i < 16; ++i) {
      const std::uint32_t codes =
          multiply_add_bf16x2(int4_plus_128(word_of(b, i / 4), i % 4), kOne, kMinus136);
      pairs[i] = multiply_bf16x2(codes, factors);
    }
  }
};

template <>
struct FormatParts<Format::kMxfp4> : E8m0Scale {
  static constexpr std::uint32_t kMostSimple = 128;
  static constexpr int kValues = 32;
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[8]) {
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t pair = multiply_bf16x2(e2m1_bits(word, i), power_of_two_bf16x2(126));
      v[i] = low_bf16(pair) * scale;
      v[i + 4] = high_bf16(pair) * scale;
    }
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t scale,
                                          std::uint32_t (&pairs)[16]) {
    scale_e8m0<kAnyScale>(
        scale, 126, [&](int i) { return e2m1_bits(word_of(b, i / 4), i % 4); }, pairs);
  }
};

// Two blocks of 16. Their scales reach 448, and 2^126 times that is more than bf16 holds: so scales
// are taken as 1/256 of what they are, and the row's factor is 256 times the matrix's scale.
template <>
struct FormatParts<Format::kNvfp4> : WithoutScale {
  static constexpr int kValues = 32;
  static constexpr int kWordsPerScale = 2;
  static constexpr bool kHasRowFactor = true;
  MOEBENCH_DEVICE static std::uint32_t load_scale(const EncodedRow& row, int column) {
    return load_constant(reinterpret_cast<const std::uint16_t*>(row.scales) + column / 32);
  }
  MOEBENCH_DEVICE static float scale_of(std::uint32_t scales, int word) {
    return e4m3_to_float(scales >> (word < 2 ? 0 : 8) & 255U) * 0x1p-8F;
  }
  MOEBENCH_DEVICE static float row_factor(const EncodedRow& row) {
    return row.tensor_scale * 256.0F;
  }
  MOEBENCH_DEVICE static void decode_word(std::uint32_t word, float scale, float (&v)[8]) {
    FormatParts<Format::kMxfp4>::decode_word(word, scale, v);
  }
  template <bool kAnyScale = true>
  MOEBENCH_DEVICE static void decode_bf16(const uint4& b, std::uint32_t scales,
                                          std::uint32_t (&pairs)[16]) {
    MOEBENCH_UNROLL
    for (int block = 0; block < 2; ++block) {
      const float factor = scale_of(scales, 2 * block) * 0x1p126F;
      const std::uint32_t factors = pack_bf16(factor, factor);
      MOEBENCH_UNROLL
      for (int i = 8 * block; i < 8 * block + 8; ++i) {
        pairs[i] = multiply_bf16x2(e2m1_bits(word_of(b, i / 4), i % 4), factors);
      }
    }
  }
};

template <Format kFormat>
struct DeviceFormat : FormatParts<kFormat> {
  using Parts = FormatParts<kFormat>;
  using Parts::kValues;

  // The 16 bytes at `column` of a row, as its codec decodes them.
  MOEBENCH_DEVICE static void decode(const uint4& bytes, int column, const EncodedRow& row,
                                     float (&values)[kValues]) {
    decode_scaled(bytes, Parts::load_scale(row, column), Parts::row_factor(row), values);
  }
  // The same with what load_scale and row_factor give: for scales that are not in memory.
  MOEBENCH_DEVICE static void decode_scaled(const uint4& bytes, std::uint32_t scale, float factor,
                                            float (&values)[kValues]) {
    constexpr int kInWord = kValues / 4;
    MOEBENCH_UNROLL
    for (int w = 0; w < 4; ++w) {
      float of_word[kInWord];
      Parts::decode_word(word_of(bytes, w), Parts::scale_of(scale, w) * factor, of_word);
      MOEBENCH_UNROLL
      for (int i = 0; i < kInWord; ++i) values[w * kInWord + i] = of_word[i];
    }
  }
};

// The inputs of 8 columns as bf16, in the order in which decode_bf16 gives the weights of 8
// columns.
template <Format kFormat>
MOEBENCH_DEVICE uint4 pack_inputs(const float4& first, const float4& second) {
  if constexpr (DeviceFormat<kFormat>::kValues == 32) {
    return {pack_bf16(first.x, second.x), pack_bf16(first.y, second.y),
            pack_bf16(first.z, second.z), pack_bf16(first.w, second.w)};
  } else {
    return {pack_bf16(first.x, first.y), pack_bf16(first.z, first.w), pack_bf16(second.x, second.y),
            pack_bf16(second.z, second.w)};
  }
}

// Calls visit(std::integral_constant<Format, f>) for the format of a matrix, on the host: how a
// launch picks the kernel of a format.
template <class Visitor>
void with_format(Format format, Visitor&& visit) {
  switch (format) {
    case Format::kF32:
      return visit(std::integral_constant<Format, Format::kF32>());
    case Format::kBf16:
      return visit(std::integral_constant<Format, Format::kBf16>());
    case Format::kF16:
      return visit(std::integral_constant<Format, Format::kF16>());
    case Format::kFp8E4m3:
      return visit(std::integral_constant<Format, Format::kFp8E4m3>());
    case Format::kInt8:
      return visit(std::integral_constant<Format, Format::kInt8>());
    case Format::kInt4:
      return visit(std::integral_constant<Format, Format::kInt4>());
    case Format::kMxfp8:
      return visit(std::integral_constant<Format, Format::kMxfp8>());
    case Format::kMxfp4:
      return visit(std::integral_constant<Format, Format::kMxfp4>());
    case Format::kNvfp4:
      return visit(std::integral_constant<Format, Format::kNvfp4>());
  }
}

}  // namespace moebench::gpu
