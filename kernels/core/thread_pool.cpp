// Threads sleep on a condition variable between jobs: simple, and polite to a shared machine.
#include "kernels/core/thread_pool.h"

#include <sched.h>

#include <algorithm>

#include "kernels/core/error.h"

namespace moebench {

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int num_threads) {
  require(num_threads >= 0 && num_threads <= 1024,
          "start threads: {} is out of range (0 = one per CPU, at most 1024)", num_threads);
  const int total = num_threads == 0 ? available_cpus() : num_threads;
  workers_.reserve(static_cast<std::size_t>(total - 1));
  for (int t = 1; t < total; ++t) workers_.emplace_back([this, t] { worker_loop(t); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_part(int thread) {
  if (thread >= parts_) return;
  const std::int64_t begin = count_ * thread / parts_;
  const std::int64_t end = count_ * (thread + 1) / parts_;
  try {
    (*body_)(begin, end, thread);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
  }
}

void ThreadPool::worker_loop(int thread) {
  std::uint64_t seen = 0;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
    }
    run_part(thread);
    const std::lock_guard lock(mutex_);
    if (--pending_ == 0) done_.notify_one();
  }
}

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t, int)>& body) {
  if (count <= 0) return;
  const std::int64_t wanted = std::max<std::int64_t>(1, count / std::max<std::int64_t>(1, grain));
  const int parts = static_cast<int>(std::min<std::int64_t>(wanted, num_threads()));
  if (parts == 1) {
    body(0, count, 0);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    count_ = count;
    parts_ = parts;
    body_ = &body;
    failure_ = nullptr;
    pending_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  run_part(0);
  std::exception_ptr failure;
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return pending_ == 0; });
    failure = failure_;
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace moebench
