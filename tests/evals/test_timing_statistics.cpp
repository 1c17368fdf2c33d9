// Statistics of timings against hand-computed and published values, and against simulated data:
// coverage, false alarms, power. Simulations are seeded: they give the same counts every time.
#include <boost/math/distributions/normal.hpp>
#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>

#include "evals/group_sequential.h"
#include "evals/timing_statistics.h"
#include "kernels/core/random.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// Box and Muller.
class Gauss {
 public:
  explicit Gauss(std::uint64_t seed) : random_(seed, 99) {}
  double operator()() {
    const double radius = std::sqrt(-2 * std::log(1 - random_.uniform()));
    return radius * std::cos(2 * std::numbers::pi * random_.uniform());
  }
  double uniform() { return random_.uniform(); }

 private:
  RandomStream random_;
};

// AR(1) with coefficient r and unit variance.
std::vector<double> dependent_values(Gauss& gauss, std::size_t n, double r) {
  std::vector<double> values(n);
  values[0] = gauss();
  for (std::size_t i = 1; i < n; ++i) {
    values[i] = r * values[i - 1] + std::sqrt(1 - r * r) * gauss();
  }
  return values;
}

double z_of(double two_sided_level) {
  return boost::math::quantile(complement(boost::math::normal(), two_sided_level / 2));
}

double mean_of(std::span<const double> values) {
  double sum = 0;
  for (const double x : values) sum += x;
  return sum / static_cast<double>(values.size());
}

}  // namespace

TEST_CASE("alpha spending: boundaries are the published ones of Lan and DeMets") {
  // Five equal looks, two-sided 0.05. The R package ldbounds (Casper, Cook and Perez) prints these
  // for its alpha-spending functions 1 (O'Brien-Fleming type) and 2 (Pocock type).
  const std::vector<double> obrien_fleming = {4.8769, 3.3569, 2.6803, 2.2898, 2.0310};
  const std::vector<double> pocock = {2.4380, 2.4268, 2.4101, 2.3966, 2.3859};
  const boost::math::normal normal;
  AlphaSpending a(0.05);
  AlphaSpending b(0.05);
  for (int k = 1; k <= 5; ++k) {
    INFO("look " << k);
    const double t = k / 5.0;
    const double one_side = 2 * cdf(complement(normal, z_of(0.025) / std::sqrt(t)));
    CHECK(z_of(a.next_look_spending(k, std::min(0.05, 2 * one_side))) ==
          Approx(obrien_fleming[static_cast<std::size_t>(k - 1)]).margin(5e-4));
    const double spent = 0.05 * std::log(1 + (std::numbers::e - 1) * t);
    CHECK(z_of(b.next_look_spending(k, std::min(0.05, spent))) ==
          Approx(pocock[static_cast<std::size_t>(k - 1)]).margin(5e-4));
  }
}

TEST_CASE("alpha spending: one look spends all of it, and nonsense is refused") {
  AlphaSpending once(0.05);
  CHECK(once.next_look(7, 1) == Approx(0.05).epsilon(1e-6));
  CHECK_THROWS_AS(once.next_look(8, 1), Error);  // nothing is left
  AlphaSpending other(0.05);
  CHECK_THROWS_AS(other.next_look(0, 0.5), Error);
  CHECK_THROWS_AS(other.next_look(3, 0), Error);
  CHECK_THROWS_AS(other.next_look(3, 1.01), Error);
  CHECK_THROWS_AS(other.next_look(3, std::nan("")), Error);
  other.next_look(3, 0.5);
  CHECK_THROWS_AS(other.next_look(3, 0.6), Error);  // no new information
  CHECK_THROWS_AS(other.next_look(4, 0.4), Error);
  CHECK_THROWS_AS(AlphaSpending(0), Error);
  CHECK_THROWS_AS(AlphaSpending(0.05, 0), Error);
}

