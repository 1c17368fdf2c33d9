// The gate on accuracy: Tango's interval against the likelihood maximised by scipy, and how often
// PASS and FAIL are wrong or missed, with all answers in hand and with looks on the way.
#include <catch2/catch.hpp>
#include <cmath>

#include "evals/non_inferiority.h"
#include "kernels/core/random.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

using Values = std::vector<double>;
using Ids = std::vector<std::int64_t>;

struct Pairs {
  Values base;
  Values candidate;
  Ids ids;

  NonInferiority assess(double margin) const {
    return assess_non_inferiority(base, candidate, ids, margin);
  }
};

// A share `gain` of items becomes right, `loss` wrong, the others are right on both sides or wrong.
Pairs draw(RandomStream& random, std::int64_t n, double gain, double loss) {
  Pairs pairs;
  for (std::int64_t i = 0; i < n; ++i) {
    const double u = random.uniform();
    const double both = random.uniform() < 0.6 ? 1 : 0;
    pairs.base.push_back(u < gain ? 0 : u < gain + loss ? 1 : both);
    pairs.candidate.push_back(u < gain ? 1 : u < gain + loss ? 0 : both);
    pairs.ids.push_back(i);
  }
  return pairs;
}

struct Rates {
  double pass = 0;
  double fail = 0;
  double items = 0;  // asked, on average
};

Rates simulate(int runs, std::int64_t n, double gain, double loss, double margin) {
  RandomStream random(17);
  Rates rates;
  for (int run = 0; run < runs; ++run) {
    const GateOutcome outcome = draw(random, n, gain, loss).assess(margin).outcome;
    rates.pass += outcome == GateOutcome::kPass ? 1.0 / runs : 0;
    rates.fail += outcome == GateOutcome::kFail ? 1.0 / runs : 0;
  }
  return rates;
}

Rates simulate_looks(int runs, std::int64_t n, double gain, double loss, double margin) {
  RandomStream random(23);
  Rates rates;
  for (int run = 0; run < runs; ++run) {
    const Pairs all = draw(random, n, gain, loss);
    SequentialGate gate(margin, n);
    for (const std::int64_t at : planned_looks(n)) {
      const auto count = static_cast<std::size_t>(at);
      const GateOutcome outcome =
          gate.look(std::span(all.base).first(count), std::span(all.candidate).first(count),
                    std::span(all.ids).first(count), at)
              .outcome;
      if (outcome == GateOutcome::kInconclusive && at < n) continue;
      rates.pass += outcome == GateOutcome::kPass ? 1.0 / runs : 0;
      rates.fail += outcome == GateOutcome::kFail ? 1.0 / runs : 0;
      rates.items += static_cast<double>(at) / runs;
      break;
    }
  }
  return rates;
}

}  // namespace

TEST_CASE("paired score interval: agrees with the likelihood maximised numerically") {
  // Tango's statistic with the nuisance share found by scipy's bounded search, solved by brentq.
  const auto check = [](std::int64_t gained, std::int64_t lost, std::int64_t n, double level,
                        double low, double high) {
    const Interval got = paired_score_interval(gained, lost, n, level);
    CHECK(got.low == Approx(low).margin(2e-6));
    CHECK(got.high == Approx(high).margin(2e-6));
    // The other way round it is the mirror image.
    const Interval mirrored = paired_score_interval(lost, gained, n, level);
    CHECK(mirrored.low == Approx(-got.high).margin(1e-12));
  };
  check(3, 9, 50, 0.95, -0.2627255, 0.0177984);
  check(0, 1, 44, 0.95, -0.1180771, 0.0593932);
  check(12, 16, 80, 0.95, -0.1810501, 0.0818639);
  check(0, 5, 100, 0.9, -0.0991611, -0.0223401);
  check(20, 8, 1000, 0.95, 0.0017481, 0.0235926);
}

