// Statistics against statsmodels 0.15.0, scipy 1.17.1 and numpy 2.4.6, at the edges, and by
// simulation: an interval is right if it covers the truth as often as it says.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "evals/statistics.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"

using namespace moebench;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
using Values = std::vector<double>;
using Ids = std::vector<std::int64_t>;

Approx near(double expected) { return Approx(expected).epsilon(1e-11).margin(1e-15); }

void check_interval(const std::optional<Interval>& got, double low, double high, double level) {
  REQUIRE(got.has_value());
  CHECK(got->low == near(low));
  CHECK(got->high == near(high));
  CHECK(got->level == level);
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

bool covers(const Interval& interval, double truth) {
  return interval.low <= truth && truth <= interval.high;
}

}  // namespace

TEST_CASE("wilson interval: agrees with statsmodels proportion_confint") {
  // proportion_confint(successes, n, alpha=1-level, method="wilson")
  check_interval(wilson_interval(8, 10), 0.49016247153664183, 0.9433178485456247, 0.95);
  check_interval(wilson_interval(0, 30), 0, 0.1135133931739688, 0.95);
  check_interval(wilson_interval(30, 30), 0.8864866068260311, 1, 0.95);
  check_interval(wilson_interval(142, 198), 0.6507690852282754, 0.7753078986702512, 0.95);
  check_interval(wilson_interval(142, 198, 0.99), 0.6287290710896088, 0.7915316050143065, 0.99);
  check_interval(wilson_interval(1, 1, 0.9), 0.269865948784054, 1, 0.9);
  check_interval(wilson_interval(500'000, 1'000'000), 0.4990200198900048, 0.5009799801099952, 0.95);
}

TEST_CASE("wilson interval: ends are exact at no and at all successes") {
  for (const std::int64_t n : {1, 3, 7, 1000, 1'000'000}) {
    CHECK(wilson_interval(0, n).low == 0);
    CHECK(wilson_interval(n, n).high == 1);
  }
}

TEST_CASE("wilson interval: impossible counts and levels are refused") {
  CHECK_THROWS_AS(wilson_interval(0, 0), Error);
  CHECK_THROWS_AS(wilson_interval(-1, 5), Error);
  CHECK_THROWS_AS(wilson_interval(6, 5), Error);
  for (const double level : {0.0, 1.0, -0.5, 1.5, kNaN, kInfinity}) {
    CHECK_THROWS_AS(wilson_interval(1, 2, level), Error);
  }
}

TEST_CASE("clustered mean: agrees with statsmodels OLS with clustered covariance") {
  // OLS(x, ones).fit(cov_type="cluster", cov_kwds={"groups": ids}, use_t=True): params, bse,
  // conf_int
  const Values scores = {1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0};
  const Ids questions = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4};
  const MeanEstimate got = mean_with_clustered_interval(scores, questions);
  CHECK(got.mean == near(0.5));
  CHECK(got.num_values == 20);
  CHECK(got.num_clusters == 5);
  CHECK(got.standard_error == near(0.17677669529663687));
  check_interval(got.interval, 0.00918920963061065, 0.9908107903693891, 0.95);
  CHECK(got.method == "clustered_t");
  CHECK(got.reason.empty());

  // Clusters of unequal size, in any order, with any ids.
  const MeanEstimate uneven = mean_with_clustered_interval(Values{2.5, 3.25, -1, 0.5, 7, 7.5, 6},
                                                           Ids{10, 10, 20, 20, 20, -3, 5}, 0.9);
  CHECK(uneven.mean == near(3.6785714285714284));
  CHECK(uneven.standard_error == near(1.083556241017003));
  check_interval(uneven.interval, 1.128569791410702, 6.228573065732155, 0.9);
}

TEST_CASE("clustered mean: with one value per cluster it is the ordinary t interval") {
  // scipy.stats.t.interval(0.95, 4, mean(m), sem(m)): also the interval of the first case above,
  // since clusters of equal size count by their means.
  const MeanEstimate got =
      mean_with_clustered_interval(Values{0.75, 0, 1, 0.25, 0.5}, Ids{0, 1, 2, 3, 4});
  CHECK(got.standard_error == near(0.1767766952966369));
  check_interval(got.interval, 0.009189209630610706, 0.9908107903693892, 0.95);
}

TEST_CASE("clustered mean: repeating every answer does not narrow the interval") {
  const Values once = {1, 0, 1, 1, 0, 1};
  const Ids ids = {0, 1, 2, 3, 4, 5};
  Values many;
  Ids many_ids;
  for (int repeat = 0; repeat < 8; ++repeat) {
    many.insert(many.end(), once.begin(), once.end());
    many_ids.insert(many_ids.end(), ids.begin(), ids.end());
  }
  const Interval expected = mean_with_clustered_interval(once, ids).interval.value();
  check_interval(mean_with_clustered_interval(many, many_ids).interval, expected.low, expected.high,
                 0.95);
}

TEST_CASE("clustered mean: scores of 0 and 1 stay within 0 and 1, others are not cut") {
  const Ids ids = {0, 1, 2, 3};
  const Interval shares = mean_with_clustered_interval(Values{1, 1, 1, 0}, ids).interval.value();
  CHECK(shares.low == 0);
  CHECK(shares.high == 1);
  CHECK(mean_with_clustered_interval(Values{1, 1, 1, 0.5}, ids).interval.value().high > 1);
}

TEST_CASE("clustered mean: degenerate data give a reason, not an interval of width zero") {
  SECTION("one cluster") {
    const MeanEstimate got = mean_with_clustered_interval(Values{0, 1, 1}, Ids{7, 7, 7});
    CHECK(got.mean == near(2.0 / 3));
    CHECK_FALSE(got.interval);
    CHECK_FALSE(got.standard_error);
    CHECK(got.method.empty());
    CHECK_THAT(got.reason, Catch::Contains("one cluster"));
    CHECK_FALSE(mean_with_clustered_interval(Values{1}, Ids{7}).interval);
  }
  SECTION("equal values that are not scores") {
    const MeanEstimate got = mean_with_clustered_interval(Values{0.1, 0.1, 0.1}, Ids{0, 1, 2});
    CHECK_FALSE(got.interval);
    CHECK_THAT(got.reason, Catch::Contains("equal"));
  }
  SECTION("equal cluster means") {
    // 0.1 + 0.2 and 0.3 + 0 differ by rounding only.
    for (const Values& values : {Values{0, 1, 1, 0}, Values{0.1, 0.2, 0.3, 0}}) {
      const MeanEstimate got = mean_with_clustered_interval(values, Ids{0, 0, 1, 1});
      CHECK_FALSE(got.interval);
      CHECK_THAT(got.reason, Catch::Contains("same mean"));
    }
  }
}

TEST_CASE("clustered mean: all right or all wrong falls back to Wilson with clusters as trials") {
  // proportion_confint(4, 4, method="wilson"), (0, 3)
  const MeanEstimate right =
      mean_with_clustered_interval(Values(8, 1), Ids{0, 0, 1, 1, 2, 2, 3, 3});
  check_interval(right.interval, 0.5101091635454025, 1, 0.95);
  CHECK(right.method == "wilson_on_clusters");
  CHECK(right.reason.empty());
  CHECK_FALSE(right.standard_error);
  const MeanEstimate wrong = mean_with_clustered_interval(Values(3, 0), Ids{0, 1, 2});
  check_interval(wrong.interval, 0, 0.5614970317550455, 0.95);
}

TEST_CASE("paired difference: interval of the differences, items counted once") {
  const Values baseline = {1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0};
  const Values candidate = {1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0};
  const Ids items = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5};
  const PairedDifference got = paired_difference(baseline, candidate, items);
  // OLS(candidate - baseline, ones) with clustered covariance, as above
  CHECK(got.difference.mean == near(0.25));
  CHECK(got.difference.standard_error == near(0.17078251276599338));
  check_interval(got.difference.interval, -0.18901042516058952, 0.6890104251605896, 0.95);
  CHECK(got.wins == 4);
  CHECK(got.losses == 1);
  CHECK(got.ties == 1);

  const PairedDifference swapped = paired_difference(candidate, baseline, items);
  CHECK(swapped.difference.mean == near(-0.25));
  CHECK(swapped.wins == 1);
  CHECK(swapped.losses == 4);
}

