// Recursive integration on a grid of Simpson's rule.
#include "evals/group_sequential.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "evals/two_sample.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// Twice as many change a boundary by less than 1e-4.
constexpr int kIntervals = 48;  // even

double upper_tail(double z) { return 0.5 * std::erfc(z / std::numbers::sqrt2); }

double normal_density(double z) { return std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi); }

}  // namespace

AlphaSpending::AlphaSpending(double alpha, double power) : alpha_(alpha), power_(power) {
  require(alpha > 0 && alpha < 0.5, "spend alpha {}: expected a value in (0, 0.5)", alpha);
  require(power > 0 && power <= 10, "spend alpha: power {} is not in (0, 10]", power);
}

double AlphaSpending::next_look(double information, double share) {
  require(share > 0 && share <= 1, "spend alpha: share {} of the budget is not in (0, 1]", share);
  return next_look_spending(information, alpha_ * std::pow(share, power_));
}

double AlphaSpending::next_look_spending(double information, double spent) {
  require(std::isfinite(information) && information > information_,
          "spend alpha: information {} after {}; it must grow from look to look", information,
          information_);
  require(spent > spent_ && spent <= alpha_ * (1 + 1e-12),
          "spend alpha: {} after {}; it must grow and stay below {}", spent, spent_, alpha_);
  const double step = information - information_;
  const double deviation = std::sqrt(step);
  const bool first = nodes_.empty();
  // Chance that the score crosses +-bound now, not having crossed before.
  const auto crossing = [&](double bound) {
    if (first) return 2 * upper_tail(bound / deviation);
    double sum = 0;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      sum += masses_[i] * (upper_tail((bound - nodes_[i]) / deviation) +
                           upper_tail((bound + nodes_[i]) / deviation));
    }
    return sum;
  };
  double low = 0;
  double high = 40 * std::sqrt(information);
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (crossing(middle) > spent - spent_ ? low : high) = middle;
  }
  const double bound = 0.5 * (low + high);

  // The density of the paths that go on. Where the bound is far out, nothing lies near it.
  const double reach = std::min(bound, 8 * std::sqrt(information));
  std::vector<double> nodes(kIntervals + 1);
  std::vector<double> masses(kIntervals + 1);
  const double width = 2 * reach / kIntervals;
  for (int k = 0; k <= kIntervals; ++k) {
    const auto at = static_cast<std::size_t>(k);
    nodes[at] = -reach + width * k;
    double density = 0;
    if (first) {
      density = normal_density(nodes[at] / deviation) / deviation;
    } else {
      for (std::size_t i = 0; i < nodes_.size(); ++i) {
        density += masses_[i] * normal_density((nodes[at] - nodes_[i]) / deviation) / deviation;
      }
    }
    const double weight = k == 0 || k == kIntervals ? 1 : (k % 2 == 1 ? 4 : 2);
    masses[at] = density * weight * width / 3;
  }
  nodes_ = std::move(nodes);
  masses_ = std::move(masses);
  information_ = information;
  spent_ = spent;
  return 2 * upper_tail(bound / std::sqrt(information));
}

Interval RobustMean::interval(double level) const {
  require(level > 0 && level < 1, "confidence level {} is not between 0 and 1", level);
  const double half = standard_error * t_quantile(degrees_of_freedom, (1 - level) / 2);
  return {mean - half, mean + half, level};
}

double RobustMean::smallest_visible(double level, double power) const {
  require(power > 0 && power < 1, "power {} is not between 0 and 1", power);
  const Interval around = interval(level);
  return 0.5 * (around.high - around.low) +
         standard_error * t_quantile(degrees_of_freedom, 1 - power);
}

RobustMean robust_mean(std::span<const double> values) {
  const auto n = static_cast<std::int64_t>(values.size());
  require(n >= 2, "robust mean: {} values; at least 2 are needed", n);
  for (const double x : values) {
    require(std::isfinite(x), "robust mean: a value is {}; all must be finite", x);
  }
  const std::int64_t g = n >= 10 ? n / 5 : 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  RobustMean out;
  out.num_values = n;
  const auto kept = n - 2 * g;
  const auto begin = sorted.begin() + g;
  out.mean = std::accumulate(begin, begin + kept, 0.0) / static_cast<double>(kept);
  std::fill(sorted.begin(), begin, *begin);
  std::fill(begin + kept, sorted.end(), *(begin + kept - 1));
  const double winsorised =
      std::accumulate(sorted.begin(), sorted.end(), 0.0) / static_cast<double>(n);
  double squares = 0;
  for (const double x : sorted) squares += (x - winsorised) * (x - winsorised);
  const double deviation = std::sqrt(squares / static_cast<double>(n - 1));
  out.standard_error =
      deviation / (static_cast<double>(kept) / static_cast<double>(n) * std::sqrt(n));
  out.degrees_of_freedom = static_cast<double>(kept - 1);
  return out;
}

}  // namespace moebench