TEST_CASE("alpha spending: of 20 looks at noise of known size, any misses in 5 % of cases") {
  constexpr int kRuns = 4000;
  constexpr int kLooks = 20;
  AlphaSpending spending(0.05);
  std::vector<double> bounds;
  for (int k = 1; k <= kLooks; ++k) bounds.push_back(z_of(spending.next_look(k, k / 20.0)));
  int misses = 0;
  int naive = 0;
  for (int run = 0; run < kRuns; ++run) {
    Gauss gauss(static_cast<std::uint64_t>(run));
    double sum = 0;
    bool missed = false;
    bool fooled = false;
    for (int k = 1; k <= kLooks; ++k) {
      sum += gauss();
      const double z = std::abs(sum) / std::sqrt(k);
      missed |= z > bounds[static_cast<std::size_t>(k - 1)];
      fooled |= z > 1.96;
    }
    misses += missed ? 1 : 0;
    naive += fooled ? 1 : 0;
  }
  // Standard error of the share: 0.0034.
  CHECK(misses / double{kRuns} == Approx(0.05).margin(0.0105));
  // What looking without spending does: Armitage, McPherson and Rowe 1969, table 2, give 0.248.
  CHECK(naive / double{kRuns} == Approx(0.248).margin(0.021));
}

TEST_CASE("robust mean: below ten values the t interval, from ten on a trimmed one") {
  // 1..5: mean 3, s = sqrt(2.5), SE = sqrt(0.5), t(4) at 95 % = 2.776445.
  const RobustMean few = robust_mean(std::vector<double>{5, 1, 4, 2, 3});
  CHECK(few.mean == 3);
  CHECK(few.standard_error == Approx(std::sqrt(0.5)));
  CHECK(few.interval(0.95).low == Approx(3 - 2.776445 * std::sqrt(0.5)));
  // t(4) at 0.8 = 0.940965.
  CHECK(few.smallest_visible(0.95, 0.8) == Approx((2.776445 + 0.940965) * std::sqrt(0.5)));
  // Ten values, two cut at each end: mean of 3..8 = 5.5 whatever the outliers are. Winsorised:
  // 3 3 3 4 5 6 7 8 8 8, squares around 5.5 sum to 42.5, s^2 = 42.5/9,
  // SE = sqrt(42.5/9) / (0.6 sqrt(10)), 5 degrees of freedom.
  const RobustMean ten = robust_mean(std::vector<double>{1e9, 2, 3, 4, 5, 6, 7, 8, 9, -1e9});
  CHECK(ten.mean == Approx(5.5));
  CHECK(ten.standard_error == Approx(std::sqrt(42.5 / 9) / (0.6 * std::sqrt(10.0))));
  CHECK(ten.degrees_of_freedom == 5);
  CHECK_THROWS_AS(robust_mean(std::vector<double>{1}), Error);
  CHECK_THROWS_AS(robust_mean(std::vector<double>{1, std::nan("")}), Error);
}

TEST_CASE("autocorrelation: hand-computed, and that of a simulated AR(1)") {
  // 1 2 3 4: deviations -1.5 -0.5 0.5 1.5, squares 5, products 0.75 - 0.25 + 0.75 = 1.25.
  CHECK(lag1_autocorrelation(std::vector<double>{1, 2, 3, 4}) == Approx(0.25));
  CHECK(effective_sample_size(std::vector<double>{1, 2, 3, 4}) == Approx(4 * 0.75 / 1.25));
  CHECK(lag1_autocorrelation(std::vector<double>{2, 2, 2}) == 0);
  CHECK(effective_sample_size(std::vector<double>{1, 2, 1, 2, 1}) == 5);  // claims no bonus
  CHECK_THROWS_AS(lag1_autocorrelation(std::vector<double>{1, 2}), Error);
  Gauss gauss(3);
  const std::vector<double> values = dependent_values(gauss, 20000, 0.6);
  CHECK(lag1_autocorrelation(values) == Approx(0.6).margin(0.025));
  CHECK(effective_sample_size(values) == Approx(20000 * 0.4 / 1.6).epsilon(0.06));
}

