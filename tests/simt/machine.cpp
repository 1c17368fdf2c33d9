// Launches: checked as the device would, then blocks over workers.
#include "tests/simt/machine.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tests/simt/accesses.h"
#include "tests/simt/scheduler.h"

namespace moebench::simt {

namespace {

std::uint64_t volume(const Dim3& extent) { return std::uint64_t{extent.x} * extent.y * extent.z; }

// Blocks that a device of so many multiprocessors holds at once.
std::uint64_t most_resident(const Shape& shape, int num_sms) {
  const std::uint64_t threads = (volume(shape.block) + 31) / 32 * 32;
  constexpr std::size_t kReserved = 1 << 10;  // of shared memory, per block
  return static_cast<std::uint64_t>(num_sms) *
         std::min({std::uint64_t{2048} / threads, std::uint64_t{32},
                   std::uint64_t{kSharedBytesPerSm / (shape.shared_bytes + kReserved)}});
}

// Empty if a device would start it.
std::string refuse(const Shape& shape, int num_sms) {
  const std::uint64_t threads = volume(shape.block);
  const std::uint64_t blocks = volume(shape.grid);
  if (threads == 0 || threads > kMaxThreads) {
    return "a block of " + std::to_string(threads) + " threads (1 to 1024 are possible)";
  }
  if (blocks == 0 || shape.grid.x > 0x7fffffffU || shape.grid.y > 0xffffU ||
      shape.grid.z > 0xffffU) {
    return "a grid of " + std::to_string(shape.grid.x) + " x " + std::to_string(shape.grid.y) +
           " x " + std::to_string(shape.grid.z) + " (1 to 2147483647 x 65535 x 65535 are possible)";
  }
  if (shape.shared_bytes > kSharedBytesPerBlock) {
    return std::to_string(shape.shared_bytes) + " bytes of dynamic shared memory, of " +
           std::to_string(kSharedBytesPerBlock);
  }
  if (shape.cluster == 0 || shape.cluster > 8 || shape.grid.x % shape.cluster != 0) {
    return "clusters of " + std::to_string(shape.cluster) + " in a grid of " +
           std::to_string(shape.grid.x) + " (at most 8, a divisor of the grid)";
  }
  if (shape.cooperative && blocks > most_resident(shape, num_sms)) {
    return std::to_string(blocks) + " cooperative blocks, of which " +
           std::to_string(most_resident(shape, num_sms)) + " fit on the device at once";
  }
  return "";
}

// Schedulers that no launch uses; they keep their stacks.
class Idle {
 public:
  std::unique_ptr<Scheduler> take() {
    const std::lock_guard lock(mutex_);
    if (schedulers_.empty()) return std::make_unique<Scheduler>();
    auto scheduler = std::move(schedulers_.back());
    schedulers_.pop_back();
    return scheduler;
  }
  void give(std::unique_ptr<Scheduler> scheduler) {
    const std::lock_guard lock(mutex_);
    schedulers_.push_back(std::move(scheduler));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scheduler>> schedulers_;
};
Idle& idle() {
  static Idle idle;
  return idle;
}

// One launch, worked on by one or more threads.
class Launch {
 public:
  Launch(const Shape& shape, const Settings& settings, const std::function<void()>& kernel)
      : shape_(shape), settings_(settings), kernel_(kernel), blocks_(volume(shape.grid)) {
    const auto resident = static_cast<unsigned>(std::max(1, settings.resident_blocks));
    at_once_ = std::max(1U, resident / shape.cluster) * shape.cluster;
    if (shape.cooperative) at_once_ = blocks_;
  }

  void work() {
    std::unique_ptr<Scheduler> scheduler = idle().take();
    scheduler->begin_launch(shape_, settings_, kernel_);
    std::vector<Dim3> indexes;
    bool going = true;
    while (going) {
      const std::uint64_t begin = next_.fetch_add(at_once_);
      if (begin >= blocks_) break;
      indexes.clear();
      for (std::uint64_t b = begin; b < std::min(begin + at_once_, blocks_); ++b) {
        indexes.push_back(index_of(b));
      }
      going = scheduler->run_blocks(indexes);
    }
    const Report& report = scheduler->end_launch();
    {
      const std::lock_guard lock(mutex_);
      report_.switches += report.switches;
      report_.collectives += report.collectives;
      report_.barriers += report.barriers;
      if (report_.ok()) report_.error = report.error;
    }
    if (!report.ok()) next_ = blocks_;  // the others need not go on
    idle().give(std::move(scheduler));
  }

  const Report& report() const { return report_; }

 private:
  // Blocks start in no order that a kernel could count on: kLifo begins with the last cluster.
  Dim3 index_of(std::uint64_t number) const {
    if (settings_.order == Order::kLifo && !shape_.cooperative) {
      const std::uint64_t cluster = blocks_ / shape_.cluster - 1 - number / shape_.cluster;
      number = cluster * shape_.cluster + number % shape_.cluster;
    }
    const Dim3& grid = shape_.grid;
    return {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
            static_cast<unsigned>(number / grid.x / grid.y)};
  }

  const Shape& shape_;
  const Settings& settings_;
  const std::function<void()>& kernel_;
  std::uint64_t blocks_;
  std::uint64_t at_once_;
  std::atomic<std::uint64_t> next_{0};
  std::mutex mutex_;
  Report report_;
};

}  // namespace

Report run(const Shape& shape, const Settings& settings, const std::function<void()>& kernel) {
  Report refused;
  refused.error = refuse(shape, settings.num_sms);
  if (!refused.ok()) return refused;
  begin_launch(shape);
  Launch launch(shape, settings, kernel);
#if defined(SIMT_TSAN)
  const int workers = 1;  // ThreadSanitizer would take the workers' order for the blocks'
#else
  const int workers = settings.workers;
#endif
  if (workers <= 1) {
    launch.work();
  } else {
    std::vector<std::thread> threads;
    for (int i = 0; i < workers; ++i) threads.emplace_back([&] { launch.work(); });
    for (std::thread& thread : threads) thread.join();
  }
  Report report = launch.report();
  const std::string wrong = end_launch();
  if (report.ok()) report.error = wrong;
  return report;
}

Settings& settings() {
  static Settings settings;
  return settings;
}

}  // namespace moebench::simt
