// Sums of logarithms, and Student's t from Boost.Math.
#include "evals/two_sample.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include "kernels/core/error.h"

namespace moebench {
namespace {

// Beyond this many degrees Student's t is the normal distribution to six digits.
constexpr double kMostDegrees = 1e6;

struct Moments {
  double mean = 0;
  double variance = 0;  // unbiased; 0 for one value
  double count = 0;
};

Moments moments_of(std::span<const double> values) {
  Moments m;
  m.count = static_cast<double>(values.size());
  m.mean = std::accumulate(values.begin(), values.end(), 0.0) / m.count;
  double squares = 0;
  for (const double x : values) squares += (x - m.mean) * (x - m.mean);
  if (m.count > 1) m.variance = squares / (m.count - 1);
  return m;
}

// The moments of the logarithms of each run.
std::vector<Moments> log_moments(std::span<const std::vector<double>> runs, const char* side) {
  require(!runs.empty(), "compare runs: the {} has none", side);
  std::vector<Moments> all;
  for (const std::vector<double>& run : runs) {
    require(!run.empty(), "compare runs: a run of the {} has no samples", side);
    std::vector<double> logs;
    for (const double x : run) {
      require(std::isfinite(x) && x > 0,
              "compare runs: a sample of the {} is {}; all must be finite and positive", side, x);
      logs.push_back(std::log(x));
    }
    all.push_back(moments_of(logs));
  }
  return all;
}

// The mean of runs, each counting once.
Moments between_runs(const std::vector<Moments>& runs) {
  std::vector<double> means;
  for (const Moments& run : runs) means.push_back(run.mean);
  return moments_of(means);
}

void add_interval(RatioEstimate& estimate, double log_ratio, double level, const char* method) {
  const double half = estimate.standard_error * t_quantile(estimate.degrees, (1 - level) / 2);
  estimate.interval = Interval{std::exp(log_ratio - half), std::exp(log_ratio + half), level};
  estimate.p_value = t_p_value(log_ratio, estimate.standard_error, estimate.degrees);
  estimate.method = method;
}

}  // namespace

double t_quantile(double degrees, double upper_tail) {
  // At so many degrees it is the normal distribution to six digits, and Boost's search for
  // Student's takes it a millisecond.
  if (degrees >= kMostDegrees) {
    return boost::math::quantile(complement(boost::math::normal(), upper_tail));
  }
  return boost::math::quantile(complement(boost::math::students_t(degrees), upper_tail));
}

RatioEstimate compare_runs(std::span<const std::vector<double>> base,
                           std::span<const std::vector<double>> candidate, double between_run_sd,
                           double level) {
  require(level > 0 && level < 1, "confidence level {} is not between 0 and 1", level);
  require(between_run_sd >= 0 && between_run_sd < 1,
          "compare runs: a spread between runs of {} is not a share (0.02 is 2 %)", between_run_sd);
  const std::vector<Moments> base_runs = log_moments(base, "base");
  const std::vector<Moments> candidate_runs = log_moments(candidate, "candidate");
  const Moments b = between_runs(base_runs);
  const Moments c = between_runs(candidate_runs);
  const double log_ratio = c.mean - b.mean;
  RatioEstimate estimate;
  estimate.ratio = std::exp(log_ratio);
  if (b.count >= 2 && c.count >= 2) {
    estimate.degrees = b.count + c.count - 2;
    const double pooled =
        ((b.count - 1) * b.variance + (c.count - 1) * c.variance) / estimate.degrees;
    estimate.standard_error = std::sqrt(pooled * (1 / b.count + 1 / c.count));
    if (!(estimate.standard_error > 0)) {
      estimate.reason = "all runs of each side are equal";
      return estimate;
    }
    add_interval(estimate, log_ratio, level, "t_on_runs");
    return estimate;
  }
  // The mean over runs of one side, its variance within runs, and Satterthwaite's degrees.
  double variance = 0;
  double fourth = 0;
  for (const auto* side : {&base_runs, &candidate_runs}) {
    const double runs = static_cast<double>(side->size());
    for (const Moments& run : *side) {
      if (run.count < 2) {
        estimate.reason = "a run of one sample does not show its own spread";
        return estimate;
      }
      const double part = run.variance / run.count / (runs * runs);
      variance += part;
      fourth += part * part / (run.count - 1);
    }
    variance += between_run_sd * between_run_sd / runs;
  }
  if (!(fourth > 0)) {
    estimate.reason = "all samples of each side are equal";
    return estimate;
  }
  estimate.standard_error = std::sqrt(variance);
  estimate.degrees = std::min(kMostDegrees, variance * variance / fourth);
  add_interval(estimate, log_ratio, level, "welch_within_runs");
  return estimate;
}

RatioEstimate paired_ratio(std::span<const double> base, std::span<const double> candidate,
                           std::span<const std::int64_t> item_ids, double level) {
  require(base.size() == candidate.size() && !base.empty(),
          "paired ratio: {} values of the base, {} of the candidate", base.size(),
          candidate.size());
  const double n = static_cast<double>(base.size());
  const double base_mean = std::accumulate(base.begin(), base.end(), 0.0) / n;
  const double candidate_mean = std::accumulate(candidate.begin(), candidate.end(), 0.0) / n;
  require(std::isfinite(base_mean) && std::isfinite(candidate_mean) && base_mean != 0,
          "paired ratio: the means are {} and {}", base_mean, candidate_mean);
  RatioEstimate estimate;
  estimate.ratio = candidate_mean / base_mean;
  std::vector<double> residuals(base.size());
  for (std::size_t i = 0; i < base.size(); ++i) {
    residuals[i] = candidate[i] - estimate.ratio * base[i];
  }
  const MeanEstimate mean = mean_with_clustered_interval(residuals, item_ids, level);
  if (!mean.standard_error) {
    estimate.reason = mean.reason.empty() ? "the items show no spread" : mean.reason;
    return estimate;
  }
  estimate.standard_error = *mean.standard_error / std::abs(base_mean);
  estimate.degrees = static_cast<double>(mean.num_clusters - 1);
  const double half = estimate.standard_error * t_quantile(estimate.degrees, (1 - level) / 2);
  estimate.interval = Interval{estimate.ratio - half, estimate.ratio + half, level};
  estimate.p_value = t_p_value(estimate.ratio - 1, estimate.standard_error, estimate.degrees);
  estimate.method = "paired_ratio";
  return estimate;
}

double t_p_value(double distance, double standard_error, double degrees) {
  require(std::isfinite(distance) && standard_error > 0 && degrees > 0,
          "p-value: distance {}, standard error {}, degrees {}", distance, standard_error, degrees);
  const boost::math::students_t distribution(std::min(degrees, kMostDegrees));
  const double t = std::abs(distance) / standard_error;
  return std::min(1.0, 2 * boost::math::cdf(complement(distribution, t)));
}

double smallest_visible(double standard_error, double degrees, double level, double power) {
  require(standard_error >= 0 && degrees > 0 && level > 0 && level < 1 && power > 0.5 && power < 1,
          "smallest visible difference: standard error {}, degrees {}, level {}, power {}",
          standard_error, degrees, level, power);
  return standard_error * (t_quantile(degrees, (1 - level) / 2) + t_quantile(degrees, 1 - power));
}

double smallest_visible(const Interval& interval, double power) {
  require(interval.low <= interval.high && interval.level > 0 && interval.level < 1 &&
              power > 0.5 && power < 1,
          "smallest visible difference: an interval from {} to {}, level {}, power {}",
          interval.low, interval.high, interval.level, power);
  const double half = 0.5 * (interval.high - interval.low);
  const double z = t_quantile(kMostDegrees, (1 - interval.level) / 2);
  return half * (1 + t_quantile(kMostDegrees, 1 - power) / z);
}

std::optional<std::int64_t> observations_to_settle(std::int64_t count, double half_width,
                                                   double difference, double margin) {
  require(count > 0 && half_width >= 0 && margin >= 0, "observations to settle: {} of {} for {}",
          count, half_width, margin);
  const double left = margin - std::abs(difference);
  if (!(left > 0)) return std::nullopt;
  const double factor = half_width / left;
  const double needed = std::ceil(static_cast<double>(count) * factor * factor);
  // Beyond this nobody will ask.
  if (!(needed < 1e15)) return std::nullopt;
  return static_cast<std::int64_t>(needed);
}

}  // namespace moebench
