// Exponents and parts of numbers, for kernels that multiply them in fewer bits.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::gpu {

MOEBENCH_DEVICE float power_of_two(int exponent) {  // -126 .. 127
  return float_from_bits(static_cast<std::uint32_t>(exponent + 127) << 23);
}
// Of the largest of some sizes, as a float or a bf16 has it: of what is less than 2^-100 nothing
// needs to be left.
MOEBENCH_DEVICE int limited_exponent(std::uint32_t biased) {
  const int exponent = static_cast<int>(biased) - 127;
  return exponent < -100 ? -100 : exponent;
}

// Numbers of bf16 as f16, which has more bits and fewer exponents: all times one power of two that
// brings the largest to 2^14 or more, below 2^15.
// Pairs of the bits of the largest of `most` and of these numbers, without their signs.
MOEBENCH_DEVICE std::uint32_t larger_bf16(std::uint32_t most, std::uint32_t two) {
  return max_u16x2(most, two & 0x7fff7fffU);
}
MOEBENCH_DEVICE std::uint32_t larger_bf16(std::uint32_t most, const uint4& eight) {
  return larger_bf16(larger_bf16(larger_bf16(larger_bf16(most, eight.x), eight.y), eight.z),
                     eight.w);
}
class BringsToF16 {
 public:
  // By a whole warp, each lane with its larger_bf16.
  MOEBENCH_DEVICE explicit BringsToF16(std::uint32_t most)
      : exponent_(
            limited_exponent(reduce_max(kAllLanes, max_u16x2(most, most >> 16) & 0xffffU) >> 7)) {}

  MOEBENCH_DEVICE std::uint32_t operator()(std::uint32_t two) const {
    const float factor = power_of_two(14 - exponent_);
    return pack_f16(low_bf16(two) * factor, high_bf16(two) * factor);
  }
  MOEBENCH_DEVICE uint4 operator()(const uint4& eight) const {
    return {(*this)(eight.x), (*this)(eight.y), (*this)(eight.z), (*this)(eight.w)};
  }
  // What sums of products with them are to be multiplied with.
  MOEBENCH_DEVICE float back() const { return power_of_two(exponent_ - 14); }

 private:
  int exponent_;
};

// Two numbers as two pairs of bf16 whose sums they are, to 2^-17 of themselves: the nearest, and
// what is left.
struct TwoParts {
  std::uint32_t high, low;

  MOEBENCH_DEVICE TwoParts(float first, float second) : high(pack_bf16(first, second)) {
    low = pack_bf16(first - low_bf16(high), second - high_bf16(high));
  }
};

}  // namespace moebench::gpu