TEST_CASE("paired difference: repeats that cancel up to rounding are a tie") {
  const PairedDifference got =
      paired_difference(Values{0.1, 0.2, 0.7, 1}, Values{0.7, 0.1, 0.2, 0.5}, Ids{0, 0, 0, 1});
  CHECK(got.ties == 1);
  CHECK(got.losses == 1);
}

TEST_CASE("paired difference: identical scores are bounded by Wilson on the items") {
  const Values scores = {1, 0, 1, 0, 1, 1};
  const Ids items = {0, 1, 2, 3, 4, 5};
  const double share = 0.39033428790216546;  // proportion_confint(0, 6, method="wilson")[1]
  const PairedDifference same = paired_difference(scores, scores, items);
  CHECK(same.ties == 6);
  check_interval(same.difference.interval, -share, share, 0.95);
  CHECK(same.difference.method == "wilson_on_clusters");

  const PairedDifference opposite = paired_difference(Values(6, 1), Values(6, 0), items);
  check_interval(opposite.difference.interval, -1, -1 + 2 * share, 0.95);

  // Nothing bounds scores that are not 0 or 1.
  const PairedDifference real = paired_difference(Values{0.5, 0.25}, Values{0.5, 0.25}, Ids{0, 1});
  CHECK_FALSE(real.difference.interval);
  CHECK_FALSE(real.difference.reason.empty());
}

