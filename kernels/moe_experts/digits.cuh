// What the variants share that multiply MXFP4 codes as float8 by inputs of two float8 digits.
#pragma once

#include "kernels/formats/direct_rows.cuh"

namespace moebench::moe_experts {

MOEBENCH_DEVICE int address_modulo_16(const void* address) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(address) % 16);
}
MOEBENCH_DEVICE float power_of_two(int exponent) {  // -126 .. 127
  return gpu::float_from_bits(static_cast<std::uint32_t>(exponent + 127) << 23);
}

// The 16 bytes at `offset` of each of a lane's rows; if they are not wanted, what is there stays.
MOEBENCH_DEVICE void load_rows_if(bool wanted, const gpu::LaneRows& rows, int offset, uint4& low,
                                  uint4& high) {
  gpu::load_streaming_if(wanted, rows.low + offset, low);
  gpu::load_streaming_if(wanted, rows.high + offset, high);
}

}  // namespace moebench::moe_experts
