// Pairs, sessions, interval, verdict.
#include "bench/comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "evals/timing_statistics.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double sum_of_squares(const std::vector<double>& values) {
  const double m = mean(values);
  double sum = 0;
  for (const double x : values) sum += (x - m) * (x - m);
  return sum;
}

bool same(ArmId a, ArmId b) { return a.arm == b.arm && a.copy == b.copy; }

}  // namespace

double TimedSample::value() const { return median(block.rates); }

std::string_view verdict_name(SpeedVerdict verdict) {
  switch (verdict) {
    case SpeedVerdict::kFaster:
      return "FASTER";
    case SpeedVerdict::kSlower:
      return "SLOWER";
    case SpeedVerdict::kSame:
      return "SAME";
    case SpeedVerdict::kInconclusive:
      break;
  }
  return "INCONCLUSIVE";
}

SpeedVerdict judge_speed(const Interval& interval, double threshold) {
  if (std::exp(interval.low) > 1 - threshold && std::exp(interval.high) < 1 + threshold) {
    return SpeedVerdict::kSame;
  }
  if (interval.low > 0) return SpeedVerdict::kFaster;
  if (interval.high < 0) return SpeedVerdict::kSlower;
  return SpeedVerdict::kInconclusive;
}

SessionRatios session_ratios(std::span<const TimedSample> samples, std::size_t test, ArmId arm,
                             std::span<const ArmId> bases) {
  struct Round {
    std::vector<double> arm;
    std::vector<double> base;
  };
  std::map<std::int64_t, std::map<std::int64_t, Round>> sessions;
  for (const TimedSample& sample : samples) {
    if (sample.test != test) continue;
    const bool is_base =
        std::ranges::any_of(bases, [&](const ArmId& base) { return same(base, sample.id); });
    if (!is_base && !same(sample.id, arm)) continue;
    Round& round = sessions[sample.session][sample.round];
    (is_base ? round.base : round.arm).push_back(std::log(sample.value()));
  }
  SessionRatios out;
  for (const auto& [session, rounds] : sessions) {
    std::map<std::int64_t, std::vector<double>> by_pair;
    for (const auto& [number, round] : rounds) {
      if (round.arm.empty() || round.base.empty()) continue;
      by_pair[number / 2].push_back(mean(round.arm) - mean(round.base));
    }
    if (by_pair.empty()) continue;
    std::vector<double> pairs;
    for (const auto& [number, ratios] : by_pair) pairs.push_back(mean(ratios));
    out.values.push_back(median(pairs));
    out.pairs.push_back(std::move(pairs));
  }
  return out;
}

std::optional<double> session_effect(const SessionRatios& ratios) {
  double within = 0;
  double freedom = 0;
  double inverse_pairs = 0;
  std::vector<double> means;
  for (const auto& pairs : ratios.pairs) {
    means.push_back(mean(pairs));
    inverse_pairs += 1 / static_cast<double>(pairs.size());
    within += sum_of_squares(pairs);
    freedom += static_cast<double>(pairs.size() - 1);
  }
  if (means.size() < 2 || freedom < 2) return std::nullopt;
  const double sessions = static_cast<double>(means.size());
  const double between = sum_of_squares(means) / (sessions - 1);
  if (between <= 0) return 0;
  const double of_mean = within / freedom * inverse_pairs / sessions;
  return std::clamp(1 - of_mean / between, 0.0, 1.0);
}

void look(Comparison& comparison, double level, double overall_level, double threshold) {
  const RobustMean estimate = robust_mean(comparison.sessions.values);
  const Interval interval = estimate.interval(level);
  comparison.ratio = std::exp(estimate.mean);
  comparison.ratios = Interval{std::exp(interval.low), std::exp(interval.high), overall_level};
  comparison.look_level = level;
  comparison.smallest_visible = std::expm1(estimate.smallest_visible(level));
  comparison.verdict = judge_speed(interval, threshold);
  ++comparison.looks;
}

void mark_disturbed(std::vector<TimedSample>& samples) {
  // A block that stood in the queue for more of its time than this is called disturbed.
  constexpr double kWaitedShare = 0.05;
  std::vector<SampleConditions> known;
  for (const TimedSample& sample : samples) {
    if (sample.block.conditions) known.push_back(*sample.block.conditions);
  }
  const auto found = find_disturbances(known);
  auto next = found.begin();
  for (TimedSample& sample : samples) {
    sample.marks.clear();
    if (sample.block.conditions) sample.marks = *next++;
    if (sample.block.wait_share > kWaitedShare) sample.marks.emplace_back("waited");
  }
}

OrderedJson to_json(const TimedSample& sample) {
  OrderedJson json = {
      {"arm", sample.id.arm},
      {"copy", sample.id.copy},
      {"test", sample.test},
      {"session", sample.session},
      {"round", sample.round},
      {"order", sample.order},
      {"start_s", sample.block.start_s},
      {"seconds", sample.block.seconds},
      {"tokens_per_second", sample.value()},
      {"wait_share",
       sample.block.wait_share >= 0 ? OrderedJson(sample.block.wait_share) : OrderedJson()},
      {"repetitions", sample.block.rates}};
  if (sample.block.conditions) json["conditions"] = to_json(*sample.block.conditions);
  if (!sample.marks.empty()) json["disturbed"] = sample.marks;
  return json;
}

OrderedJson to_json(const Comparison& comparison) {
  const auto number = [](const std::optional<double>& value) {
    return value && std::isfinite(*value) ? OrderedJson(*value) : OrderedJson();
  };
  const auto& values = comparison.sessions.values;
  OrderedJson json = {{"status", status_name(comparison.status)},
                      {"verdict", verdict_name(comparison.verdict)},
                      {"reason", comparison.reason},
                      {"ratio", number(comparison.ratio)},
                      {"interval", comparison.ratios ? to_json(*comparison.ratios) : OrderedJson()},
                      {"look_level", comparison.look_level},
                      {"looks", comparison.looks},
                      {"smallest_visible", number(comparison.smallest_visible)},
                      {"sessions", values.size()},
                      {"rounds", comparison.rounds},
                      {"session_log_ratios", values},
                      {"pair_log_ratios", comparison.sessions.pairs},
                      {"session_effect", number(session_effect(comparison.sessions))}};
  // A second opinion that assumes nothing but that equal arms are exchangeable.
  json["sign_flip_p"] =
      values.empty() ? OrderedJson() : OrderedJson(sign_flip_test(values, 20000, 1));
  json["lag1_autocorrelation"] =
      values.size() < 3 ? OrderedJson() : OrderedJson(lag1_autocorrelation(values));
  json["blocks"] = comparison.blocks;
  json["disturbed_blocks"] = comparison.disturbed_blocks;
  json["disturbances"] = comparison.disturbances;
  json["notes"] = comparison.notes;
  return json;
}

}  // namespace moebench
