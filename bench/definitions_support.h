// What the exporters of several definitions share. Internal to bench/definitions*.cpp.
#pragma once

#include <numeric>

#include "bench/definitions.h"
#include "evals/statistics.h"

namespace moebench::definitions {

inline double mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Of the values themselves, not of a sample of more: numpy.std without ddof.
double population_deviation(const std::vector<double>& values);

// numpy.percentile, 0 of nothing as these tools have it.
inline double numpy_percentile(const std::vector<double>& values, double percent) {
  return values.empty() ? 0 : percentile(values, percent / 100);
}

struct Totals {
  std::vector<const RequestEvents*> done;  // requests that succeeded, in the log's order
  std::int64_t failed = 0;
  std::int64_t input_tokens = 0;   // of `done`
  std::int64_t output_tokens = 0;  // of `done`
  double seconds = 0;              // first arrival to last end
};
// Throws Error(kInvalidArgument) if no request succeeded, or they took no time.
Totals totals_of(std::span<const RequestEvents> log);

inline double seconds_between(std::int64_t from_ns, std::int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) / 1e9;
}
inline double ttft_s(const RequestEvents& r) {
  return seconds_between(r.arrived_ns(), r.token_ns.front());
}
inline double latency_s(const RequestEvents& r) {
  return seconds_between(r.arrived_ns(), r.token_ns.back());
}

}  // namespace moebench::definitions
