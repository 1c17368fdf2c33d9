// Fibers, and who runs next.
#include "tests/simt/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "tests/simt/accesses.h"

// Saves the running fiber's registers on its stack, its stack pointer in *from, and takes up the
// one that was saved as `to`. The calling convention leaves six registers to be kept.
extern "C" void moebench_simt_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl moebench_simt_switch
.type moebench_simt_switch,@function
moebench_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size moebench_simt_switch,.-moebench_simt_switch
)");
constexpr int kSavedRegisters = 6;
#else
#error "the SIMT machine needs the context switch of this processor: about 20 lines"
#endif

namespace moebench::simt {

constinit thread_local Thread* current = nullptr;

namespace {

constexpr std::size_t kGuardBytes = 4 << 10;
constexpr std::size_t kMemoryAlignment = 1024;
constexpr std::size_t kMaxFibers = 16 << 10;  // each takes two of the kernel's 65,530 mappings
constexpr std::uint64_t kMaxIdleSpins = 10'000'000;  // about a second

constinit thread_local Scheduler* running_scheduler = nullptr;

// With a page in front that an overflow runs into. Null if there is no memory.
std::byte* allocate_stack() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  mprotect(memory, kGuardBytes, PROT_NONE);
  std::byte* stack = static_cast<std::byte*>(memory) + kGuardBytes;
  allow(stack, kStackBytes);  // whatever was at this address before
  return stack;
}
void free_stack(std::byte* stack) { munmap(stack - kGuardBytes, kGuardBytes + kStackBytes); }

std::byte* allocate_memory() {
  return static_cast<std::byte*>(std::aligned_alloc(kMemoryAlignment, kMemoryBytes));
}

}  // namespace

Block::Block() : memory(allocate_memory()) {}
Block::~Block() {
  allow(memory, kMemoryBytes);
  std::free(memory);
}

Scheduler& Scheduler::running() { return *running_scheduler; }
Fiber& Scheduler::fiber() { return *static_cast<Fiber*>(current); }

Scheduler::~Scheduler() { drop_fibers(); }

void Scheduler::drop_fibers() {
  for (FiberSet& set : sets_) {
    for (const auto& fiber : set.fibers) {
      free_stack(fiber->stack);
#if defined(SIMT_TSAN)
      __tsan_destroy_fiber(fiber->tsan_fiber);
#endif
    }
    set.fibers.clear();
  }
}

void Scheduler::begin_launch(const Shape& shape, const Settings& settings,
                             const std::function<void()>& kernel) {
  shape_ = &shape;
  settings_ = &settings;
  kernel_ = &kernel;
  report_ = {};
  random_state_ = settings.seed * 0x9e3779b97f4a7c15U | 1U;
#if defined(SIMT_TSAN)
  main_tsan_fiber_ = __tsan_get_current_fiber();
#endif
  running_scheduler = this;
}

const Report& Scheduler::end_launch() {
  for (FiberSet& set : sets_) {
    for (char& token : set.end_tokens) acquire(&token);
  }
  if (!report_.ok()) drop_fibers();  // some of them are in the middle of the kernel
  running_scheduler = nullptr;
  return report_;
}

// ---- Blocks -------------------------------------------------------------------------------------

bool Scheduler::make_room(std::size_t num_blocks, std::size_t num_fibers) {
  if (num_fibers > kMaxFibers) {
    report_.error = "more than " + std::to_string(kMaxFibers) + " threads at once";
    return false;
  }
  while (set_->fibers.size() < num_fibers) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack = allocate_stack();
    if (fiber->stack == nullptr) {
      report_.error = "no memory for the stack of one more thread";
      return false;
    }
#if defined(SIMT_TSAN)
    fiber->tsan_fiber = __tsan_create_fiber(0);
#endif
    set_->fibers.push_back(std::move(fiber));
  }
  while (set_->blocks.size() < num_blocks) set_->blocks.push_back(std::make_unique<Block>());
  std::size_t ring = 1024;
  while (ring < num_fibers) ring *= 2;
  if (ready_.size() < ring) ready_.resize(ring);
  return true;
}

