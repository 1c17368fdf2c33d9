// Pairing the cases of two sides, and the verdicts.
#include "reports/compare.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "evals/two_sample.h"
#include "kernels/core/error.h"
#include "reports/compare_metrics.h"
#include "reports/html_text.h"

namespace moebench {
namespace {

using comparing::CasePair;
using comparing::element_of;
using comparing::same_case_key;
using comparing::text_at;
using Side = std::vector<RunResults>;

// The record of a case in one run, or nullptr.
const Record* find_record(const RunResults& run, const std::string& model, const std::string& plan,
                          const OrderedJson& key) {
  for (const Record& record : run.records) {
    if (record.model == model && record.plan == plan && same_case_key(record) == key) {
      return &record;
    }
  }
  return nullptr;
}

std::vector<std::pair<const RunResults*, const Record*>> good_records(const Side& side,
                                                                      const std::string& model,
                                                                      const std::string& plan,
                                                                      const OrderedJson& key) {
  std::vector<std::pair<const RunResults*, const Record*>> found;
  for (const RunResults& run : side) {
    const Record* record = find_record(run, model, plan, key);
    if (record != nullptr && record->status == Status::kOk) found.emplace_back(&run, record);
  }
  return found;
}

// Formats of a plan that the gate does not allow.
std::vector<std::string> forbidden_formats(const RunResults& run, const std::string& plan,
                                           const std::vector<std::string>& allowed) {
  std::vector<std::string> bad;
  const OrderedJson& json = element_of(run, "plans", plan);
  if (!json.is_object() || allowed.empty()) return bad;
  for (const char* group : {"experts", "attention", "embedding", "unembedding", "kv"}) {
    const std::string given = text_at(json, group);
    const std::string format = given.empty() ? "stored" : given;
    if (std::find(allowed.begin(), allowed.end(), format) == allowed.end()) {
      bad.push_back(fmt::format("{} {}", group, format));
    }
  }
  return bad;
}

class Comparer {
 public:
  Comparer(const Side& base, const CompareOptions& options, RunComparison& out)
      : base_(base), options_(options), out_(out) {}

  void add(const Side& candidate, bool within_base) {
    for (const auto& [model, plan] : plans_of(candidate)) {
      const std::string base_plan = options_.base_plan.empty() ? plan : options_.base_plan;
      if (within_base && plan == base_plan) continue;
      if (!options_.plans.empty() &&
          std::find(options_.plans.begin(), options_.plans.end(), plan) == options_.plans.end()) {
        continue;
      }
      check_formats(candidate, plan);
      add_plan(candidate, model, base_plan, plan);
    }
  }

 private:
  static std::vector<std::pair<std::string, std::string>> plans_of(const Side& side) {
    std::vector<std::pair<std::string, std::string>> plans;
    for (const RunResults& run : side) {
      for (const Record& record : run.records) {
        const std::pair key{record.model, record.plan};
        if (std::find(plans.begin(), plans.end(), key) == plans.end()) plans.push_back(key);
      }
    }
    return plans;
  }

  void check_formats(const Side& candidate, const std::string& plan) {
    const auto bad = forbidden_formats(candidate.front(), plan, options_.gate.allowed_formats);
    if (bad.empty()) return;
    out_.problems.push_back(
        {plan, "forbidden_format",
         fmt::format("the gate allows {}; this plan has {}",
                     fmt::join(options_.gate.allowed_formats, ", "), fmt::join(bad, ", "))});
  }

  void add_plan(const Side& candidate, const std::string& model, const std::string& base_plan,
                const std::string& plan) {
    // Cases of the base in its order, then those that only the candidate has.
    std::vector<OrderedJson> keys;
    std::map<std::string, std::string> labels;
    for (const RunResults& run : base_) {
      for (const Record& record : run.records) {
        if (record.model != model || record.plan != base_plan) continue;
        const OrderedJson key = same_case_key(record);
        if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
      }
    }
    if (keys.empty()) {
      out_.notes.push_back(
          fmt::format("{}: the base has no plan '{}' of {}", plan, base_plan, model));
    }
    for (const OrderedJson& key : keys) {
      CasePair pair{model, good_records(base_, model, base_plan, key),
                    good_records(candidate, model, plan, key)};
      if (pair.base.empty()) {
        out_.notes.push_back(fmt::format("{}: it failed in the base already",
                                         label_in(base_, model, base_plan, key)));
        continue;
      }
      if (pair.candidate.empty()) {
        add_problem(candidate, pair, plan, key);
        continue;
      }
      for (const auto& [name, rule] : options_.gate.metrics) {
        if (!pair.base_record().metrics.contains(name) ||
            !pair.candidate_record().metrics.contains(name)) {
          continue;
        }
        // A load's peak is below what the cases after it reach: one value per plan is enough.
        if (name == "peak_rss_bytes" && pair.base_record().kind != "load") continue;
        out_.metrics.push_back(comparing::compare_metric(name, rule, pair, options_));
      }
    }
  }

