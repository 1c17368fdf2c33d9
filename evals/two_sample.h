// Two sides measured apart: is one faster, by how much, and how small a difference could have been
// seen? For speeds of runs that were not interleaved.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "evals/statistics.h"

namespace moebench {

// How `candidate` relates to `base`, as a ratio of geometric means.
struct RatioEstimate {
  double ratio = 1;
  std::optional<Interval> interval;  // of the ratio
  std::optional<double> p_value;     // of ratio = 1, two-sided
  double standard_error = 0;         // of log(ratio), near 1 the same as of the ratio
  double degrees = 0;                // of freedom of that error
  std::string method;                // "t_on_runs", "welch_within_runs", "paired_ratio"; "" without
  std::string reason;                // why there is no interval
};

// base[r] and candidate[r] are the samples of run r: positive numbers (tokens per second, or
// milliseconds). Samples of one run share that run's luck (where its memory lies, what its
// neighbours do), so repetitions say little about another run:
// - with two runs or more on each side, the means of logarithms of the runs are the observations,
//   and the interval is that of a t test with pooled variance (R_base + R_candidate - 2 degrees);
// - with fewer, the runs' own spread is Welch's standard error over samples, and the spread between
//   runs must be told: `between_run_sd` is its standard deviation, relative (0.02: 2 %), taken as
//   known. With 0 the answer is about these two processes only.
// Throws Error(kInvalidArgument) for no runs, a run without samples, or a sample that is not finite
// and positive. No interval where one side has a single sample, or all samples of a side are equal.
// Source: Welch 1947 (degrees of freedom by Satterthwaite).
RatioEstimate compare_runs(std::span<const std::vector<double>> base,
                           std::span<const std::vector<double>> candidate, double between_run_sd,
                           double level = 0.95);

// The ratio of two means over the same items: mean(candidate) / mean(base), where candidate[i] and
// base[i] are what item item_ids[i] gave on each side (tokens of an answer, divergence of a trace).
// The interval is the ratio estimator's: the residuals candidate - ratio * base have mean zero, and
// their standard error (clustered by item), over mean(base), is that of the ratio. Method
// "paired_ratio"; symmetric, so its lower end may fall below zero. Throws for mean(base) = 0.
// Source: Cochran 1977, "Sampling Techniques", section 6.3.
RatioEstimate paired_ratio(std::span<const double> base, std::span<const double> candidate,
                           std::span<const std::int64_t> item_ids, double level = 0.95);

// Student's t that is exceeded with chance `upper_tail`. degrees > 0; beyond a million it is the
// normal distribution.
double t_quantile(double degrees, double upper_tail);

// The p-value of an estimate that is `distance` from what it would be under the hypothesis:
// two-sided, Student's t. standard_error > 0, degrees > 0.
double t_p_value(double distance, double standard_error, double degrees);

// The smallest true difference that a two-sided test at 1 - level would have found with `power`:
// (t_{(1+level)/2} + t_{power}) standard errors. Source: Bloom 1995, "Minimum Detectable Effects".
double smallest_visible(double standard_error, double degrees, double level = 0.95,
                        double power = 0.8);

// The smallest true difference that `power` of all intervals of this width would have told from 0,
// for intervals that rest on many observations: it is read off the width alone.
double smallest_visible(const Interval& interval, double power = 0.8);

// How many observations would bring the half-width of an interval from `half_width`, seen with
// `count`, down to what is left of `margin` beside the difference seen (both as magnitudes):
// widths shrink with the square root. Nothing where the difference itself fills the margin.
std::optional<std::int64_t> observations_to_settle(std::int64_t count, double half_width,
                                                   double difference, double margin);

}  // namespace moebench