void Scheduler::prepare_block(std::size_t number, Dim3 index) {
  const Unseen unseen;  // forgets what fibers of the last block wrote down
  Block& block = *set_->blocks[number];
  const Shape& shape = *shape_;
  block.num_threads = static_cast<int>(shape.block.x * shape.block.y * shape.block.z);
  block.running = block.num_threads;
  for (int warp = 0; warp * 32 < block.num_threads; ++warp) {
    for (Gathering& gathering : block.gatherings[warp]) {
      gathering.arrived = 0;
      gathering.waiting = {};
    }
    block.num_gathering[warp] = 0;
  }
  for (Barrier& barrier : block.barriers) barrier = {};
  for (Warpgroup& warpgroup : block.warpgroups) {
    if (warpgroup.used) warpgroup = {};
  }
  block.dynamic_bytes = shape.shared_bytes;
  block.static_bytes = 0;
  block.used_bytes = shape.shared_bytes;
  block.arrays.clear();
  block.cluster_rank = static_cast<unsigned>(number) % shape.cluster;
  block.cluster_size = shape.cluster;
  block.cluster = &set_->cluster_blocks[number / shape.cluster * shape.cluster];
  block.cluster_barrier = &set_->cluster_barriers[number / shape.cluster];
  allow(block.memory, kMemoryBytes);
  poison(block.memory, shape.shared_bytes);
  forbid(block.memory + shape.shared_bytes, kMemoryBytes - shape.shared_bytes);

  block.fibers.clear();
  const auto threads = static_cast<unsigned>(block.num_threads);
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = *set_->fibers[number * threads + t];
    fiber.thread_index = {t % shape.block.x, t / shape.block.x % shape.block.y,
                          t / (shape.block.x * shape.block.y)};
    fiber.block_index = index;
    fiber.block_size = shape.block;
    fiber.grid_size = shape.grid;
    fiber.lane = t % 32;
    fiber.warp = t / 32;
    fiber.block = &block;
    fiber.shared = reinterpret_cast<std::uintptr_t>(block.memory);
    fiber.finished = false;
    fiber.waits_for = nullptr;
    fiber.copies.copies.clear();
    fiber.copies.group_ends.clear();
    // Each begins at other lines of a cache's sets, which stacks of one alignment share.
    const std::size_t skipped = t % 32 * 128;
    // As moebench_simt_switch would have left it, about to return to fiber_main.
    void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - skipped);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&Scheduler::fiber_main);
    for (int i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
    fiber.stack_pointer = top;
    block.fibers.push_back(&fiber);
    push_ready(&fiber);
  }
  begin_block(block);
}

bool Scheduler::run_blocks(const std::vector<Dim3>& indexes) {
  set_ = &sets_[num_sets_run_++ % kFiberSets];
  ++set_->use;
  const Dim3 block = shape_->block;
  unfinished_ = indexes.size() * block.x * block.y * block.z;
  if (!make_room(indexes.size(), unfinished_)) return false;
  set_->cluster_blocks.clear();
  for (std::size_t b = 0; b < indexes.size(); ++b) {
    set_->cluster_blocks.push_back(set_->blocks[b].get());
  }
  set_->cluster_barriers.assign(indexes.size() / shape_->cluster, {});
  head_ = tail_ = std::size_t{1} << 40;  // far from zero on both sides
  spinning_ = {};
  idle_spins_ = 0;
  pending_.clear();
  mbarrier_waits_.clear();
  for (std::size_t b = 0; b < indexes.size(); ++b) prepare_block(b, indexes[b]);

  release(&start_token_);
  switch_to(choose(), nullptr);
  current = nullptr;
  if (report_.ok() && unfinished_ > 0) report_.error = describe_deadlock();
  return report_.ok();
}

// ---- Fibers -------------------------------------------------------------------------------------

// To a fiber, or back to run_blocks (null), from where this is called.
void Scheduler::switch_to(Fiber* to, Fiber* from) {
  ++report_.switches;
  current = to;
#if defined(SIMT_TSAN)
  __tsan_switch_to_fiber(to != nullptr ? to->tsan_fiber : main_tsan_fiber_,
                         __tsan_switch_to_fiber_no_sync);
#endif
  moebench_simt_switch(from != nullptr ? &from->stack_pointer : &main_stack_pointer_,
                       to != nullptr ? to->stack_pointer : main_stack_pointer_);
}

void Scheduler::fiber_main() {
  Scheduler& scheduler = running();
  acquire(&scheduler.start_token_);
  FiberSet& set = *scheduler.set_;
  acquire(&set.end_tokens[(set.use + 1) % 2]);  // fibers and memory are used again
  (*scheduler.kernel_)();

  Fiber& self = fiber();
  check_nothing_in_flight(self);
  release(&set.end_tokens[set.use % 2]);
  self.finished = true;
  --scheduler.unfinished_;
  scheduler.idle_spins_ = 0;
  Block& block = *self.block;
  if (--block.running == 0) {
    for (const Pending& pending : scheduler.pending_) {
      if (pending.block == &block) {
        simt::fail("the block ends while a bulk copy to its shared memory is in flight");
      }
    }
    check_registers(block);
    // Others that still reach for it read NaN.
    if (scheduler.shape_->cluster > 1) poison_shared(block);
  }
  exit_barriers(scheduler, block);
  scheduler.switch_to(scheduler.choose(), &self);
  std::abort();
}

