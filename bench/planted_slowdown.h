// A slowdown of known size, for one purpose: to test that comparisons of speed see it
// (bench/detect.sh). With MOEBENCH_TEST_SPIN_PERCENT=3 in the environment, every step of a speed
// workload is followed by a loop that spins for 3 % of the time that the step took. Without, a
// step costs one comparison more.
#pragma once

#include <chrono>

namespace moebench {

class PlantedSlowdown {
 public:
  // Reads the environment. Throws Error for a value that is no number from 0 to 1000.
  PlantedSlowdown();

  using Clock = std::chrono::steady_clock;
  // On a GPU the next step would run meanwhile, and hide it: then none may be under way.
  bool is_planted() const { return share_ > 0; }

  Clock::time_point before_step() const { return share_ > 0 ? Clock::now() : Clock::time_point(); }
  void after_step(Clock::time_point start) const {
    if (share_ > 0) spin(start);
  }

 private:
  void spin(Clock::time_point start) const;

  double share_ = 0;
};

}  // namespace moebench
