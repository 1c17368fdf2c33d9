// Which of several choices no other one beats on both counts.
#pragma once

#include <span>
#include <vector>

namespace moebench {

struct ParetoPoint {
  double cost = 0;   // lower is better
  double value = 0;  // higher is better
};

// For each point, whether it is on the front: no other point is at least as good on both counts and
// better on one. Equal points are on it together. Points with a NaN never are, and beat nobody.
std::vector<bool> pareto_front(std::span<const ParetoPoint> points);

}  // namespace moebench
