// A fixed set of threads and one way to use them: split a range into parts.
//
// Which thread computes what depends on the moment, so an op must compute each output element whole
// within one part: then results are the same bits for any number of threads and any load.
#pragma once

#include <atomic>
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
  // [0, num_threads), and returns when all are done. Threads take parts as they get free, several
  // each, so that one that is held up by other work on the machine costs its share and no more.
  // Parts hold at least `grain` items, except the last; small counts run on the calling thread. The
  // first exception of a body is rethrown here, once the parts that were begun are done. Not
  // re-entrant: a body must not call parallel_for of the same pool.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t, std::int64_t, int)>& body);

 private:
  void worker_loop(int thread);
  void run_parts(int thread);

  std::vector<std::thread> workers_;

  // The job's number in the upper half, the next part in the lower one. Taking a part is a
  // compare-and-swap on both, so a thread that comes late cannot take a part of a job whose fields
  // it has not read.
  std::atomic<std::uint64_t> ticket_;
  std::atomic<std::int64_t> count_{0};
  std::atomic<std::int64_t> num_parts_{0};
  std::atomic<const std::function<void(std::int64_t, std::int64_t, int)>*> body_{nullptr};
  std::atomic<std::int64_t> parts_done_{0};

  std::atomic<std::uint32_t> generation_{0};  // changes when there is a new job; workers wait on it
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

// CPUs this process may run on (its affinity mask), at least 1.
int available_cpus();

}  // namespace moebench