TEST_CASE("Mann-Kendall: hand-computed with ties, alarms at its level, sees drifts") {
  // 1 3 2 4 5: of 10 pairs one falls, S = 8; variance 5*4*15/18; z = 7/sqrt(16.667) = 1.71464,
  // p = 0.08641 (as pymannkendall.original_test).
  const MannKendall rising = mann_kendall(std::vector<double>{1, 3, 2, 4, 5});
  CHECK(rising.s == 8);
  CHECK(rising.p_value == Approx(0.08641).margin(1e-5));
  // 4 2 2 1 with a tie: S = -5; variance (4*3*13 - 2*1*9)/18 = 23/3; z = 4/sqrt(23/3).
  const MannKendall falling = mann_kendall(std::vector<double>{4, 2, 2, 1});
  CHECK(falling.s == -5);
  CHECK(falling.p_value == Approx(std::erfc(4 / std::sqrt(23.0 / 3) / std::numbers::sqrt2)));
  CHECK(mann_kendall(std::vector<double>{1, 1, 1, 1}).p_value == 1);
  CHECK_THROWS_AS(mann_kendall(std::vector<double>{1, 2, 3}), Error);
  int alarms = 0;
  int seen = 0;
  constexpr int kRuns = 500;
  for (int run = 0; run < kRuns; ++run) {
    Gauss gauss(static_cast<std::uint64_t>(run));
    std::vector<double> still(40);
    for (double& x : still) x = gauss();
    alarms += mann_kendall(still).p_value < 0.05 ? 1 : 0;
    for (std::size_t i = 0; i < still.size(); ++i) still[i] += 0.05 * static_cast<double>(i);
    seen += mann_kendall(still).p_value < 0.05 ? 1 : 0;
  }
  CHECK(alarms <= 34);  // 25 expected, standard deviation 4.9
  CHECK(seen >= 450);   // 0.9; a rise of two standard deviations over the series
}

TEST_CASE("steady: not before twelve values, not while they rise") {
  std::vector<double> rates(11, 100.0);
  CHECK(!is_steady(rates));
  rates.push_back(100);
  CHECK(is_steady(rates));
  std::vector<double> rising;
  for (int i = 0; i < 30; ++i) rising.push_back(100 + i);
  CHECK(!is_steady(rising));
  std::vector<double> settled = rising;  // rises, then stays
  for (int i = 0; i < 30; ++i) settled.push_back(130 + (i % 2));
  CHECK(is_steady(settled));
  CHECK(is_steady(std::vector<double>{20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9}));
}

TEST_CASE("median interval: order statistics by the binomial table, and its coverage") {
  std::vector<double> ten;
  for (int i = 1; i <= 10; ++i) ten.push_back(i);
  // Known ranks for 95 %: n = 10: 2nd and 9th (coverage 0.9785); n = 20: 6th and 15th.
  const auto interval = median_order_interval(ten);
  REQUIRE(interval);
  CHECK(interval->low == 2);
  CHECK(interval->high == 9);
  for (int i = 11; i <= 20; ++i) ten.push_back(i);
  CHECK(median_order_interval(ten)->low == 6);
  CHECK(median_order_interval(ten)->high == 15);
  // Five values: the extremes cover with 1 - 2/32 = 0.9375 only; six with 0.96875.
  CHECK(!median_order_interval(std::vector<double>{1, 2, 3, 4, 5}));
  CHECK(median_order_interval(std::vector<double>{1, 2, 3, 4, 5, 6})->low == 1);
  CHECK_THROWS_AS(median_order_interval(std::vector<double>{}), Error);
  int covered = 0;
  constexpr int kRuns = 2000;
  for (int run = 0; run < kRuns; ++run) {
    Gauss gauss(static_cast<std::uint64_t>(run));
    std::vector<double> skewed(21);
    for (double& x : skewed) x = std::exp(gauss());  // median 1
    const auto around = median_order_interval(skewed);
    covered += around->low <= 1 && 1 <= around->high ? 1 : 0;
  }
  CHECK(covered >= kRuns * 94 / 100);  // exact coverage for n = 21: 0.9734
}

TEST_CASE(
    "block bootstrap: covers where values depend on their neighbours, the plain one does not") {
  const Statistic mean = [](std::span<const double> values) { return mean_of(values); };
  int blocks = 0;
  int plain = 0;
  constexpr int kRuns = 200;
  for (int run = 0; run < kRuns; ++run) {
    Gauss gauss(static_cast<std::uint64_t>(run));
    const std::vector<double> values = dependent_values(gauss, 200, 0.6);
    const auto with = block_bootstrap_interval(values, mean, 15, 200, 0.95, 1);
    const auto without = bootstrap_interval(values, mean, 200, 0.95, 1);
    blocks += with->low <= 0 && 0 <= with->high ? 1 : 0;
    plain += without->low <= 0 && 0 <= without->high ? 1 : 0;
  }
  CHECK(blocks >= 175);  // 190 would be 95 %; blocks of 200 values fall a little short
  CHECK(plain <= 150);   // about 0.67
}