TEST_CASE("percentile: agrees with numpy.percentile") {
  // numpy.percentile([15.5, 20, 35, 40, 50, 1.25], 100 * q)
  const Values values = {15.5, 20, 35, 40, 50, 1.25};
  CHECK(percentile(values, 0) == 1.25);
  CHECK(percentile(values, 0.1) == near(8.375));
  CHECK(percentile(values, 0.25) == near(16.625));
  CHECK(percentile(values, 0.5) == near(27.5));
  CHECK(percentile(values, 0.9) == near(45));
  CHECK(percentile(values, 0.99) == near(49.5));
  CHECK(percentile(values, 1) == 50);
  CHECK(percentile(Values{3}, 0.99) == 3);
  CHECK(median(Values{9, 1, 5}) == 5);
  CHECK(median(Values{9, 1, 5, 6}) == 5.5);
  const double huge = std::numeric_limits<double>::max();
  CHECK(median(Values{-huge, huge}) == 0);
  CHECK_THROWS_AS(percentile(values, 99), Error);
  CHECK_THROWS_AS(percentile(values, kNaN), Error);
}

TEST_CASE("percentile: it is quoted only with a sample expected beyond it") {
  CHECK(percentile_is_supported(100, 0.99));
  CHECK_FALSE(percentile_is_supported(99, 0.99));
  CHECK(percentile_is_supported(100, 0.01));
  CHECK_FALSE(percentile_is_supported(99, 0.01));
  CHECK(percentile_is_supported(1000, 0.999));
  CHECK(percentile_is_supported(10, 0.9));  // 10 * (1 - 0.9) < 1 in double
  CHECK(percentile_is_supported(20, 0.95));
  CHECK(percentile_is_supported(2, 0.5));
  CHECK_FALSE(percentile_is_supported(1, 0.5));
  CHECK_FALSE(percentile_is_supported(0, 0.5));
  CHECK_FALSE(percentile_is_supported(1'000'000, 1));
  CHECK_FALSE(percentile_is_supported(1'000'000, 0));
  CHECK_THROWS_AS(percentile_is_supported(-1, 0.5), Error);
  CHECK_THROWS_AS(percentile_is_supported(10, 1.01), Error);
}

