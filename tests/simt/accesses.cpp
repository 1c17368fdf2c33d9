// See accesses.h.
#include "tests/simt/accesses.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "tests/simt/scheduler.h"

namespace moebench::simt {

// ---- Traps --------------------------------------------------------------------------------------

#if defined(SIMT_TSAN)
namespace {
void catch_traps() {}
void leave_traps() {}
}  // namespace
#else
namespace {

// ": file:line", as far as the program's debug information tells.
Place place_of(const void* instruction) {
  Place result{};
  std::memcpy(result.text, ": ", 2);
  __sanitizer_symbolize_pc(const_cast<void*>(instruction), "%s:%l", result.text + 2,
                           sizeof result.text - 2);
  return result;
}

// Never returns to the kernel: the launch has failed.
void on_trap(int, siginfo_t*, void* context) {
  if (current == nullptr) std::abort();
  const auto* state = static_cast<const ucontext_t*>(context);
  const auto instruction = static_cast<std::uintptr_t>(state->uc_mcontext.gregs[REG_RIP]);
  fail("undefined: a shift, an overflow, a division, an index or a misaligned address%s",
       place_of(reinterpret_cast<const void*>(instruction)).c_str());
}

struct sigaction before_launch;
// Whoever looks for signals between launches (Catch2) finds its own handler again.
void catch_traps() {
  struct sigaction action {};
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, &before_launch);
}
void leave_traps() { sigaction(SIGILL, &before_launch, nullptr); }

}  // namespace
#endif

// ---- Launches that overlap ----------------------------------------------------------------------

namespace {

// The launch that runs: launches run one after the other, each by one or more workers.
struct LaunchOrder {
  std::uint32_t number = 0;  // of launches so far
  std::uint32_t first = 0;   // of those that may still be under way where this one does not wait
  bool overlaps = false;     // may start before the previous one ends
  bool stream_is_empty = false;  // when the next one begins
  std::atomic<bool> waits = false;
  std::atomic<bool> starts_next_unwaited = false;
  std::vector<const char*> names;
};
LaunchOrder order;

}  // namespace

void begin_launch(const Shape& shape) {
  // A kernel that lets the next one start before it has waited itself does not keep the launches
  // before it away from that one either.
  const std::uint32_t first = order.starts_next_unwaited ? order.first : order.number;
  ++order.number;
  order.names.push_back(shape.name);
  order.overlaps = shape.overlap_previous;
  order.first = order.overlaps && !order.stream_is_empty && first > 0 ? first : order.number;
  order.stream_is_empty = false;
  order.waits = order.starts_next_unwaited = false;
  catch_traps();
}

std::string end_launch() {
  leave_traps();
  // Who waits for this one would not wait for those before it.
  if (!order.overlaps || order.waits) return "";
  return "may start before the previous kernel ends and never waits for it";
}

void no_launch_is_under_way() { order.stream_is_empty = true; }

void wait_for_previous_kernel() {
  Scheduler::fiber().waited = true;
  order.waits = true;
}

void let_next_kernel_start() {
  if (order.overlaps && !Scheduler::fiber().waited) order.starts_next_unwaited = true;
}

#if !defined(SIMT_TSAN)
void release(void* token) {
  if (current == nullptr || order.first == order.number) return;
  const Fiber& self = Scheduler::fiber();
  Block& block = *self.block;
  if (!self.waited || block.last_waited_at == token) return;  // most come where another just has
  block.waited_at.insert(token);
  block.last_waited_at = token;
}
void acquire(void* token) {
  if (current == nullptr || order.first == order.number) return;
  Fiber& self = Scheduler::fiber();
  if (!self.waited) self.waited = self.block->waited_at.count(token) != 0;
}
#endif

// ---- Shared memory: tags of who wrote a word, and after how many fences -------------------------

namespace {
constexpr std::uint32_t kWord = 4;
constexpr std::uint32_t kThreadBits = 10;
constexpr std::uint32_t kMostEpochs = 1U << 21;
static_assert(kMaxThreads <= 1 << kThreadBits);
}  // namespace

