// Inside the machine: a block of threads, and all that they share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tests/simt/async.h"
#include "tests/simt/collectives.h"
#include "tests/simt/thread.h"

namespace moebench::simt {

struct Block;

struct Copy {
  void* to;
  const void* from;  // null: zeros
};
// The cp.async copies of a thread that have not landed.
struct PendingCopies {
  std::vector<Copy> copies;
  std::vector<std::size_t> group_ends;
};

inline constexpr std::size_t kStackBytes = 256 << 10;
// Shared memory and gaps; all that 18 bits address.
inline constexpr std::size_t kMemoryBytes = 256 << 10;

struct Fiber : Thread {
  void* stack_pointer = nullptr;
  std::byte* stack = nullptr;
  Block* block = nullptr;
  std::uintptr_t shared = 0;  // the address of its block's memory
  bool finished = false;
  Fiber* next = nullptr;            // in the list where it waits
  const char* waits_for = nullptr;  // for the report of a deadlock
  Where waits_at;
  const std::uint64_t* waits_on = nullptr;  // if it is an mbarrier
  PendingCopies copies;
  bool waited = false;          // for the previous kernel, or is behind a thread that has
  std::uint32_t write_tag = 0;  // see Block::unfenced
  void* tsan_fiber = nullptr;
};

inline constexpr int kWarpgroup = 128;
inline constexpr int kMaxThreads = 1024;  // of a block
inline constexpr int kMaxWarps = kMaxThreads / 32;
inline constexpr int kNumBarriers = 16;
inline constexpr int kMaxGatherings = 16;  // of disjoint parts of a warp, at one time

// Fibers that wait for the same thing, in the order they came.
struct WaitList {
  Fiber* first = nullptr;
  Fiber* last = nullptr;
};

// Lanes of one warp on their way to one collective.
struct Gathering {
  unsigned mask = 0, arrived = 0;
  Combine combine = nullptr;
  Where at;
  void* operands[32];
  WaitList waiting;
};

struct Barrier {
  int arrived = 0;
  int expected = 0;  // 0: all threads that have not ended
  Where at;
  unsigned lanes[32] = {};  // of each warp
  WaitList waiting;
};

// Registers of 128 threads in which products that have not been waited for accumulate. The
// threads' own hold NaN meanwhile.
struct Accumulators {
  int count = 0;                      // of each thread
  float* registers[kWarpgroup] = {};  // of those that have issued the first product
  std::vector<float> values;          // [kWarpgroup][count]
  float* of(int thread) { return values.data() + static_cast<std::ptrdiff_t>(thread) * count; }
};
struct Product {
  WgmmaOperands operands;
  Where at;
  std::vector<std::uint32_t> a;  // [kWarpgroup][4], if in registers
  std::shared_ptr<Accumulators> accumulators;
  int issued = 0;  // by so many threads
  int waited = 0;
  bool computed = false;
};
// Four warps, and the products that are in flight for some of their threads.
struct Warpgroup {
  bool used = false;
  int registers = 0;  // of a thread, as setmaxnreg says; 0: as the kernel was started
  struct Progress {
    std::uint64_t issued = 0, waited = 0;  // products
    std::vector<std::uint64_t> groups;     // products issued at the end of each
    bool fenced = false;
  };
  Progress threads[kWarpgroup];
  std::deque<Product> products;
  std::uint64_t first = 0;   // number of the first of them
  std::uint64_t issued = 0;  // products that all threads have issued
  bool pending = false;      // some of them have not been computed
  WaitList waiting;          // for products to be computed

  Product& product(std::uint64_t number) { return products[number - first]; }
};

struct SharedArray {
  const void* key;
  std::size_t offset, bytes;
};

struct Block {
  Block();
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  int num_threads = 0;
  int running = 0;  // threads that have not ended
  std::vector<Fiber*> fibers;
  Gathering gatherings[kMaxWarps][kMaxGatherings];
  int num_gathering[kMaxWarps] = {};  // of them, with lanes that wait
  Barrier barriers[kNumBarriers];
  Warpgroup warpgroups[kMaxThreads / kWarpgroup];

  std::byte* memory = nullptr;  // shared
  std::size_t dynamic_bytes = 0;
  std::size_t static_bytes = 0;
  std::size_t used_bytes = 0;  // of `memory`, gaps included
  std::vector<SharedArray> arrays;
  // What threads that have waited for the previous kernel have released since.
  std::unordered_set<const void*> waited_at;
  const void* last_waited_at = nullptr;  // what was put into it last
  // Of each word of `memory`: which thread wrote it last, and after how many of its fences (its
  // write_tag then); 0 if none did. Copies go only where that thread has fenced since. See
  // accesses.h.
  std::vector<std::uint32_t> unfenced;
  std::uint32_t epoch = 0;  // the highest of any thread so far
  // Initialised, and not fenced since by who did.
  std::vector<std::pair<const std::uint64_t*, const Fiber*>> unfenced_mbarriers;

  unsigned cluster_rank = 0, cluster_size = 1;
  Block** cluster = nullptr;           // all its blocks
  Barrier* cluster_barrier = nullptr;  // of the cluster
};

}  // namespace moebench::simt
