// Boost.Math provides the distributions; the rest is a few sums.
#include "evals/statistics.h"

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <string_view>

#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

void require_level(double level) {
  require(level > 0 && level < 1, "confidence level {} is not between 0 and 1", level);
}

void require_finite(std::span<const double> values, std::string_view what) {
  require(!values.empty(), "{}: no values", what);
  for (std::size_t i = 0; i < values.size(); ++i) {
    require(std::isfinite(values[i]), "{}: value {} is {}; all must be finite", what, i, values[i]);
  }
}

void require_same_size(std::size_t num_values, std::size_t num_ids, std::string_view what) {
  require(num_values == num_ids, "{}: {} values but {} ids", what, num_values, num_ids);
}

bool all_zero_or_one(std::span<const double> values) {
  return std::ranges::all_of(values, [](double x) { return x == 0 || x == 1; });
}

bool all_equal(std::span<const double> values) {
  return std::ranges::all_of(values, [&](double x) { return x == values[0]; });
}

double largest_magnitude(std::span<const double> values) {
  double largest = 0;
  for (const double x : values) largest = std::max(largest, std::abs(x));
  return largest;
}

// Mean, standard error and t interval; without an interval where the standard error is no estimate.
MeanEstimate clustered_t(std::span<const double> values, std::span<const std::int64_t> cluster_ids,
                         double level) {
  const double n = static_cast<double>(values.size());
  MeanEstimate out;
  out.num_values = static_cast<std::int64_t>(values.size());
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  require(std::isfinite(out.mean), "mean of {} values: their sum is beyond double precision",
          values.size());
  std::map<std::int64_t, double> residual_sums;
  for (std::size_t i = 0; i < values.size(); ++i) {
    residual_sums[cluster_ids[i]] += values[i] - out.mean;
  }
  out.num_clusters = static_cast<std::int64_t>(residual_sums.size());
  if (out.num_clusters == 1) {
    out.reason = "one cluster: its values show no variation between clusters";
    return out;
  }

  double sum_of_squares = 0;
  for (const auto& [id, residual_sum] : residual_sums)
    sum_of_squares += residual_sum * residual_sum;
  const double num_clusters = static_cast<double>(out.num_clusters);
  const double standard_error = std::sqrt(num_clusters / (num_clusters - 1) * sum_of_squares) / n;
  require(std::isfinite(standard_error),
          "standard error of {} values: their squares are beyond double precision", values.size());
  // Equal cluster means leave residual sums of a few ulps, which are not an error estimate.
  constexpr double kRoundingNoise = 1e-13;
  if (standard_error <= kRoundingNoise * largest_magnitude(values)) {
    out.reason = all_equal(values) ? "all values are equal" : "all clusters have the same mean";
    return out;
  }
  const boost::math::students_t distribution(num_clusters - 1);
  const double half_width =
      standard_error * boost::math::quantile(complement(distribution, (1 - level) / 2));
  out.standard_error = standard_error;
  out.interval = Interval{out.mean - half_width, out.mean + half_width, level};
  out.method = "clustered_t";
  return out;
}

void require_resamples(std::int64_t resamples, double level) {
  require_level(level);
  const double tail = (1 - level) / 2;
  require(percentile_is_supported(std::max<std::int64_t>(0, resamples), tail),
          "bootstrap: {} resamples are too few for level {}; at least {:.0f} are needed", resamples,
          level, std::ceil(1 / tail - 1e-6));
}

Interval percentile_interval(std::span<const double> draws, double level) {
  const double tail = (1 - level) / 2;
  return {percentile(draws, tail), percentile(draws, 1 - tail), level};
}

// Indices of p-values from the smallest on.
std::vector<std::size_t> order_of(std::span<const double> p_values, std::string_view what) {
  for (const double p : p_values) {
    require(p >= 0 && p <= 1, "{}: p-value {} is not in [0, 1]", what, p);
  }
  std::vector<std::size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return p_values[i]; });
  return order;
}

void use_wilson(MeanEstimate& estimate, const Interval& interval) {
  estimate.interval = interval;
  estimate.method = "wilson_on_clusters";
  estimate.reason.clear();
}

}  // namespace