  static std::string label_in(const Side& side, const std::string& model, const std::string& plan,
                              const OrderedJson& key) {
    for (const RunResults& run : side) {
      if (const Record* record = find_record(run, model, plan, key)) return record->label;
    }
    return plan;
  }

  void add_problem(const Side& candidate, const CasePair& pair, const std::string& plan,
                   const OrderedJson& key) {
    for (const RunResults& run : candidate) {
      const Record* record = find_record(run, pair.model, plan, key);
      if (record == nullptr) continue;
      out_.problems.push_back(
          {record->label, std::string(status_name(record->status)), record->reason});
      return;
    }
    // A plan is not compared with itself by probes: nothing is missing there.
    if (text_at(key, "kind") == "fidelity") return;
    const Record& base = pair.base_record();
    out_.problems.push_back({fmt::format("{} / {}", plan, scenario_of_label(base.label, base.plan)),
                             "missing", "the base has this case, the candidate has not"});
  }

  const Side& base_;
  const CompareOptions& options_;
  RunComparison& out_;
};

void adjust_p_values(std::vector<MetricComparison>& metrics, Correction correction) {
  std::map<std::string, std::vector<MetricComparison*>> families;
  for (MetricComparison& metric : metrics) {
    if (metric.p_value && metric.outcome != Outcome::kNotComparable) {
      families[metric.rule.family].push_back(&metric);
    }
  }
  for (const auto& [family, members] : families) {
    std::vector<double> p_values;
    for (const MetricComparison* member : members) p_values.push_back(*member->p_value);
    const std::vector<double> adjusted = correction == Correction::kHolm
                                             ? holm_adjust(p_values)
                                             : benjamini_hochberg_adjust(p_values);
    for (std::size_t i = 0; i < members.size(); ++i) members[i]->p_value_adjusted = adjusted[i];
  }
}

std::string side_name(const Side& side) {
  const std::string name = text_at(side.front().description, "folder");
  return side.size() == 1 ? name : fmt::format("{} and {} more", name, side.size() - 1);
}

// What intervals of speed rest on.
void add_notes(const std::vector<MetricComparison>& metrics, std::vector<std::string>& notes) {
  std::set<double> assumed;
  for (const MetricComparison& metric : metrics) {
    if (metric.method == "welch_within_runs") assumed.insert(metric.rule.between_run_sd);
  }
  for (const double sd : assumed) {
    notes.push_back(
        fmt::format("one run on a side: runs are taken to differ by {:.3g} % (standard deviation) "
                    "on their own; "
                    "give two runs or more per side to measure it, or between_run_sd in the gate",
                    100 * sd));
  }
}

}  // namespace

std::string MetricComparison::label() const {
  const std::string plans = base_plan == plan ? plan : base_plan + " → " + plan;
  return fmt::format("{} / {}", plans, scenario);
}

std::optional<GateOutcome> MetricComparison::gate() const {
  if (outcome == Outcome::kNotComparable) return std::nullopt;
  if (outcome == Outcome::kRegressed) return GateOutcome::kFail;
  return not_worse ? GateOutcome::kPass : GateOutcome::kInconclusive;
}

std::string_view correction_name(Correction correction) {
  return correction == Correction::kHolm ? "holm" : "benjamini_hochberg";
}

std::string_view outcome_name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kImproved:
      return "IMPROVED";
    case Outcome::kSame:
      return "SAME";
    case Outcome::kRegressed:
      return "REGRESSED";
    case Outcome::kInconclusive:
      return "INCONCLUSIVE";
    case Outcome::kNotComparable:
      break;
  }
  return "NOT COMPARABLE";
}

