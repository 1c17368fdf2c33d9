// The words of Hopper (sm_90) under nvcc: barriers that count bytes, copies of whole tiles (TMA),
// matrix products of four warps (wgmma), clusters. Read through gpu.cuh.
//
// The order of a pipeline stage, in these words: a producer thread arrives at `full` expecting
// bytes and loads tiles into the stage; four warps wait for `full`, then wgmma_fence,
// wgmma_bf16..., wgmma_commit, wgmma_wait, and arrive at `empty`, for which the producer waits
// before it loads there again.
//
// PTX reference: "Parallel Thread Execution ISA", sections on mbarrier, cp.async.bulk, wgmma,
// matrix descriptors ("Strides", "Swizzling modes") and setmaxnreg.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/device.h"

// PTX where the architecture has it; elsewhere it traps: `unsupported` keeps such kernels from
// being started. wgmma and setmaxnreg belong to sm_90a alone.
#if __CUDA_ARCH__ >= 900
#define MOEBENCH_SM90(...) asm volatile(__VA_ARGS__)
#else
#define MOEBENCH_SM90(...) __trap()
#endif
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MOEBENCH_SM90A(...) asm volatile(__VA_ARGS__)
#else
#define MOEBENCH_SM90A(...) __trap()
#endif

namespace moebench::gpu {

// ---- Pairs of 16-bit numbers --------------------------------------------------------------------
// The larger (smaller) in each half.
MOEBENCH_DEVICE std::uint32_t max_u16x2(std::uint32_t a, std::uint32_t b) {
#if __CUDA_ARCH__ >= 900
  std::uint32_t most;
  asm("max.u16x2 %0, %1, %2;" : "=r"(most) : "r"(a), "r"(b));
  return most;
#else
  return __vmaxu2(a, b);
#endif
}
MOEBENCH_DEVICE std::uint32_t min_u16x2(std::uint32_t a, std::uint32_t b) {
#if __CUDA_ARCH__ >= 900
  std::uint32_t least;
  asm("min.u16x2 %0, %1, %2;" : "=r"(least) : "r"(a), "r"(b));
  return least;
#else
  return __vminu2(a, b);
#endif
}

// ---- Barriers in shared memory that count arrivals and bytes (mbarrier) -------------------------
// A phase ends when all arrivals and all expected bytes are there; then the next begins by itself.
struct alignas(8) Mbarrier {
  std::uint64_t state;
};
// By one thread, followed by fence_mbarrier_init and a barrier of the block (or cluster).
MOEBENCH_DEVICE void mbarrier_init(Mbarrier* barrier, int arrivals) {
  MOEBENCH_SM90("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                "r"(arrivals)
                : "memory");
}
MOEBENCH_DEVICE void fence_mbarrier_init() {
  MOEBENCH_SM90("fence.mbarrier_init.release.cluster;" ::: "memory");
}
MOEBENCH_DEVICE void mbarrier_arrive(Mbarrier* barrier) {
  MOEBENCH_SM90("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                : "memory");
}
// Arrives, and lets the phase wait for so many bytes of asynchronous copies, too.
MOEBENCH_DEVICE void mbarrier_arrive_expect_bytes(Mbarrier* barrier, int bytes) {
  MOEBENCH_SM90(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Until the phase of this parity has ended: 0 for the first, 1 for the second, 0 for the third...
// A barrier that is new counts as past parity 1.
MOEBENCH_DEVICE void mbarrier_wait(Mbarrier* barrier, unsigned parity) {
  std::uint32_t done = 0;
  do {
    MOEBENCH_SM90(
        "{.reg .pred done;\n mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        " selp.u32 %0, 1, 0, done;}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (done == 0);
}

// ---- Copies by the tensor memory accelerator ----------------------------------------------------
// Called by one thread. The bytes count towards the barrier's phase when they have landed.

// The tile of `map`'s matrix whose first element is (row, column), which may lie partly outside:
// zeros arrive there, and count. `to` is aligned to 128 bytes, with a swizzle to 8 times its bytes.
MOEBENCH_DEVICE void load_tile_async(void* to, const TensorMap& map, int column, int row,
                                     Mbarrier* barrier) {
  MOEBENCH_SM90(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(barrier)), "r"(column), "r"(row)
      : "memory");
}
// Contiguous bytes. `to`, `from` and `bytes` are multiples of 16.
MOEBENCH_DEVICE void copy_bulk_async(void* to, const void* from, int bytes, Mbarrier* barrier) {
  MOEBENCH_SM90(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}
// Hints: bytes (a multiple of 16, as is `from`) into the second-level cache; the map itself.
MOEBENCH_DEVICE void prefetch_bulk(const void* from, int bytes) {
  MOEBENCH_SM90("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes));
}
MOEBENCH_DEVICE void prefetch_tensor_map(const TensorMap& map) {
  MOEBENCH_SM90("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Between this thread's own writes to shared memory and a barrier after which wgmma or a bulk copy
// reads them. Not needed for what bulk copies wrote.
MOEBENCH_DEVICE void fence_async_proxy() {
  MOEBENCH_SM90("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- Matrix products of four warps (wgmma, sm_90a) ----------------------------------------------
// All 128 threads of warps 4i .. 4i + 3 call these, with the same descriptors.

// Operand [rows, 64] of bf16 (or [rows, 128] of bytes) in shared memory, rows of 128 bytes in which
// 16-byte chunk c of row r lies at chunk c ^ (r % 8): as load_tile_async with the swizzle leaves it
// (see swizzle_128). The tile starts at a multiple of 1024 bytes; the address given is the tile's
// plus 32 for every step of K (16 bf16, 32 bytes) inside it.
MOEBENCH_DEVICE std::uint64_t wgmma_descriptor(const void* tile) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kRowGroups = std::uint64_t{1024 >> 4} << 32;  // 8 rows of 128 bytes
  constexpr std::uint64_t kUnused = std::uint64_t{1} << 16;
  return kSwizzle128 | kRowGroups | kUnused | (shared_address(tile) >> 4 & 0x3fff);
}
// Operand without swizzle: 8 rows of 16 bytes lie together in 128 bytes ("core matrix"); the next
// 16 bytes of K are `k_stride` bytes on, the next 8 rows `row_stride`. `tile` is aligned to 16.
MOEBENCH_DEVICE std::uint64_t wgmma_descriptor_unswizzled(const void* tile, int k_stride,
                                                          int row_stride) {
  return static_cast<std::uint64_t>(row_stride >> 4) << 32 |
         static_cast<std::uint64_t>(k_stride >> 4) << 16 | (shared_address(tile) >> 4 & 0x3fff);
}

// Keeps the compiler from moving uses of these registers across.
MOEBENCH_DEVICE void pin_registers(float& value) { asm volatile("" : "+f"(value)::"memory"); }
MOEBENCH_DEVICE void pin_registers(std::uint32_t& value) {
  asm volatile("" : "+r"(value)::"memory");
}
template <class T, int kCount>
MOEBENCH_DEVICE void pin_registers(T (&values)[kCount]) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kCount; ++i) pin_registers(values[i]);
}

// What these registers hold is needed no more: a product is about to overwrite them, though the
// compiler takes it to read them. Until then they may serve for something else.
MOEBENCH_DEVICE void forget_registers(float& value) { asm volatile("" : "=f"(value)); }
template <int kCount>
MOEBENCH_DEVICE void forget_registers(float (&values)[kCount]) {
  MOEBENCH_UNROLL
  for (float& value : values) forget_registers(value);
}

// Before the first product, and after every other use of the registers (arrays of accumulators and
// of A's fragments) that the products to come read: name them all.
template <class... Registers>
MOEBENCH_DEVICE void wgmma_fence(Registers&... registers) {
  (pin_registers(registers), ...);
  MOEBENCH_SM90A("wgmma.fence.sync.aligned;" ::: "memory");
}
MOEBENCH_DEVICE void wgmma_commit() {
  MOEBENCH_SM90A("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until all but the last kLeft groups are done. Name the accumulators that are used afterwards.
template <int kLeft, class... Accumulators>
MOEBENCH_DEVICE void wgmma_wait(Accumulators&... accumulators) {
  MOEBENCH_SM90A("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
  (pin_registers(accumulators), ...);
}

#define MOEBENCH_D4 "%0, %1, %2, %3"
#define MOEBENCH_D8 MOEBENCH_D4 ", %4, %5, %6, %7"
#define MOEBENCH_D12 MOEBENCH_D8 ", %8, %9, %10, %11"
#define MOEBENCH_D16 MOEBENCH_D8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MOEBENCH_D32 \
  MOEBENCH_D16       \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MOEBENCH_D48 \
  MOEBENCH_D32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define MOEBENCH_D64 \
  MOEBENCH_D48       \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define MOEBENCH_D96                                                                 \
  MOEBENCH_D64                                                                       \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define MOEBENCH_D128                                                                            \
  MOEBENCH_D96                                                                                   \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126"   \
  ", %127"
#define MOEBENCH_OUT4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MOEBENCH_OUT8(i) MOEBENCH_OUT4(i), MOEBENCH_OUT4(i + 4)
#define MOEBENCH_OUT12(i) MOEBENCH_OUT8(i), MOEBENCH_OUT4(i + 8)
#define MOEBENCH_OUT16(i) MOEBENCH_OUT8(i), MOEBENCH_OUT8(i + 8)
#define MOEBENCH_OUT32(i) MOEBENCH_OUT16(i), MOEBENCH_OUT16(i + 16)
#define MOEBENCH_OUT48(i) MOEBENCH_OUT32(i), MOEBENCH_OUT16(i + 32)
#define MOEBENCH_OUT64(i) MOEBENCH_OUT32(i), MOEBENCH_OUT32(i + 32)
#define MOEBENCH_OUT96(i) MOEBENCH_OUT64(i), MOEBENCH_OUT32(i + 64)
#define MOEBENCH_OUT128(i) MOEBENCH_OUT64(i), MOEBENCH_OUT64(i + 64)

// One product with n columns and r = n / 2 accumulators a thread. a, b, ... number the operands
// that follow them; `type` names k and the types, `flags` what follows the predicate.
#define MOEBENCH_WGMMA_SHARED(n, r, type, flags, a, b, keep)                             \
  if constexpr (kRegisters == r) {                                                       \
    MOEBENCH_SM90A("{.reg .pred keep;\n setp.ne.b32 keep, %" #keep                       \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #n type " {" MOEBENCH_D##r \
                   "}, %" #a ", %" #b ", keep, " flags ";}"                              \
                   : MOEBENCH_OUT##r(0)                                                  \
                   : "l"(a_tile), "l"(b_tile), "r"(static_cast<int>(accumulate)));       \
  }
#define MOEBENCH_WGMMA_REGISTERS(n, r, type, flags, a0, a1, a2, a3, b, keep)                 \
  if constexpr (kRegisters == r) {                                                           \
    MOEBENCH_SM90A("{.reg .pred keep;\n setp.ne.b32 keep, %" #keep                           \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #n type " {" MOEBENCH_D##r     \
                   "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b ", keep, " flags ";}" \
                   : MOEBENCH_OUT##r(0)                                                      \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile),                \
                     "r"(static_cast<int>(accumulate)));                                     \
  }
#define MOEBENCH_WGMMA_SHARED_SIZES(type, flags)          \
  MOEBENCH_WGMMA_SHARED(8, 4, type, flags, 4, 5, 6)       \
  MOEBENCH_WGMMA_SHARED(16, 8, type, flags, 8, 9, 10)     \
  MOEBENCH_WGMMA_SHARED(24, 12, type, flags, 12, 13, 14)  \
  MOEBENCH_WGMMA_SHARED(32, 16, type, flags, 16, 17, 18)  \
  MOEBENCH_WGMMA_SHARED(64, 32, type, flags, 32, 33, 34)  \
  MOEBENCH_WGMMA_SHARED(96, 48, type, flags, 48, 49, 50)  \
  MOEBENCH_WGMMA_SHARED(128, 64, type, flags, 64, 65, 66) \
  MOEBENCH_WGMMA_SHARED(192, 96, type, flags, 96, 97, 98) \
  MOEBENCH_WGMMA_SHARED(256, 128, type, flags, 128, 129, 130)
#define MOEBENCH_WGMMA_REGISTERS_SIZES(type, flags)                        \
  MOEBENCH_WGMMA_REGISTERS(8, 4, type, flags, 4, 5, 6, 7, 8, 9)            \
  MOEBENCH_WGMMA_REGISTERS(16, 8, type, flags, 8, 9, 10, 11, 12, 13)       \
  MOEBENCH_WGMMA_REGISTERS(24, 12, type, flags, 12, 13, 14, 15, 16, 17)    \
  MOEBENCH_WGMMA_REGISTERS(32, 16, type, flags, 16, 17, 18, 19, 20, 21)    \
  MOEBENCH_WGMMA_REGISTERS(64, 32, type, flags, 32, 33, 34, 35, 36, 37)    \
  MOEBENCH_WGMMA_REGISTERS(96, 48, type, flags, 48, 49, 50, 51, 52, 53)    \
  MOEBENCH_WGMMA_REGISTERS(128, 64, type, flags, 64, 65, 66, 67, 68, 69)   \
  MOEBENCH_WGMMA_REGISTERS(192, 96, type, flags, 96, 97, 98, 99, 100, 101) \
  MOEBENCH_WGMMA_REGISTERS(256, 128, type, flags, 128, 129, 130, 131, 132, 133)

// d = a b^T, + d if `accumulate`, with a [64, 16] and b [N, 16] of bf16; N = 2 kRegisters is one of
// 8, 16, 24, 32, 64, 96, 128, 192, 256. Not before wgmma_wait may a thread use d, or change a and
// b. Thread 32 w + l of the four warps, with g = l / 4 and t = l % 4, holds in d[4 j .. 4 j + 3]
// columns 8 j + 2 t and the next of row 16 w + g, then those of row 16 w + g + 8.
template <int kRegisters>
MOEBENCH_DEVICE void wgmma_bf16(float (&d)[kRegisters], std::uint64_t a_tile, std::uint64_t b_tile,
                                bool accumulate = true) {
  MOEBENCH_WGMMA_SHARED_SIZES("k16.f32.bf16.bf16", "1, 1, 0, 0")
}
// The same with a in registers: warp w holds rows 16 w .. 16 w + 15, as multiply_bf16 wants them.
template <int kRegisters>
MOEBENCH_DEVICE void wgmma_bf16(float (&d)[kRegisters], const std::uint32_t (&a)[4],
                                std::uint64_t b_tile, bool accumulate = true){
    MOEBENCH_WGMMA_REGISTERS_SIZES("k16.f32.bf16.bf16", "1, 1, 0")}
// d = a b, with a [64, 16] in registers and b [16, 64] as its rows lie in memory, those of 128
// bytes that wgmma_descriptor describes: the next 16 rows are 2048 bytes on.
MOEBENCH_DEVICE void wgmma_bf16_transposed(float (&d)[32], const std::uint32_t (&a)[4],
                                           std::uint64_t b_tile, bool accumulate = true) {
  constexpr int kRegisters = 32;
  MOEBENCH_WGMMA_REGISTERS(64, 32, "k16.f32.bf16.bf16", "1, 1, 1", 32, 33, 34, 35, 36, 37)
}
// As wgmma_bf16, with a [64, 32] and b [N, 32] of float8 E4M3. The hardware keeps fewer bits of the
// sum than float has: promote partial sums every 128 of K.
template <int kRegisters>
MOEBENCH_DEVICE void wgmma_e4m3(float (&d)[kRegisters], std::uint64_t a_tile, std::uint64_t b_tile,
                                bool accumulate = true) {
  MOEBENCH_WGMMA_SHARED_SIZES("k32.f32.e4m3.e4m3", "1, 1")
}
template <int kRegisters>
MOEBENCH_DEVICE void wgmma_e4m3(float (&d)[kRegisters], const std::uint32_t (&a)[4],
                                std::uint64_t b_tile, bool accumulate = true) {
  MOEBENCH_WGMMA_REGISTERS_SIZES("k32.f32.e4m3.e4m3", "1, 1")
}
// With -a in the place of a.
template <int kRegisters>
MOEBENCH_DEVICE void wgmma_e4m3_negated(float (&d)[kRegisters], const std::uint32_t (&a)[4],
                                        std::uint64_t b_tile, bool accumulate = true) {
  MOEBENCH_WGMMA_REGISTERS_SIZES("k32.f32.e4m3.e4m3", "-1, 1")
}

// Moves registers between groups of four warps: producers give some back, consumers take more.
// kCount is a multiple of 8 from 24 to 256; all threads of four warps call it.
template <int kCount>
MOEBENCH_DEVICE void raise_max_registers() {
  MOEBENCH_SM90A("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
MOEBENCH_DEVICE void lower_max_registers() {
  MOEBENCH_SM90A("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

// ---- Clusters: blocks that reach each other's shared memory -------------------------------------
MOEBENCH_DEVICE unsigned cluster_rank() {
  std::uint32_t rank = 0;
  MOEBENCH_SM90("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// Every thread of every block of the cluster. Also the last thing before exit where another block
// may still reach for this one's memory.
MOEBENCH_DEVICE void sync_cluster() {
  MOEBENCH_SM90("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;" ::
                    : "memory");
}
// The same shared variable in block `rank` of the cluster.
template <class T>
MOEBENCH_DEVICE T* cluster_pointer(T* mine, unsigned rank) {
  std::uint64_t pointer = 0;
  MOEBENCH_SM90("mapa.u64 %0, %1, %2;" : "=l"(pointer) : "l"(mine), "r"(rank));
  return reinterpret_cast<T*>(pointer);
}

}  // namespace moebench::gpu
