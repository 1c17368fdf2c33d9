// Small sums, and Boost.Math for the binomial and normal distributions.
#include "evals/timing_statistics.h"

#include <algorithm>
#include <bit>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>
#include <numbers>
#include <numeric>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

void require_values(std::span<const double> values, std::size_t least, std::string_view what) {
  require(values.size() >= least, "{}: {} values; at least {} are needed", what, values.size(),
          least);
  for (std::size_t i = 0; i < values.size(); ++i) {
    require(std::isfinite(values[i]), "{}: value {} is {}; all must be finite", what, i, values[i]);
  }
}

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

double lag1_autocorrelation(std::span<const double> values) {
  require_values(values, 3, "lag-1 autocorrelation");
  const double m = mean(values);
  double squares = 0;
  double products = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    squares += (values[i] - m) * (values[i] - m);
    if (i + 1 < values.size()) products += (values[i] - m) * (values[i + 1] - m);
  }
  return squares > 0 ? products / squares : 0;
}

double effective_sample_size(std::span<const double> values) {
  const double n = static_cast<double>(values.size());
  const double r = lag1_autocorrelation(values);
  return std::clamp(n * (1 - r) / (1 + r), 1.0, n);
}

MannKendall mann_kendall(std::span<const double> values) {
  require_values(values, 4, "Mann-Kendall test");
  MannKendall trend;
  for (std::size_t i = 0; i < values.size(); ++i) {
    for (std::size_t j = i + 1; j < values.size(); ++j) {
      trend.s += values[j] > values[i] ? 1 : values[j] < values[i] ? -1 : 0;
    }
  }
  const auto weight = [](double n) { return n * (n - 1) * (2 * n + 5); };
  double variance = weight(static_cast<double>(values.size()));
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  for (auto begin = sorted.begin(); begin != sorted.end();) {
    const auto end = std::upper_bound(begin, sorted.end(), *begin);
    variance -= weight(static_cast<double>(end - begin));
    begin = end;
  }
  variance /= 18;
  if (variance <= 0) return trend;  // all values are equal
  const double z = std::max(0.0, std::abs(trend.s) - 1) / std::sqrt(variance);
  trend.p_value = std::erfc(z / std::numbers::sqrt2);
  return trend;
}

bool is_steady(std::span<const double> rates) {
  constexpr std::size_t kLeast = 12;
  // Of two steady series in ten one looks like a rise and goes on a little longer; that costs
  // little. Missing a real rise would cost more.
  constexpr double kRising = 0.4;  // two-sided: 0.2 of the rises
  if (rates.size() < kLeast) return false;
  const MannKendall trend = mann_kendall(rates.subspan(rates.size() / 2));
  return trend.s <= 0 || trend.p_value > kRising;
}

std::optional<Interval> median_order_interval(std::span<const double> values, double level) {
  require(level > 0 && level < 1, "confidence level {} is not between 0 and 1", level);
  require_values(values, 1, "interval of the median");
  const auto n = static_cast<std::int64_t>(values.size());
  const boost::math::binomial below(static_cast<double>(n), 0.5);
  // The k-th lowest (from 1) lies above the median with P(X <= k-1), X ~ Binomial(n, 1/2).
  std::int64_t k = 0;
  while (2 * (k + 1) <= n && 2 * boost::math::cdf(below, static_cast<double>(k)) <= 1 - level) ++k;
  if (k == 0) return std::nullopt;
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  return Interval{sorted[static_cast<std::size_t>(k - 1)], sorted[static_cast<std::size_t>(n - k)],
                  level};
}

