// How eight interleaved rows become floats: per format, what one vector of 32 bytes (4 bytes of
// each row) and one vector of scales turn into. Values are those of the format's codec, exactly.
//
// A struct W has
//   kColumns   columns in 4 bytes of a row
//   kBlock     columns under one scale; 0: one scale for the whole row, or none
//   scale<S>(scales, tensor_scale)   the scales of eight rows, `scales` pointing at their first
//   decode<S>(words, scale, out)     kColumns vectors
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace moebench {

// E4M3 codes (0 to 255 in each lane) to floats. The seven bits below the sign, moved to where a
// float32 has them, are the value times 2^-120, subnormals included.
template <class S>
typename S::F32 e4m3_to_float(typename S::I32 codes) {
  const auto magnitude = S::bit_and(codes, S::set_words(0x7f));
  const auto sign = S::shift_left(S::bit_and(codes, S::set_words(0x80)), 24);
  const auto is_nan = S::greater(magnitude, S::set_words(0x7e));
  const auto value = S::mul(S::as_float(S::shift_left(magnitude, 20)), S::set(0x1p120F));
  return S::as_float(
      S::bit_or(S::bit_or(S::as_words(value), sign), S::bit_and(is_nan, S::set_words(0x7fc00000))));
}

// E8M0 scales: the byte is a float32's exponent. Code 0 is 2^-127, a subnormal; 255, which is NaN,
// becomes infinity: no more finite.
template <class S>
typename S::F32 e8m0_to_float(const std::byte* codes) {
  const auto bits = S::shift_left(S::load_bytes(codes), 23);
  return S::as_float(S::max_words(bits, S::set_words(0x00400000)));
}

struct DecodeF32 {
  static constexpr int kColumns = 1;
  static constexpr int kBlock = 0;
  template <class S>
  static typename S::F32 scale(const std::byte*, float) {
    return S::zero();
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32, typename S::F32* out) {
    out[0] = S::as_float(words);
  }
};

struct DecodeBf16 {
  static constexpr int kColumns = 2;
  static constexpr int kBlock = 0;
  template <class S>
  static typename S::F32 scale(const std::byte*, float) {
    return S::zero();
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32, typename S::F32* out) {
    out[0] = S::as_float(S::shift_left(words, 16));
    out[1] = S::as_float(S::bit_and(words, S::set_words(static_cast<std::int32_t>(0xffff0000U))));
  }
};

struct DecodeF16 {
  static constexpr int kColumns = 2;
  static constexpr int kBlock = 0;
  template <class S>
  static typename S::F32 scale(const std::byte*, float) {
    return S::zero();
  }
  // As with E4M3: fifteen bits, moved, are the value times 2^-112.
  template <class S>
  static typename S::F32 one(typename S::I32 code) {
    const auto magnitude = S::bit_and(code, S::set_words(0x7fff));
    const auto sign = S::shift_left(S::bit_and(code, S::set_words(0x8000)), 16);
    const auto not_finite = S::greater(magnitude, S::set_words(0x7bff));
    const auto value = S::mul(S::as_float(S::shift_left(magnitude, 13)), S::set(0x1p112F));
    return S::as_float(S::bit_or(S::bit_or(S::as_words(value), sign),
                                 S::bit_and(not_finite, S::set_words(0x7f800000))));
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32, typename S::F32* out) {
    out[0] = one<S>(S::bit_and(words, S::set_words(0xffff)));
    out[1] = one<S>(S::shift_right(words, 16));
  }
};

template <bool kBlockScaled>
struct DecodeE4m3 {
  static constexpr int kColumns = 4;
  static constexpr int kBlock = kBlockScaled ? 32 : 0;
  template <class S>
  static typename S::F32 scale(const std::byte* scales, float) {
    if constexpr (kBlockScaled) return e8m0_to_float<S>(scales);
    return S::as_float(S::load_words(scales));
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32 scale, typename S::F32* out) {
    for (int c = 0; c < 4; ++c) {
      const auto codes = S::bit_and(S::shift_right(words, 8 * c), S::set_words(0xff));
      out[c] = S::mul(e4m3_to_float<S>(codes), scale);
    }
  }
};
using DecodeFp8 = DecodeE4m3<false>;
using DecodeMxfp8 = DecodeE4m3<true>;

struct DecodeInt8 {
  static constexpr int kColumns = 4;
  static constexpr int kBlock = 32;
  template <class S>
  static typename S::F32 scale(const std::byte* scales, float) {
    return S::load_f16(scales);
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32 scale, typename S::F32* out) {
    for (int c = 0; c < 4; ++c) {
      const auto value = S::shift_signed(S::shift_left(words, 24 - 8 * c), 24);
      out[c] = S::mul(S::to_float(value), scale);
    }
  }
};

struct DecodeInt4 {
  static constexpr int kColumns = 8;
  static constexpr int kBlock = 32;
  template <class S>
  static typename S::F32 scale(const std::byte* scales, float) {
    return S::load_f16(scales);
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32 scale, typename S::F32* out) {
    for (int c = 0; c < 8; ++c) {
      const auto code = S::bit_and(S::shift_right(words, 4 * c), S::set_words(15));
      out[c] = S::mul(S::to_float(S::add_words(code, S::set_words(-8))), scale);
    }
  }
};

template <bool kNvidia>
struct DecodeE2m1 {
  static constexpr int kColumns = 8;
  static constexpr int kBlock = kNvidia ? 16 : 32;
  template <class S>
  static typename S::F32 scale(const std::byte* scales, float tensor_scale) {
    if constexpr (kNvidia) {
      return S::mul(e4m3_to_float<S>(S::load_bytes(scales)), S::set(tensor_scale));
    } else {
      return e8m0_to_float<S>(scales);
    }
  }
  template <class S>
  static void decode(typename S::I32 words, typename S::F32 scale, typename S::F32* out) {
    static constexpr float kMagnitudes[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
    const auto table = S::load(kMagnitudes);
    const auto sign_bit = S::set_words(std::numeric_limits<std::int32_t>::min());
    for (int c = 0; c < 8; ++c) {
      const auto magnitude = S::mul(S::look_up(table, S::shift_right(words, 4 * c)), scale);
      const auto sign = S::bit_and(S::shift_left(words, 28 - 4 * c), sign_bit);
      out[c] = S::as_float(S::bit_xor(S::as_words(magnitude), sign));
    }
  }
};
using DecodeMxfp4 = DecodeE2m1<false>;
using DecodeNvfp4 = DecodeE2m1<true>;

}  // namespace moebench
