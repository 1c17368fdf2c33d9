// Statistics of timings: values that come one after another, depend on their neighbours, drift, and
// have outliers on one side.
//
// As in evals/statistics.h: Error(kInvalidArgument) for NaN, infinities and too few values; no
// interval where the data do not show their own error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "evals/statistics.h"
#include "kernels/core/random.h"

namespace moebench {

// Correlation of each value with the next: sum (x_i - m)(x_(i+1) - m) / sum (x_i - m)^2. 0 if all
// are equal. At least 3 values. Of n independent values it is within 2/sqrt(n) of 0 in 95 % of
// cases. Source: Box, Jenkins and Reinsel, "Time Series Analysis", section 2.1.
double lag1_autocorrelation(std::span<const double> values);

// How many independent values would tell the mean as well: n (1 - r) / (1 + r) with r the lag-1
// autocorrelation, as is exact for an AR(1) process of many values; within [1, n], so that an
// estimate r < 0 claims no bonus. Source: Bayley and Hammersley 1946; Zieba 2010.
double effective_sample_size(std::span<const double> values);

// Whether values rise or fall over time, in no particular shape: sum of sign(x_j - x_i) over i < j,
// with the variance corrected for ties and for continuity. At least 4 values.
// Source: Mann 1945; Kendall 1975; Gilbert 1987, section 16.4.
struct MannKendall {
  double s = 0;        // the sum; its sign is the direction
  double p_value = 1;  // two-sided, normal approximation
};
MannKendall mann_kendall(std::span<const double> values);

// Whether a series of rates, as they come after a start, has stopped rising: there are twelve or
// more, and the later half of them shows no rise (Mann-Kendall, two-sided p > 0.4 or downwards).
bool is_steady(std::span<const double> rates);

// Interval of the median between two order statistics, for independent values of any distribution:
// the narrowest symmetric pair (k-th lowest, k-th highest) that covers the median with at least
// `level`, by the binomial distribution. nullopt if even the extremes do not (n <= 5 at 0.95).
// Source: David and Nagaraja 2003, "Order Statistics", section 7.1.
std::optional<Interval> median_order_interval(std::span<const double> values, double level = 0.95);

// Bootstrap for values that depend on their neighbours: resamples are strung together from blocks
// of consecutive values that begin at random places (and go on at the start of the series), of
// geometric length with mean `block_length` >= 1. As bootstrap_interval in every other respect.
// Source: Politis and Romano 1994, "The stationary bootstrap" (JASA 89:1303).
std::optional<Interval> block_bootstrap_interval(std::span<const double> values,
                                                 const Statistic& statistic, double block_length,
                                                 std::int64_t resamples, double level,
                                                 std::uint64_t seed);

// Draws sums of the values of which a fair coin each says so. Sums of four neighbours are looked
// up, so that thousands of draws take an addition for four values.
class RandomHalves {
 public:
  explicit RandomHalves(std::span<const double> values);
  double sum(RandomStream& random) const;

 private:
  static constexpr std::size_t kGroup = 4;
  std::vector<std::array<double, 1 << kGroup>> groups_;  // by the coins that say yes
};

// Two-sided p-value of the hypothesis that values are symmetric about 0, as paired log ratios of
// two equal arms in random order are: the share of sign patterns whose mean is at least as far from
// 0 as the one seen. All 2^n patterns up to n = 16, else `resamples` random ones and the pattern
// seen: (1 + count) / (1 + resamples). Exact whatever the distribution.
// Source: Fisher 1935, "The Design of Experiments", section 21; Phipson and Smyth 2010.
double sign_flip_test(std::span<const double> values, std::int64_t resamples, std::uint64_t seed);

}  // namespace moebench
