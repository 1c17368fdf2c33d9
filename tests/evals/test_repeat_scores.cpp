// pass@k and maj@k: against counting every choice of k answers, and on ledgers.
#include <catch2/catch.hpp>

#include "evals/repeat_scores.h"
#include "kernels/core/random.h"
#include "tests/support/run_folder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

using Counts = std::vector<std::int64_t>;

LedgerLine says(const std::string& item, std::int64_t repeat, const std::string& value) {
  LedgerLine line = answer(item, value == "right", repeat);
  line.answer = value;
  return line;
}

std::string answer_of(const LedgerLine& line) { return line.answer; }

}  // namespace

TEST_CASE("pass@k: one minus the chance of drawing only wrong answers") {
  // 1 - C(7, 2)/C(10, 2) = 1 - 21/45; 1 - C(2, 2)/C(4, 2) = 5/6
  CHECK(pass_at_k(10, 3, 2) == Approx(24.0 / 45).epsilon(1e-14));
  CHECK(pass_at_k(4, 2, 2) == Approx(5.0 / 6).epsilon(1e-14));
  CHECK(pass_at_k(8, 3, 1) == Approx(3.0 / 8).epsilon(1e-14));
  CHECK(pass_at_k(8, 0, 8) == 0);
  CHECK(pass_at_k(8, 1, 8) == 1);
  CHECK(pass_at_k(8, 6, 3) == 1);  // only two are wrong
  CHECK(pass_at_k(100000, 1, 50000) == Approx(0.5).epsilon(1e-9));
  for (const auto& [n, c, k] : {std::tuple{0, 0, 1}, {4, 5, 1}, {4, -1, 1}, {4, 2, 0}, {4, 2, 5}}) {
    CHECK_THROWS_AS(pass_at_k(n, c, k), Error);
  }
}

TEST_CASE("maj@k: agrees with going through every choice of k answers") {
  // itertools.combinations over the answers; leaders that tie share the choice.
  CHECK(majority_at_k(3, Counts{2, 1}, 2, 4) == Approx(0.6).epsilon(1e-13));
  CHECK(majority_at_k(5, Counts{5}, 0, 3) == Approx(0.5).epsilon(1e-13));
  CHECK(majority_at_k(1, Counts{1, 1, 1}, 0, 2) == Approx(0.25).epsilon(1e-13));
  CHECK(majority_at_k(4, Counts{2, 1, 1}, 3, 6) == Approx(1061.0 / 1386).epsilon(1e-13));
  CHECK(majority_at_k(2, Counts{1}, 5, 1) == Approx(0.25).epsilon(1e-13));
  CHECK(majority_at_k(2, Counts{3, 3}, 0, 8) == 0);
  CHECK(majority_at_k(0, Counts{4}, 1, 3) == 0);
  CHECK(majority_at_k(6, Counts{}, 2, 4) == 1);
  CHECK(majority_at_k(0, Counts{}, 3, 2) == 0);  // nobody votes
  CHECK(majority_at_k(600, Counts{399}, 1, 1000) == Approx(1));
  CHECK_THROWS_AS(majority_at_k(2, Counts{-1}, 0, 1), Error);
  CHECK_THROWS_AS(majority_at_k(2, Counts{1}, 0, 4), Error);
  CHECK_THROWS_AS(majority_at_k(2, Counts{1}, 0, 0), Error);
  CHECK_THROWS_AS(majority_at_k(600, Counts{600}, 0, 3), Error);
}

TEST_CASE("repeat scores: the question is the unit, and wrong answers vote by value") {
  std::vector<LedgerLine> lines;
  // a: right, right, x, x.  b: x, y, z, right.  c: nothing to read, four times.
  const std::vector<std::vector<std::string>> given = {
      {"right", "right", "x", "x"}, {"x", "y", "z", "right"}, {"", "", "", ""}};
  for (std::size_t i = 0; i < given.size(); ++i) {
    for (std::size_t r = 0; r < 4; ++r) {
      lines.push_back(says(std::string(1, static_cast<char>('a' + i)), static_cast<std::int64_t>(r),
                           given[i][r]));
    }
  }
  lines.push_back(says("c", 3, ""));  // again, as after a resume
  const auto scores = repeat_scores(lines, answer_of);
  REQUIRE(scores.size() == 2);
  CHECK(scores[0].k == 2);
  CHECK(scores[1].k == 4);
  // pass@2: 5/6, 1/2, 0. maj@2: a: both right 1/6, one each 4/6, half of them; b: half of 1/2.
  CHECK(scores[0].pass.mean == Approx((5.0 / 6 + 0.5) / 3));
  CHECK(scores[0].majority.mean == Approx((1.0 / 6 + 2.0 / 6 + 0.25) / 3));
  CHECK(scores[1].pass.mean == Approx(2.0 / 3));
  CHECK(scores[1].majority.mean == Approx((0.5 + 0.25) / 3));
  CHECK(scores[0].pass.num_clusters == 3);
  CHECK(scores[0].pass.interval);

  // One value if what they vote for is one, as options that stand at another letter are.
  const auto one_value = repeat_scores(lines, [](const LedgerLine& line) {
    return line.answer.empty() ? std::string() : std::string("wrong");
  });
  CHECK(one_value[1].majority.mean == Approx((0.5 + 0) / 3));
}

TEST_CASE("repeat scores: single answers have none, and uneven ones the fewest") {
  CHECK(repeat_scores({}, answer_of).empty());
  std::vector<LedgerLine> lines = {answer("a", true), answer("b", false)};
  CHECK(repeat_scores(lines, answer_of).empty());
  for (std::int64_t r = 1; r < 4; ++r) lines.push_back(answer("a", true, r));
  for (std::int64_t r = 1; r < 3; ++r) lines.push_back(answer("b", false, r));
  const auto scores = repeat_scores(lines, answer_of);
  REQUIRE(scores.size() == 2);
  CHECK(scores[1].k == 3);
}

TEST_CASE("pass@k: unbiased, and its interval covers, where questions differ") {
  // Success chances p of questions are 0.1 or 0.6; truth of pass@4 is the mean of 1 - (1-p)^4.
  const double truth = 0.5 * (1 - std::pow(0.9, 4)) + 0.5 * (1 - std::pow(0.4, 4));
  RandomStream random(5);
  double sum = 0;
  int covered = 0;
  constexpr int kRuns = 600;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<LedgerLine> lines;
    for (int item = 0; item < 40; ++item) {
      const double p = random.uniform() < 0.5 ? 0.1 : 0.6;
      for (std::int64_t r = 0; r < 8; ++r) {
        lines.push_back(answer(std::to_string(item), random.uniform() < p, r));
      }
    }
    const MeanEstimate pass = repeat_scores(lines, answer_of)[1].pass;
    sum += pass.mean;
    covered += pass.interval->low <= truth && truth <= pass.interval->high ? 1 : 0;
  }
  CHECK(sum / kRuns == Approx(truth).margin(0.006));  // four standard errors
  CHECK(covered > 0.92 * kRuns);
  CHECK(covered < 0.98 * kRuns);
}

}  // namespace moebench::test
