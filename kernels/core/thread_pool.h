// A fixed set of threads and one way to use them: split a range into contiguous parts.
//
// The partition depends on the number of threads, so an op must compute each output element whole
// within one part: then results are the same bits for any number of threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace moebench {

class ThreadPool {
 public:
  // `num_threads` counts the calling thread; 0 means one per CPU this process may run on.
  explicit ThreadPool(int num_threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) for disjoint parts that cover [0, count), `thread` in
  // [0, num_threads), and returns when all are done. Parts hold at least `grain` items, except the
  // last; small counts run on the calling thread. The first exception of a body is rethrown here.
  // Not re-entrant: a body must not call parallel_for of the same pool.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t, int)>& body);

 private:
  void worker_loop(int thread);
  void run_part(int thread);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  std::uint64_t generation_ = 0;
  int pending_ = 0;
  bool stopping_ = false;
  std::int64_t count_ = 0;
  int parts_ = 0;
  const std::function<void(std::int64_t, std::int64_t, int)>* body_ = nullptr;
  std::exception_ptr failure_;
};

// CPUs this process may run on (its affinity mask), at least 1.
int available_cpus();

}  // namespace moebench
