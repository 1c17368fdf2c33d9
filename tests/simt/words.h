// The words of gpu.cuh on the SIMT machine. The compiler reads this file before each kernel source
// (-include), so that kernels need not know of the test suite.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/core/device.h"
#include "kernels/core/float_types.h"
#include "tests/simt/accesses.h"
#include "tests/simt/async.h"
#include "tests/simt/collectives.h"
#include "tests/simt/fragments.h"
#include "tests/simt/machine.h"

#define MOEBENCH_SIMT 1

#define __global__ [[maybe_unused]] static
#define __device__
#define __host__
#define MOEBENCH_DEVICE [[maybe_unused]] inline
#define MOEBENCH_HOST_DEVICE [[maybe_unused]] inline
#define MOEBENCH_BOUNDS(...)
#define MOEBENCH_UNROLL
#define MOEBENCH_NO_UNROLL
#define MOEBENCH_GRID_CONSTANT const
#define MOEBENCH_SHARED(T, name, ...)                               \
  T(&name)                                                          \
  __VA_ARGS__ = *static_cast<T(*) __VA_ARGS__>(simt::static_shared( \
      [] {                                                          \
        static char key;                                            \
        return static_cast<const void*>(&key);                      \
      }(),                                                          \
      sizeof(T __VA_ARGS__), alignof(T) < 16 ? 16 : alignof(T)))

#define threadIdx (::moebench::simt::current->thread_index)
#define blockIdx (::moebench::simt::current->block_index)
#define blockDim (::moebench::simt::current->block_size)
#define gridDim (::moebench::simt::current->grid_size)

// CUDA has these without a namespace.
using std::max;
using std::min;