TEST_CASE("paired score interval: has a width where nothing differs, and ends within [-1, 1]") {
  const Interval none = paired_score_interval(0, 0, 100);
  // Wilson's upper end for 0 of 100: z^2 / (n + z^2)
  CHECK(none.high == Approx(0.036994).margin(1e-6));
  CHECK(none.low == Approx(-none.high).margin(1e-12));
  CHECK(paired_score_interval(0, 7, 7).low == -1);
  CHECK(paired_score_interval(7, 0, 7).high == 1);
  CHECK(paired_score_interval(1, 0, 1).high == 1);
  CHECK_THROWS_AS(paired_score_interval(0, 0, 0), Error);
  CHECK_THROWS_AS(paired_score_interval(3, 3, 5), Error);
  CHECK_THROWS_AS(paired_score_interval(-1, 3, 5), Error);
  CHECK_THROWS_AS(paired_score_interval(1, 1, 5, 1), Error);
}

TEST_CASE("non-inferiority: PASS, FAIL and INCONCLUSIVE, with what would settle it") {
  Pairs pairs;
  for (std::int64_t i = 0; i < 400; ++i) {
    pairs.base.push_back(1);
    pairs.candidate.push_back(1);
    pairs.ids.push_back(i);
  }
  CHECK(pairs.assess(0.02).outcome == GateOutcome::kPass);  // at most 0.95 % can differ
  for (std::size_t i = 0; i < 40; ++i) pairs.candidate[i] = 0;
  const NonInferiority worse = pairs.assess(0.02);
  CHECK(worse.outcome == GateOutcome::kFail);
  CHECK(worse.scores.difference == Approx(-0.1));
  CHECK(worse.scores.method == "paired_score");
  for (std::size_t i = 40; i < 74; ++i) pairs.base[i] = 0;
  const NonInferiority unclear = pairs.assess(0.02);  // 34 gained, 40 lost
  CHECK(unclear.outcome == GateOutcome::kInconclusive);
  REQUIRE(unclear.to_settle);
  // By hand: the standard error of a difference is sqrt(74)/400 = 0.0215; 80 % power for a margin
  // of 0.02 at one-sided 2.5 % needs 400 (2.80 * 0.0215 / 0.02)^2 = 3630 pairs.
  CHECK(static_cast<double>(*unclear.to_settle) == Approx(3630).epsilon(0.04));
  CHECK(*unclear.scores.detectable == Approx(2.80 * 0.0215).epsilon(0.02));
  // The same loss is fine where 15 points do not matter.
  CHECK(pairs.assess(0.15).outcome == GateOutcome::kPass);
  CHECK_THROWS_AS(pairs.assess(0), Error);
  CHECK_THROWS_AS(pairs.assess(NAN), Error);
  CHECK(gate_outcome_name(GateOutcome::kFail) == "FAIL");
}

