// Threads spin for a moment between jobs, since a forward pass is a train of short ones, and then
// sleep, to be polite to a shared machine.
#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "kernels/core/error.h"

namespace moebench {
namespace {

// Longer than the gaps between the ops of a step, shorter than anybody's patience.
constexpr auto kSpin = std::chrono::microseconds(100);
constexpr std::uint64_t kClosed = 0xffffffffU;
// Parts per thread: enough that the last ones end at about the same time.
constexpr std::int64_t kPartsPerThread = 8;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() or the time is over. True if done.
template <class Done>
bool spin_until(const Done& done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  for (;;) {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      relax();
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
  }
}

}  // namespace

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int num_threads) : ticket_(kClosed) {
  require(num_threads >= 0 && num_threads <= 1024,
          "start threads: {} is out of range (0 = one per CPU, at most 1024)", num_threads);
  const int total = num_threads == 0 ? available_cpus() : num_threads;
  workers_.reserve(static_cast<std::size_t>(total - 1));
  for (int t = 1; t < total; ++t) workers_.emplace_back([this, t] { worker_loop(t); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  ++generation_;
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_parts(int thread) {
  for (;;) {
    std::uint64_t ticket = ticket_.load();
    const auto part = static_cast<std::int64_t>(ticket & kClosed);
    const std::int64_t count = count_.load();
    const std::int64_t num_parts = num_parts_.load();
    const auto* body = body_.load();
    if ((ticket & kClosed) == kClosed || part >= num_parts) return;
    if (!ticket_.compare_exchange_strong(ticket, ticket + 1)) continue;
    try {
      (*body)(count * part / num_parts, count * (part + 1) / num_parts, thread);
    } catch (...) {
      const std::lock_guard lock(failure_mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    if (parts_done_.fetch_add(1) + 1 == num_parts) parts_done_.notify_one();
  }
}

void ThreadPool::worker_loop(int thread) {
  std::uint32_t seen = 0;
  for (;;) {
    if (!spin_until([&] { return generation_.load() != seen; })) {
      ++sleeping_;
      generation_.wait(seen);
      --sleeping_;
    }
    if (stopping_) return;
    seen = generation_.load();
    run_parts(thread);
  }
}

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t, int)>& body) {
  if (count <= 0) return;
  const std::int64_t most = std::max<std::int64_t>(1, count / std::max<std::int64_t>(1, grain));
  const std::int64_t parts = std::min<std::int64_t>(most, kPartsPerThread * num_threads());
  if (parts == 1 || workers_.empty()) {
    body(0, count, 0);
    return;
  }
  const std::uint64_t job = (ticket_.load() >> 32) + 1;
  ticket_ = (job << 32) | kClosed;  // late threads of the last job now find nothing
  count_ = count;
  num_parts_ = parts;
  body_ = &body;
  parts_done_ = 0;
  failure_ = nullptr;
  ticket_ = job << 32;
  ++generation_;
  if (sleeping_.load() > 0) generation_.notify_all();
  run_parts(0);
  if (!spin_until([&] { return parts_done_.load() == parts; })) {
    for (std::int64_t done = parts_done_; done != parts; done = parts_done_) {
      parts_done_.wait(done);
    }
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

}  // namespace moebench