Interval wilson_interval(std::int64_t successes, std::int64_t n, double level) {
  require_level(level);
  require(n >= 1 && successes >= 0 && successes <= n,
          "wilson interval: {} successes of {} trials; expected 0 <= successes <= trials >= 1",
          successes, n);
  const double trials = static_cast<double>(n);
  const double share = static_cast<double>(successes) / trials;
  const double z = boost::math::quantile(complement(boost::math::normal(), (1 - level) / 2));
  const double scale = 1 + z * z / trials;
  const double center = (share + z * z / (2 * trials)) / scale;
  const double half_width =
      z / scale * std::sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials));
  // At the ends center and half_width are equal up to rounding; the limit there is exact.
  return {.low = successes == 0 ? 0 : std::max(0.0, center - half_width),
          .high = successes == n ? 1 : std::min(1.0, center + half_width),
          .level = level};
}

MeanEstimate mean_with_clustered_interval(std::span<const double> values,
                                          std::span<const std::int64_t> cluster_ids, double level) {
  constexpr std::string_view kWhat = "mean with clustered interval";
  require_level(level);
  require_finite(values, kWhat);
  require_same_size(values.size(), cluster_ids.size(), kWhat);
  MeanEstimate out = clustered_t(values, cluster_ids, level);
  if (!all_zero_or_one(values)) return out;
  if (out.interval) {
    out.interval->low = std::max(0.0, out.interval->low);
    out.interval->high = std::min(1.0, out.interval->high);
  } else if (out.num_clusters > 1 && all_equal(values)) {
    const std::int64_t successes = values[0] == 1 ? out.num_clusters : 0;
    use_wilson(out, wilson_interval(successes, out.num_clusters, level));
  }
  return out;
}

PairedDifference paired_difference(std::span<const double> baseline,
                                   std::span<const double> candidate,
                                   std::span<const std::int64_t> item_ids, double level) {
  constexpr std::string_view kWhat = "paired difference";
  require_level(level);
  require_finite(baseline, kWhat);
  require_finite(candidate, kWhat);
  require(baseline.size() == candidate.size(), "{}: {} baseline but {} candidate scores", kWhat,
          baseline.size(), candidate.size());
  require_same_size(baseline.size(), item_ids.size(), kWhat);

  struct Item {
    double difference = 0;
    double magnitude = 0;
  };
  std::map<std::int64_t, Item> items;
  std::vector<double> differences(baseline.size());
  for (std::size_t i = 0; i < baseline.size(); ++i) {
    differences[i] = candidate[i] - baseline[i];
    Item& item = items[item_ids[i]];
    item.difference += differences[i];
    item.magnitude += std::abs(candidate[i]) + std::abs(baseline[i]);
  }

  PairedDifference out;
  constexpr double kRoundingNoise = 1e-13;  // repeats that cancel leave a few ulps
  for (const auto& [id, item] : items) {
    if (std::abs(item.difference) <= kRoundingNoise * item.magnitude) {
      ++out.ties;
    } else {
      ++(item.difference > 0 ? out.wins : out.losses);
    }
  }

  out.difference = clustered_t(differences, item_ids, level);
  MeanEstimate& estimate = out.difference;
  if (!all_zero_or_one(baseline) || !all_zero_or_one(candidate)) return out;
  if (estimate.interval) {
    estimate.interval->low = std::max(-1.0, estimate.interval->low);
    estimate.interval->high = std::min(1.0, estimate.interval->high);
  } else if (estimate.num_clusters > 1 && all_equal(differences)) {
    const double d = differences[0];
    const double reach = (1 + std::abs(d)) * wilson_interval(0, estimate.num_clusters, level).high;
    use_wilson(estimate, {std::max(-1.0, d - reach), std::min(1.0, d + reach), level});
  }
  return out;
}

double percentile(std::span<const double> values, double q) {
  require_finite(values, "percentile");
  require(q >= 0 && q <= 1, "percentile: q is {}; expected 0 to 1 (0.99 for p99)", q);
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const double position = static_cast<double>(sorted.size() - 1) * q;
  const double below = std::floor(position);
  const auto index = static_cast<std::size_t>(below);
  const std::size_t next = std::min(index + 1, sorted.size() - 1);
  return std::lerp(sorted[index], sorted[next], position - below);
}

double median(std::span<const double> values) { return percentile(values, 0.5); }

