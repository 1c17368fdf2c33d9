// Building report.json.
#include "reports/report.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "bench/build_info.h"
#include "bench/environment.h"
#include "bench/record.h"
#include "bench/scenario.h"
#include "evals/answer_pairs.h"
#include "evals/statistics.h"
#include "evals/task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "reports/compare_metrics.h"
#include "reports/html.h"
#include "reports/plan_verdicts.h"
#include "reports/run_results.h"

namespace moebench {
namespace {

constexpr std::string_view kReferencePlan = "reference";

// A (model, plan) pair, in the order of the runs' files.
struct PlanKey {
  std::string model;
  std::string plan;
  auto operator<=>(const PlanKey&) const = default;
};

// One task case with its answers.
struct TaskCase {
  const RunResults* run;
  Record record;
  std::vector<LedgerLine> lines;
  std::string task;
  std::string effort;
};

struct Loaded {
  std::deque<RunResults> runs;  // in place: cases refer to them. Their records have moved to
  std::vector<Record> records;  // here.
  std::vector<TaskCase> tasks;
  std::vector<PlanKey> plans;
  OrderedJson verdicts = OrderedJson::array();
};

std::string title_of(const Record& record) {
  return task_title(record.scenario.value("task", ""), record.scenario.value("protocol", ""));
}

// The items of a case's task, for what people see of them; none where the dataset is not on this
// machine, or its authors ask that items stay off pages and nobody asked for them.
std::map<std::string, TaskItem> shown_items(const OrderedJson& scenario) {
  std::map<std::string, TaskItem> items;
  try {
    const Task task = find_task(scenario.value("task", ""));
    if (!task.public_text && !scenario.value("include_items", false)) return items;
    for (TaskItem& item : task.load(scenario.value("protocol", "")).items) {
      items.emplace(item.id, std::move(item));
    }
  } catch (const Error&) {
    return {};
  }
  return items;
}

Loaded load_runs(const std::vector<std::filesystem::path>& runs) {
  require(!runs.empty(), "make a report: no run was given");
  Loaded loaded;
  std::set<PlanKey> seen;
  for (const std::filesystem::path& path : runs) {
    RunResults& run = loaded.runs.emplace_back(read_run_results(path));
    for (OrderedJson& verdict : plan_verdicts(run)) loaded.verdicts.push_back(std::move(verdict));
    for (Record& record : run.records) {
      const PlanKey key{record.model, record.plan};
      if (seen.insert(key).second) loaded.plans.push_back(key);
      if (record.kind == "task") {
        TaskCase task{&run, record, run.answers(record.case_id), title_of(record),
                      record.scenario.value("effort", "")};
        loaded.tasks.push_back(std::move(task));
      }
      loaded.records.push_back(std::move(record));
    }
  }
  return loaded;
}

// The metric as records write it, or null.
OrderedJson metric_json(const Record& record, const std::string& name) {
  if (record.status != Status::kOk || !record.metrics.contains(name)) return OrderedJson();
  return to_json(record).at("metrics").at(name);
}

OrderedJson summarise(const Loaded& loaded, const PlanKey& key) {
  OrderedJson row = {{"model", key.model}, {"plan", key.plan}};
  OrderedJson accuracy = OrderedJson::array();
  OrderedJson failures = OrderedJson::array();
  OrderedJson decode = OrderedJson::array();
  OrderedJson prefill = OrderedJson::array();
  double peak = 0;
  double graphs = 0;  // the most that any case's CUDA graphs took
  for (const Record& record : loaded.records) {
    if (record.model != key.model || record.plan != key.plan) continue;
    if (record.status != Status::kOk) {
      failures.push_back({{"label", record.label},
                          {"status", status_name(record.status)},
                          {"reason", record.reason}});
      continue;
    }
    // Fidelity loads the reference beside the plan: its peak is not the plan's.
    if (const auto it = record.metrics.find("peak_rss_bytes");
        it != record.metrics.end() && record.kind != "fidelity") {
      peak = std::max(peak, it->second.value);
    }
    if (const auto it = record.details.find("graphs"); it != record.details.end()) {
      graphs = std::max(graphs, it->value("bytes", 0.0));
    }
    if (record.kind == "load") {
      row["text"] = record.details.value("plan_text", "");
      row["weights_bytes"] = metric_json(record, "weights_bytes");
      row["predicted_rss_bytes"] = metric_json(record, "predicted_rss_bytes");
      row["load_seconds"] = metric_json(record, "load_seconds");
    } else if (record.kind == "decode") {
      decode.push_back({{"batch", record.scenario.at("batch")},
                        {"context", record.scenario.at("context")},
                        {"tokens_per_second", metric_json(record, rate_metric("decode"))}});
    } else if (record.kind == "prefill") {
      prefill.push_back({{"tokens", record.scenario.at("tokens")},
                         {"tokens_per_second", metric_json(record, rate_metric("prefill"))}});
    } else if (record.kind == "task") {
      accuracy.push_back({{"task", title_of(record)},
                          {"effort", record.scenario.at("effort")},
                          {"accuracy", metric_json(record, "accuracy")},
                          {"output_tokens_mean", metric_json(record, "output_tokens_mean")}});
    } else if (record.kind == "fidelity") {
      for (const char* name :
           {"mean_kl", "p99_kl", "top1_agreement", "router_flip_rate", "gate_mass_moved",
            "diverged_traces", "changed_answers", "perplexity_ratio"}) {
        row[name] = metric_json(record, name);
      }
    } else if (record.kind == "invariance") {
      row["deterministic"] = metric_json(record, "deterministic");
      row["batch_invariant"] = metric_json(record, "batch_invariant");
    }
  }
  row["peak_rss_bytes"] = peak > 0 ? OrderedJson(peak) : OrderedJson();
  row["graphs_bytes"] = graphs > 0 ? OrderedJson(graphs) : OrderedJson();
  row["decode"] = decode;
  row["prefill"] = prefill;
  row["accuracy"] = accuracy;
  row["failures"] = failures;
  return row;
}

// Paired by (item, repeat): only answers that both plans gave count. The numbers are those of
// `moebench compare`; null where it does not compare the two.
OrderedJson compare_tasks(const TaskCase& baseline, const TaskCase& candidate) {
  const CompareOptions options;
  comparing::CasePair pair{candidate.record.model,
                           {{baseline.run, &baseline.record}},
                           {{candidate.run, &candidate.record}},
                           pair_answers(baseline.lines, candidate.lines)};
  const MetricComparison accuracy =
      comparing::compare_metric("accuracy", options.gate.metrics.at("accuracy"), pair, options);
  if (accuracy.outcome == Outcome::kNotComparable || !accuracy.p_value) return OrderedJson();
  OrderedJson json = {{"model", candidate.record.model}, {"task", candidate.task},
                      {"effort", candidate.effort},      {"baseline", baseline.record.plan},
                      {"plan", candidate.record.plan},   {"answers", accuracy.count},
                      {"difference", accuracy.change}};
  if (accuracy.interval) json["interval"] = to_json(*accuracy.interval);
  json["interval_method"] = accuracy.method;
  json["gained"] = pair.answers->num_gained;  // answers that became right
  json["lost"] = pair.answers->num_lost;      // answers that became wrong
  // By item: the repeats of one question are no evidence of their own.
  json["p_value"] = *accuracy.p_value;
  return json;
}

OrderedJson compare_all(const Loaded& loaded) {
  OrderedJson rows = OrderedJson::array();
  std::vector<double> p_values;
  const auto has_accuracy = [](const TaskCase& task) {
    return task.record.status == Status::kOk && task.record.metrics.contains("accuracy");
  };
  for (const TaskCase& candidate : loaded.tasks) {
    if (!has_accuracy(candidate)) continue;
    // Like with like: the same questions, asked in the same way.
    const OrderedJson key = comparing::same_case_key(candidate.record);
    const auto baseline =
        std::find_if(loaded.tasks.begin(), loaded.tasks.end(), [&](const TaskCase& other) {
          return other.record.model == candidate.record.model &&
                 other.record.plan == kReferencePlan && has_accuracy(other) &&
                 comparing::same_case_key(other.record) == key;
        });
    if (baseline == loaded.tasks.end() || &*baseline == &candidate) continue;
    OrderedJson row = compare_tasks(*baseline, candidate);
    if (row.is_null()) continue;
    p_values.push_back(row.at("p_value").get<double>());
    rows.push_back(std::move(row));
  }
  const std::vector<double> adjusted = holm_adjust(p_values);
  for (std::size_t i = 0; i < adjusted.size(); ++i) rows[i]["p_value_holm"] = adjusted[i];
  return rows;
}

// Every item with all answers to it; items on which plans disagree come first.
OrderedJson collect_items(const Loaded& loaded) {
  struct Answers {
    OrderedJson list = OrderedJson::array();
    std::int64_t flips = 0;  // answers whose correctness differs from the reference's
    std::string category;
    std::string expected;
  };
  std::map<std::string, std::map<std::string, Answers>> by_task;  // task -> item -> answers
  // The reference's by (model, task, effort, item, repeat).
  std::map<std::tuple<std::string, std::string, std::string, std::string, std::int64_t>,
           const LedgerLine*>
      reference;
  for (const TaskCase& task : loaded.tasks) {
    if (task.record.plan != kReferencePlan) continue;
    for (const LedgerLine& line : task.lines) {
      reference[{task.record.model, task.task, task.effort, line.item, line.repeat}] = &line;
    }
  }
  std::map<std::string, OrderedJson> scenario_of;  // by task; one that includes items, if any does
  for (const TaskCase& task : loaded.tasks) {
    OrderedJson& scenario = scenario_of[task.task];
    if (scenario.is_null() || !scenario.value("include_items", false)) {
      scenario = task.record.scenario;
    }
    for (const LedgerLine& line : task.lines) {
      Answers& answers = by_task[task.task][line.item];
      answers.category = line.category;
      // Options may stand in another order in each repeat; what is shown is the first.
      if (line.repeat == 0 || answers.expected.empty()) answers.expected = line.expected;
      const auto it =
          reference.find({task.record.model, task.task, task.effort, line.item, line.repeat});
      const LedgerLine* base = it == reference.end() ? nullptr : it->second;
      const bool flipped = base != nullptr && base->correct() != line.correct();
      answers.flips += flipped ? 1 : 0;
      answers.list.push_back({{"model", task.record.model},
                              {"plan", task.record.plan},
                              {"effort", task.effort},
                              {"repeat", line.repeat},
                              {"verdict", verdict_name(line.verdict)},
                              {"flipped", flipped},
                              {"answer", line.answer},
                              {"output_tokens", line.output_tokens},
                              {"e2e_ms", line.timing.e2e_ms},
                              {"analysis", line.analysis},
                              {"final", line.final_text}});
      if (!line.hidden_text_hash.empty()) {
        answers.list.back()["hidden_text_hash"] = line.hidden_text_hash;
      }
      if (base == nullptr) continue;
      if (const auto divergence = first_divergence(*base, line)) {
        answers.list.back()["first_divergence"] = {
            {"token", divergence->token},
            {"text", divergence->in_final ? "final" : "analysis"},
            {"byte", divergence->byte},
            {"bytes", divergence->bytes}};
      }
    }
  }
  OrderedJson items = OrderedJson::array();
  for (auto& [task_name, answers_by_item] : by_task) {
    const std::map<std::string, TaskItem> known = shown_items(scenario_of.at(task_name));
    for (auto& [id, answers] : answers_by_item) {
      OrderedJson item = {{"task", task_name},
                          {"id", id},
                          {"category", answers.category},
                          {"expected", answers.expected},
                          {"flips", answers.flips}};
      if (const auto it = known.find(id); it != known.end()) {
        item["question"] = it->second.question;
        item["choices"] = it->second.choices;
      }
      item["answers"] = std::move(answers.list);
      items.push_back(std::move(item));
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const OrderedJson& a, const OrderedJson& b) {
    return a.at("flips").get<std::int64_t>() > b.at("flips").get<std::int64_t>();
  });
  return items;
}

std::string default_title(const Loaded& loaded) {
  std::string title;
  for (const RunResults& run : loaded.runs) {
    title += fmt::format("{}{}", title.empty() ? "" : " + ",
                         run.description.value("suite", std::string("run")));
  }
  return title;
}

}  // namespace

OrderedJson build_report(const std::vector<std::filesystem::path>& runs,
                         const ReportOptions& options) {
  const Loaded loaded = load_runs(runs);
  OrderedJson report = {
      {"schema", kReportSchema},
      {"title", options.title.empty() ? default_title(loaded) : options.title},
      {"generated", utc_now()},
      {"generator", {{"version", build_info::kVersion}, {"git_commit", build_info::kGitCommit}}},
      {"runs", OrderedJson::array()}};
  for (const RunResults& run : loaded.runs) report["runs"].push_back(run.description);
  OrderedJson summary = OrderedJson::array();
  for (const PlanKey& key : loaded.plans) summary.push_back(summarise(loaded, key));
  report["summary"] = std::move(summary);
  report["comparisons"] = compare_all(loaded);
  report["verdicts"] = loaded.verdicts;
  OrderedJson records = OrderedJson::array();
  for (const Record& record : loaded.records) records.push_back(to_json(record));
  report["records"] = std::move(records);
  report["items"] = options.include_items ? collect_items(loaded) : OrderedJson::array();
  return report;
}

std::filesystem::path write_report(const std::filesystem::path& run, const ReportOptions& options) {
  const OrderedJson report = build_report({run}, options);
  write_file_atomically(run / "report.json",
                        report.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  const std::filesystem::path page = run / "report.html";
  write_file_atomically(page, render_html(report));
  return page;
}

}  // namespace moebench
