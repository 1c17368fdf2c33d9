// The one clock of all times that are compared with each other: of requests, steps and traces.
#pragma once

#include <chrono>
#include <cstdint>

namespace moebench {

// Nanoseconds of the steady clock, since a moment that only differences should know.
inline std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace moebench