TEST_CASE("bootstrap: agrees with scipy within resampling noise, and repeats for a seed") {
  const Values values = {12.1, 11.4, 15.0, 9.7,  13.3, 14.2, 10.8, 12.9, 16.5, 11.1,
                         13.7, 12.4, 10.2, 14.9, 12.0, 13.1, 11.9, 15.8, 9.9,  12.6};
  // scipy.stats.bootstrap((x,), numpy.mean, n_resamples=200000, method="percentile"), then
  // numpy.median with confidence_level=0.9. The sampling error of an end with 20,000 is about 0.01.
  const Interval mean = bootstrap_interval(values, mean_of, 20'000, 0.95, 1).value();
  CHECK(mean.low == Approx(11.87).margin(0.04));
  CHECK(mean.high == Approx(13.515).margin(0.04));
  const Interval middle = bootstrap_interval(values, median, 4'000, 0.9, 1).value();
  CHECK(middle.low == Approx(11.9).margin(0.11));
  CHECK(middle.high == Approx(13.3).margin(0.11));
  CHECK(middle.level == 0.9);

  const Interval first = bootstrap_interval(values, mean_of, 1000, 0.95, 7).value();
  const Interval again = bootstrap_interval(values, mean_of, 1000, 0.95, 7).value();
  const Interval other = bootstrap_interval(values, mean_of, 1000, 0.95, 8).value();
  CHECK((first.low == again.low && first.high == again.high));
  CHECK((first.low != other.low && first.high != other.high));
}

TEST_CASE("bootstrap: refuses what cannot show an error") {
  CHECK_FALSE(bootstrap_interval(Values{3}, mean_of, 1000, 0.95, 1));
  CHECK_FALSE(bootstrap_interval(Values{3, 3, 3}, mean_of, 1000, 0.95, 1));
  CHECK(bootstrap_interval(Values{3, 4}, mean_of, 40, 0.95, 1));
  CHECK(bootstrap_interval(Values{3, 4}, mean_of, 20, 0.9, 1));
  CHECK_THROWS_WITH(bootstrap_interval(Values{3, 4}, mean_of, 39, 0.95, 1),
                    Catch::Contains("at least 40"));
  CHECK_THROWS_AS(bootstrap_interval(Values{3, 4}, mean_of, -1, 0.95, 1), Error);
  const auto not_a_number = [](std::span<const double>) { return kNaN; };
  CHECK_THROWS_AS(bootstrap_interval(Values{3, 4}, not_a_number, 100, 0.95, 1), Error);
}

TEST_CASE("cluster bootstrap: agrees with the clustered t interval on many questions") {
  RandomStream random(3);
  Values values;
  Ids ids;
  for (std::int64_t item = 0; item < 300; ++item) {
    const double p = random.uniform();
    for (int r = 0; r < 4; ++r) {
      values.push_back(random.uniform() < p ? 1 : 0);
      ids.push_back(item);
    }
  }
  const Interval formula = mean_with_clustered_interval(values, ids).interval.value();
  const Interval drawn = cluster_bootstrap_interval(values, ids, 4000, 0.95, 1).value();
  CHECK(drawn.low == Approx(formula.low).margin(0.006));
  CHECK(drawn.high == Approx(formula.high).margin(0.006));
  CHECK(cluster_bootstrap_interval(values, ids, 4000, 0.95, 1).value().low == drawn.low);
}

TEST_CASE("cluster bootstrap: nothing where clusters show no difference") {
  CHECK_FALSE(cluster_bootstrap_interval(Values{0, 1, 1}, Ids{7, 7, 7}, 100, 0.95, 1));
  CHECK_FALSE(cluster_bootstrap_interval(Values{0, 1, 1, 0}, Ids{0, 0, 1, 1}, 100, 0.95, 1));
  CHECK_THROWS_AS(cluster_bootstrap_interval({}, {}, 100, 0.95, 1), Error);
  CHECK_THROWS_AS(cluster_bootstrap_interval(Values{1, 2}, Ids{0}, 100, 0.95, 1), Error);
  CHECK_THROWS_AS(cluster_bootstrap_interval(Values{1, kNaN}, Ids{0, 1}, 100, 0.95, 1), Error);
  CHECK_THROWS_AS(cluster_bootstrap_interval(Values{1, 2}, Ids{0, 1}, 10, 0.95, 1), Error);
}

TEST_CASE("mcnemar: agrees with statsmodels mcnemar(exact=True)") {
  // mcnemar([[0, b], [c, 0]], exact=True).pvalue
  CHECK(mcnemar_exact(3, 11) == near(0.057373046875));
  CHECK(mcnemar_exact(11, 3) == near(0.057373046875));
  CHECK(mcnemar_exact(0, 5) == near(0.0625));
  CHECK(mcnemar_exact(10, 10) == 1);
  CHECK(mcnemar_exact(1, 0) == 1);
  CHECK(mcnemar_exact(121, 59) == near(4.4344492637551645e-06));
  CHECK(mcnemar_exact(400, 300) == near(0.0001784763144856244));
  CHECK(mcnemar_exact(0, 0) == 1);
  CHECK_THROWS_AS(mcnemar_exact(-1, 3), Error);
}

TEST_CASE("holm: agrees with statsmodels multipletests") {
  // multipletests(p, method="holm")[1]
  const auto check = [](const Values& p_values, const Values& expected) {
    const Values got = holm_adjust(p_values);
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == near(expected[i]));
  };
  check({0.01, 0.04, 0.03, 0.005, 0.5}, {0.04, 0.09, 0.09, 0.025, 0.5});
  check({0.2, 0.9, 0.04}, {0.4, 0.9, 0.12});
  check({0.7, 0.8}, {1, 1});
  check({0.03}, {0.03});
  check({}, {});
  CHECK_THROWS_AS(holm_adjust(Values{0.5, 1.5}), Error);
  CHECK_THROWS_AS(holm_adjust(Values{-0.1}), Error);
}

TEST_CASE("benjamini-hochberg: agrees with statsmodels multipletests") {
  // multipletests(p, method="fdr_bh")[1]
  const Values got = benjamini_hochberg_adjust(Values{0.01, 0.04, 0.03, 0.005, 0.5});
  const Values expected = {0.025, 0.05, 0.05, 0.025, 0.5};
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == near(expected[i]));
  CHECK(benjamini_hochberg_adjust({}).empty());
  CHECK(benjamini_hochberg_adjust(Values{1, 1}) == Values{1, 1});
  CHECK_THROWS_AS(benjamini_hochberg_adjust(Values{0.5, kNaN}), Error);
}

