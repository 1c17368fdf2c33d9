// From ledger lines to a record.
#include "bench/task_record.h"

#include <fmt/format.h>

#include "bench/workloads.h"
#include "evals/run_task.h"

namespace moebench {

Metric estimate_metric(const MeanEstimate& estimate, std::string unit, std::string better) {
  Metric metric =
      plain_metric(estimate.mean, std::move(unit), std::move(better), estimate.num_values);
  metric.interval = estimate.interval;
  metric.interval_method = estimate.interval ? estimate.method : estimate.reason;
  return metric;
}

void add_scores(const std::vector<LedgerLine>& lines, const VoteOf& vote_of, Record& record) {
  const TaskScore score = score_lines(lines);
  record.metrics["accuracy"] = estimate_metric(score.accuracy, "share", "higher");
  for (const auto& [name, estimate] : score.accuracy_by_normalisation) {
    record.metrics["accuracy_per_" + name.substr(0, name.size() - 1)] =
        estimate_metric(estimate, "share", "higher");
  }
  if (vote_of) {
    for (const RepeatScore& repeated : repeat_scores(lines, vote_of)) {
      record.metrics[fmt::format("pass_at_{}", repeated.k)] =
          estimate_metric(repeated.pass, "share", "higher");
      record.metrics[fmt::format("maj_at_{}", repeated.k)] =
          estimate_metric(repeated.majority, "share", "higher");
    }
  }
  record.metrics["output_tokens_mean"] =
      plain_metric(score.mean_output_tokens, "tokens", "", score.num_answers);
  record.metrics["reasoning_tokens_mean"] =
      plain_metric(score.mean_reasoning_tokens, "tokens", "", score.num_answers);
  OrderedJson verdicts;
  for (int v = 0; v < kNumVerdicts; ++v) {
    verdicts[std::string(verdict_name(static_cast<Verdict>(v)))] =
        score.verdicts[static_cast<std::size_t>(v)];
  }
  OrderedJson categories = OrderedJson::object();
  for (const auto& [category, estimate] : score.accuracy_by_category) {
    categories[category] = {{"accuracy", estimate.mean}, {"count", estimate.num_values}};
    if (estimate.interval) {
      categories[category]["low"] = estimate.interval->low;
      categories[category]["high"] = estimate.interval->high;
    }
  }
  record.details["verdicts"] = verdicts;
  record.details["categories"] = categories;
}

void add_answer_latencies(std::span<const LedgerLine> lines, Record& record) {
  std::vector<double> ttft;
  std::vector<double> tpot;
  std::vector<double> e2e;
  for (const LedgerLine& line : lines) {
    if (line.output_tokens == 0) continue;  // scored by likelihood, or failed: no token was timed
    ttft.push_back(line.timing.ttft_ms);
    e2e.push_back(line.timing.e2e_ms);
    if (line.output_tokens > 1) tpot.push_back(line.timing.tpot_ms);
  }
  add_latency_metrics("tpot", tpot, record);
  add_latency_metrics("e2e", e2e, record);
  add_latency_metrics("ttft", ttft, record);
}

}  // namespace moebench