// CUDA's vector types.
struct alignas(8) uint2 {
  std::uint32_t x, y;
};
struct alignas(16) uint4 {
  std::uint32_t x, y, z, w;
};
struct alignas(8) int2 {
  std::int32_t x, y;
};
struct alignas(16) int4 {
  std::int32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace moebench::gpu {

using Where = simt::Where;

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchConfig& config, const char* name,
            Arguments&&... arguments) {
  std::tuple<std::remove_cv_t<Parameters>...> values(
      static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  simt::enqueue(config, name, [kernel, values] { std::apply(kernel, values); });
}

inline float float_from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
inline std::uint32_t high_half(std::uint32_t word) { return word >> 16; }
inline std::uint32_t byte_permute(std::uint32_t low, std::uint32_t high, std::uint32_t selector) {
  const std::uint64_t bytes = std::uint64_t{high} << 32 | low;
  std::uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t nibble = selector >> 4 * i & 15;
    std::uint32_t byte = static_cast<std::uint32_t>(bytes >> (nibble & 7) * 8) & 255;
    if (nibble & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * i;
  }
  return result;
}
inline std::uint32_t pack_bf16(float first, float second) {
  return to_bf16(first).bits | std::uint32_t{to_bf16(second).bits} << 16;
}
inline std::uint16_t float_to_bf16(float value) { return to_bf16(value).bits; }
inline float f16_to_float(std::uint16_t bits) { return to_float(f16{bits}); }
inline std::uint16_t float_to_f16(float value) { return to_f16(value).bits; }
inline std::uint32_t pack_f16(float first, float second) {
  return to_f16(first).bits | std::uint32_t{to_f16(second).bits} << 16;
}
inline float multiply(float a, float b) { return a * b; }
inline std::uint32_t multiply_bf16x2(std::uint32_t a, std::uint32_t b) {
  const auto half = [](std::uint32_t word, int i) {
    return to_float(bf16{static_cast<std::uint16_t>(word >> 16 * i)});
  };
  return pack_bf16(half(a, 0) * half(b, 0), half(a, 1) * half(b, 1));
}
// In float: rounded twice where the sum does not fit in one. Kernels use it for exact sums.
inline std::uint32_t multiply_add_bf16x2(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  const auto half = [](std::uint32_t word, int i) {
    return to_float(bf16{static_cast<std::uint16_t>(word >> 16 * i)});
  };
  return pack_bf16(std::fma(half(a, 0), half(b, 0), half(c, 0)),
                   std::fma(half(a, 1), half(b, 1), half(c, 1)));
}
inline std::uint8_t float_to_e4m3(float value) { return float_to_fp8_e4m3(value); }
inline std::uint32_t pack_e4m3(float low, float high) {
  return float_to_e4m3(low) | static_cast<std::uint32_t>(float_to_e4m3(high)) << 8;
}
inline std::uint32_t e4m3_to_f16x2(std::uint32_t codes, int pair) {
  const auto number = [&](int i) {
    return fp8_e4m3_to_float(static_cast<std::uint8_t>(codes >> (16 * pair + 8 * i)));
  };
  return pack_f16(number(0), number(1));
}
inline float rsqrt(float value) { return 1.0F / std::sqrt(value); }
inline float exp2_fast(float value) {
  const float result = std::exp2(value);
  return result < 0x1p-126F ? 0.0F : result;
}
inline float divide_fast(float a, float b) { return b > 0x1p126F ? 0.0F : a / b; }

inline uint4 load_streaming(const void* from) {
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) simt::fail("16-byte load: misaligned");
  simt::check_global(from, 16, "load_streaming");
  return *static_cast<const uint4*>(from);
}
inline void load_streaming_if(bool wanted, const void* from, uint4& to) {
  if (wanted) to = load_streaming(from);
}
template <class T>
T load_constant(const T* from) {
  simt::check_global(from, sizeof(T), "load_constant");
  return *from;
}
// Atomics order nothing else, as on the device: that takes a fence.
template <class T>
T atomic_add(T* to, T value) {
  return std::atomic_ref<T>(*to).fetch_add(value, std::memory_order_relaxed);
}
inline unsigned atomic_max(unsigned* to, unsigned value) {
  std::atomic_ref<unsigned> target(*to);
  unsigned seen = target.load(std::memory_order_relaxed);
  while (seen < value && !target.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
  return seen;
}
inline int load_acquire(const int* from) {
  return std::atomic_ref<int>(*const_cast<int*>(from)).load(std::memory_order_acquire);
}
inline void add_release(int* to, int value) {
  std::atomic_ref<int>(*to).fetch_add(value, std::memory_order_release);
}
inline void fence_device() { simt::fence(); }
template <class T>
T load_relaxed(const T* from) {
  return std::atomic_ref<T>(*const_cast<T*>(from)).load(std::memory_order_relaxed);
}
inline uint4 load_relaxed(const uint4* from) {
  return {load_relaxed(&from->x), load_relaxed(&from->y), load_relaxed(&from->z),
          load_relaxed(&from->w)};
}
template <class T>
void store_relaxed(T* to, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*to).store(value, std::memory_order_relaxed);
}
inline void spin_pause(Where at = Where::current()) { simt::spin(at); }
inline void spin_on(Where at = Where::current()) { simt::spin(at); }

inline unsigned char* dynamic_shared() {
  return static_cast<unsigned char*>(simt::dynamic_shared());
}
inline int keep(int value) { return value; }
inline std::uint32_t shared_address(const void* pointer) { return simt::shared_address(pointer); }

inline void sync_threads(Where at = Where::current()) { simt::sync_block(0, 0, at); }
inline void sync_warp(unsigned mask = 0xffffffffU, Where at = Where::current()) {
  simt::sync_warp(mask, at);
}
inline void sync_named(int id, int threads, Where at = Where::current()) {
  simt::sync_block(id, threads, at);
}
inline void arrive_named(int id, int threads, Where at = Where::current()) {
  simt::arrive_at_block(id, threads, at);
}
template <class T>
T shuffle_xor(unsigned mask, T value, int lanes, Where at = Where::current()) {
  return simt::shuffle_from(mask, value, static_cast<int>(simt::current->lane) ^ lanes, at);
}
template <class T>
T shuffle(unsigned mask, T value, int lane, Where at = Where::current()) {
  return simt::shuffle_from(mask, value, lane & 31, at);
}
template <class T>
T shuffle_quad(unsigned mask, T value, int place, Where at = Where::current()) {
  return simt::shuffle_from(mask, value, static_cast<int>(simt::current->lane) / 4 * 4 + place % 4,
                            at);
}
template <class T>
T shuffle_up(unsigned mask, T value, int lanes, Where at = Where::current()) {
  const int source = static_cast<int>(simt::current->lane) - lanes;
  return simt::shuffle_from(mask, value,
                            source < 0 ? static_cast<int>(simt::current->lane) : source, at);
}
template <class T>
T shuffle_down(unsigned mask, T value, int lanes, Where at = Where::current()) {
  const int source = static_cast<int>(simt::current->lane) + lanes;
  return simt::shuffle_from(mask, value,
                            source > 31 ? static_cast<int>(simt::current->lane) : source, at);
}
inline unsigned ballot(unsigned mask, bool value, Where at = Where::current()) {
  return simt::vote(mask, value, at);
}
inline bool any(unsigned mask, bool value, Where at = Where::current()) {
  return simt::vote(mask, value, at) != 0;
}
inline bool all(unsigned mask, bool value, Where at = Where::current()) {
  return simt::vote(mask, value, at) == mask;
}
inline unsigned reduce_max(unsigned mask, unsigned value, Where at = Where::current()) {
  return simt::reduce(
      mask, value, [](unsigned a, unsigned b) { return a > b ? a : b; }, at);
}
inline unsigned reduce_min(unsigned mask, unsigned value, Where at = Where::current()) {
  return simt::reduce(
      mask, value, [](unsigned a, unsigned b) { return a < b ? a : b; }, at);
}
inline int count_bits(unsigned value) { return __builtin_popcount(value); }
inline int lowest_bit(unsigned value) { return __builtin_ffs(static_cast<int>(value)) - 1; }

inline void copy_async(void* to, const void* from, bool valid = true, Where at = Where::current()) {
  simt::copy_async(to, from, valid, at);
}
inline void commit_copies() { simt::commit_copies(); }
template <int kLeft>
void wait_copies() {
  simt::wait_copies(kLeft);
}

inline void load_matrices(std::uint32_t (&r)[4], const void* row, Where at = Where::current()) {
  simt::load_matrices(r, row, false, at);
}
inline void load_matrices_transposed(std::uint32_t (&r)[4], const void* row,
                                     Where at = Where::current()) {
  simt::load_matrices(r, row, true, at);
}
inline std::uint32_t transpose_matrix(std::uint32_t elements, Where at = Where::current()) {
  return simt::transpose_8x8(elements, at);
}
inline void multiply_bf16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                          Where at = Where::current()) {
  simt::multiply(simt::Element::kBf16, c, a, b, at);
}
inline void multiply_f16(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         Where at = Where::current()) {
  simt::multiply(simt::Element::kF16, c, a, b, at);
}
inline void multiply_e4m3(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                          Where at = Where::current()) {
  simt::multiply(simt::Element::kE4m3, c, a, b, at);
}
inline void multiply_int8(std::int32_t (&c)[4], const std::uint32_t (&a)[4],
                          const std::uint32_t (&b)[2], Where at = Where::current()) {
  simt::multiply(simt::Element::kInt8, c, a, b, at);
}

inline void wait_for_previous_kernel() { simt::wait_for_previous_kernel(); }
inline void let_next_kernel_start() { simt::let_next_kernel_start(); }

}  // namespace moebench::gpu

#include "tests/simt/words_hopper.h"

// And the ones made of them.
#include "kernels/core/gpu.cuh"