std::optional<Interval> block_bootstrap_interval(std::span<const double> values,
                                                 const Statistic& statistic, double block_length,
                                                 std::int64_t resamples, double level,
                                                 std::uint64_t seed) {
  constexpr std::string_view kWhat = "block bootstrap";
  require(level > 0 && level < 1, "confidence level {} is not between 0 and 1", level);
  require(block_length >= 1, "{}: blocks of mean length {}; at least 1 is needed", kWhat,
          block_length);
  require_values(values, 1, kWhat);
  const double tail = (1 - level) / 2;
  require(percentile_is_supported(std::max<std::int64_t>(0, resamples), tail),
          "{}: {} resamples are too few for level {}; at least {:.0f} are needed", kWhat, resamples,
          level, std::ceil(1 / tail - 1e-6));
  const bool all_equal = std::ranges::all_of(values, [&](double x) { return x == values.front(); });
  if (values.size() < 2 || all_equal) return std::nullopt;
  RandomStream random(seed);
  const auto n = static_cast<std::int64_t>(values.size());
  std::vector<double> sample(values.size());
  std::vector<double> statistics;
  statistics.reserve(static_cast<std::size_t>(resamples));
  for (std::int64_t r = 0; r < resamples; ++r) {
    std::int64_t at = 0;
    for (std::size_t i = 0; i < sample.size(); ++i) {
      const bool begins = i == 0 || random.uniform() * block_length < 1;
      at = begins ? random.below(n) : (at + 1) % n;
      sample[i] = values[static_cast<std::size_t>(at)];
    }
    statistics.push_back(statistic(sample));
  }
  require_values(statistics, 1, "block bootstrap: the statistic of a resample");
  return Interval{percentile(statistics, tail), percentile(statistics, 1 - tail), level};
}

RandomHalves::RandomHalves(std::span<const double> values) {
  for (std::size_t first = 0; first < values.size(); first += kGroup) {
    std::array<double, 1 << kGroup>& sums = groups_.emplace_back();
    for (std::size_t coins = 1; coins < sums.size(); ++coins) {
      const auto last = static_cast<std::size_t>(std::bit_width(coins)) - 1;
      const double value = first + last < values.size() ? values[first + last] : 0;
      sums[coins] = sums[coins & ~(std::size_t{1} << last)] + value;
    }
  }
}

double RandomHalves::sum(RandomStream& random) const {
  constexpr std::size_t kGroupsOfDraw = 32 / kGroup;
  double even = 0;
  double odd = 0;  // two sums, neither of which waits for the other
  for (std::size_t begin = 0; begin < groups_.size(); begin += kGroupsOfDraw) {
    auto coins = static_cast<std::uint32_t>(random.uniform() * 0x1p32);
    const std::size_t end = std::min(begin + kGroupsOfDraw, groups_.size());
    for (std::size_t g = begin; g < end; ++g, coins >>= kGroup) {
      (g % 2 == 0 ? even : odd) += groups_[g][coins % (1 << kGroup)];
    }
  }
  return even + odd;
}

double sign_flip_test(std::span<const double> values, std::int64_t resamples, std::uint64_t seed) {
  require_values(values, 1, "sign-flip test");
  require(resamples >= 1, "sign-flip test: {} resamples", resamples);
  constexpr std::size_t kExact = 16;
  double scale = 0;
  for (const double x : values) scale += std::abs(x);
  const double total = std::accumulate(values.begin(), values.end(), 0.0);
  // Sums that are equal but for rounding must count as equal.
  const double seen = std::abs(total) - 1e-12 * scale;
  if (values.size() <= kExact) {
    const std::uint32_t patterns = 1U << values.size();
    std::int64_t count = 0;
    for (std::uint32_t pattern = 0; pattern < patterns; ++pattern) {
      double sum = 0;
      for (std::size_t i = 0; i < values.size(); ++i) {
        sum += (pattern >> i & 1U) != 0 ? values[i] : -values[i];
      }
      count += std::abs(sum) >= seen ? 1 : 0;
    }
    return static_cast<double>(count) / patterns;
  }
  const RandomHalves halves(values);
  RandomStream random(seed);
  std::int64_t count = 0;
  for (std::int64_t r = 0; r < resamples; ++r) {
    // The sum of signed values is 2 * (sum of those with a plus) - (sum of all).
    count += std::abs(2 * halves.sum(random) - total) >= seen ? 1 : 0;
  }
  return static_cast<double>(1 + count) / static_cast<double>(1 + resamples);
}

}  // namespace moebench