bool percentile_is_supported(std::int64_t n, double q) {
  require(n >= 0, "percentile: {} samples", n);
  require(q >= 0 && q <= 1, "percentile: q is {}; expected 0 to 1 (0.99 for p99)", q);
  // 10 * (1 - 0.9) is a little less than 1 in double.
  constexpr double kRoundingNoise = 1e-9;
  return static_cast<double>(n) * std::min(q, 1 - q) >= 1 - kRoundingNoise;
}

std::optional<Interval> bootstrap_interval(std::span<const double> values,
                                           const Statistic& statistic, std::int64_t resamples,
                                           double level, std::uint64_t seed) {
  require_finite(values, "bootstrap");
  require_resamples(resamples, level);
  if (values.size() < 2 || all_equal(values)) return std::nullopt;

  RandomStream random(seed);
  const auto n = static_cast<std::int64_t>(values.size());
  std::vector<double> sample(values.size());
  std::vector<double> statistics;
  statistics.reserve(static_cast<std::size_t>(resamples));
  for (std::int64_t i = 0; i < resamples; ++i) {
    for (double& x : sample) x = values[static_cast<std::size_t>(random.below(n))];
    statistics.push_back(statistic(sample));
  }
  require_finite(statistics, "bootstrap: the statistic of a resample");
  return percentile_interval(statistics, level);
}

std::optional<Interval> cluster_bootstrap_interval(std::span<const double> values,
                                                   std::span<const std::int64_t> cluster_ids,
                                                   std::int64_t resamples, double level,
                                                   std::uint64_t seed) {
  constexpr std::string_view kWhat = "cluster bootstrap";
  require_finite(values, kWhat);
  require_same_size(values.size(), cluster_ids.size(), kWhat);
  require_resamples(resamples, level);
  // Where the standard error is none, draws would show none either.
  if (!clustered_t(values, cluster_ids, level).standard_error) return std::nullopt;
  struct Cluster {
    double sum = 0;
    double count = 0;
  };
  std::map<std::int64_t, Cluster> by_id;
  for (std::size_t i = 0; i < values.size(); ++i) {
    Cluster& cluster = by_id[cluster_ids[i]];
    cluster.sum += values[i];
    ++cluster.count;
  }
  std::vector<Cluster> clusters;
  for (const auto& [id, cluster] : by_id) clusters.push_back(cluster);

  RandomStream random(seed);
  const auto count = static_cast<std::int64_t>(clusters.size());
  std::vector<double> means;
  means.reserve(static_cast<std::size_t>(resamples));
  for (std::int64_t draw = 0; draw < resamples; ++draw) {
    Cluster all;
    for (std::int64_t i = 0; i < count; ++i) {
      const Cluster& one = clusters[static_cast<std::size_t>(random.below(count))];
      all.sum += one.sum;
      all.count += one.count;
    }
    means.push_back(all.sum / all.count);
  }
  return percentile_interval(means, level);
}

double mcnemar_exact(std::int64_t b, std::int64_t c) {
  require(b >= 0 && c >= 0, "mcnemar: counts {} and {}; neither can be negative", b, c);
  if (b == 0 && c == 0) return 1;
  const boost::math::binomial distribution(static_cast<double>(b) + static_cast<double>(c), 0.5);
  return std::min(1.0, 2 * boost::math::cdf(distribution, static_cast<double>(std::min(b, c))));
}

std::vector<double> holm_adjust(std::span<const double> p_values) {
  const std::vector<std::size_t> order = order_of(p_values, "holm");
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const double factor = static_cast<double>(order.size() - rank);
    largest = std::max(largest, std::min(1.0, factor * p_values[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

std::vector<double> benjamini_hochberg_adjust(std::span<const double> p_values) {
  const std::vector<std::size_t> order = order_of(p_values, "benjamini-hochberg");
  std::vector<double> adjusted(p_values.size());
  double smallest = 1;
  for (std::size_t rank = order.size(); rank-- > 0;) {
    const double factor = static_cast<double>(order.size()) / static_cast<double>(rank + 1);
    smallest = std::min(smallest, factor * p_values[order[rank]]);
    adjusted[order[rank]] = smallest;
  }
  return adjusted;
}

}  // namespace moebench
