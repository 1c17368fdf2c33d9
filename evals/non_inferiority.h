// Is a plan's accuracy not worse than another's by more than a margin? PASS, FAIL, or INCONCLUSIVE
// with what the data could have shown and how many more would do; and the same question asked again
// and again while answers come in, without deceiving oneself.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "evals/group_sequential.h"
#include "evals/statistics.h"

namespace moebench {

// The score interval of the difference of two paired shares, (gained - lost) / n: of n items the
// second side is right alone on `gained`, the first alone on `lost`. Within [-1, 1], and sound
// where few or no items differ, which the normal interval is not (it is narrower than the truth
// allows). gained + lost <= n, n >= 1. Source: Tango 1998, "Equivalence test and confidence
// interval for the difference in proportions for the paired-sample design" (Statistics in Medicine
// 17:891).
Interval paired_score_interval(std::int64_t gained, std::int64_t lost, std::int64_t n,
                               double level = 0.95);

// Two sides' scores of the same answers.
struct ScoreDifference {
  double difference = 0;             // mean of candidate - base
  std::optional<Interval> interval;  // of the difference
  std::string method;                // "paired_score", "clustered_t", ..., or why there is none
  double p_value = 1;                // of no difference, two-sided
  std::string test;                  // how it was made: "mcnemar_exact", "sign_flips"
  std::int64_t num_pairs = 0;
  std::optional<double> detectable;  // true difference that 8 of 10 such data would show
};

// base[i] and candidate[i] are scores of one (item, repeat), item_ids[i] its item. Scores of 0 and
// 1 with one pair per item have the interval above and the exact McNemar test. With repeats, or
// other scores, the interval is that of paired_difference (where fewer than ten items differ, as
// wide as if all repeats of these had changed), and the test flips the signs of the items' sums
// (evals/timing_statistics.h), which unlike a sign test sees how much an item changed.
ScoreDifference compare_scores(std::span<const double> base, std::span<const double> candidate,
                               std::span<const std::int64_t> item_ids, double level = 0.95);

enum class GateOutcome {
  kPass,          // a loss of the margin or more is ruled out
  kFail,          // a loss is shown, and the loss seen is the margin or more
  kInconclusive,  // neither
};
std::string_view gate_outcome_name(GateOutcome outcome);  // "PASS", "FAIL", "INCONCLUSIVE"

struct NonInferiority {
  GateOutcome outcome = GateOutcome::kInconclusive;
  ScoreDifference scores;
  // Pairs in all that would give PASS in 8 of 10 cases if there is no true difference.
  std::optional<std::int64_t> to_settle;
};

// margin > 0, in the scores' unit. By the interval's level a true loss of exactly the margin
// passes, and no true difference fails, with chance (1 - level) / 2 at most.
NonInferiority assess_non_inferiority(std::span<const double> base,
                                      std::span<const double> candidate,
                                      std::span<const std::int64_t> item_ids, double margin,
                                      double level = 0.95);

// The same with a look at the data from time to time. Each look has a stricter level (alpha
// spending), so that all looks together err as often as one of level 0.95 would; what is decided at
// a look may end the evaluation. Items must come in an order that has nothing to do with their
// difficulty, and looks must not be timed by what the answers say.
class SequentialGate {
 public:
  // `planned` items in all, the base of the spending; at the last look all that is left is spent.
  SequentialGate(double margin, std::int64_t planned, double level = 0.95);

  // After `num_items` items, more than at the last look: their pairs, as above.
  NonInferiority look(std::span<const double> base, std::span<const double> candidate,
                      std::span<const std::int64_t> item_ids, std::int64_t num_items);

 private:
  double margin_;
  std::int64_t planned_;
  AlphaSpending spending_;
};

// After how many of `planned` items to look: from `first` on, ten looks at most, the last at
// `planned`.
std::vector<std::int64_t> planned_looks(std::int64_t planned, std::int64_t first = 50);

}  // namespace moebench
