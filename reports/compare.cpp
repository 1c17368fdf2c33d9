// Pairing cases of two sides, and the statistics of each metric.
#include "reports/compare.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "evals/answer_pairs.h"
#include "evals/two_sample.h"
#include "kernels/core/error.h"
#include "reports/html_text.h"

namespace moebench {
namespace {

using Side = std::vector<RunResults>;

// Fields of a run's description, which is another program's file: what is missing or of another
// type is "".
std::string text_at(const OrderedJson& object, const char* name) {
  if (!object.is_object()) return "";
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

const OrderedJson& object_at(const OrderedJson& object, const char* name) {
  static const OrderedJson kNone;
  if (!object.is_object()) return kNone;
  const auto it = object.find(name);
  return it != object.end() ? *it : kNone;
}

// The element of the run's list ("models", "plans") with this name, or null.
const OrderedJson& element_of(const RunResults& run, const char* list, const std::string& name) {
  static const OrderedJson kNone;
  for (const OrderedJson& one : object_at(run.description, list)) {
    if (text_at(one, "name") == name) return one;
  }
  return kNone;
}

// What must be equal for two cases to be the same one: how often it was repeated need not.
OrderedJson same_case_key(const Record& record) {
  OrderedJson key = record.scenario.is_object() ? record.scenario : OrderedJson::object();
  for (const char* free : {"repetitions", "limit", "repeats"}) key.erase(free);
  key["kind"] = record.kind;
  return key;
}

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

// One case on both sides; `base` and `candidate` have a record for each run that has it in order.
struct CasePair {
  std::string model;
  std::vector<std::pair<const RunResults*, const Record*>> base;
  std::vector<std::pair<const RunResults*, const Record*>> candidate;

  const Record& base_record() const { return *base.front().second; }
  const Record& candidate_record() const { return *candidate.front().second; }
};

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

std::string hash_difference(const char* what, const std::string& a, const std::string& b) {
  return a == b || a.empty() || b.empty() ? "" : fmt::format("{} differ ({}, {})", what, a, b);
}

// Why two cases are not the same measurement, for any metric; "" if they are.
std::string difference_of_cases(const CasePair& pair) {
  const auto& [base_run, base] = pair.base.front();
  const auto& [run, candidate] = pair.candidate.front();
  const auto model_hash = [&](const RunResults& r) {
    return text_at(element_of(r, "models", pair.model), "hash");
  };
  std::string why = hash_difference("weights", model_hash(*base_run), model_hash(*run));
  if (why.empty() && base->plan == candidate->plan) {
    why = hash_difference("plans of this name",
                          text_at(element_of(*base_run, "plans", base->plan), "canonical"),
                          text_at(element_of(*run, "plans", base->plan), "canonical"));
  }
  if (why.empty()) {
    why = hash_difference("prompts", text_at(object_at(base->details, "content_hashes"), "prompts"),
                          text_at(object_at(candidate->details, "content_hashes"), "prompts"));
  }
  for (const char* hash : {"dataset_hash", "traces_hash"}) {
    if (why.empty()) {
      why = hash_difference(hash[0] == 'd' ? "datasets" : "traces", text_at(base->details, hash),
                            text_at(candidate->details, hash));
    }
  }
  return why;
}

// Why speeds and memory of two runs are not of the same machine; "" if they are.
std::string difference_of_machines(const CasePair& pair) {
  const auto& a = pair.base.front().first->description;
  const auto& b = pair.candidate.front().first->description;
  const OrderedJson& before = object_at(a, "environment");
  const OrderedJson& after = object_at(b, "environment");
  const auto compare = [](const char* what, const std::string& x, const std::string& y) {
    return x == y ? "" : fmt::format("{} differ ({}, {})", what, x, y);
  };
  for (const std::string& why :
       {compare("processors", text_at(before, "cpu"), text_at(after, "cpu")),
        compare("GPUs", text_at(object_at(before, "gpu"), "name"),
                text_at(object_at(after, "gpu"), "name")),
        compare("builds", text_at(before, "build_type"), text_at(after, "build_type")),
        compare("threads", object_at(a, "threads").dump(), object_at(b, "threads").dump())}) {
    if (!why.empty()) return why;
  }
  return "";
}

void use_ratio(MetricComparison& metric, const RatioEstimate& estimate, double level) {
  metric.change = estimate.ratio - 1;
  if (!estimate.interval) {
    metric.method = estimate.reason;
    return;
  }
  metric.interval = Interval{estimate.interval->low - 1, estimate.interval->high - 1, level};
  metric.p_value = estimate.p_value;
  metric.method = estimate.method;
  metric.visible = smallest_visible(estimate.standard_error, estimate.degrees, level);
}

// The ratio of the sides' means; `before` and `after` are of the same items.
void use_paired_ratio(MetricComparison& metric, const std::vector<double>& before,
                      const std::vector<double>& after, const std::vector<std::int64_t>& items,
                      double level) {
  if (before == after) {
    metric.interval = Interval{0, 0, level};
    metric.p_value = 1;
    metric.method = "equal in every pair";
    return;
  }
  use_ratio(metric, paired_ratio(before, after, items, level), level);
}

void compare_accuracy(MetricComparison& metric, const AnswerPairs& pairs, double level) {
  const PairedDifference paired =
      paired_difference(pairs.base_correct, pairs.candidate_correct, pairs.item_numbers, level);
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double v : values) sum += v;
    return sum / static_cast<double>(values.size());
  };
  metric.base = mean(pairs.base_correct);
  metric.candidate = mean(pairs.candidate_correct);
  metric.change = paired.difference.mean;
  metric.gained = pairs.gained;
  metric.lost = pairs.lost;
  if (pairs.identical == pairs.size()) {
    // Not a sample of a difference: on these questions there is none to be sampled.
    metric.interval = Interval{0, 0, level};
    metric.p_value = 1;
    metric.method = "every answer is the same, token for token";
    return;
  }
  metric.interval = paired.difference.interval;
  metric.method = metric.interval ? paired.difference.method : paired.difference.reason;
  metric.p_value = mcnemar_exact(paired.wins, paired.losses);
  if (paired.difference.standard_error) {
    metric.visible =
        smallest_visible(*paired.difference.standard_error,
                         static_cast<double>(paired.difference.num_clusters - 1), level);
  }
}

void compare_answers(MetricComparison& metric, const CasePair& pair, double level) {
  const auto& [base_run, base] = pair.base.front();
  const auto& [run, candidate] = pair.candidate.front();
  const AnswerPairs pairs =
      pair_answers(base_run->answers(base->case_id), run->answers(candidate->case_id));
  metric.count = pairs.size();
  metric.counted = "answers";
  if (pairs.size() == 0) {
    metric.outcome = Outcome::kNotComparable;
    metric.reason = "no question was answered on both sides";
    return;
  }
  if (metric.rule.pairing == Pairing::kAnswers) {
    compare_accuracy(metric, pairs, level);
    return;
  }
  double base_sum = 0;
  double sum = 0;
  for (std::size_t i = 0; i < pairs.base_tokens.size(); ++i) {
    base_sum += pairs.base_tokens[i];
    sum += pairs.candidate_tokens[i];
  }
  metric.base = base_sum / static_cast<double>(pairs.size());
  metric.candidate = sum / static_cast<double>(pairs.size());
  if (base_sum == 0) {
    metric.outcome = Outcome::kNotComparable;
    metric.reason = "the base's answers have no tokens";
    return;
  }
  use_paired_ratio(metric, pairs.base_tokens, pairs.candidate_tokens, pairs.item_numbers, level);
}

// sum_kl of each trace; positions are equal where the traces are.
std::map<std::string, double> kl_of_traces(const Record& record) {
  std::map<std::string, double> sums;
  const auto it = record.details.find("kl_by_trace");
  if (it == record.details.end() || !it->is_array()) return sums;
  for (const OrderedJson& trace : *it) {
    const auto id = trace.find("id");
    const auto sum = trace.find("sum_kl");
    if (id == trace.end() || !id->is_string() || sum == trace.end() || !sum->is_number()) continue;
    sums[id->get<std::string>()] = sum->get<double>();
  }
  return sums;
}

void compare_traces(MetricComparison& metric, const CasePair& pair, double level) {
  metric.counted = "traces";
  const auto base = kl_of_traces(pair.base_record());
  const auto candidate = kl_of_traces(pair.candidate_record());
  std::vector<double> before;
  std::vector<double> after;
  std::vector<std::int64_t> ids;
  double base_sum = 0;
  for (const auto& [id, sum] : base) {
    const auto it = candidate.find(id);
    if (it == candidate.end()) continue;
    before.push_back(sum);
    after.push_back(it->second);
    base_sum += sum;
    ids.push_back(static_cast<std::int64_t>(ids.size()));
  }
  metric.count = static_cast<std::int64_t>(ids.size());
  if (ids.empty()) {
    metric.outcome = Outcome::kNotComparable;
    metric.reason = "the records hold no traces in common";
  } else if (base_sum != 0) {
    use_paired_ratio(metric, before, after, ids, level);
  } else {
    metric.change = metric.candidate > 0 ? 1 : 0;
    metric.method = "the base is exactly zero";
  }
}

void compare_samples(MetricComparison& metric, const CasePair& pair, double level) {
  const auto samples_of = [&](const auto& records) {
    std::vector<std::vector<double>> runs;
    for (const auto& [run, record] : records) {
      const auto it = record->metrics.find(metric.metric);
      if (it != record->metrics.end() && !it->second.samples.empty()) {
        runs.push_back(it->second.samples);
      }
    }
    return runs;
  };
  const auto base = samples_of(pair.base);
  const auto candidate = samples_of(pair.candidate);
  metric.counted = "samples";
  for (const auto* side : {&base, &candidate}) {
    for (const auto& run : *side) metric.count += static_cast<std::int64_t>(run.size());
  }
  if (base.empty() || candidate.empty()) {
    metric.method = "the records keep no samples";
    return;
  }
  // With several runs the values shown are those of all of them.
  const auto geometric = [](const std::vector<std::vector<double>>& runs) {
    double sum = 0;
    for (const auto& run : runs) {
      double logs = 0;
      for (const double x : run) logs += std::log(x);
      sum += logs / static_cast<double>(run.size());
    }
    return std::exp(sum / static_cast<double>(runs.size()));
  };
  const RatioEstimate estimate = compare_runs(base, candidate, metric.rule.between_run_sd, level);
  metric.base = geometric(base);
  metric.candidate = geometric(candidate);
  use_ratio(metric, estimate, level);
}

void compare_exactly(MetricComparison& metric) {
  metric.count = 1;
  metric.counted = "value";
  metric.method = "exact";
  const double difference = metric.candidate - metric.base;
  if (!metric.rule.relative || difference == 0) {
    metric.change = difference;
  } else {
    metric.change =
        metric.base != 0 ? difference / std::abs(metric.base) : std::copysign(1, difference);
  }
}

MetricComparison compare_metric(const std::string& name, const MetricRule& rule,
                                const CasePair& pair, const CompareOptions& options) {
  const double level = options.gate.level;
  const Metric& base = pair.base_record().metrics.at(name);
  const Metric& candidate = pair.candidate_record().metrics.at(name);
  MetricComparison metric;
  metric.model = pair.model;
  metric.base_plan = pair.base_record().plan;
  metric.plan = pair.candidate_record().plan;
  metric.scenario = scenario_of_label(pair.candidate_record().label, pair.candidate_record().plan);
  metric.metric = name;
  metric.unit = candidate.unit;
  metric.better = candidate.better;
  // An answer's length is neither better nor worse in itself; longer is what costs.
  if (metric.better.empty()) metric.better = rule.family == "length" ? "lower" : "higher";
  metric.rule = rule;
  metric.base = base.value;
  metric.candidate = candidate.value;
  const bool machine_matters = rule.family == "speed" || rule.family == "memory";
  std::string different = difference_of_cases(pair);
  if (different.empty() && machine_matters) different = difference_of_machines(pair);
  if (base.absent || candidate.absent) different = "one side has no value";
  if (!different.empty() && (!options.force || base.absent || candidate.absent)) {
    metric.outcome = Outcome::kNotComparable;
    metric.reason = different;
    return metric;
  }
  switch (rule.pairing) {
    case Pairing::kAnswers:
    case Pairing::kTokens:
      compare_answers(metric, pair, level);
      break;
    case Pairing::kTraces:
      compare_traces(metric, pair, level);
      break;
    case Pairing::kRuns:
      compare_samples(metric, pair, level);
      break;
    case Pairing::kExact:
      compare_exactly(metric);
      break;
  }
  return metric;
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
        out_.metrics.push_back(compare_metric(name, rule, pair, options_));
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

void adjust_p_values(std::vector<MetricComparison>& metrics) {
  std::map<std::string, std::vector<MetricComparison*>> families;
  for (MetricComparison& metric : metrics) {
    if (metric.p_value && metric.outcome != Outcome::kNotComparable) {
      families[metric.rule.family].push_back(&metric);
    }
  }
  for (const auto& [family, members] : families) {
    std::vector<double> p_values;
    for (const MetricComparison* member : members) p_values.push_back(*member->p_value);
    const std::vector<double> adjusted = holm_adjust(p_values);
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
      metric.to_settle = observations_to_settle(metric.count, (high - low) / 2, 0, rule.margin);
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
  adjust_p_values(out.metrics);
  for (MetricComparison& metric : out.metrics) judge(metric, out.level);
  add_notes(out.metrics, out.notes);
  return out;
}

}  // namespace moebench
