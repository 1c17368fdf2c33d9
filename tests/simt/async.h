// What happens behind the back of the thread that asked for it: cp.async, bulk copies that a
// barrier counts, and wgmma. See Asynchrony in machine.h.
#pragma once

#include <cstdint>

#include "kernels/core/device.h"
#include "tests/simt/fragments.h"
#include "tests/simt/thread.h"

namespace moebench::simt {

struct Block;

// ---- cp.async: a thread's own copies, in groups -------------------------------------------------
void copy_async(void* to, const void* from, bool valid, Where at);  // 16 bytes, or zeros
void commit_copies();
void wait_copies(int left);

// ---- mbarrier: arrivals and bytes ---------------------------------------------------------------
void mbarrier_init(std::uint64_t* barrier, int arrivals);
void fence_mbarrier_init();  // lets bulk copies count at those that this thread has initialised
void mbarrier_arrive(std::uint64_t* barrier, int expected_bytes);
void mbarrier_wait(std::uint64_t* barrier, unsigned parity, Where at);

// ---- Bulk copies --------------------------------------------------------------------------------
void copy_bulk_async(void* to, const void* from, int bytes, std::uint64_t* barrier, Where at);
void load_tile_async(void* to, const gpu::TiledMatrix& matrix, int column, int row,
                     std::uint64_t* barrier, Where at);
// Lets bulk copies and wgmma see what this thread wrote to shared memory.
void fence_async_proxy();

// ---- wgmma: products of four warps --------------------------------------------------------------
struct WgmmaOperands {
  Element element;
  int columns;                       // N
  std::uint64_t a_tile;              // descriptor, unless a is in registers
  const std::uint32_t* a_registers;  // [4], or null
  std::uint64_t b_tile;
  float* accumulators;  // [N / 2]
  bool accumulate;
  bool b_transposed = false;  // b is [16, N], N at most 64
};
void wgmma(const WgmmaOperands& operands, Where at);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int left);
// setmaxnreg: all four warps must come. Registers are no concern here, but where groups ask for
// more than the block was started with, the hardware waits for ever.
void set_max_registers(int count, Where at);
void check_registers(const Block& block);  // at its end

}  // namespace moebench::simt