void begin_block(Block& block) {
  block.waited_at.clear();
  block.last_waited_at = nullptr;
  if (block.unfenced.empty() || block.epoch >= kMostEpochs) {
    block.unfenced.assign(kMemoryBytes / kWord, 0);
    block.epoch = 0;
  }
  ++block.epoch;
  for (std::size_t t = 0; t < block.fibers.size(); ++t) {
    block.fibers[t]->waited = false;
    block.fibers[t]->write_tag = block.epoch << kThreadBits | static_cast<std::uint32_t>(t);
  }
  block.unfenced_mbarriers.clear();
}

int unfenced_writer(const Block& block, std::uint32_t address, std::size_t bytes) {
  for (std::size_t word = address / kWord; word * kWord < address + bytes; ++word) {
    const std::uint32_t tag = block.unfenced[word];
    const std::uint32_t thread = tag & ((1U << kThreadBits) - 1);
    if (tag != 0 && thread < block.fibers.size() && block.fibers[thread]->write_tag == tag) {
      return static_cast<int>(thread);
    }
  }
  return -1;
}

void fence_async_proxy() {
  fence_mbarrier_init();
  Fiber& self = Scheduler::fiber();
  self.write_tag += 1U << kThreadBits;
  self.block->epoch = std::max(self.block->epoch, self.write_tag >> kThreadBits);
}

#if !defined(SIMT_TSAN)
namespace {

// ---- Marks of AddressSanitizer, whose runtime is linked -----------------------------------------

// https://github.com/google/sanitizers/wiki/AddressSanitizerAlgorithm: a byte for eight of memory,
// 0 if all may be used, n if the first n may.
#if !defined(__x86_64__)
#error "AddressSanitizer's shadow has another offset on this processor"
#endif
constexpr std::uintptr_t kShadow = 0x7fff8000;

template <std::size_t kBytes>
bool is_marked(std::uintptr_t address) {
  if constexpr (kBytes == 16) {
    std::uint16_t marks;
    __builtin_memcpy(&marks, reinterpret_cast<const void*>((address >> 3) + kShadow), 2);
    return marks != 0;
  } else {
    const auto mark = *reinterpret_cast<const std::int8_t*>((address >> 3) + kShadow);
    return mark != 0 && static_cast<std::int8_t>((address & 7) + kBytes - 1) >= mark;
  }
}

// ---- Global memory: the last launches that read and wrote each 16 bytes -------------------------

struct Cell {
  std::uint32_t writer = 0;  // times 16, and which of the four words it wrote
  std::uint32_t reader = 0;

  bool was_written(std::uint32_t launch, std::uint32_t words) const {
    return writer / 16 == launch && (writer & words) != 0;
  }
};
constexpr std::uintptr_t kCellBytes = 16;
// Of the cell that begins at `cell`: the words that an access touches.
std::uint32_t words_of(std::uintptr_t cell, std::uintptr_t address, std::size_t bytes) {
  const std::uintptr_t first = std::max(address, cell) - cell;
  const std::uintptr_t last = std::min(address + bytes, cell + kCellBytes) - 1 - cell;
  return (2U << last / kWord) - (1U << first / kWord);
}
constexpr int kPageBits = 20;
constexpr std::size_t kPageCells = (std::size_t{1} << kPageBits) / kCellBytes;
constexpr std::size_t kNumPages = std::size_t{1} << (47 - kPageBits);
std::atomic<Cell*>* pages = nullptr;

template <class T>
T* reserve(std::size_t count) {
  void* memory = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("no memory for what is known of the device's memory");
  return static_cast<T*>(memory);  // zeros
}

[[gnu::noinline]] Cell* new_page(std::uintptr_t number) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (pages == nullptr) pages = reserve<std::atomic<Cell*>>(kNumPages);
  if (pages[number] == nullptr) pages[number] = reserve<Cell>(kPageCells);
  return pages[number];
}

[[gnu::always_inline]] inline Cell& cell_of(std::uintptr_t address) {
  const std::uintptr_t number = address >> kPageBits;
  Cell* page = pages != nullptr ? pages[number].load(std::memory_order_relaxed) : nullptr;
  if (page == nullptr) page = new_page(number);
  return page[address / kCellBytes % kPageCells];
}

// ---- What is wrong ------------------------------------------------------------------------------

struct Access {
  std::uintptr_t address;
  std::size_t bytes;
  bool writes;
  const void* where;  // in the kernel; null if the machine does it on its behalf

