// Two sides measured apart: values worked out by hand, and the rates of false alarms
// and of detection that the method promises.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "evals/two_sample.h"
#include "kernels/core/random.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// Normal deviates by Box and Muller.
double normal(RandomStream& random) {
  const double u = 1 - random.uniform();
  const double v = random.uniform();
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v);
}

using Runs = std::vector<std::vector<double>>;

// `num_runs` runs of `samples` rates around `rate`, with these relative spreads.
Runs simulate(RandomStream& random, int num_runs, int samples, double rate, double between,
              double within) {
  Runs runs;
  for (int r = 0; r < num_runs; ++r) {
    const double luck = between * normal(random);
    std::vector<double> run;
    for (int i = 0; i < samples; ++i) {
      run.push_back(rate * std::exp(luck + within * normal(random)));
    }
    runs.push_back(run);
  }
  return runs;
}

}  // namespace

TEST_CASE("two samples: one run a side is Welch's test on logarithms") {
  const Runs base = {{100, 101, 99, 100}};
  const Runs candidate = {{104, 106, 105, 107}};
  const RatioEstimate e = compare_runs(base, candidate, 0);
  CHECK(e.method == "welch_within_runs");
  double log_base = 0;
  double log_candidate = 0;
  for (const double x : base[0]) log_base += std::log(x) / 4;
  for (const double x : candidate[0]) log_candidate += std::log(x) / 4;
  CHECK(e.ratio == Approx(std::exp(log_candidate - log_base)).epsilon(1e-12));
  double sb = 0;
  double sc = 0;
  for (const double x : base[0]) sb += std::pow(std::log(x) - log_base, 2) / 3;
  for (const double x : candidate[0]) sc += std::pow(std::log(x) - log_candidate, 2) / 3;
  CHECK(e.standard_error == Approx(std::sqrt(sb / 4 + sc / 4)).epsilon(1e-12));
  const double v = sb / 4 + sc / 4;
  CHECK(e.degrees == Approx(v * v / ((sb / 4) * (sb / 4) / 3 + (sc / 4) * (sc / 4) / 3)));
  REQUIRE(e.interval);
  REQUIRE(e.p_value);
  CHECK(e.interval->low < e.ratio);
  CHECK(e.ratio < e.interval->high);
  CHECK(*e.p_value < 0.01);
  // The interval is symmetric in the logarithm.
  CHECK(e.interval->low * e.interval->high == Approx(e.ratio * e.ratio));
}

TEST_CASE("two samples: what runs differ by on their own widens the interval") {
  const Runs base = {{100, 101, 99, 100}};
  const Runs candidate = {{104, 106, 105, 107}};
  const RatioEstimate alone = compare_runs(base, candidate, 0);
  const RatioEstimate with = compare_runs(base, candidate, 0.03);
  // Variances add: 0.03^2 for each side.
  CHECK(with.standard_error ==
        Approx(std::sqrt(alone.standard_error * alone.standard_error + 2 * 0.03 * 0.03)));
  CHECK(*with.p_value > 0.05);
  CHECK(*alone.p_value < 0.05);
}

TEST_CASE("two samples: several runs a side are compared by their means") {
  // Run means of logarithms 0, 0.02 and 0.05, 0.07: pooled variance 0.0002, two degrees,
  // SE = sqrt(0.0002), difference 0.05, t = 3.5355; with two degrees p = 1 - t / sqrt(2 + t^2).
  const Runs base = {{1, 1, 1}, {std::exp(0.02)}};
  const Runs candidate = {{std::exp(0.05)}, {std::exp(0.07), std::exp(0.07)}};
  const RatioEstimate e = compare_runs(base, candidate, 0.5);
  CHECK(e.method == "t_on_runs");
  CHECK(e.degrees == 2);
  CHECK(e.standard_error == Approx(std::sqrt(0.0002)));
  CHECK(e.ratio == Approx(std::exp(0.05)));
  const double t = 0.05 / std::sqrt(0.0002);
  CHECK(*e.p_value == Approx(1 - t / std::sqrt(2 + t * t)));
}

TEST_CASE("two samples: no interval from what shows no spread") {
  const std::vector<double> flat = {5, 5};
  const std::vector<double> one = {5};
  CHECK_FALSE(compare_runs(Runs{flat}, Runs{flat}, 0).interval);
  CHECK_FALSE(compare_runs(Runs{flat}, Runs{one}, 0.02).interval);
  CHECK_FALSE(compare_runs(Runs{flat, flat}, Runs{flat, flat}, 0).interval);
  CHECK(compare_runs(Runs{flat}, Runs{one}, 0).reason.find("one sample") != std::string::npos);
}