TEST_CASE("benjamini-hochberg: a tenth of what it rejects at 0.1 is false, and it finds more") {
  // 40 metrics, of which 10 changed by 3 standard errors.
  RandomStream random(31);
  double false_share = 0;
  int found = 0;
  int found_by_holm = 0;
  constexpr int kRuns = 400;
  for (int run = 0; run < kRuns; ++run) {
    Values p_values;
    for (int i = 0; i < 40; ++i) {
      const double u = 1 - random.uniform();
      const double z = std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * random.uniform());
      p_values.push_back(std::erfc(std::abs(z + (i < 10 ? 3 : 0)) / std::sqrt(2.0)));
    }
    const Values adjusted = benjamini_hochberg_adjust(p_values);
    const Values holm = holm_adjust(p_values);
    double rejected = 0;
    double wrong = 0;
    for (std::size_t i = 0; i < 40; ++i) {
      if (holm[i] <= 0.1) ++found_by_holm;
      if (!(adjusted[i] <= 0.1)) continue;
      ++rejected;
      if (i < 10) {
        ++found;
      } else {
        ++wrong;
      }
    }
    false_share += rejected > 0 ? wrong / rejected / kRuns : 0;
  }
  CHECK(false_share < 0.1);
  CHECK(found > 1.2 * found_by_holm);
}

TEST_CASE("statistics: NaN, infinities, no values and mismatched sizes are refused") {
  const Ids ids = {0, 1, 2};
  const Values good = {1, 0, 1};
  for (const double bad : {kNaN, kInfinity, -kInfinity}) {
    const Values values = {1, bad, 0};
    CHECK_THROWS_WITH(mean_with_clustered_interval(values, ids), Catch::Contains("value 1 is"));
    CHECK_THROWS_AS(paired_difference(values, good, ids), Error);
    CHECK_THROWS_AS(paired_difference(good, values, ids), Error);
    CHECK_THROWS_AS(percentile(values, 0.5), Error);
    CHECK_THROWS_AS(median(values), Error);
    CHECK_THROWS_AS(bootstrap_interval(values, mean_of, 100, 0.95, 1), Error);
    CHECK_THROWS_AS(holm_adjust(values), Error);
  }
  CHECK_THROWS_AS(mean_with_clustered_interval({}, {}), Error);
  CHECK_THROWS_AS(paired_difference({}, {}, {}), Error);
  CHECK_THROWS_AS(percentile({}, 0.5), Error);
  CHECK_THROWS_AS(bootstrap_interval({}, mean_of, 100, 0.95, 1), Error);
  CHECK_THROWS_AS(mean_with_clustered_interval(good, Ids{0, 1}), Error);
  CHECK_THROWS_AS(paired_difference(good, Values{1, 0}, ids), Error);
  CHECK_THROWS_AS(paired_difference(good, good, Ids{0, 1}), Error);
  CHECK_THROWS_AS(mean_with_clustered_interval(good, ids, 1), Error);

  // Finite, but the sums are not.
  const double huge = std::numeric_limits<double>::max();
  CHECK_THROWS_AS(mean_with_clustered_interval(Values{huge, huge, huge}, ids), Error);
  CHECK_THROWS_AS(mean_with_clustered_interval(Values{huge, -huge, 0}, ids), Error);
  CHECK_THROWS_AS(paired_difference(Values{huge, 0, 0}, Values{-huge, 0, 0}, ids), Error);
}

