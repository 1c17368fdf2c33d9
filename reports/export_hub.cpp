// Two small YAML documents.
#include "reports/export_hub.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>

#include "bench/build_info.h"
#include "bench/scenario.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// Where the sets of our tasks are on the Hub.
struct HubDataset {
  std::string_view task;
  std::string_view id;
  std::string_view config;
  std::string_view split;
};
constexpr HubDataset kDatasets[] = {
    {"gpqa_diamond", "Idavidrein/gpqa", "gpqa_diamond", "train"},
    {"gpqa_main", "Idavidrein/gpqa", "gpqa_main", "train"},
    {"gpqa_extended", "Idavidrein/gpqa", "gpqa_extended", "train"},
    {"aime_2025", "opencompass/AIME2025", "", "test"},
    {"mmlu", "cais/mmlu", "all", "test"},
    {"mmlu_pro", "TIGER-Lab/MMLU-Pro", "", "test"},
    {"gsm8k", "openai/gsm8k", "main", "test"},
    {"math_500", "HuggingFaceH4/MATH-500", "", "test"},
    {"arc_easy", "allenai/ai2_arc", "ARC-Easy", "test"},
    {"arc_challenge", "allenai/ai2_arc", "ARC-Challenge", "test"},
    {"hellaswag", "Rowan/hellaswag", "", "validation"},
    {"winogrande", "allenai/winogrande", "winogrande_xl", "validation"},
    {"boolq", "google/boolq", "", "validation"},
};

const HubDataset* hub_dataset(const std::string& task) {
  const auto* it = std::find_if(std::begin(kDatasets), std::end(kDatasets),
                                [&](const HubDataset& one) { return one.task == task; });
  return it == std::end(kDatasets) ? nullptr : it;
}

std::string task_of(const Record& record) { return record.scenario.value("task", ""); }
std::string effort_of(const Record& record) { return record.scenario.value("effort", ""); }

std::string protocol_of(const Record& record) {
  const auto it = record.details.find("protocol");
  return it != record.details.end() && it->is_object() ? it->value("name", "") : "";
}

std::string percent(double share) { return fmt::format("{:.2f}", 100 * share); }

std::string interval_text(const Metric& accuracy) {
  return accuracy.interval ? fmt::format("{} to {}", percent(accuracy.interval->low),
                                         percent(accuracy.interval->high))
                           : "none";
}

// The good task cases of the plan, in order.
std::vector<const Record*> cases_of(const RunResults& run, const std::string& plan) {
  std::vector<const Record*> cases;
  std::vector<std::string> plans;
  for (const Record& record : run.records) {
    const auto accuracy = record.metrics.find("accuracy");
    if (record.kind != "task" || record.status != Status::kOk || accuracy == record.metrics.end() ||
        accuracy->second.absent) {
      continue;
    }
    if (std::find(plans.begin(), plans.end(), record.plan) == plans.end()) {
      plans.push_back(record.plan);
    }
    if (plan.empty() || record.plan == plan) cases.push_back(&record);
  }
  require(!cases.empty(), "export {}: it holds no accuracy{}; its plans with tasks: {}",
          run.path.string(), plan.empty() ? "" : " of plan '" + plan + "'",
          plans.empty() ? "none" : fmt::format("{}", fmt::join(plans, ", ")));
  require(!plan.empty() || plans.size() == 1,
          "export {}: a model repository has room for one plan, this run has {} (choose one)",
          run.path.string(), fmt::join(plans, ", "));
  return cases;
}

}  // namespace

std::string yaml_text(std::string_view text) {
  return OrderedJson(std::string(text)).dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
}

std::string model_index_yaml(const RunResults& run, const std::string& plan) {
  const std::vector<const Record*> cases = cases_of(run, plan);
  std::string text =
      fmt::format("model-index:\n- name: {}\n  results:\n",
                  yaml_text(std::filesystem::path(cases.front()->model).filename().string()));
  for (const Record* record : cases) {
    const std::string task = task_of(*record);
    const HubDataset* hub = hub_dataset(task);
    const std::string title = task_title(task, "");
    text += fmt::format(
        "  - task:\n      type: text-generation\n      name: {}\n",
        yaml_text(title + (effort_of(*record).empty() ? "" : ", effort " + effort_of(*record))));
    text += fmt::format("    dataset:\n      type: {}\n      name: {}\n",
                        yaml_text(hub != nullptr ? hub->id : std::string_view(title)),
                        yaml_text(title));
    if (hub != nullptr && !hub->config.empty()) {
      text += fmt::format("      config: {}\n", yaml_text(hub->config));
    }
    if (hub != nullptr) text += fmt::format("      split: {}\n", yaml_text(hub->split));
    const Metric& accuracy = record->metrics.at("accuracy");
    text += fmt::format(
        "    metrics:\n    - type: accuracy\n      value: {}\n      name: {}\n      args:\n"
        "        plan: {}\n        reasoning_effort: {}\n        protocol: {}\n"
        "        answers: {}\n        interval_95: {}\n",
        percent(accuracy.value), yaml_text("accuracy, per cent"), yaml_text(record->plan),
        yaml_text(effort_of(*record)), yaml_text(protocol_of(*record)), accuracy.count,
        yaml_text(interval_text(accuracy)));
    text += fmt::format("    source:\n      name: {}\n",
                        yaml_text(fmt::format("moebench {}", build_info::kVersion)));
  }
  return text;
}

std::vector<HubFile> eval_results_yaml(const RunResults& run, const std::string& plan) {
  std::vector<HubFile> files;
  std::map<std::string, int> taken;
  for (const Record* record : cases_of(run, plan)) {
    const std::string task = task_of(*record);
    const HubDataset* hub = hub_dataset(task);
    if (hub == nullptr) continue;
    const Metric& accuracy = record->metrics.at("accuracy");
    const std::string notes = fmt::format(
        "Accuracy in per cent (0 to 100) of {} answers, 95 % interval {}. Plan {}, reasoning "
        "effort {}, protocol {}, moebench {}.",
        accuracy.count, interval_text(accuracy), record->plan, effort_of(*record),
        protocol_of(*record), build_info::kVersion);
    HubFile file;
    file.name = fmt::format("{}_{}", task, effort_of(*record));
    if (const int number = taken[file.name]++; number > 0) {
      file.name += fmt::format("_{}", number + 1);
    }
    file.name += ".yaml";
    file.text = fmt::format(
        "- dataset:\n    id: {}\n    task_id: {}\n  value: {}\n  date: {}\n  notes: {}\n",
        yaml_text(hub->id), yaml_text(task), percent(accuracy.value),
        yaml_text(record->started.substr(0, 10)), yaml_text(notes));
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace moebench