  const char* verb() const { return writes ? "writes" : "reads"; }
  void* pointer() const { return reinterpret_cast<void*>(address); }
};

Place place(const Access& access) {
  if (access.where == nullptr) return {};
  return place_of(static_cast<const char*>(access.where) - 1);
}

[[noreturn, gnu::noinline]] void fail_outside(Access access) {
  const Block& block = Scheduler::block();
  const auto* at = static_cast<const std::byte*>(access.pointer());
  if (at >= block.memory && at < block.memory + kMemoryBytes) {
    fail("%s %zu bytes of shared memory outside its arrays%s", access.verb(), access.bytes,
         place(access).c_str());
  }
  char name[8];
  void* region = nullptr;
  std::size_t size = 0;
  __asan_locate_address(access.pointer(), name, sizeof name, &region, &size);
  fail("%s %zu bytes at %td of %zu that are not, or no longer, allocated%s", access.verb(),
       access.bytes, at - static_cast<const std::byte*>(region), size, place(access).c_str());
}

[[noreturn, gnu::noinline, gnu::cold]] void fail_too_early(Access access, std::uint32_t launch,
                                                           const char* did) {
  fail("%s before wait_for_previous_kernel what %s %s, which may not have ended%s", access.verb(),
       order.names[launch - 1], did, place(access).c_str());
}

bool under_way(std::uint32_t launch) { return launch >= order.first && launch < order.number; }

// One cell's part of an access.
[[gnu::always_inline]] inline void note_global(Cell& cell, const Fiber& self, const Access& access,
                                               std::uint32_t words) {
  const std::uint32_t number = order.number;
  if (order.first < number && !self.waited) {
    const std::uint32_t writer = cell.writer / 16;
    if (under_way(writer) && (cell.writer & words) != 0) fail_too_early(access, writer, "writes");
    if (access.writes && under_way(cell.reader)) fail_too_early(access, cell.reader, "reads");
  }
  if (access.writes) {
    cell.writer = (cell.writer / 16 == number ? cell.writer : number * 16) | words;
  } else if (cell.reader != number) {
    cell.reader = number;
  }
}

bool is_on_stack(const Fiber& self, std::uintptr_t address) {
  return address - reinterpret_cast<std::uintptr_t>(self.stack) < kStackBytes;
}

bool is_shared_by_cluster(const Block& block, std::uintptr_t address) {
  for (unsigned b = 0; b < block.cluster_size; ++b) {
    const auto memory = reinterpret_cast<std::uintptr_t>(block.cluster[b]->memory);
    if (address - memory < kMemoryBytes) return true;
  }
  return false;
}

// Of a thread of a kernel, within the bounds of something that is not on its stack. kOneCell: it is
// known to touch no more.
template <bool kOneCell>
[[gnu::always_inline]] inline void note(const Access& access) {
  const Fiber& self = *static_cast<const Fiber*>(current);
  Block& block = *self.block;
  const std::uintptr_t address = access.address;
  const std::uintptr_t shared = address - self.shared;
  if (shared < kMemoryBytes) {
    if (!access.writes) return;
    const std::size_t end = (shared + access.bytes + kWord - 1) / kWord;
    for (std::size_t at = shared / kWord; at < end; ++at) block.unfenced[at] = self.write_tag;
    return;
  }
  if (block.cluster_size > 1 && is_shared_by_cluster(block, address)) return;
  const std::uintptr_t first = address / kCellBytes * kCellBytes;
  if constexpr (kOneCell) {
    note_global(cell_of(first), self, access, words_of(first, address, access.bytes));
  } else {
    for (std::uintptr_t at = first; at < address + access.bytes; at += kCellBytes) {
      note_global(cell_of(at), self, access, words_of(at, address, access.bytes));
    }
  }
}

// GCC calls a structure of two words of 8 an access of 16: those need no more than 8. Vectors at
// no multiple of 16 are a trap.
constexpr std::size_t alignment_of(std::size_t bytes) { return std::min<std::size_t>(bytes, 8); }

[[noreturn, gnu::noinline, gnu::cold]] void fail_access(Access access) {
  if (access.address % alignment_of(access.bytes) != 0) {
    fail("%s %zu bytes: misaligned%s", access.verb(), access.bytes, place(access).c_str());
  }
  fail_outside(access);
}

