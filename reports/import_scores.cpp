// Reading the results of lm-eval, gpt_oss.evals and simple-evals.
#include "reports/import_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>

#include "bench/environment.h"
#include "bench/scenario.h"
#include "bench/workloads.h"
#include "evals/task.h"
#include "kernels/core/error.h"
#include "reports/import_samples.h"

namespace moebench {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % of the normal distribution

std::string text_of(const Json& json, const std::string& key) {
  const Json& value = member(json, key);
  return value.is_string() ? value.get<std::string>() : "";
}

double share(const Json& value, const std::string& where) {
  require(value.is_number() && value.get<double>() >= 0 && value.get<double>() <= 1,
          "{}: expected a share between 0 and 1, got {}", where, json_excerpt(value));
  return value.get<double>();
}

Record task_record(const std::string& model, const std::string& plan, const std::string& task,
                   const std::string& protocol, const std::string& effort) {
  Record record;
  record.model = model.empty() ? "a model" : model;
  record.plan = plan;
  record.kind = "task";
  record.scenario = {{"kind", "task"}, {"task", task}, {"effort", effort}};
  if (!protocol.empty()) record.scenario["protocol"] = protocol;
  record.label = fmt::format("{} / {}{}", plan, task_title(task, protocol),
                             effort.empty() ? "" : " " + effort);
  record.started = utc_now();
  return record;
}

// The metrics of ours that are lm-eval's.
struct KnownMetric {
  std::string_view theirs;
  std::string_view ours;
  bool is_share;
};
constexpr std::array<KnownMetric, 5> kMetrics = {{{"acc", "accuracy", true},
                                                  {"exact_match", "accuracy", true},
                                                  {"acc_norm", "accuracy_per_character", true},
                                                  {"acc_bytes", "accuracy_per_byte", true},
                                                  {"bits_per_byte", "bits_per_byte", false}}};

std::int64_t num_samples(const Json& json, const std::string& task) {
  const Json& count = member(member(member(json, "n-samples"), task), "effective");
  const bool known =
      count.is_number_integer() && count.get<double>() > 0 && count.get<double>() < 1e12;
  return known ? count.get<std::int64_t>() : 0;
}

// A known metric of one task and filter, as "acc,none" names them.
std::optional<Metric> lm_eval_metric(const Json& scores, const KnownMetric& known,
                                     const std::string& filter, std::int64_t count,
                                     const std::string& where) {
  const std::string key = fmt::format("{},{}", known.theirs, filter);
  const Json& value = member(scores, key);
  if (!value.is_number()) return std::nullopt;
  const std::string place = fmt::format("{}.\"{}\"", where, key);
  require(std::isfinite(value.get<double>()), "{}: it is not finite", place);
  const double number = known.is_share ? share(value, place) : value.get<double>();
  Metric metric = plain_metric(number, known.is_share ? "share" : "bits/byte",
                               known.is_share ? "higher" : "lower", count);
  metric.interval_method = "the file has no standard error";
  const Json& error = member(scores, fmt::format("{}_stderr,{}", known.theirs, filter));
  if (!error.is_number()) return metric;
  const auto se = error.get<double>();
  require(se >= 0 && std::isfinite(se), "{}: its standard error is {}", place, se);
  metric.interval = Interval{number - kZ * se, number + kZ * se, 0.95};
  if (known.is_share) {
    metric.interval->low = std::max(0.0, metric.interval->low);
    metric.interval->high = std::min(1.0, metric.interval->high);
  }
  metric.interval_method = "normal, by lm-eval's standard error";
  return metric;
}

// What "gpqa_openai__gpt-oss-20b-low_temp1.0_20260131_120000.json" says.
struct NamedRun {
  std::string task;
  std::string protocol;
  std::string model;
  std::string effort;
  std::string plan;
};

bool take_suffix(std::string& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.resize(text.size() - suffix.size());
  return true;
}

NamedRun parse_name(const std::string& file) {
  std::string stem = std::filesystem::path(file).stem().string();
  take_suffix(stem, "_allresults");
  take_suffix(stem, "_DEBUG");
  // Names of evals that hold an underscore themselves.
  std::size_t end = std::min(stem.find('_'), stem.size());
  for (const std::string_view longer : {"healthbench_hard", "healthbench_consensus"}) {
    if (stem.starts_with(longer)) end = longer.size();
  }
  NamedRun run;
  run.task = stem.substr(0, end);
  run.model = end < stem.size() ? stem.substr(end + 1) : "";
  run.plan = "simple-evals";
  run.protocol = "simple-evals";
  if (const std::size_t temperature = run.model.rfind("_temp"); temperature != std::string::npos) {
    run.model.resize(temperature);
    run.plan = "gpt_oss.evals";
    run.protocol = "openai";
    for (const std::string_view effort : {"low", "medium", "high"}) {
      if (take_suffix(run.model, fmt::format("-{}", effort))) run.effort = effort;
    }
  }
  if (const std::size_t slash = run.model.find("__"); slash != std::string::npos) {
    run.model.replace(slash, 2, "/");
  }
  if (run.task == "gpqa") run.task = "gpqa_diamond";
  if (run.task == "aime25") run.task = "aime_2025";
  // The default protocol of our task goes unnamed.
  try {
    if (find_task(run.task).protocols.front().name == run.protocol) run.protocol.clear();
  } catch (const Error&) {
    run.protocol.clear();  // a task of theirs alone
  }
  return run;
}

}  // namespace

