// A comparison as JSON.
#include "bench/build_info.h"
#include "bench/environment.h"
#include "bench/record.h"
#include "reports/compare.h"

namespace moebench {
namespace {

template <class T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson();
}

OrderedJson metric_json(const MetricComparison& m) {
  OrderedJson json = {
      {"model", m.model},
      {"base_plan", m.base_plan},
      {"plan", m.plan},
      {"scenario", m.scenario},
      {"metric", m.metric},
      {"family", m.rule.family},
      {"unit", m.unit},
      {"better", m.better},
      {"outcome", outcome_name(m.outcome)},
      {"gate", m.gate() ? OrderedJson(gate_outcome_name(*m.gate())) : OrderedJson()},
      {"not_worse", m.not_worse},
      {"reason", m.reason},
      {"required", m.rule.required},
      {"base", m.base},
      {"candidate", m.candidate},
      {"change", m.change},
      {"relative", m.rule.relative},
      {"margin", m.rule.margin},
      {"interval", m.interval ? to_json(*m.interval) : OrderedJson()},
      {"p_value", or_null(m.p_value)},
      {"p_value_adjusted", or_null(m.p_value_adjusted)},
      {"method", m.method},
      {"count", m.count},
      {"counted", m.counted},
      {"visible", or_null(m.visible)},
      {"to_settle", or_null(m.to_settle)}};
  if (m.rule.pairing == Pairing::kAnswers) {
    json["gained"] = m.gained;
    json["lost"] = m.lost;
  }
  return json;
}

}  // namespace

OrderedJson to_json(const RunComparison& comparison) {
  OrderedJson metrics = OrderedJson::array();
  for (const MetricComparison& metric : comparison.metrics) metrics.push_back(metric_json(metric));
  OrderedJson problems = OrderedJson::array();
  for (const CaseProblem& problem : comparison.problems) {
    problems.push_back(
        {{"label", problem.label}, {"status", problem.status}, {"reason", problem.reason}});
  }
  return {
      {"schema", kComparisonSchema},
      {"generated", utc_now()},
      {"generator", {{"version", build_info::kVersion}, {"git_commit", build_info::kGitCommit}}},
      {"base", comparison.base},
      {"candidates", comparison.candidates},
      {"level", comparison.level},
      {"correction", correction_name(comparison.correction)},
      {"verdict", outcome_name(comparison.verdict())},
      {"metrics", std::move(metrics)},
      {"problems", std::move(problems)},
      {"notes", comparison.notes}};
}

}  // namespace moebench
