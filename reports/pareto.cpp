// The Pareto front by definition; reports have tens of points.
#include "reports/pareto.h"

#include <algorithm>
#include <cmath>

namespace moebench {

std::vector<bool> pareto_front(std::span<const ParetoPoint> points) {
  std::vector<bool> front;
  for (const ParetoPoint& p : points) {
    const bool known = !std::isnan(p.cost) && !std::isnan(p.value);
    // Comparisons with NaN are false, so an unknown point never dominates.
    const bool dominated = std::any_of(points.begin(), points.end(), [&](const ParetoPoint& other) {
      return other.cost <= p.cost && other.value >= p.value &&
             (other.cost < p.cost || other.value > p.value);
    });
    front.push_back(known && !dominated);
  }
  return front;
}

}  // namespace moebench
