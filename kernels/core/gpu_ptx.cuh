// The device's words under nvcc: intrinsics and inline PTX. Read through gpu.cuh.
//
// PTX reference: "Parallel Thread Execution ISA", sections on mma, ldmatrix, cp.async, mbarrier and
// wgmma. Words that need a newer architecture than the one compiled for trap: a variant's
// `unsupported` keeps such kernels from being started.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/core/device.h"
#include "kernels/core/error.h"

#define MOEBENCH_DEVICE __device__ __forceinline__
#define MOEBENCH_HOST_DEVICE __host__ __device__ __forceinline__
#define MOEBENCH_BOUNDS(...) __launch_bounds__(__VA_ARGS__)
#define MOEBENCH_UNROLL _Pragma("unroll")
#define MOEBENCH_NO_UNROLL _Pragma("unroll 1")
#define MOEBENCH_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
// A parameter that a kernel takes the address of, as tensor maps want.
#define MOEBENCH_GRID_CONSTANT const __grid_constant__

namespace moebench::gpu {

// Starts `kernel` on config.stream. Throws Error(kDevice) naming `name` if the launch is refused.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchConfig& config, const char* name,
            Arguments&&... arguments) {
  const auto check = [&](cudaError_t status) {
    require_or(ErrorCode::kDevice, status == cudaSuccess,
               "launch {} with grid {}x{}x{}, {} threads and {} bytes of shared memory: {}", name,
               config.grid.x, config.grid.y, config.grid.z, config.block, config.shared_bytes,
               cudaGetErrorString(status));
  };
  // More than 48 KiB of static and dynamic shared memory together must be asked for.
  constexpr std::size_t kStaticAtMost = 32 << 10;
  constexpr std::size_t kWithoutAsking = (48 << 10) - kStaticAtMost;
  if (config.shared_bytes > kWithoutAsking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(config.shared_bytes)));
  }
  cudaLaunchConfig_t launch_config{};
  launch_config.gridDim = dim3(config.grid.x, config.grid.y, config.grid.z);
  launch_config.blockDim = dim3(config.block);
  launch_config.dynamicSmemBytes = config.shared_bytes;
  launch_config.stream = config.stream;
  cudaLaunchAttribute attributes[4];
  unsigned count = 0;
  if (config.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = config.cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count].val.clusterDim.z = 1;
    ++count;
  }
  if (config.overlap_previous) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count].val.programmaticStreamSerializationAllowed = 1;
    ++count;
  }
  // Not needed together with overlap_previous: a grid of one block an SM is resident anyway, since
  // whoever has started before it ends without it.
  if (config.cooperative && !config.overlap_previous) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count].val.cooperative = 1;
    ++count;
  }
  if (config.shared_percent >= 0) {
    attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[count].val.sharedMemCarveout = static_cast<unsigned>(config.shared_percent);
    ++count;
  }
  launch_config.attrs = attributes;
  launch_config.numAttrs = count;
  check(cudaLaunchKernelEx(&launch_config, kernel,
                           static_cast<Parameters>(std::forward<Arguments>(arguments))...));
}

// ---- Bits -------------------------------------------------------------------------------------
MOEBENCH_DEVICE float float_from_bits(std::uint32_t bits) { return __uint_as_float(bits); }
MOEBENCH_DEVICE std::uint32_t bits_of(float value) { return __float_as_uint(value); }
// Byte i of the result is byte (selector >> 4i) & 7 of {low, high}; with 8 added to a selector
// nibble, its sign bit repeated.
MOEBENCH_DEVICE std::uint32_t byte_permute(std::uint32_t low, std::uint32_t high,
                                           std::uint32_t selector) {
  // Not __byte_perm, which leaves out the selector's sign bits.
  std::uint32_t bytes;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selector));
  return bytes;
}

// word >> 16, by the pipe of multiplications, where the one of shifts has enough to do.
MOEBENCH_DEVICE std::uint32_t high_half(std::uint32_t word) {
  std::uint32_t half;
  asm("dp2a.lo.u32.u32 %0, %1, %2, %3;" : "=r"(half) : "r"(word), "r"(0x100U), "r"(0U));
  return half;
}

