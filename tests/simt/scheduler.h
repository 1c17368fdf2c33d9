// Inside the machine: fibers, blocks, and who runs next. Each worker has one scheduler, which it
// keeps (with its stacks and shared memories) from launch to launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/simt/block.h"
#include "tests/simt/machine.h"
#include "tests/simt/sanitizers.h"

namespace moebench::simt {

// What a thread of the block has begun, and what has not happened yet: a bulk copy, a product.
struct Pending {
  Block* block;
  std::function<void()> happen;
};

// Fibers that wait for a phase of an mbarrier.
struct MbarrierWait {
  std::uint64_t* barrier;
  WaitList waiting;
};

class Scheduler {
 public:
  Scheduler() = default;
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  void begin_launch(const Shape& shape, const Settings& settings,
                    const std::function<void()>& kernel);
  // Runs these blocks at once, to their end. False if something went wrong: see report().
  bool run_blocks(const std::vector<Dim3>& blocks);
  const Report& end_launch();

  // ---- For the machine's other parts, on a fiber ----
  static Scheduler& running();
  static Fiber& fiber();
  static Block& block() { return *fiber().block; }

  const Settings& settings() const { return *settings_; }
  bool late() const { return settings_->asynchrony == Asynchrony::kLate; }
  Report& report() { return report_; }

  // Until another thread wakes the list.
  void wait(WaitList& list, const char* what, Where at);
  void wake(WaitList& list);
  void spin(Where at);
  // Happens when no thread can go on, or (kShuffled) at any time before.
  void add_pending(Block& block, std::function<void()> happen);
  WaitList& waiting_at(std::uint64_t* mbarrier);
  [[noreturn]] void fail(const char* message);

 private:
  static void fiber_main();
  bool make_room(std::size_t num_blocks, std::size_t num_fibers);
  void prepare_block(std::size_t number, Dim3 index);
  void switch_to(Fiber* to, Fiber* from);
  void drop_fibers();
  Fiber* choose();
  void let_one_happen();
  void push_ready(Fiber* fiber) { at(tail_++) = fiber; }
  Fiber*& at(std::size_t i) { return ready_[i & (ready_.size() - 1)]; }
  std::uint64_t random();
  std::string describe_deadlock() const;

  const Shape* shape_ = nullptr;
  const Settings* settings_ = nullptr;
  const std::function<void()>* kernel_ = nullptr;
  Report report_;
  std::uint64_t random_state_ = 1;

  // What blocks that run at once need; neighbours use the sets in turn.
  struct FiberSet {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<Block*> cluster_blocks;  // blocks, as plain pointers
    std::vector<Barrier> cluster_barriers;
    // What the threads did before they ended: of this use of the set, and of the one before.
    char end_tokens[2] = {};
    unsigned use = 0;
  };
  FiberSet sets_[kFiberSets];
  FiberSet* set_ = nullptr;
  std::size_t num_sets_run_ = 0;

  std::vector<Fiber*> ready_;  // a ring; its size is a power of two
  std::size_t head_ = 0, tail_ = 0;
  WaitList spinning_;
  std::uint64_t idle_spins_ = 0;
  std::size_t unfinished_ = 0;
  std::vector<Pending> pending_;
  std::vector<MbarrierWait> mbarrier_waits_;

  void* main_stack_pointer_ = nullptr;
  void* main_tsan_fiber_ = nullptr;
  char start_token_ = 0;
};

// ---- Shared with other parts --------------------------------------------------------------------
// Fails if a thread ends before its copies and products do.
void check_nothing_in_flight(Fiber& fiber);             // async.cpp
std::string missing_at(const std::uint64_t& mbarrier);  // async.cpp
// Fails unless the bytes lie inside dynamic shared memory or one static array of this block.
void check_shared(const void* pointer, std::size_t bytes, const char* what);
void poison_shared(Block& block);
// "file:line". No string of the heap's: a thread that failed never returns to free it.
struct Place {
  char text[256];

  const char* c_str() const { return text; }
};
Place place(const Where& at);
int thread_of(const Fiber& fiber);                       // its number in the block
void exit_barriers(Scheduler& scheduler, Block& block);  // collectives.cpp

}  // namespace moebench::simt