bool is_lm_eval(const Json& json) {
  return member(json, "results").is_object() &&
         (member(json, "n-shot").is_object() || member(json, "higher_is_better").is_object() ||
          member(json, "lm_eval_version").is_string());
}

bool is_simple_evals(const Json& json) {
  return member(json, "score").is_number() &&
         (json.contains("score:std") || json.contains("chars") || json.contains("htmls"));
}

std::vector<Record> lm_eval_records(const Json& json, const std::string& where) {
  const Json& config = member(json, "config");
  std::string model = text_of(json, "model_name");
  if (model.empty()) model = text_of(config, "model_args");
  const std::string backend = text_of(config, "model");
  const std::string plan = backend.empty() ? "lm-eval" : fmt::format("lm-eval ({})", backend);
  std::vector<Record> records;
  for (const auto& [task, scores] : json.at("results").items()) {
    const std::string place = fmt::format("{}: results.{}", where, task.substr(0, 80));
    require(scores.is_object(), "{}: expected an object", place);
    std::vector<std::string> filters;
    for (const auto& [key, value] : scores.items()) {
      const std::size_t comma = key.find(',');
      if (comma == std::string::npos || !value.is_number()) continue;
      const std::string filter = key.substr(comma + 1);
      if (std::find(filters.begin(), filters.end(), filter) == filters.end()) {
        filters.push_back(filter);
      }
    }
    const Json& about = member(member(member(json, "configs"), task), "metadata");
    for (const std::string& filter : filters) {
      const std::string named = text_of(about, "moebench_task");
      Record record =
          task_record(model, plan, named.empty() ? task : named, filter == "none" ? "" : filter,
                      text_of(about, "reasoning_effort"));
      for (const KnownMetric& known : kMetrics) {
        const std::string name(known.ours);
        if (record.metrics.contains(name)) continue;
        const auto metric = lm_eval_metric(scores, known, filter, num_samples(json, task), place);
        if (metric) record.metrics[name] = *metric;
      }
      if (record.metrics.empty()) continue;
      record.details["imported"] = "lm-eval " + text_of(json, "lm_eval_version");
      record.details["lm_eval"] = {{"task", task}, {"filter", filter}};
      records.push_back(std::move(record));
    }
  }
  return records;
}

Record lm_eval_samples_record(const std::string& task, const std::string& filter) {
  Record record = task_record("", "lm-eval", task.empty() ? "a task" : task,
                              filter == "none" ? "" : filter, "");
  record.details["imported"] = "lm-eval samples";
  return record;
}

Record simple_evals_record(const Json& json, const std::string& file, const std::string& where) {
  const NamedRun run = parse_name(file);
  Record record = task_record(run.model, run.plan, run.task, run.protocol, run.effort);
  // ..._allresults.json has a list with an entry per answer.
  const Json& answers = member(json, "htmls");
  Metric accuracy =
      plain_metric(share(json.at("score"), where + ".score"), "share", "higher",
                   answers.is_array() ? static_cast<std::int64_t>(answers.size()) : 0);
  accuracy.interval_method = "the file does not say how many questions there were";
  record.metrics["accuracy"] = accuracy;
  record.details["imported"] = run.plan;
  return record;
}

}  // namespace moebench