void judge(MetricComparison& metric, double level) {
  if (metric.outcome == Outcome::kNotComparable) return;
  const MetricRule& rule = metric.rule;
  if (rule.minimum && metric.candidate < *rule.minimum) {
    metric.outcome = Outcome::kRegressed;
    metric.reason = fmt::format("below the gate's minimum of {:g}", *rule.minimum);
    return;
  }
  if (rule.maximum && metric.candidate > *rule.maximum) {
    metric.outcome = Outcome::kRegressed;
    metric.reason = fmt::format("above the gate's maximum of {:g}", *rule.maximum);
    return;
  }
  if (rule.floor > 0 && std::abs(metric.base) <= rule.floor &&
      std::abs(metric.candidate) <= rule.floor) {
    metric.outcome = Outcome::kSame;
    metric.not_worse = true;
    metric.reason =
        fmt::format("both are below {}", metric.unit == "bytes"
                                             ? format_size(rule.floor)
                                             : fmt::format("{:g} {}", rule.floor, metric.unit));
    return;
  }
  const double sign = metric.better == "lower" ? -1 : 1;
  const double gain = sign * metric.change;  // positive: better
  double low = gain;
  double high = gain;
  bool shown = false;  // that there is a change at all
  if (rule.pairing != Pairing::kExact) {
    if (!metric.interval) {
      metric.outcome = Outcome::kInconclusive;
      metric.reason = metric.method;
      return;
    }
    low = std::min(sign * metric.interval->low, sign * metric.interval->high);
    high = std::max(sign * metric.interval->low, sign * metric.interval->high);
    shown = metric.p_value_adjusted && *metric.p_value_adjusted <= 1 - level;
  }
  // An exact value may use up its margin; one with an interval must be shown to differ at all.
  const bool exact = rule.pairing == Pairing::kExact;
  const bool beyond =
      exact ? std::abs(gain) > rule.margin : shown && gain != 0 && std::abs(gain) >= rule.margin;
  if (beyond) {
    metric.outcome = gain < 0 ? Outcome::kRegressed : Outcome::kImproved;
  } else if (low >= -rule.margin && high <= rule.margin) {
    metric.outcome = Outcome::kSame;
  } else {
    metric.outcome = Outcome::kInconclusive;
    metric.not_worse = low >= -rule.margin;
    if (metric.count > 0 && rule.pairing != Pairing::kRuns) {
      metric.to_settle = observations_to_settle(
          metric.count, smallest_visible(Interval{low, high, level}), 0, rule.margin);
    }
    metric.reason = metric.not_worse      ? "not worse by the margin; perhaps better"
                    : high < 0            ? "worse, but perhaps by less than the margin"
                    : high <= rule.margin ? "not better by the margin; perhaps worse"
                                          : "too few data to tell better from worse";
    return;
  }
  metric.not_worse = metric.outcome != Outcome::kRegressed;
}

Outcome RunComparison::verdict() const {
  Outcome worst = Outcome::kNotComparable;
  bool improved = false;
  bool inconclusive = false;
  for (const MetricComparison& metric : metrics) {
    if (!metric.rule.required || metric.outcome == Outcome::kNotComparable) continue;
    if (metric.outcome == Outcome::kRegressed) return Outcome::kRegressed;
    inconclusive = inconclusive || !metric.not_worse;
    improved = improved || metric.outcome == Outcome::kImproved;
    worst = Outcome::kSame;
  }
  if (inconclusive) return Outcome::kInconclusive;
  return worst == Outcome::kSame && improved ? Outcome::kImproved : worst;
}

RunComparison compare_sides(const std::vector<RunResults>& base,
                            const std::vector<std::vector<RunResults>>& candidates,
                            const CompareOptions& options) {
  require(!base.empty(), "compare runs: the base holds no run");
  RunComparison out;
  out.base = side_name(base);
  out.level = options.gate.level;
  out.correction = options.correction;
  CompareOptions used = options;
  if (candidates.empty()) {
    if (used.base_plan.empty()) used.base_plan = "reference";
    Comparer(base, used, out).add(base, true);
  }
  for (const auto& candidate : candidates) {
    require(!candidate.empty(), "compare runs: a candidate holds no run");
    out.candidates.push_back(side_name(candidate));
    Comparer(base, used, out).add(candidate, false);
  }
  adjust_p_values(out.metrics, options.correction);
  for (MetricComparison& metric : out.metrics) judge(metric, out.level);
  add_notes(out.metrics, out.notes);
  return out;
}

}  // namespace moebench