// ---- Numbers: every narrowing rounds to nearest, ties to even ---------------------------------
MOEBENCH_DEVICE std::uint32_t pack_bf16(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
MOEBENCH_DEVICE std::uint16_t float_to_bf16(float value) {
  return static_cast<std::uint16_t>(pack_bf16(value, 0.0F));
}
MOEBENCH_DEVICE float f16_to_float(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
MOEBENCH_DEVICE std::uint16_t float_to_f16(float value) {
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
MOEBENCH_DEVICE std::uint32_t pack_f16(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
// A product that is rounded before anything is added to it.
MOEBENCH_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
// Products of two bf16 pairs, rounded to bf16.
MOEBENCH_DEVICE std::uint32_t multiply_bf16x2(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product;
  asm("{.reg .b32 zero;\n mov.b32 zero, 0x80008000;\n fma.rn.bf16x2 %0, %1, %2, zero;}"
      : "=r"(product)
      : "r"(a), "r"(b));
  return product;
}
// a b + c of bf16 pairs, rounded once.
MOEBENCH_DEVICE std::uint32_t multiply_add_bf16x2(std::uint32_t a, std::uint32_t b,
                                                  std::uint32_t c) {
  std::uint32_t sum;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
// The nearest float8 E4M3 (no infinities; larger magnitudes become 448). Not for NaN.
MOEBENCH_DEVICE std::uint8_t float_to_e4m3(float value) {
#if __CUDA_ARCH__ >= 890
  std::uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0F), "f"(value));
  return static_cast<std::uint8_t>(pair);
#else
  // Below 2^-6 codes are 2^-9 apart; above, three bits of mantissa.
  const std::uint32_t sign = bits_of(value) >> 24 & 0x80U;
  const float magnitude = fminf(fabsf(value), 448.0F);
  if (magnitude < 0x1p-6F) {
    return static_cast<std::uint8_t>(sign | static_cast<std::uint32_t>(rintf(magnitude * 512.0F)));
  }
  std::uint32_t bits = bits_of(magnitude);
  bits += 0x7ffffU + (bits >> 20 & 1U);
  return static_cast<std::uint8_t>(sign | ((bits >> 20) - (120U << 3)));
#endif
}
// Two of them: bytes 0 and 1.
MOEBENCH_DEVICE std::uint32_t pack_e4m3(float low, float high) {
#if __CUDA_ARCH__ >= 890
  std::uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return float_to_e4m3(low) | static_cast<std::uint32_t>(float_to_e4m3(high)) << 8;
#endif
}
// Codes 2 pair, 2 pair + 1 of four of float8 E4M3, as two f16: exact. One instruction since sm_89.
MOEBENCH_DEVICE std::uint32_t e4m3_to_f16x2(std::uint32_t codes, int pair) {
#if __CUDA_ARCH__ >= 890
  std::uint32_t low;
  std::uint32_t high;
  // As halves of a register, so that no shift is needed.
  asm("{.reg .b16 low, high;\n mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n cvt.rn.f16x2.e4m3x2 %1, high;}"
      : "=r"(low), "=r"(high)
      : "r"(codes));
  return pair == 0 ? low : high;
#else
  // Its bits moved into a f16's are the value over 2^8. Not for NaN.
  const std::uint32_t high = byte_permute(codes, 0, pair == 0 ? 0x1404U : 0x3424U);
  const std::uint32_t bits = (high & 0x80008000U) | (high >> 1 & 0x3f803f80U);
  std::uint32_t numbers;
  asm("{.reg .b32 factor;\n mov.b32 factor, 0x5c005c00;\n mul.rn.f16x2 %0, %1, factor;}"
      : "=r"(numbers)
      : "r"(bits));
  return numbers;
#endif
}
MOEBENCH_DEVICE float rsqrt(float value) { return rsqrtf(value); }
// 2^value within 2 units in the last place; results below 2^-126 are 0.
MOEBENCH_DEVICE float exp2_fast(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
// a / b within 2 units in the last place, for b up to 2^126; 0 for larger ones.
MOEBENCH_DEVICE float divide_fast(float a, float b) { return __fdividef(a, b); }

// ---- Memory ------------------------------------------------------------------------------------
// 16 bytes that are read once, past the first-level cache. `from` is aligned to 16.
MOEBENCH_DEVICE uint4 load_streaming(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}
// The same into `to` if `wanted`, without a branch; else `to` stays and `from` is not read.
MOEBENCH_DEVICE void load_streaming_if(bool wanted, const void* from, uint4& to) {
  asm volatile(
      "{.reg .pred wanted;\n setp.ne.b32 wanted, %5, 0;\n"
      "@wanted ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];}"
      : "+r"(to.x), "+r"(to.y), "+r"(to.z), "+r"(to.w)
      : "l"(from), "r"(static_cast<int>(wanted)));
}
// Memory that no thread writes while the kernel runs.
template <class T>
MOEBENCH_DEVICE T load_constant(const T* from) {
  return __ldg(from);
}
MOEBENCH_DEVICE int atomic_add(int* to, int value) { return atomicAdd(to, value); }
MOEBENCH_DEVICE unsigned atomic_add(unsigned* to, unsigned value) { return atomicAdd(to, value); }
MOEBENCH_DEVICE float atomic_add(float* to, float value) { return atomicAdd(to, value); }
MOEBENCH_DEVICE std::uint64_t atomic_add(std::uint64_t* to, std::uint64_t value) {
  static_assert(sizeof(unsigned long long) == sizeof(std::uint64_t));
  return atomicAdd(reinterpret_cast<unsigned long long*>(to), value);
}
MOEBENCH_DEVICE unsigned atomic_max(unsigned* to, unsigned value) { return atomicMax(to, value); }
MOEBENCH_DEVICE int load_acquire(const int* from) {
  int value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
MOEBENCH_DEVICE void add_release(int* to, int value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
MOEBENCH_DEVICE void fence_device() { __threadfence(); }
// Words that other threads of the device write, or read, meanwhile: one, or four of which each is
// as if alone. Order nothing else.
MOEBENCH_DEVICE uint4 load_relaxed(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
MOEBENCH_DEVICE std::uint32_t load_relaxed(const std::uint32_t* from) {
  std::uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
MOEBENCH_DEVICE std::uint64_t load_relaxed(const std::uint64_t* from) {
  std::uint64_t value;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}
MOEBENCH_DEVICE int load_relaxed(const int* from) {
  int value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
MOEBENCH_DEVICE void store_relaxed(std::uint32_t* to, std::uint32_t value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
// A pause inside a loop that waits for another thread; and none, where every nanosecond counts.
MOEBENCH_DEVICE void spin_pause() { __nanosleep(20); }
MOEBENCH_DEVICE void spin_on() {}

MOEBENCH_DEVICE unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char moebench_dynamic_shared[];
  return moebench_dynamic_shared;
}
MOEBENCH_DEVICE std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// The same value, in a register from here on. Without it the compiler computes what follows from a
// thread's number again wherever it is used, also in a loop whose warps have no time for that.
MOEBENCH_DEVICE int keep(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// ---- Threads together --------------------------------------------------------------------------
MOEBENCH_DEVICE void sync_threads() { __syncthreads(); }
MOEBENCH_DEVICE void sync_warp(unsigned mask = 0xffffffffU) { __syncwarp(mask); }
// Barrier `id` in [1, 16) of the first `threads` (a multiple of 32) to come.
MOEBENCH_DEVICE void sync_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
// The same without waiting: counts towards `threads`.
MOEBENCH_DEVICE void arrive_named(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
template <class T>
MOEBENCH_DEVICE T shuffle_xor(unsigned mask, T value, int lanes) {
  return __shfl_xor_sync(mask, value, lanes);
}
template <class T>
MOEBENCH_DEVICE T shuffle(unsigned mask, T value, int lane) {
  return __shfl_sync(mask, value, lane);
}
// From lane `place` of the quad. Known to the compiler, it takes no register.
template <class T>
MOEBENCH_DEVICE T shuffle_quad(unsigned mask, T value, int place) {
  return __shfl_sync(mask, value, place, 4);
}
template <class T>
MOEBENCH_DEVICE T shuffle_up(unsigned mask, T value, int lanes) {
  return __shfl_up_sync(mask, value, lanes);
}
template <class T>
MOEBENCH_DEVICE T shuffle_down(unsigned mask, T value, int lanes) {
  return __shfl_down_sync(mask, value, lanes);
}
MOEBENCH_DEVICE unsigned ballot(unsigned mask, bool value) { return __ballot_sync(mask, value); }
MOEBENCH_DEVICE bool any(unsigned mask, bool value) { return __any_sync(mask, value) != 0; }
MOEBENCH_DEVICE bool all(unsigned mask, bool value) { return __all_sync(mask, value) != 0; }
// Over the lanes of the mask, in each of them (sm_80).
MOEBENCH_DEVICE unsigned reduce_max(unsigned mask, unsigned value) {
  return __reduce_max_sync(mask, value);
}
MOEBENCH_DEVICE unsigned reduce_min(unsigned mask, unsigned value) {
  return __reduce_min_sync(mask, value);
}
MOEBENCH_DEVICE int count_bits(unsigned value) { return __popc(value); }
// The number of the lowest bit that is set, from 0; -1 if there is none.
MOEBENCH_DEVICE int lowest_bit(unsigned value) { return __ffs(static_cast<int>(value)) - 1; }

// ---- Asynchronous copies (sm_80) ----------------------------------------------------------------
// 16 bytes to shared memory, zeros if not `valid`. `to`, `from` aligned to 16.
MOEBENCH_DEVICE void copy_async(void* to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
MOEBENCH_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the last `kLeft` groups of this thread have landed.
template <int kLeft>
MOEBENCH_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// ---- Tensor cores (sm_80)
// ------------------------------------------------------------------------ Four 8x8 matrices of
// 16-bit values: lane l gives the address of row l % 8 of matrix l / 8, and receives elements (l /
// 4, 2 (l % 4)) and the next of matrix i in r[i].
MOEBENCH_DEVICE void load_matrices(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, each matrix transposed.
MOEBENCH_DEVICE void load_matrices_transposed(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// An 8x8 matrix of 16-bit values, of which lane l holds elements (l / 4, 2 (l % 4)) and the next:
// transposed.
MOEBENCH_DEVICE std::uint32_t transpose_matrix(std::uint32_t elements) {
  std::uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(transposed) : "r"(elements));
  return transposed;
}
// c += a b, with a [16, 16] and b [16, 8] of bf16, c of float. Lane l with g = l / 4, t = l % 4:
//   a[0], a[1], a[2], a[3]: columns 2t, 2t + 1 of rows g and g + 8, then columns 2t + 8, 2t + 9
//   b[0], b[1]: rows 2t, 2t + 1 and rows 2t + 8, 2t + 9 of column g
//   c[0..3]: columns 2t, 2t + 1 of row g, then of row g + 8
MOEBENCH_DEVICE void multiply_bf16(float (&c)[4], const std::uint32_t (&a)[4],
                                   const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The same with f16.
MOEBENCH_DEVICE void multiply_f16(float (&c)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// c += a b, with a [16, 32] and b [32, 8] of float8 E4M3 (sm_89; Hopper has no such instruction:
// there its operands are made f16, both, each time), c of float:
//   a[0], a[1], a[2], a[3]: columns 4t .. 4t + 3 of rows g and g + 8, then columns 4t + 16 ...
//   b[0], b[1]: rows 4t .. 4t + 3 and rows 4t + 16 ... of column g
//   c[0..3]: as above
MOEBENCH_DEVICE void multiply_e4m3(float (&c)[4], const std::uint32_t (&a)[4],
                                   const std::uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 890
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}
// The same with signed bytes and exact sums.
MOEBENCH_DEVICE void multiply_int8(std::int32_t (&c)[4], const std::uint32_t (&a)[4],
                                   const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- Launches that overlap (sm_90)
// ---------------------------------------------------------------- Until the kernel before this one
// in the stream has finished writing; and: the next may start.
MOEBENCH_DEVICE void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
MOEBENCH_DEVICE void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace moebench::gpu

#include "kernels/core/gpu_ptx_hopper.cuh"
