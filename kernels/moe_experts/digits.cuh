// What the variants share that multiply MXFP4 codes as float8 by inputs of two float8 digits.
#pragma once

#include "kernels/core/gpu_numbers.cuh"
#include "kernels/formats/direct_rows.cuh"

namespace moebench::moe_experts {

MOEBENCH_DEVICE int address_modulo_16(const void* address) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(address) % 16);
}

// The largest number of a quad's lanes.
MOEBENCH_DEVICE float quad_max(float value) {
  value = fmaxf(value, gpu::shuffle_xor(gpu::kAllLanes, value, 1));
  return fmaxf(value, gpu::shuffle_xor(gpu::kAllLanes, value, 2));
}
// Of the largest of some sizes, for their digits.
MOEBENCH_DEVICE int exponent_of(float most) {
  return gpu::limited_exponent(gpu::bits_of(most) >> 23);
}

// The 16 bytes at `offset` of each of a lane's rows; if they are not wanted, what is there stays.
MOEBENCH_DEVICE void load_rows_if(bool wanted, const gpu::LaneRows& rows, int offset, uint4& low,
                                  uint4& high) {
  gpu::load_streaming_if(wanted, rows.low + offset, low);
  gpu::load_streaming_if(wanted, rows.high + offset, high);
}

// Weights with the scale of their block of 32 folded in: of d, the power of two that it is less
// than the largest of 128 columns, eight bytes, of each code its value times 2^(6 - d) as E4M3. Up
// to 14 they are exact, from 19 on zeros.
constexpr int kTables = 20;

// By the first threads of a block of kThreads; a barrier must follow.
template <int kThreads>
MOEBENCH_DEVICE void make_tables(uint2* tables) {
  static_assert(kTables * 8 <= kThreads);
  const auto i = static_cast<int>(threadIdx.x);
  if (i >= kTables * 8) return;
  // The code's bits are E4M3's of its value over 2^6.
  const float value = gpu::e4m3_to_float(static_cast<std::uint32_t>(i % 8) << 2);
  reinterpret_cast<unsigned char*>(tables)[i] =
      gpu::float_to_e4m3(value * gpu::power_of_two(12 - i / 8));
}

// Of a chunk of two rows, one in the low half of a word and one in the high: the largest scales of
// their four blocks, of which each lane of a quad has its `own`, and which tables these have.
MOEBENCH_DEVICE std::uint32_t compare_scales(std::uint32_t own, std::uint32_t& less) {
  std::uint32_t most = gpu::max_u16x2(own, gpu::shuffle_xor(gpu::kAllLanes, own, 1));
  most = gpu::max_u16x2(most, gpu::shuffle_xor(gpu::kAllLanes, most, 2));
  constexpr std::uint32_t kLast = kTables - 1;
  less = gpu::min_u16x2(most - own, kLast | kLast << 16);
  return most;
}
MOEBENCH_DEVICE void read_tables(const uint2* tables, std::uint32_t less, uint2& of_low,
                                 uint2& of_high) {
  of_low = tables[less & 0xffffU];
  of_high = tables[less >> 16];
}
// Both.
MOEBENCH_DEVICE std::uint32_t fold_scales(std::uint32_t own, const uint2* tables, uint2& of_low,
                                          uint2& of_high) {
  std::uint32_t less = 0;
  const std::uint32_t most = compare_scales(own, less);
  read_tables(tables, less, of_low, of_high);
  return most;
}

// x[first .. first + 3] times factor as two digits of E4M3: bytes of the first ones, and of 16
// times what those leave.
MOEBENCH_DEVICE uint2 two_digits(const float (&x)[8], int first, float factor) {
  uint2 digits{0, 0};
  MOEBENCH_UNROLL
  for (int j = 0; j < 4; ++j) {
    const float value = x[first + j] * factor;
    const std::uint32_t first_digit = gpu::float_to_e4m3(value);
    const float rest = (value - gpu::e4m3_to_float(first_digit)) * 16.0F;
    digits.x |= first_digit << 8 * j;
    digits.y |= static_cast<std::uint32_t>(gpu::float_to_e4m3(rest)) << 8 * j;
  }
  return digits;
}

}  // namespace moebench::moe_experts
