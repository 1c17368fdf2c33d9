// What CUDA kernels are written in: the device's words, as small functions named for what they do.
//
// The words have two meanings. nvcc reads intrinsics and inline PTX (gpu_ptx.cuh). The test suite
// has g++ compile the same kernel sources as ordinary C++ and runs them on a SIMT machine, whose
// words (tests/simt/words.h) it hands to the compiler with -include, before this file is read. So:
//
// - PTX and intrinsics stand in kernels/core/ only; kernel bodies use these words.
// - Shared arrays are MOEBENCH_SHARED(type, name, [n]); loops unroll by MOEBENCH_UNROLL.
// - Kernels start through gpu::launch, which checks for errors and names the kernel in them.
// - Collectives (shuffles, ldmatrix, mma) are reached by every lane of their mask, together.
#pragma once

#if defined(__CUDACC__)
#include "kernels/core/gpu_ptx.cuh"
#elif !defined(MOEBENCH_SIMT)
#error "kernel sources are compiled by nvcc, or by the test suite for its SIMT machine"
#endif

#include <cstdint>

namespace moebench::gpu {

inline constexpr unsigned kAllLanes = 0xffffffffU;
inline constexpr int kWarp = 32;

MOEBENCH_DEVICE int lane_id() { return static_cast<int>(threadIdx.x % kWarp); }
MOEBENCH_DEVICE int warp_id() { return static_cast<int>(threadIdx.x / kWarp); }

// The sum (largest) over the lanes of a warp, in every lane, always added in the same order.
MOEBENCH_DEVICE float warp_sum(float value) {
  MOEBENCH_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += shuffle_xor(kAllLanes, value, offset);
  }
  return value;
}
MOEBENCH_DEVICE float warp_max(float value) {
  MOEBENCH_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, shuffle_xor(kAllLanes, value, offset));
  }
  return value;
}

MOEBENCH_DEVICE double warp_sum(double value) {
  MOEBENCH_UNROLL
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += shuffle_xor(kAllLanes, value, offset);
  }
  return value;
}

// The barriers of a ring of stages in shared memory, which so many arrivals fill and empty. By one
// thread; a barrier of the block must follow.
MOEBENCH_DEVICE void init_ring(Mbarrier* full, Mbarrier* empty, int stages, int to_fill,
                               int to_empty) {
  for (int s = 0; s < stages; ++s) {
    mbarrier_init(&full[s], to_fill);
    mbarrier_init(&empty[s], to_empty);
  }
  fence_mbarrier_init();
}

// The sum over the first kThreads of a block, in each of them, always added in the same order. Each
// must call it; kThreads is a multiple of 32, and sync() a barrier of these threads. Value: float
// or double.
template <int kThreads, class Value, class Sync>
MOEBENCH_DEVICE Value block_sum(Value value, Sync&& sync) {
  MOEBENCH_SHARED(Value, partial, [kThreads / kWarp]);
  value = warp_sum(value);
  sync();  // a call before this one may still be reading `partial`
  if (lane_id() == 0) partial[warp_id()] = value;
  sync();
  value = 0;
  MOEBENCH_UNROLL
  for (int w = 0; w < kThreads / kWarp; ++w) value += partial[w];
  return value;
}
// Of a whole block of kThreads.
template <int kThreads, class Value>
MOEBENCH_DEVICE Value block_sum(Value value) {
  return block_sum<kThreads>(value, [] { sync_threads(); });
}

// A number whose order is that of floats: zeros of both signs are one, NaNs the largest. 0 is no
// float's.
MOEBENCH_DEVICE std::uint32_t order_of(float value) {
  if (value != value) return 0xffffffffU;
  const std::uint32_t bits = bits_of(value == 0.0F ? 0.0F : value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
MOEBENCH_DEVICE float float_of_order(std::uint32_t order) {
  return float_from_bits((order & 0x80000000U) != 0 ? order & 0x7fffffffU : ~order);
}

// Two bf16 in a word, the first in the low half.
MOEBENCH_DEVICE float low_bf16(std::uint32_t pair) { return float_from_bits(pair << 16); }
MOEBENCH_DEVICE float high_bf16(std::uint32_t pair) { return float_from_bits(pair & 0xffff0000U); }
MOEBENCH_DEVICE float bf16_to_float(std::uint16_t bits) {
  return float_from_bits(static_cast<std::uint32_t>(bits) << 16);
}

// Where byte `offset` of a tile with rows of 128 bytes lies under the 128-byte swizzle of TMA and
// wgmma; the tile starts at a multiple of 1024 bytes.
MOEBENCH_HOST_DEVICE int swizzle_128(int offset) { return offset ^ (offset >> 3 & 0x70); }

}  // namespace moebench::gpu