// Half of what the machine does are calls of this: what is seldom is elsewhere.
template <std::size_t kBytes, bool kWrites>
[[gnu::always_inline]] inline void check(void* pointer, const void* where) {
  const auto* self = static_cast<const Fiber*>(current);
  if (self == nullptr) return;  // the host's part of a kernel's file
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const Access access{address, kBytes, kWrites, where};
  if (address % alignment_of(kBytes) != 0) [[unlikely]]
    fail_access(access);
  if (is_on_stack(*self, address)) return;
  if (is_marked<kBytes>(address)) [[unlikely]]
    fail_access(access);
  note<(kBytes <= 8)>(access);
}

void check_range(void* pointer, std::size_t bytes, bool writes, const void* where) {
  if (current == nullptr || bytes == 0) return;
  const Access access{reinterpret_cast<std::uintptr_t>(pointer), bytes, writes, where};
  if (__asan_region_is_poisoned(pointer, bytes) != nullptr) fail_outside(access);
  if (!is_on_stack(*static_cast<const Fiber*>(current), access.address)) note<false>(access);
}

}  // namespace

void check_not_written(const void* memory, std::size_t bytes, const char* what) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  for (std::uintptr_t at = address / kCellBytes * kCellBytes; at < address + bytes;
       at += kCellBytes) {
    if (cell_of(at).was_written(order.number, words_of(at, address, bytes))) {
      fail("%s reads what threads of this launch wrote to the device's memory", what);
    }
  }
}
void note_read(const void* memory, std::size_t bytes) {
  check_range(const_cast<void*>(memory), bytes, false, nullptr);
}
void note_write(void* memory, std::size_t bytes) { check_range(memory, bytes, true, nullptr); }

}  // namespace moebench::simt

// ---- What the compiler calls --------------------------------------------------------------------

#define HERE __builtin_return_address(0)
#define ACCESS_OF(bytes)                                                                       \
  void __tsan_read##bytes(void* memory) { moebench::simt::check<bytes, false>(memory, HERE); } \
  void __tsan_write##bytes(void* memory) { moebench::simt::check<bytes, true>(memory, HERE); }
extern "C" {
ACCESS_OF(1)
ACCESS_OF(2)
ACCESS_OF(4)
ACCESS_OF(8)
ACCESS_OF(16)
void __tsan_read_range(void* memory, std::size_t bytes) {
  moebench::simt::check_range(memory, bytes, false, HERE);
}
void __tsan_write_range(void* memory, std::size_t bytes) {
  moebench::simt::check_range(memory, bytes, true, HERE);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
int __tsan_atomic32_load(const volatile int* from, int) {
  moebench::simt::check<4, false>(const_cast<int*>(from), HERE);
  return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}
void __tsan_atomic32_store(volatile int* to, int value, int) {
  moebench::simt::check<4, true>(const_cast<int*>(to), HERE);
  __atomic_store_n(to, value, __ATOMIC_SEQ_CST);
}
// Of the words that are atomic; their order is the machine's.
int __tsan_atomic32_fetch_add(volatile int* to, int value, int) {
  moebench::simt::check<4, false>(const_cast<int*>(to), HERE);
  moebench::simt::check<4, true>(const_cast<int*>(to), HERE);
  return __atomic_fetch_add(to, value, __ATOMIC_SEQ_CST);
}
long __tsan_atomic64_load(const volatile long* from, int) {
  moebench::simt::check<8, false>(const_cast<long*>(from), HERE);
  return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}
long __tsan_atomic64_fetch_add(volatile long* to, long value, int) {
  moebench::simt::check<8, false>(const_cast<long*>(to), HERE);
  moebench::simt::check<8, true>(const_cast<long*>(to), HERE);
  return __atomic_fetch_add(to, value, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_compare_exchange_weak(volatile int* at, int* expected, int value, int, int) {
  moebench::simt::check<4, false>(const_cast<int*>(at), HERE);
  moebench::simt::check<4, true>(const_cast<int*>(at), HERE);
  return __atomic_compare_exchange_n(at, expected, value, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
char __tsan_atomic8_load(const volatile char* from, int) {  // of static variables
  return __atomic_load_n(from, __ATOMIC_SEQ_CST);
}
}
#else
void check_not_written(const void*, std::size_t, const char*) {}
}  // namespace moebench::simt
#endif