TEST_CASE("score difference: the test is McNemar's, or with repeats sees how much items changed") {
  const ScoreDifference single = compare_scores(
      Values{1, 1, 1, 1, 1, 1, 0, 1}, Values{0, 0, 0, 0, 0, 1, 0, 1}, Ids{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(single.p_value == Approx(2.0 / 32));
  CHECK(single.test == "mcnemar_exact");
  // Four items lose all of three repeats, one gains one: a sign test of 4 against 1 says 0.375.
  Values base;
  Values candidate;
  Ids ids;
  for (std::int64_t item = 0; item < 5; ++item) {
    for (int repeat = 0; repeat < 3; ++repeat) {
      const bool gains = item == 4 && repeat == 0;
      base.push_back(item < 4 ? 1 : 0);
      candidate.push_back(gains ? 1 : 0);
      ids.push_back(item);
    }
  }
  const ScoreDifference repeated = compare_scores(base, candidate, ids);
  CHECK(repeated.test == "sign_flips");
  // |-3-3-3-3+1| = 11: of 32 sign patterns 13 and 11 reach it, each both ways.
  CHECK(repeated.p_value == Approx(4.0 / 32));
  CHECK(compare_scores(base, base, ids).p_value == 1);
}

TEST_CASE("non-inferiority: repeats have clustered errors, one item decides nothing") {
  const NonInferiority repeats = assess_non_inferiority(
      Values{1, 1, 0, 1, 1, 1}, Values{1, 0, 0, 0, 1, 1}, Ids{0, 0, 1, 1, 2, 2}, 0.02);
  CHECK(repeats.scores.method == "clustered_t_or_paired_score");
  const Interval items = paired_score_interval(0, 2, 3);
  CHECK(repeats.scores.interval->low <= items.low);
  CHECK(repeats.scores.interval->high >= items.high);
  CHECK(repeats.scores.num_pairs == 6);
  const NonInferiority one = assess_non_inferiority(Values{1, 1}, Values{1, 0}, Ids{0, 0}, 0.02);
  CHECK(one.outcome == GateOutcome::kInconclusive);
  CHECK_FALSE(one.scores.interval);
  CHECK_FALSE(one.scores.detectable);
}

TEST_CASE("non-inferiority: false verdicts are rarer than promised, true ones as frequent") {
  // Two runs of one plan at other seeds: 10 % of the answers change, as many each way.
  const Rates same = simulate(2000, 400, 0.05, 0.05, 0.03);
  CHECK(same.fail <= 0.025 + 3 * 0.0035);
  CHECK(same.pass > 0.3);  // power at 400 items is about 0.47
  CHECK(same.pass < 0.65);
  // A true loss of exactly the margin passes in 2.5 % of cases at most, and rarely with few flips,
  // where the normal interval would let 9 % pass (200 items, nothing gained, 2 % lost).
  CHECK(simulate(2000, 400, 0.04, 0.07, 0.03).pass <= 0.025 + 3 * 0.0035);
  CHECK(simulate(2000, 200, 0, 0.02, 0.02).pass <= 0.025 + 3 * 0.0035);
  // A loss of three margins is found.
  CHECK(simulate(500, 400, 0.03, 0.12, 0.03).fail > 0.95);
}

TEST_CASE("sequential gate: looking ten times errs no more often, and stops early") {
  const Rates same = simulate_looks(200, 1000, 0.05, 0.05, 0.03);
  CHECK(same.fail <= 0.025 + 3 * 0.011);
  CHECK(same.pass > 0.75);
  CHECK(same.items < 1000);
  CHECK(simulate_looks(200, 1000, 0.04, 0.07, 0.03).pass <= 0.025 + 3 * 0.011);
  CHECK(simulate_looks(200, 1000, 0, 0.02, 0.02).pass <= 0.025 + 3 * 0.011);
  const Rates broken = simulate_looks(100, 1000, 0.03, 0.15, 0.03);
  CHECK(broken.fail > 0.99);
  CHECK(broken.items < 500);
}

TEST_CASE("sequential gate: looks are few, rise, and end at what is planned") {
  CHECK(planned_looks(1000) ==
        std::vector<std::int64_t>{100, 200, 300, 400, 500, 600, 700, 800, 900, 1000});
  CHECK(planned_looks(120) == std::vector<std::int64_t>{50, 100, 120});
  CHECK(planned_looks(50) == std::vector<std::int64_t>{50});
  CHECK(planned_looks(1) == std::vector<std::int64_t>{1});
  CHECK_THROWS_AS(planned_looks(0), Error);
  SequentialGate gate(0.02, 10);
  const Values base = {1, 0, 1, 1};
  const Ids ids = {0, 1, 2, 3};
  gate.look(base, base, ids, 4);
  CHECK_THROWS_AS(gate.look(base, base, ids, 4), Error);   // no more than before
  CHECK_THROWS_AS(gate.look(base, base, ids, 11), Error);  // more than planned
  CHECK_THROWS_AS(SequentialGate(0.02, 0), Error);
  CHECK_THROWS_AS(SequentialGate(-1, 10), Error);
}

}  // namespace moebench::test
