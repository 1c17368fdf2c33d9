// Reads the environment, and spins.
#include "bench/planted_slowdown.h"

#include <cstdlib>

#include "kernels/core/error.h"

namespace moebench {

PlantedSlowdown::PlantedSlowdown() {
  const char* text = std::getenv("MOEBENCH_TEST_SPIN_PERCENT");
  if (text == nullptr || *text == '\0') return;
  char* end = nullptr;
  const double percent = std::strtod(text, &end);
  require(*end == '\0' && percent >= 0 && percent <= 1000,
          "read MOEBENCH_TEST_SPIN_PERCENT='{}': expected percent from 0 to 1000", text);
  share_ = percent / 100;
}

void PlantedSlowdown::spin(Clock::time_point start) const {
  const auto step = Clock::now() - start;
  const auto extra = std::chrono::duration_cast<Clock::duration>(step * share_);
  const auto until = start + step + extra;
  while (Clock::now() < until) {
  }
}

}  // namespace moebench
