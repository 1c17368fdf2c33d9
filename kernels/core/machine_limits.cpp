// Three loops that do one thing each (limit_loops.h), and a clock.
#include "kernels/core/machine_limits.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/cpu_features.h"
#include "kernels/core/limit_loops.h"
#include "kernels/core/simd_portable.h"

namespace moebench {
namespace {

// Repeats work() on all threads for `seconds`; the median rate of a round, in units per second.
template <class Work>
double rate_of(ThreadPool& pool, double seconds, double units_per_thread, const Work& work) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> rates;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  const int threads = pool.num_threads();
  do {
    const auto begin = Clock::now();
    pool.parallel_for(threads, 1, [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t t = first; t < last; ++t) work(t);
    });
    const std::chrono::duration<double> took = Clock::now() - begin;
    rates.push_back(units_per_thread * threads / took.count());
  } while (Clock::now() < end || rates.size() < 3);
  std::nth_element(rates.begin(), rates.begin() + static_cast<long>(rates.size() / 2), rates.end());
  return rates[rates.size() / 2];
}

}  // namespace

MachineLimits measure_machine_limits(ThreadPool& pool, double seconds) {
  MachineLimits limits;
  const LimitLoops portable = {multiply_add_loop<Portable>, read_loop<Portable>, nullptr};
  const LimitLoops& loops = cpu_has_avx2() ? avx2_limit_loops() : portable;
  if (loops.bytes != nullptr) {
    limits.int8_gop_per_s =
        rate_of(pool, seconds, kByteOperations, [&](std::int64_t) { loops.bytes(); }) / 1e9;
  }
  limits.f32_gflop_per_s =
      rate_of(pool, seconds, kMultiplyAddOperations, [&](std::int64_t) { loops.multiply_adds(); }) /
      1e9;
  // Every thread streams a part of its own; together they exceed any last-level cache.
  Buffer memory(std::size_t{512} << 20, "measuring the bandwidth of memory");
  std::memset(memory.data(), 1, memory.size());
  const std::size_t part = memory.size() / static_cast<std::size_t>(pool.num_threads()) / 128 * 128;
  limits.read_gb_per_s =
      rate_of(pool, 4 * seconds, static_cast<double>(part),
              [&](std::int64_t t) {
                loops.read(memory.data() + static_cast<std::size_t>(t) * part, part);
              }) /
      1e9;
  return limits;
}

}  // namespace moebench
