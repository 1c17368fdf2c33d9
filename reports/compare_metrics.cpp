// The statistics of each kind of metric.
#include "reports/compare_metrics.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "evals/non_inferiority.h"
#include "evals/perplexity.h"
#include "evals/swap_test.h"
#include "evals/two_sample.h"

namespace moebench::comparing {

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

OrderedJson same_case_key(const Record& record) {
  OrderedJson key = record.scenario.is_object() ? record.scenario : OrderedJson::object();
  for (const char* free :
       {"repetitions", "limit", "repeats", "settle", "settle_against", "include_items"}) {
    key.erase(free);
  }
  key["kind"] = record.kind;
  return key;
}

namespace {

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
  if (why.empty()) {
    why = hash_difference("texts", text_at(object_at(base->details, "content_hashes"), "text"),
                          text_at(object_at(candidate->details, "content_hashes"), "text"));
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
  const auto sum = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
  };
  // Few skewed values make a t test see what is not there (docs/statistics.md). A divergence may be
  // negative by a rounding.
  const auto is_plain = [](double v) { return std::isfinite(v) && v >= 0; };
  constexpr std::size_t kFew = 500;
  if (metric.p_value && before.size() <= kFew &&
      std::all_of(before.begin(), before.end(), is_plain) &&
      std::all_of(after.begin(), after.end(), is_plain) && sum(before) > 0 && sum(after) > 0) {
    constexpr std::int64_t kSwaps = 1999;
    metric.p_value = paired_swap_test(before, after, items, kSwaps, 1);
    metric.method += ", p by swapping sides";
  }
}

// The level at which answers must be judged that ended when a comparison was decided: that of the
// last look, stricter than `level`.
double level_of_last_look(const CasePair& pair, double level) {
  for (const Record* record : {&pair.base_record(), &pair.candidate_record()}) {
    const OrderedJson& look = object_at(object_at(record->details, "settled"), "level");
    if (look.is_number() && look.get<double>() < 1) level = std::max(level, look.get<double>());
  }
  return level;
}

// `level` is that of the gate, `look_level` of the interval.
void compare_accuracy(MetricComparison& metric, const AnswerPairs& pairs, double level,
                      double look_level) {
  const ScoreDifference scores =
      compare_scores(pairs.base_correct, pairs.candidate_correct, pairs.item_numbers, look_level);
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double v : values) sum += v;
    return sum / static_cast<double>(values.size());
  };
  metric.base = mean(pairs.base_correct);
  metric.candidate = mean(pairs.candidate_correct);
  metric.change = scores.difference;
  metric.gained = pairs.gained;
  metric.lost = pairs.lost;
  if (pairs.identical == pairs.size()) {
    // Not a sample of a difference: on these questions there is none to be sampled.
    metric.interval = Interval{0, 0, level};
    metric.p_value = 1;
    metric.method = "every answer is the same, token for token";
    return;
  }
  metric.interval = scores.interval;
  metric.method = scores.method;
  // Rejecting at 1 - level must mean rejecting at the last look.
  metric.p_value = std::min(1.0, scores.p_value * (1 - level) / (1 - look_level));
  metric.visible = scores.detectable;
}

void compare_answers(MetricComparison& metric, CasePair& pair, double level) {
  if (!pair.answers) {
    const auto& [base_run, base] = pair.base.front();
    const auto& [run, candidate] = pair.candidate.front();
    pair.answers = pair_answers(base_run->answers(base->case_id), run->answers(candidate->case_id));
  }
  const AnswerPairs& pairs = *pair.answers;
  metric.count = pairs.size();
  metric.counted = "answers";
  if (pairs.size() == 0) {
    metric.outcome = Outcome::kNotComparable;
    metric.reason = "no question was answered on both sides";
    return;
  }
  if (metric.rule.pairing == Pairing::kAnswers) {
    compare_accuracy(metric, pairs, level, level_of_last_look(pair, level));
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

// What a perplexity was measured from: nothing where the record does not hold all of it.
struct Blocks {
  std::vector<double> nll;
  std::int64_t tokens = 0;
  std::int64_t block = 0;
};

std::optional<Blocks> blocks_of(const Record& record) {
  Blocks blocks;
  const OrderedJson& nll = object_at(record.details, "nll_by_block");
  const OrderedJson& tokens = object_at(record.details, "tokens");
  const OrderedJson& block = object_at(record.details, "block_tokens");
  if (!nll.is_array() || !tokens.is_number_integer() || !block.is_number_integer()) {
    return std::nullopt;
  }
  for (const OrderedJson& sum : nll) {
    if (!sum.is_number()) return std::nullopt;
    blocks.nll.push_back(sum.get<double>());
  }
  blocks.tokens = tokens.get<std::int64_t>();
  blocks.block = block.get<std::int64_t>();
  const bool fits =
      blocks.tokens > 0 && blocks.block > 0 &&
      (blocks.tokens - 1) / blocks.block + 1 == static_cast<std::int64_t>(blocks.nll.size());
  return fits ? std::optional(std::move(blocks)) : std::nullopt;
}

void compare_blocks(MetricComparison& metric, const CasePair& pair, double level) {
  metric.counted = "tokens";
  const Record& base = pair.base_record();
  const Record& candidate = pair.candidate_record();
  for (const char* name : {"window", "stride", "tokens", "block_tokens", "prefix_token"}) {
    const OrderedJson& before = object_at(base.details, name);
    const OrderedJson& after = object_at(candidate.details, name);
    if (before == after) continue;
    metric.outcome = Outcome::kNotComparable;
    metric.reason = fmt::format("its {} is {} and {}", name, before.dump(), after.dump());
    return;
  }
  const std::optional<Blocks> before = blocks_of(base);
  const std::optional<Blocks> after = blocks_of(candidate);
  if (!before || !after) {
    metric.outcome = Outcome::kNotComparable;
    metric.reason = "the records hold no sums by block";
    return;
  }
  metric.count = before->tokens;
  if (before->nll == after->nll) {
    metric.interval = Interval{0, 0, level};
    metric.p_value = 1;
    metric.method = "equal in every block";
    return;
  }
  use_ratio(metric, perplexity_ratio(before->nll, after->nll, before->tokens, before->block, level),
            level);
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

}  // namespace

MetricComparison compare_metric(const std::string& name, const MetricRule& rule, CasePair& pair,
                                const CompareOptions& options) {
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
    case Pairing::kBlocks:
      compare_blocks(metric, pair, level);
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

}  // namespace moebench::comparing
