// A CUDA thread as its kernel sees it on the SIMT machine: where it is, the shared memory of its
// block, and the way out when it does what CUDA does not allow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace moebench::simt {

using Where = std::source_location;

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct Thread {
  Dim3 thread_index, block_index, block_size, grid_size;
  unsigned lane = 0;  // of its warp
  unsigned warp = 0;  // of its block
};
// The one that runs on this worker. Constant initialisation spares every use a check.
extern constinit thread_local Thread* current;

// Ends the launch with this message, to which block and thread are added.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

// A pause in a loop that waits for memory to change: everything else runs first.
void spin(Where at);
// What __threadfence orders, for ThreadSanitizer; memory itself is always in order.
void fence();

// ---- Shared memory: an array of bytes per block, poisoned with NaN, where addresses are offsets
// -- The array that stands at one place of the source (`key`); the same for all threads of the
// block.
void* static_shared(const void* key, std::size_t bytes, std::size_t alignment);
void* dynamic_shared();
std::uint32_t shared_address(const void* pointer);
// For words that load from the device's memory alone, past what keeps it coherent: not a thread's
// own variables, nor shared memory, nor what this launch has written.
void check_global(const void* pointer, std::size_t bytes, const char* what);

unsigned cluster_rank();
// The same place in the shared memory of another block of the cluster.
void* cluster_pointer(const void* mine, unsigned rank);

}  // namespace moebench::simt