TEST_CASE("wilson interval: covers the true share about as often as it says") {
  // The exact coverage at p = 0.3, n = 40 is 0.959; 4000 draws have a standard error of 0.003.
  RandomStream random(11);
  int num_covered = 0;
  for (int draw = 0; draw < 4000; ++draw) {
    int successes = 0;
    for (int i = 0; i < 40; ++i) successes += random.uniform() < 0.3 ? 1 : 0;
    num_covered += covers(wilson_interval(successes, 40), 0.3) ? 1 : 0;
  }
  CHECK(num_covered > 0.945 * 4000);
  CHECK(num_covered < 0.972 * 4000);
}

TEST_CASE("clustered mean: covers the mean over questions; ignoring clusters would not") {
  // 30 questions drawn from a population with difficulties uniform in [0, 1], eight repeats each.
  RandomStream random(12);
  constexpr int kDraws = 2000;
  int clustered = 0;
  int ignoring_clusters = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    Values scores;
    Ids questions;
    Ids samples;
    for (std::int64_t question = 0; question < 30; ++question) {
      const double difficulty = random.uniform();
      for (int repeat = 0; repeat < 8; ++repeat) {
        samples.push_back(static_cast<std::int64_t>(scores.size()));
        scores.push_back(random.uniform() < difficulty ? 1 : 0);
        questions.push_back(question);
      }
    }
    clustered +=
        covers(mean_with_clustered_interval(scores, questions).interval.value(), 0.5) ? 1 : 0;
    ignoring_clusters +=
        covers(mean_with_clustered_interval(scores, samples).interval.value(), 0.5) ? 1 : 0;
  }
  CHECK(clustered > 0.935 * kDraws);
  CHECK(clustered < 0.968 * kDraws);
  CHECK(ignoring_clusters < 0.80 * kDraws);
}

TEST_CASE("paired difference: covers a true difference of zero") {
  RandomStream random(13);
  constexpr int kDraws = 2000;
  int num_covered = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    Values baseline;
    Values candidate;
    Ids items;
    for (std::int64_t item = 0; item < 40; ++item) {
      const double difficulty = random.uniform();
      for (int repeat = 0; repeat < 3; ++repeat) {
        baseline.push_back(random.uniform() < difficulty ? 1 : 0);
        candidate.push_back(random.uniform() < difficulty ? 1 : 0);
        items.push_back(item);
      }
    }
    const PairedDifference got = paired_difference(baseline, candidate, items);
    num_covered += covers(got.difference.interval.value(), 0) ? 1 : 0;
  }
  CHECK(num_covered > 0.935 * kDraws);
  CHECK(num_covered < 0.968 * kDraws);
}

TEST_CASE("bootstrap: covers the mean of skewed timings almost as often as it says") {
  // Exponential values, n = 60: the percentile bootstrap is known to cover a little less.
  RandomStream random(14);
  constexpr int kDraws = 1000;
  int num_covered = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    Values values(60);
    for (double& x : values) x = -std::log(1 - random.uniform());
    const auto seed = static_cast<std::uint64_t>(draw);
    num_covered += covers(bootstrap_interval(values, mean_of, 300, 0.95, seed).value(), 1) ? 1 : 0;
  }
  CHECK(num_covered > 0.905 * kDraws);
  CHECK(num_covered < 0.965 * kDraws);
}
