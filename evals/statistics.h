// Intervals, tests and percentiles for scores and timings. All in double.
//
// Every function throws Error(kInvalidArgument) for NaN, infinities, no values or a level outside
// (0, 1). Where the data do not show their own error (one question, values that are all equal)
// there is no interval, rather than one of width zero.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moebench {

struct Interval {
  double low = 0;
  double high = 0;
  double level = 0.95;  // confidence level, in (0, 1)
};

// Wilson's score interval for a share, two-sided, normal quantile, no continuity correction.
// 0 <= successes <= n, n >= 1. Within [0, 1].
// Source: Wilson 1927; statsmodels proportion_confint(method="wilson").
Interval wilson_interval(std::int64_t successes, std::int64_t n, double level = 0.95);

struct MeanEstimate {
  double mean = 0;
  std::int64_t num_values = 0;
  std::int64_t num_clusters = 0;
  std::optional<double> standard_error;  // present with method "clustered_t" only
  std::optional<Interval> interval;
  std::string method;  // how `interval` was made: "clustered_t", "wilson_on_clusters"; "" without
  std::string reason;  // why there is no interval; "" if there is one
};

// The mean of `values` and its interval, where values of one cluster (the repeats of one question)
// depend on each other and clusters do not. values[i] belongs to cluster_ids[i]; order is free.
//
//   SE^2 = G/(G-1) * sum over clusters c of ( sum over i in c of (x_i - mean) )^2 / n^2
//
// with G clusters and n values; the interval is mean +- SE times Student's t with G-1 degrees of
// freedom. Clusters weigh by their number of values; where all have equally many, this is the t
// interval of the cluster means. If all values are 0 or 1, it is cut to [0, 1].
// Source: Miller 2024, "Adding Error Bars to Evals" (arXiv 2411.00640), section 2.2: the sandwich
// estimator (Liang and Zeger 1986) for a mean. G/(G-1) and t instead of the normal quantile, for
// few questions, as statsmodels OLS(x, 1).fit(cov_type="cluster", use_t=True).
//
// If every value is 0, or every value is 1, SE would be 0; the interval is then Wilson's, with each
// cluster as one trial (repeats of a question are no new evidence about other questions). No
// interval: one cluster; or clusters that differ within but all have the same mean.
MeanEstimate mean_with_clustered_interval(std::span<const double> values,
                                          std::span<const std::int64_t> cluster_ids,
                                          double level = 0.95);

struct PairedDifference {
  MeanEstimate difference;  // mean of candidate - baseline, clustered by item
  // Items by the sign of their mean difference; up to rounding, an equal mean is a tie.
  std::int64_t wins = 0;  // the candidate is better
  std::int64_t losses = 0;
  std::int64_t ties = 0;
};

// Compares two systems on the same samples: baseline[i] and candidate[i] are the scores of one
// (item, repeat) and item_ids[i] names the item. The interval is that of
// mean_with_clustered_interval on the differences, with one change where these are all equal:
// if the scores are 0 or 1 and every difference is d (no answer changed, or all changed alike),
// at most a share h of items can behave otherwise, where h is the upper end of Wilson's interval
// for 0 of G items, and each of those moves the mean by at most 1 + |d|. The interval is then
// [d - (1+|d|) h, d + (1+|d|) h], cut to [-1, 1]; method "wilson_on_clusters".
PairedDifference paired_difference(std::span<const double> baseline,
                                   std::span<const double> candidate,
                                   std::span<const std::int64_t> item_ids, double level = 0.95);

// The q-quantile, q in [0, 1], of values in any order: linear interpolation between the order
// statistics around position (n-1) q, counted from 0. This is Hyndman and Fan's type 7, the default
// of numpy.percentile and R.
double percentile(std::span<const double> values, double q);

// The middle value, or the mean of the middle two.
double median(std::span<const double> values);

// Whether n samples are enough to quote the q-quantile: at least one is expected beyond it,
// n * min(q, 1-q) >= 1. So p99 needs 100 samples, p50 two; the extremes (q = 0, 1) are never
// supported, since a sample's maximum says nothing about values beyond it.
bool percentile_is_supported(std::int64_t n, double q);

using Statistic = std::function<double(std::span<const double>)>;

// Percentile bootstrap: the (1-level)/2 and (1+level)/2 quantiles of `statistic` over `resamples`
// draws of n values with replacement, for independent values. The same seed gives the same
// interval. nullopt if n < 2 or all values are equal: resampling cannot show an error then. (low
// and high can still be equal: the median of values with many ties may be the same in all
// resamples.) `resamples` must be enough to quote both ends (percentile_is_supported: 40 at level
// 0.95; a thousand or more for stable ends). Expect less coverage than `level` for skewed or few
// values. Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
std::optional<Interval> bootstrap_interval(std::span<const double> values,
                                           const Statistic& statistic, std::int64_t resamples,
                                           double level, std::uint64_t seed);

// Percentile bootstrap of a mean over values of which those of one cluster depend on each other:
// whole clusters are drawn with replacement. values[i] belongs to cluster_ids[i]. For skewed
// clusters, where the t interval is lopsided. nullopt for one cluster, or where all clusters have
// the same mean; else as bootstrap_interval.
// Source: Field and Welsh 2007, "Bootstrapping clustered data" (J. R. Statist. Soc. B 69:369).
std::optional<Interval> cluster_bootstrap_interval(std::span<const double> values,
                                                   std::span<const std::int64_t> cluster_ids,
                                                   std::int64_t resamples, double level,
                                                   std::uint64_t seed);

// Exact two-sided McNemar test: of b + c items on which two systems disagree, the first is right on
// b and the second on c. p = min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2); 1 if they never
// disagree. b, c >= 0. Source: statsmodels mcnemar(exact=True).
double mcnemar_exact(std::int64_t b, std::int64_t c);

// Holm's step-down adjustment for the family of all `p_values` (each in [0, 1]), in their order:
// the i-th smallest of m (from 0) becomes (m-i) p, made monotone, at most 1. Rejecting where the
// result is <= alpha keeps the chance of any false rejection <= alpha, whatever their dependence.
// An empty family is fine. Source: Holm 1979; statsmodels multipletests(method="holm").
std::vector<double> holm_adjust(std::span<const double> p_values);

// Benjamini and Hochberg's step-up adjustment: the i-th smallest of m (from 1) becomes m p / i,
// made monotone, at most 1. Rejecting where the result is <= alpha keeps the expected share of
// false rejections among all rejections <= alpha, for p-values that are independent or positively
// dependent. Source: Benjamini and Hochberg 1995; statsmodels multipletests(method="fdr_bh").
std::vector<double> benjamini_hochberg_adjust(std::span<const double> p_values);

}  // namespace moebench
