// Binary segmentation with a permutation test.
#include "evals/change_points.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "evals/two_sample.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

struct Split {
  std::size_t at = 0;    // of the first value on the right, within the stretch
  double statistic = 0;  // |t|; infinite where the sides differ and neither scatters
};

// The best split of a stretch, its sides being at least `least` long. Values are taken around their
// mean, so that sums of squares keep their digits.
Split best_split(std::span<const double> values, std::size_t least) {
  const std::size_t n = values.size();
  double sum = 0;
  for (const double v : values) sum += v;
  const double mean = sum / static_cast<double>(n);
  double total = 0;
  double squares = 0;
  for (const double v : values) {
    total += v - mean;
    squares += (v - mean) * (v - mean);
  }
  Split best;
  double left = 0;
  for (std::size_t i = 1; i + least <= n; ++i) {
    left += values[i - 1] - mean;
    if (i < least) continue;
    const auto a = static_cast<double>(i);
    const auto b = static_cast<double>(n - i);
    const double difference = left / a - (total - left) / b;
    // What the two means leave of the squares; rounding may leave a little where nothing is left.
    const double between = left * left / a + (total - left) * (total - left) / b;
    const double within = std::max(squares - between, 0.0);
    const bool still = within <= 1e-12 * squares;
    double t = 0;
    if (still) {
      t = difference != 0 ? std::numeric_limits<double>::infinity() : 0;
    } else {
      t = std::abs(difference) / std::sqrt(within / (a + b - 2) * (1 / a + 1 / b));
    }
    if (t > best.statistic) best = {i, t};
  }
  return best;
}

double permutation_p(std::span<const double> values, double seen, const ChangeOptions& options,
                     std::uint64_t stream) {
  std::vector<double> shuffled(values.begin(), values.end());
  RandomStream random(options.seed, stream);
  const auto least = static_cast<std::size_t>(options.min_segment);
  std::int64_t as_large = 0;
  for (std::int64_t draw = 0; draw < options.permutations; ++draw) {
    for (std::size_t i = shuffled.size() - 1; i > 0; --i) {
      std::swap(shuffled[i],
                shuffled[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i) + 1))]);
    }
    // Sums in another order may differ in their last digits.
    as_large += best_split(shuffled, least).statistic >= seen * (1 - 1e-9) ? 1 : 0;
  }
  return static_cast<double>(1 + as_large) / static_cast<double>(1 + options.permutations);
}

double mean_of(std::span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double squares_around(std::span<const double> values, double mean) {
  double sum = 0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return sum;
}

struct Search {
  std::span<const double> values;
  const ChangeOptions& options;
  std::vector<ChangePoint> found = {};

  void stretch(std::size_t begin, std::size_t end) {
    const auto least = static_cast<std::size_t>(options.min_segment);
    if (end - begin < 2 * least) return;
    const auto part = values.subspan(begin, end - begin);
    const Split split = best_split(part, least);
    if (split.statistic == 0) return;
    const double p = permutation_p(part, split.statistic, options, begin << 32 | end);
    if (p > options.alpha) return;
    const std::size_t at = begin + split.at;
    stretch(begin, at);
    found.push_back({at, 0, std::nullopt, p});
    stretch(at, end);
  }
};

}  // namespace

LevelHistory find_changes(std::span<const double> values, const ChangeOptions& options) {
  require(!values.empty(), "find changes: there are no values");
  require(options.min_segment >= 1 && options.permutations >= 1 && options.alpha > 0 &&
              options.alpha < 1,
          "find changes: {} values a level, {} permutations at alpha {} are no test",
          options.min_segment, options.permutations, options.alpha);
  for (const double v : values) require(std::isfinite(v), "find changes: a value is {}", v);
  Search search{values, options};
  search.stretch(0, values.size());
  LevelHistory history;
  history.changes = std::move(search.found);
  double squares = 0;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= history.changes.size(); ++i) {
    const std::size_t end = i < history.changes.size() ? history.changes[i].index : values.size();
    const auto level = values.subspan(begin, end - begin);
    history.segments.push_back({begin, end, mean_of(level)});
    squares += squares_around(level, history.segments.back().mean);
    begin = end;
  }
  const std::size_t degrees = values.size() - history.segments.size();
  if (degrees > 0) history.noise = std::sqrt(squares / static_cast<double>(degrees));
  for (std::size_t i = 0; i < history.changes.size(); ++i) {
    const Segment& before = history.segments[i];
    const Segment& after = history.segments[i + 1];
    ChangePoint& change = history.changes[i];
    change.difference = after.mean - before.mean;
    // With the noise of the whole history, which is what a short level has to go by.
    if (!history.noise || *history.noise == 0) continue;
    const double error =
        *history.noise * std::sqrt(1 / static_cast<double>(before.end - before.begin) +
                                   1 / static_cast<double>(after.end - after.begin));
    constexpr double kLevel = 0.95;
    const double reach = t_quantile(static_cast<double>(degrees), (1 - kLevel) / 2) * error;
    change.interval = Interval{change.difference - reach, change.difference + reach, kLevel};
  }
  return history;
}

std::optional<double> last_value_p(std::span<const double> level) {
  if (level.size() < 3) return std::nullopt;
  for (const double v : level) require(std::isfinite(v), "judge the last value: one is {}", v);
  const auto others = level.first(level.size() - 1);
  const double mean = mean_of(others);
  const auto n = static_cast<double>(others.size());
  const double sd = std::sqrt(squares_around(others, mean) / (n - 1));
  const double distance = level.back() - mean;
  if (sd == 0) return distance == 0 ? 1.0 : 0.0;
  return t_p_value(distance, sd * std::sqrt(1 + 1 / n), n - 1);
}

}  // namespace moebench
