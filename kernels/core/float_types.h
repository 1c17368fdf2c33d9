// Storage types of weights and caches, and their exact conversions to and from float32.
//
// Every narrowing conversion rounds to nearest, ties to even. Sources: IEEE 754-2019 (binary16);
// bfloat16 as the upper half of binary32; OCP 8-bit Floating Point Specification 1.0 (E4M3, the
// variant without infinities); OCP Microscaling Formats 1.0 (E2M1 elements, E8M0 scales).
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace moebench {

struct bf16 {
  std::uint16_t bits;
};
struct f16 {
  std::uint16_t bits;
};

inline float to_float(bf16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

inline bf16 to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) {  // NaN: keep it one, quiet
    return {static_cast<std::uint16_t>((bits >> 16) | 0x0040U)};
  }
  const std::uint32_t rounding = 0x7fffU + ((bits >> 16) & 1U);
  return {static_cast<std::uint16_t>((bits + rounding) >> 16)};
}

inline float to_float(f16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = (value.bits >> 10) & 0x1fU;
  const std::uint32_t mantissa = value.bits & 0x3ffU;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

// Values of magnitude >= 65520 become infinity, as IEEE 754 rounding demands.
inline f16 to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return {static_cast<std::uint16_t>(sign | 0x7e00U)};
  if (magnitude >= 0x477ff000U) return {static_cast<std::uint16_t>(sign | 0x7c00U)};
  if (magnitude < 0x38800000U) {
    // Below 2^-14: adding 0.5 leaves units of 2^-24 in the low mantissa bits, rounded by the FPU.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return {static_cast<std::uint16_t>(
        sign | (std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0.5F)))};
  }
  const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
  return {static_cast<std::uint16_t>(sign | ((rounded - (112U << 23)) >> 13))};
}

// E4M3: bias 7, no infinities, S.1111.111 is NaN, largest finite value 448.
inline constexpr float kFp8E4m3Max = 448.0F;

inline float fp8_e4m3_to_float(std::uint8_t code) {
  if ((code & 0x7fU) == 0x7fU) return std::numeric_limits<float>::quiet_NaN();
  // Its bits moved into a float's are the value over 2^120, subnormals included.
  return std::bit_cast<float>((code & 0x80U) << 24 | (code & 0x7fU) << 20) * 0x1p120F;
}

// Saturates: magnitudes above 448 become 448 (the specification's saturating mode). NaN stays NaN.
inline std::uint8_t float_to_fp8_e4m3(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>((bits >> 24) & 0x80U);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint8_t>(sign | 0x7fU);
  const float absolute = std::bit_cast<float>(magnitude);
  if (absolute >= kFp8E4m3Max) return static_cast<std::uint8_t>(sign | 0x7eU);
  if (magnitude < 0x3c800000U) {  // below 2^-6: units of 2^-9, rounded by the FPU at 2^14
    const float shifted = absolute + 0x1p14F;
    return static_cast<std::uint8_t>(
        sign | (std::bit_cast<std::uint32_t>(shifted) - std::bit_cast<std::uint32_t>(0x1p14F)));
  }
  const std::uint32_t rounded = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);
  return static_cast<std::uint8_t>(sign | ((rounded - (120U << 23)) >> 20));
}

// E2M1: the sixteen values of a 4-bit float; bit 3 is the sign.
inline constexpr std::array<float, 16> kE2m1Values = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,
                                                      4.0F,  6.0F,  -0.0F, -0.5F, -1.0F, -1.5F,
                                                      -2.0F, -3.0F, -4.0F, -6.0F};
inline constexpr float kE2m1Max = 6.0F;

// Saturates at 6. Ties go to the code with an even mantissa bit. NaN, which E2M1 lacks, becomes 6.
inline std::uint8_t float_to_e2m1(float value) {
  const auto sign = static_cast<std::uint8_t>(std::signbit(value) ? 8 : 0);
  const float a = std::fabs(value);
  std::uint8_t code = 7;
  if (a <= 0.25F) {
    code = 0;
  } else if (a < 0.75F) {
    code = 1;
  } else if (a <= 1.25F) {
    code = 2;
  } else if (a < 1.75F) {
    code = 3;
  } else if (a <= 2.5F) {
    code = 4;
  } else if (a < 3.5F) {
    code = 5;
  } else if (a <= 5.0F) {
    code = 6;
  }
  return static_cast<std::uint8_t>(sign | code);
}

// E8M0: 2^(code - 127); 255 is NaN; code 0 is 2^-127, a float32 subnormal.
inline float e8m0_to_float(std::uint8_t code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  if (code == 0) return 0x1p-127F;
  return std::bit_cast<float>(static_cast<std::uint32_t>(code) << 23);
}

// The E8M0 code of 2^floor(log2(max_abs)) / 2^element_max_exponent, clamped to what E8M0 can hold:
// the shared scale of OCP Microscaling Formats 1.0, section 6.3. Zero and subnormals give code 0.
inline std::uint8_t e8m0_scale_for(float max_abs, int element_max_exponent) {
  const int biased = static_cast<int>((std::bit_cast<std::uint32_t>(max_abs) >> 23) & 0xffU);
  const int code = biased - element_max_exponent;
  return static_cast<std::uint8_t>(code < 0 ? 0 : (code > 254 ? 254 : code));
}

// Loads a T from bytes of any alignment: safetensors promises none.
template <class T>
inline T load_unaligned(const void* source) {
  T value;
  std::memcpy(&value, source, sizeof(T));
  return value;
}

template <class T>
inline void store_unaligned(void* target, T value) {
  std::memcpy(target, &value, sizeof(T));
}

}  // namespace moebench
