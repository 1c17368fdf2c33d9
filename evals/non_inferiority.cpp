// Tango's interval, the gate on it, and looks by alpha spending.
#include "evals/non_inferiority.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "evals/timing_statistics.h"
#include "evals/two_sample.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr double kManyDegrees = 1e9;  // Student's t is the normal distribution there
constexpr std::int64_t kFewItems = 10;
constexpr double kRoundingNoise = 1e-12;     // repeats that cancel leave a few ulps
constexpr std::int64_t kSignDraws = 20'000;  // p-values of 0.05 to within 0.003

// Tango's score statistic under a true difference of `delta` in (-1, 1); falls as delta rises.
double score_statistic(double gained, double lost, double n, double delta) {
  // The most likely share of items that the first side alone gets right.
  const double a = 2 * n;
  const double b = -gained - lost + (2 * n - gained + lost) * delta;
  const double c = -lost * delta * (1 - delta);
  const double share = (std::sqrt(std::max(0.0, b * b - 4 * a * c)) - b) / (2 * a);
  const double variance = n * (2 * share + delta * (1 - delta));
  const double distance = gained - lost - n * delta;
  if (variance > 0) return distance / std::sqrt(variance);
  return distance == 0 ? 0 : std::copysign(HUGE_VAL, distance);
}

// The delta in [low, high] at which the statistic is `z`.
double solve(double gained, double lost, double n, double z, double low, double high) {
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (score_statistic(gained, lost, n, middle) > z ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

bool zero_or_one(std::span<const double> values) {
  return std::ranges::all_of(values, [](double x) { return x == 0 || x == 1; });
}

GateOutcome outcome_of(double difference, const std::optional<Interval>& interval, double margin) {
  if (!interval) return GateOutcome::kInconclusive;
  if (interval->low > -margin) return GateOutcome::kPass;
  if (interval->high < 0 && difference <= -margin) return GateOutcome::kFail;
  return GateOutcome::kInconclusive;
}

}  // namespace

Interval paired_score_interval(std::int64_t gained, std::int64_t lost, std::int64_t n,
                               double level) {
  require(level > 0 && level < 1, "confidence level {} is not between 0 and 1", level);
  require(n >= 1 && gained >= 0 && lost >= 0 && gained <= n - lost,
          "paired score interval: {} gained and {} lost of {}", gained, lost, n);
  const double z = t_quantile(kManyDegrees, (1 - level) / 2);
  const auto b = static_cast<double>(gained);
  const auto c = static_cast<double>(lost);
  const auto count = static_cast<double>(n);
  const double seen = (b - c) / count;
  return {.low = lost == n ? -1 : solve(b, c, count, z, -1, seen),
          .high = gained == n ? 1 : solve(b, c, count, -z, seen, 1),
          .level = level};
}

std::string_view gate_outcome_name(GateOutcome outcome) {
  switch (outcome) {
    case GateOutcome::kPass:
      return "PASS";
    case GateOutcome::kFail:
      return "FAIL";
    case GateOutcome::kInconclusive:
      break;
  }
  return "INCONCLUSIVE";
}

ScoreDifference compare_scores(std::span<const double> base, std::span<const double> candidate,
                               std::span<const std::int64_t> item_ids, double level) {
  const PairedDifference paired = paired_difference(base, candidate, item_ids, level);
  ScoreDifference out;
  out.difference = paired.difference.mean;
  out.num_pairs = paired.difference.num_values;
  const bool one_pair_each = paired.difference.num_clusters == out.num_pairs;
  if (one_pair_each && zero_or_one(base) && zero_or_one(candidate)) {
    out.interval = paired_score_interval(paired.wins, paired.losses, out.num_pairs, level);
    out.method = "paired_score";
    out.p_value = mcnemar_exact(paired.wins, paired.losses);
    out.test = "mcnemar_exact";
  } else {
    out.interval = paired.difference.interval;
    out.method = out.interval ? paired.difference.method : paired.difference.reason;
    // Few items that differ show too little of their spread: then also as if all of an item's
    // repeats had changed.
    if (out.interval && paired.wins + paired.losses < kFewItems && zero_or_one(base) &&
        zero_or_one(candidate)) {
      const Interval whole =
          paired_score_interval(paired.wins, paired.losses, paired.difference.num_clusters, level);
      out.interval->low = std::min(out.interval->low, whole.low);
      out.interval->high = std::max(out.interval->high, whole.high);
      out.method = "clustered_t_or_paired_score";
    }
    std::map<std::int64_t, double> sums;
    for (std::size_t i = 0; i < base.size(); ++i) sums[item_ids[i]] += candidate[i] - base[i];
    std::vector<double> changed;
    for (const auto& [item, sum] : sums) {
      if (std::abs(sum) > kRoundingNoise) changed.push_back(sum);
    }
    out.p_value = changed.empty() ? 1 : sign_flip_test(changed, kSignDraws, 0);
    out.test = "sign_flips";
  }
  if (out.interval) out.detectable = smallest_visible(*out.interval);
  return out;
}

NonInferiority assess_non_inferiority(std::span<const double> base,
                                      std::span<const double> candidate,
                                      std::span<const std::int64_t> item_ids, double margin,
                                      double level) {
  require(margin > 0 && std::isfinite(margin), "non-inferiority: a margin of {}", margin);
  NonInferiority out;
  out.scores = compare_scores(base, candidate, item_ids, level);
  out.outcome = outcome_of(out.scores.difference, out.scores.interval, margin);
  if (out.scores.detectable) {
    out.to_settle = observations_to_settle(out.scores.num_pairs, *out.scores.detectable, 0, margin);
  }
  return out;
}

SequentialGate::SequentialGate(double margin, std::int64_t planned, double level)
    : margin_(margin), planned_(planned), spending_(1 - level) {
  require(margin > 0 && std::isfinite(margin), "sequential gate: a margin of {}", margin);
  require(planned >= 1, "sequential gate: {} planned items", planned);
}

NonInferiority SequentialGate::look(std::span<const double> base, std::span<const double> candidate,
                                    std::span<const std::int64_t> item_ids,
                                    std::int64_t num_items) {
  require(num_items >= 1 && num_items <= planned_, "sequential gate: {} of {} planned items",
          num_items, planned_);
  const auto done = static_cast<double>(num_items);
  const double alpha = spending_.next_look(done, done / static_cast<double>(planned_));
  return assess_non_inferiority(base, candidate, item_ids, margin_, 1 - alpha);
}

std::vector<std::int64_t> planned_looks(std::int64_t planned, std::int64_t first) {
  require(planned >= 1 && first >= 1, "plan looks: {} items, the first after {}", planned, first);
  constexpr std::int64_t kMostLooks = 10;
  const std::int64_t step = std::max(first, (planned + kMostLooks - 1) / kMostLooks);
  std::vector<std::int64_t> looks;
  for (std::int64_t at = step; at < planned; at += step) looks.push_back(at);
  looks.push_back(planned);
  return looks;
}

}  // namespace moebench
