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

// Two numbers as two pairs of bf16 whose sums they are, to 2^-17 of themselves: the nearest, and
// what is left.
struct TwoParts {
  std::uint32_t high, low;

  MOEBENCH_DEVICE TwoParts(float first, float second) : high(pack_bf16(first, second)) {
    low = pack_bf16(first - low_bf16(high), second - high_bf16(high));
  }
};

}  // namespace moebench::gpu