TEST_CASE("two samples: bad input is refused by name") {
  const Runs good = {{1, 2}};
  const double nan = std::numeric_limits<double>::quiet_NaN();
  check_error([&] { compare_runs({}, good, 0); }, ErrorCode::kInvalidArgument, {"base"});
  check_error([&] { compare_runs(good, Runs{{}}, 0); }, ErrorCode::kInvalidArgument,
              {"candidate", "no samples"});
  check_error([&] { compare_runs(good, Runs{{1, nan}}, 0); }, ErrorCode::kInvalidArgument, {"nan"});
  check_error(
      [&] {
        compare_runs(Runs{{0, 1}}, good, 0);
      },
      ErrorCode::kInvalidArgument, {"positive"});
  check_error([&] { compare_runs(good, good, -0.1); }, ErrorCode::kInvalidArgument, {"-0.1"});
  check_error([&] { t_p_value(nan, 1, 1); }, ErrorCode::kInvalidArgument, {"nan"});
}

TEST_CASE("two samples: equal sides raise an alarm in at most one of twenty, 3 % is seen") {
  constexpr int kTrials = 2000;
  struct Setting {
    int runs;
    double between;  // true
    double told;
    double least_power;  // for a true change of 3 %
  };
  // With one run a side and a spread between runs of 1 %, 3 % is 2.1 standard errors of the
  // difference: seen in a little more than half. Four runs a side: 4.2, seen nearly always.
  for (const Setting s : {Setting{1, 0.01, 0.01, 0.45}, Setting{4, 0.01, 0, 0.85}}) {
    CAPTURE(s.runs);
    RandomStream random(7, static_cast<std::uint64_t>(s.runs));
    int alarms = 0;
    int seen = 0;
    int covered = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const Runs base = simulate(random, s.runs, 5, 100, s.between, 0.01);
      const Runs same = simulate(random, s.runs, 5, 100, s.between, 0.01);
      const Runs slower = simulate(random, s.runs, 5, 97, s.between, 0.01);
      alarms += *compare_runs(base, same, s.told).p_value <= 0.05 ? 1 : 0;
      const RatioEstimate e = compare_runs(base, slower, s.told);
      seen += *e.p_value <= 0.05 && e.ratio < 1 ? 1 : 0;
      covered += e.interval->low <= 0.97 && 0.97 <= e.interval->high ? 1 : 0;
    }
    // 0.05 and three standard errors of a share of 2000.
    CHECK(alarms <= kTrials * 0.065);
    CHECK(covered >= kTrials * 0.935);
    CHECK(seen >= kTrials * s.least_power);
  }
}

TEST_CASE("paired ratio: the ratio of means, with the residuals' error") {
  const std::vector<double> base = {10, 20, 30};
  const std::vector<double> candidate = {12, 20, 34};
  const std::vector<std::int64_t> items = {0, 1, 2};
  const RatioEstimate e = paired_ratio(base, candidate, items);
  // 66 / 60; residuals 12 - 11, 20 - 22, 34 - 33 = 1, -2, 1; sum of squares 6, times 3/2,
  // root 3, over 3 items = 1; over the base's mean of 20.
  CHECK(e.ratio == Approx(1.1));
  CHECK(e.standard_error == Approx(0.05));
  CHECK(e.degrees == 2);
  // t with two degrees: 4.302653
  CHECK(e.interval->high == Approx(1.1 + 0.05 * 4.302653));
  CHECK(*e.p_value == Approx(t_p_value(0.1, 0.05, 2)));
  // Everything scaled alike has no spread.
  CHECK_FALSE(paired_ratio(base, std::vector<double>{20, 40, 60}, items).interval);
  check_error(
      [&] {
        paired_ratio(std::vector<double>{0, 0}, std::vector<double>{1, 2},
                     std::vector<std::int64_t>{0, 1});
      },
      ErrorCode::kInvalidArgument, {"paired ratio"});
}

TEST_CASE("smallest visible and observations to settle") {
  // z(0.975) + z(0.8) = 1.959964 + 0.841621
  CHECK(smallest_visible(1, 1e9) == Approx(2.801585).epsilon(1e-5));
  CHECK(t_p_value(1.959964, 1, 1e9) == Approx(0.05).epsilon(1e-5));
  CHECK(t_p_value(-2, 1, 1) == Approx(0.2951672));  // Cauchy: 1 - 2 atan(2) / pi
  // From +-4 to +-2 takes four times as many; with 1 of the margin used up, 16 times.
  // From a width: a 95 % interval of +-1.96 standard errors is the same.
  CHECK(smallest_visible(Interval{-1.959964, 1.959964, 0.95}) == Approx(2.801585).epsilon(1e-5));
  CHECK(smallest_visible(Interval{2, 2, 0.95}) == 0);
  CHECK_THROWS_AS(smallest_visible(Interval{1, 0, 0.95}), Error);
  CHECK(*observations_to_settle(100, 4, 0, 2) == 400);
  CHECK(*observations_to_settle(100, 4, -1, 2) == 1600);
  CHECK_FALSE(observations_to_settle(100, 4, 2, 2));
}

}  // namespace moebench::test