TEST_CASE("block bootstrap: seeded, none for what shows no error, refuses nonsense") {
  const Statistic mean = [](std::span<const double> values) { return mean_of(values); };
  const std::vector<double> values = {1, 5, 2, 4, 3, 9};
  const auto a = block_bootstrap_interval(values, mean, 2, 100, 0.9, 5);
  const auto b = block_bootstrap_interval(values, mean, 2, 100, 0.9, 5);
  REQUIRE(a);
  CHECK(a->low == b->low);
  CHECK(a->low >= 1);
  CHECK(a->high <= 9);
  CHECK(!block_bootstrap_interval(std::vector<double>{4, 4, 4}, mean, 2, 100, 0.9, 5));
  CHECK_THROWS_AS(block_bootstrap_interval(values, mean, 0.5, 100, 0.9, 5), Error);
  CHECK_THROWS_AS(block_bootstrap_interval(values, mean, 2, 10, 0.95, 5), Error);
  CHECK_THROWS_AS(block_bootstrap_interval({}, mean, 2, 100, 0.9, 5), Error);
}

TEST_CASE("random halves: every coin is fair, and its own") {
  // A sum of powers of two tells the coins; more of them than a number of the stream decides on.
  std::vector<double> values(35);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::ldexp(1.0, static_cast<int>(i));
  const RandomHalves halves(values);
  RandomStream random(3);
  constexpr int kDraws = 4000;
  std::vector<int> heads(values.size());
  std::vector<int> like_the_first(values.size());
  for (int draw = 0; draw < kDraws; ++draw) {
    const auto coins = static_cast<std::uint64_t>(halves.sum(random));
    for (std::size_t i = 0; i < values.size(); ++i) {
      heads[i] += static_cast<int>(coins >> i & 1U);
      like_the_first[i] += static_cast<int>(~(coins >> i ^ coins) & 1U);
    }
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    INFO("coin " << i);
    CHECK(std::abs(heads[i] - kDraws / 2) < 160);  // five standard deviations
    if (i > 0) CHECK(std::abs(like_the_first[i] - kDraws / 2) < 160);
  }
  CHECK(RandomHalves({}).sum(random) == 0);
}

TEST_CASE("sign-flip test: exact for few values, level and power by simulation") {
  // 1 2 3: of 8 patterns only +++ and --- reach |6|: p = 2/8. -1 2 3: sums 4; |sum| >= 4 for
  // +-(6) and +-(4): p = 4/8.
  CHECK(sign_flip_test(std::vector<double>{1, 2, 3}, 1, 1) == Approx(0.25));
  CHECK(sign_flip_test(std::vector<double>{-1, 2, 3}, 1, 1) == Approx(0.5));
  CHECK(sign_flip_test(std::vector<double>{0, 0}, 1, 1) == 1);
  CHECK_THROWS_AS(sign_flip_test(std::vector<double>{1}, 0, 1), Error);
  // Too many for all patterns, of one size: the sign test, 2 * P(X >= plus) of Binomial(n, 1/2).
  std::vector<double> ones(20, 1.0);
  std::fill_n(ones.begin(), 5, -1.0);
  CHECK(sign_flip_test(ones, 100000, 1) == Approx(0.041389).margin(0.003));
  ones.assign(40, 1.0);
  std::fill_n(ones.begin(), 13, -1.0);
  CHECK(sign_flip_test(ones, 100000, 1) == Approx(0.038475).margin(0.003));
  int alarms = 0;
  int seen = 0;
  constexpr int kRuns = 300;
  for (int run = 0; run < kRuns; ++run) {
    Gauss gauss(static_cast<std::uint64_t>(run));
    std::vector<double> values(20);
    // Noise of 2 % with outliers ten times as large: symmetric, far from normal.
    for (double& x : values) x = 0.02 * gauss() * (gauss.uniform() < 0.1 ? 10 : 1);
    alarms += sign_flip_test(values, 400, 1) <= 0.05 ? 1 : 0;
    for (double& x : values) x = 0.02 * gauss() + 0.03;
    seen += sign_flip_test(values, 400, 1) <= 0.05 ? 1 : 0;
  }
  CHECK(alarms <= 22);  // 15 expected, standard deviation 3.8
  CHECK(seen >= 290);   // 3 % under noise of 2 %, 20 pairs: 6.7 standard errors
}

}  // namespace moebench::test
