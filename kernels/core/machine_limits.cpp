// Loops that do one thing each (limit_loops.h), and a clock.
#include "kernels/core/machine_limits.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>

#include "kernels/core/cpu_features.h"
#include "kernels/core/error.h"
#include "kernels/core/limit_loops.h"
#include "kernels/core/simd_portable.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

constexpr std::size_t kReadStep = 128;                       // bytes: see read_loop
constexpr std::size_t kBytesPerCall = std::size_t{8} << 20;  // so that starting costs nothing
constexpr int kLoopsPerCall = 8;                             // likewise
constexpr double kG = 1e9;

const LimitLoops& loops() {
  static constexpr LimitLoops kPortable = {multiply_add_loop<Portable>, read_loop<Portable>,
                                           nullptr, nullptr};
  return cpu_has_avx2() ? avx2_limit_loops() : kPortable;
}

// Calls work(thread) on all threads until `seconds` have passed; units a second, all together.
template <class Work>
double rate_of(ThreadPool& pool, double seconds, double units_per_call, const Work& work) {
  using Clock = std::chrono::steady_clock;
  const int threads = pool.num_threads();
  const auto begin = Clock::now();
  double units = 0;
  std::chrono::duration<double> took{};
  do {
    pool.parallel_for(threads, 1, [&](std::int64_t first, std::int64_t last, int) {
      for (std::int64_t t = first; t < last; ++t) work(static_cast<std::size_t>(t));
    });
    units += units_per_call * threads;
    took = Clock::now() - begin;
  } while (took.count() < seconds);
  return units / took.count();
}

}  // namespace

LimitMeter::LimitMeter(std::size_t bytes) : memory_(bytes, "measuring the bandwidth of memory") {
  std::memset(memory_.data(), 1, memory_.size());
}

double LimitMeter::read_gb_per_s(ThreadPool& pool, std::size_t bytes, double seconds) {
  const std::size_t part =
      bytes / static_cast<std::size_t>(pool.num_threads()) / kReadStep * kReadStep;
  require(part > 0 && bytes <= memory_.size(), "measure reading {} bytes with {} threads of {}",
          bytes, pool.num_threads(), memory_.size());
  const std::size_t passes = std::max<std::size_t>(1, kBytesPerCall / part);
  return rate_of(pool, seconds, static_cast<double>(part * passes),
                 [&](std::size_t thread) {
                   for (std::size_t i = 0; i < passes; ++i) {
                     loops().read(memory_.data() + thread * part, part);
                   }
                 }) /
         kG;
}

double LimitMeter::copy_gb_per_s(ThreadPool& pool, double seconds) {
  const std::size_t half = memory_.size() / 2;
  const std::size_t part = half / static_cast<std::size_t>(pool.num_threads());
  return rate_of(pool, seconds, 2 * static_cast<double>(part),
                 [&](std::size_t thread) {
                   std::byte* from = memory_.data() + thread * part;
                   std::memcpy(from + half, from, part);
                 }) /
         kG;
}

double LimitMeter::gop_per_s(ThreadPool& pool, Precision precision, double seconds) {
  const auto measure = [&](void (*loop)(), double operations) {
    if (loop == nullptr) return 0.0;
    return rate_of(pool, seconds, kLoopsPerCall * operations,
                   [&](std::size_t) {
                     for (int i = 0; i < kLoopsPerCall; ++i) loop();
                   }) /
           kG;
  };
  switch (precision) {
    case Precision::kF32:
      return measure(loops().multiply_adds, kMultiplyAddOperations);
    case Precision::kInt16:
      return measure(loops().halves, kHalfOperations);
    case Precision::kInt8:
      return measure(loops().bytes, kByteOperations);
    case Precision::kBf16:
    case Precision::kFp8:
      break;
  }
  return 0;
}

MachineLimits measure_machine_limits(ThreadPool& pool, double seconds) {
  constexpr int kSamples = 5;
  LimitMeter meter;
  const auto median_of = [&](auto&& measure) {
    std::array<double, kSamples> rates{};
    for (double& rate : rates) rate = measure();
    std::nth_element(rates.begin(), rates.begin() + kSamples / 2, rates.end());
    return rates[kSamples / 2];
  };
  MachineLimits limits;
  limits.int8_gop_per_s =
      median_of([&] { return meter.gop_per_s(pool, Precision::kInt8, seconds / kRounds); });
  limits.f32_gflop_per_s =
      median_of([&] { return meter.gop_per_s(pool, Precision::kF32, seconds / kRounds); });
  limits.read_gb_per_s =
      median_of([&] { return meter.read_gb_per_s(pool, meter.bytes(), 4 * seconds / kRounds); });
  return limits;
}

}  // namespace moebench