void Scheduler::fail(const char* message) {
  const Fiber& self = fiber();
  const Dim3 b = self.block_index;
  const Dim3 t = self.thread_index;
  report_.error = std::string(message) + " (block " + std::to_string(b.x) + "," +
                  std::to_string(b.y) + "," + std::to_string(b.z) + " thread " +
                  std::to_string(t.x) + ")";
  switch_to(nullptr, &fiber());
  std::abort();  // nobody comes back
}

void fail(const char* format, ...) {
  char message[512];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  Scheduler::running().fail(message);
}

// ---- Who runs next ------------------------------------------------------------------------------

std::uint64_t Scheduler::random() {
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 7;
  random_state_ ^= random_state_ << 17;
  return random_state_;
}

// Null if none can run: all have ended, or wait for each other.
Fiber* Scheduler::choose() {
  const Order order = settings_->order;
  for (;;) {
    const bool idle = head_ == tail_;
    if (!pending_.empty() && (idle || (order == Order::kShuffled && random() % 16 == 0))) {
      let_one_happen();
      continue;
    }
    if (!idle) break;
    if (spinning_.first == nullptr) return nullptr;
    wake(spinning_);
  }
  if (order == Order::kLifo) return at(--tail_);
  if (order == Order::kShuffled) std::swap(at(head_), at(head_ + random() % (tail_ - head_)));
  return at(head_++);
}

void Scheduler::add_pending(Block& block, std::function<void()> happen) {
  const Unseen unseen;
  pending_.push_back({&block, std::move(happen)});
}

void Scheduler::let_one_happen() {
  const Unseen unseen;
  std::size_t chosen = 0;
  if (settings_->order == Order::kLifo) chosen = pending_.size() - 1;
  if (settings_->order == Order::kShuffled) chosen = random() % pending_.size();
  const Pending pending = std::move(pending_[chosen]);
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(chosen));
  pending.happen();
}

void Scheduler::wait(WaitList& list, const char* what, Where at) {
  Fiber& self = fiber();
  self.next = nullptr;
  if (list.first == nullptr) {
    list.first = &self;
  } else {
    list.last->next = &self;
  }
  list.last = &self;
  self.waits_for = what;
  self.waits_at = at;
  Fiber* next = choose();
  if (next != &self) switch_to(next, &self);
  self.waits_for = nullptr;
}

void Scheduler::wake(WaitList& list) {
  if (&list != &spinning_) idle_spins_ = 0;
  for (Fiber* fiber = list.first; fiber != nullptr; fiber = fiber->next) push_ready(fiber);
  list = {};
}

void Scheduler::spin(Where at) {
  if (++idle_spins_ > kMaxIdleSpins) {
    simt::fail("livelock: every thread that could run spins, this one at %s", place(at).c_str());
  }
  wait(spinning_, "spin", at);
}

void spin(Where at) { Scheduler::running().spin(at); }

std::string Scheduler::describe_deadlock() const {
  std::map<std::string, int> waiting;
  for (const Block* block : set_->cluster_blocks) {
    for (const Fiber* fiber : block->fibers) {
      if (fiber->finished || fiber->waits_for == nullptr) continue;
      std::string what = std::string(fiber->waits_for) + " at " + place(fiber->waits_at).text;
      if (fiber->waits_on != nullptr) what += " (" + missing_at(*fiber->waits_on) + ")";
      ++waiting[what];
    }
  }
  std::string message = "deadlock:";
  for (const auto& [what, count] : waiting) {
    message += " " + std::to_string(count) + (count == 1 ? " thread waits" : " threads wait") +
               " for " + what + ";";
  }
  message.back() = ',';
  return message + " and " +
         std::to_string(set_->cluster_blocks.size() * set_->blocks[0]->fibers.size() -
                        unfinished_) +
         " have ended";
}

Place place(const Where& at) {
  Place result{};
  std::snprintf(result.text, sizeof(result.text), "%s:%u", at.file_name(),
                static_cast<unsigned>(at.line()));
  return result;
}
int thread_of(const Fiber& fiber) { return static_cast<int>(fiber.warp * 32 + fiber.lane); }

}  // namespace moebench::simt
