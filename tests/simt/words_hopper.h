// The words of gpu_ptx_hopper.cuh on the SIMT machine. Read through words.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/core/device.h"
#include "tests/simt/machine.h"

namespace moebench::gpu {

struct alignas(8) Mbarrier {
  std::uint64_t state;
};
inline simt::MBar* machine_barrier(Mbarrier* barrier) {
  static_assert(sizeof(simt::MBar) == sizeof(Mbarrier));
  return reinterpret_cast<simt::MBar*>(barrier);
}
inline void mbarrier_init(Mbarrier* barrier, int arrivals) {
  simt::mbar_init(machine_barrier(barrier), arrivals);
}
inline void fence_mbarrier_init() {}
inline void mbarrier_arrive(Mbarrier* barrier) {
  simt::mbar_arrive(machine_barrier(barrier), 1, 0);
}
inline void mbarrier_arrive_expect_bytes(Mbarrier* barrier, int bytes) {
  simt::mbar_arrive(machine_barrier(barrier), 1, bytes);
}
inline void mbarrier_wait(Mbarrier* barrier, unsigned parity) {
  simt::mbar_wait(machine_barrier(barrier), parity);
}

inline void load_tile_async(void* to, const TensorMap& map, int column, int row,
                            Mbarrier* barrier) {
  TiledMatrix matrix;
  std::memcpy(static_cast<void*>(&matrix), &map, sizeof matrix);
  simt::tma_load_2d(to, matrix, column, row, machine_barrier(barrier));
}
inline void copy_bulk_async(void* to, const void* from, int bytes, Mbarrier* barrier) {
  simt::bulk_copy(to, from, static_cast<unsigned>(bytes), machine_barrier(barrier));
}
inline void prefetch_bulk(const void*, int) {}
inline void prefetch_tensor_map(const TensorMap&) {}
inline void fence_async_proxy() {}

inline std::uint64_t wgmma_descriptor(const void* tile) {
  return std::uint64_t{1} << 62 | std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 16 |
         (shared_address(tile) >> 4 & 0x3fff);
}
inline std::uint64_t wgmma_descriptor_unswizzled(const void* tile, int k_stride, int row_stride) {
  return static_cast<std::uint64_t>(row_stride >> 4) << 32 |
         static_cast<std::uint64_t>(k_stride >> 4) << 16 | (shared_address(tile) >> 4 & 0x3fff);
}
template <class... Registers>
void wgmma_fence(Registers&...) {}
inline void wgmma_commit() {}
template <int kLeft, class... Accumulators>
void wgmma_wait(Accumulators&...) {}

template <int kRegisters>
void wgmma_bf16(float (&d)[kRegisters], std::uint64_t a_tile, std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  simt::wgmma<2>(d, a_tile, nullptr, b_tile, accumulate, simt::site(at));
}
template <int kRegisters>
void wgmma_bf16(float (&d)[kRegisters], const std::uint32_t (&a)[4], std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  simt::wgmma<2>(d, 0, a, b_tile, accumulate, simt::site(at));
}
template <int kRegisters>
void wgmma_e4m3(float (&d)[kRegisters], std::uint64_t a_tile, std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  simt::wgmma<1>(d, a_tile, nullptr, b_tile, accumulate, simt::site(at));
}
template <int kRegisters>
void wgmma_e4m3(float (&d)[kRegisters], const std::uint32_t (&a)[4], std::uint64_t b_tile,
                bool accumulate = true, Where at = Where::current()) {
  simt::wgmma<1>(d, 0, a, b_tile, accumulate, simt::site(at));
}

template <int kCount>
void raise_max_registers() {}
template <int kCount>
void lower_max_registers() {}

inline unsigned cluster_rank() { return simt::cluster_rank(); }
inline void sync_cluster(Where at = Where::current()) { simt::sync_cluster(simt::site(at)); }
template <class T>
T* cluster_pointer(T* mine, unsigned rank) {
  return static_cast<T*>(simt::cluster_ptr(mine, rank));
}

}  // namespace moebench::gpu
