// The words of gpu_ptx_hopper.cuh on the SIMT machine. Read through words.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/core/device.h"
#include "tests/simt/async.h"
#include "tests/simt/collectives.h"
#include "tests/simt/thread.h"

namespace moebench::gpu {

inline std::uint32_t max_u16x2(std::uint32_t a, std::uint32_t b) {
  return std::max(a & 0xffffU, b & 0xffffU) | std::max(a >> 16, b >> 16) << 16;
}
inline std::uint32_t min_u16x2(std::uint32_t a, std::uint32_t b) {
  return std::min(a & 0xffffU, b & 0xffffU) | std::min(a >> 16, b >> 16) << 16;
}

struct alignas(8) Mbarrier {
  std::uint64_t state;
};
inline void mbarrier_init(Mbarrier* barrier, int arrivals) {
  simt::mbarrier_init(&barrier->state, arrivals);
}
inline void fence_mbarrier_init() { simt::fence_mbarrier_init(); }
inline void mbarrier_arrive(Mbarrier* barrier) { simt::mbarrier_arrive(&barrier->state, 0); }
inline void mbarrier_arrive_expect_bytes(Mbarrier* barrier, int bytes) {
  simt::mbarrier_arrive(&barrier->state, bytes);
}
inline void mbarrier_wait(Mbarrier* barrier, unsigned parity, Where at = Where::current()) {
  simt::mbarrier_wait(&barrier->state, parity, at);
}

inline void load_tile_async(void* to, const TensorMap& map, int column, int row, Mbarrier* barrier,
                            Where at = Where::current()) {
  TiledMatrix matrix;  // see EmulatedDevice::make_tensor_map
  std::memcpy(static_cast<void*>(&matrix), &map, sizeof matrix);
  simt::load_tile_async(to, matrix, column, row, &barrier->state, at);
}
inline void copy_bulk_async(void* to, const void* from, int bytes, Mbarrier* barrier,
                            Where at = Where::current()) {
  simt::copy_bulk_async(to, from, bytes, &barrier->state, at);
}
inline void prefetch_bulk(const void*, int) {}
inline void prefetch_tensor_map(const TensorMap&) {}
inline void fence_async_proxy() { simt::fence_async_proxy(); }

inline std::uint64_t wgmma_descriptor(const void* tile) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kRowGroups = std::uint64_t{1024 >> 4} << 32;
  return kSwizzle128 | kRowGroups | shared_address(tile) >> 4;
}
inline std::uint64_t wgmma_descriptor_unswizzled(const void* tile, int k_stride, int row_stride) {
  return static_cast<std::uint64_t>(row_stride >> 4) << 32 |
         static_cast<std::uint64_t>(k_stride >> 4) << 16 | shared_address(tile) >> 4;
}
template <class T>
void pin_registers(T&) {}
template <int kCount>
void forget_registers(float (&values)[kCount]) {
  for (float& value : values) value = std::numeric_limits<float>::quiet_NaN();
}
template <class... Registers>
void wgmma_fence(Registers&...) {
  simt::wgmma_fence();
}
inline void wgmma_commit() { simt::wgmma_commit(); }
template <int kLeft, class... Accumulators>
void wgmma_wait(Accumulators&...) {
  simt::wgmma_wait(kLeft);
}

template <simt::Element kElement, int kRegisters>
void wgmma(float (&d)[kRegisters], std::uint64_t a_tile, const std::uint32_t* a,
           std::uint64_t b_tile, bool accumulate, Where at) {
  constexpr int n = kRegisters * 2;
  static_assert(n == 8 || n == 16 || n == 24 || n == 32 || n == 64 || n == 96 || n == 128 ||
                n == 192 || n == 256);
  simt::wgmma({kElement, n, a_tile, a, b_tile, d, accumulate}, at);
}
template <int kRegisters>
void wgmma_bf16(float (&d)[kRegisters], std::uint64_t a_tile, std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  wgmma<simt::Element::kBf16>(d, a_tile, nullptr, b_tile, accumulate, at);
}
template <int kRegisters>
void wgmma_bf16(float (&d)[kRegisters], const std::uint32_t (&a)[4], std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  wgmma<simt::Element::kBf16>(d, 0, a, b_tile, accumulate, at);
}
inline void wgmma_bf16_transposed(float (&d)[32], const std::uint32_t (&a)[4], std::uint64_t b_tile,
                                  bool accumulate = true, Where at = Where::current()) {
  simt::wgmma({simt::Element::kBf16, 64, 0, a, b_tile, d, accumulate, true}, at);
}
template <int kRegisters>
void wgmma_e4m3(float (&d)[kRegisters], std::uint64_t a_tile, std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  wgmma<simt::Element::kE4m3>(d, a_tile, nullptr, b_tile, accumulate, at);
}
template <int kRegisters>
void wgmma_e4m3(float (&d)[kRegisters], const std::uint32_t (&a)[4], std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  wgmma<simt::Element::kE4m3>(d, 0, a, b_tile, accumulate, at);
}
template <int kRegisters>
void wgmma_e4m3_negated(float (&d)[kRegisters], const std::uint32_t (&a)[4], std::uint64_t b_tile,
                        bool accumulate = true, Where at = Where::current()) {
  const std::uint32_t negated[4] = {a[0] ^ 0x80808080U, a[1] ^ 0x80808080U, a[2] ^ 0x80808080U,
                                    a[3] ^ 0x80808080U};
  wgmma<simt::Element::kE4m3>(d, 0, negated, b_tile, accumulate, at);
}

template <int kCount>
void raise_max_registers(Where at = Where::current()) {
  simt::set_max_registers(kCount, at);
}
template <int kCount>
void lower_max_registers(Where at = Where::current()) {
  simt::set_max_registers(kCount, at);
}

inline unsigned cluster_rank() { return simt::cluster_rank(); }
inline void sync_cluster(Where at = Where::current()) { simt::sync_cluster(at); }
template <class T>
T* cluster_pointer(T* mine, unsigned rank) {
  return static_cast<T*>(simt::cluster_pointer(mine, rank));
}

}  // namespace moebench::gpu
