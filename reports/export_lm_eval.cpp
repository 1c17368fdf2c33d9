// From records and ledgers to lm-eval's keys (version 0.4).
#include "reports/export_lm_eval.h"

#include <algorithm>
#include <map>

#include "bench/build_info.h"
#include "bench/scenario.h"
#include "evals/run_task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

// "2026-01-31T12-00-00.000000" of "2026-01-31T12:00:00Z".
std::string file_time(const Record& record) {
  std::string time = record.started.substr(0, 19);
  std::replace(time.begin(), time.end(), ':', '-');
  return lm_eval_file_name(time) + ".000000";
}

struct TaskCase {
  const Record* record = nullptr;
  std::string name;  // the key of lm-eval's objects
  std::vector<LedgerLine> lines;
  std::map<std::string, TaskItem> items;  // none where texts are kept back or not here

  bool by_likelihood() const { return !lines.front().options.empty(); }
  std::string filter() const {
    if (by_likelihood()) return "none";
    const auto it = record->details.find("protocol");
    return it == record->details.end() ? "none" : it->value("extraction", "none");
  }
};

std::map<std::string, TaskItem> public_items(const Record& record) {
  std::map<std::string, TaskItem> items;
  try {
    const Task task = find_task(record.scenario.value("task", ""));
    if (!task.public_text && !record.scenario.value("include_items", false)) return items;
    for (TaskItem& item : task.load(record.scenario.value("protocol", "")).items) {
      items.emplace(item.id, std::move(item));
    }
  } catch (const Error&) {
    items.clear();  // the dataset is not on this machine: samples do without its texts
  }
  return items;
}

std::string title_of(const Record& record) {
  return task_title(record.scenario.value("task", ""), record.scenario.value("protocol", ""));
}

void add_score(OrderedJson& scores, const std::string& metric, const std::string& filter,
               const MeanEstimate& estimate) {
  scores[fmt::format("{},{}", metric, filter)] = estimate.mean;
  scores[fmt::format("{}_stderr,{}", metric, filter)] =
      estimate.standard_error ? OrderedJson(*estimate.standard_error) : OrderedJson("N/A");
}

OrderedJson sampling_json(const OrderedJson& scenario) {
  OrderedJson json = OrderedJson::object();
  for (const char* name : {"temperature", "top_p", "top_k", "min_p", "max_tokens"}) {
    if (scenario.contains(name)) json[name] = scenario.at(name);
  }
  return json;
}

OrderedJson options_json(const LedgerLine& line) {
  OrderedJson list = OrderedJson::array();
  for (const OptionScore& option : line.options) {
    list.push_back(OrderedJson::array({fmt::format("{}", option.log_probability)}));
  }
  return list;
}

// One line of a samples file: a question with all of its answers.
OrderedJson sample_json(const TaskCase& task, std::int64_t doc_id,
                        const std::vector<const LedgerLine*>& answers) {
  const LedgerLine& first = *answers.front();
  OrderedJson doc = {{"id", first.item}, {"category", first.category}};
  OrderedJson arguments = OrderedJson::object();
  const auto it = task.items.find(first.item);
  if (it != task.items.end()) {
    const TaskItem& item = it->second;
    doc["question"] = item.question;
    doc["choices"] = item.choices;
    if (task.by_likelihood()) {
      for (std::size_t i = 0; i < item.options.size(); ++i) {
        arguments[fmt::format("gen_args_{}", i)] = {{"arg_0", item.options[i].context},
                                                    {"arg_1", item.options[i].continuation}};
      }
    } else {
      arguments["gen_args_0"] = {{"arg_0", item.user_message},
                                 {"arg_1", sampling_json(task.record->scenario)}};
    }
  }
  OrderedJson responses = OrderedJson::array();
  OrderedJson filtered = OrderedJson::array();
  double right = 0;
  for (const LedgerLine* line : answers) {
    right += line->correct() ? 1 : 0;
    if (task.by_likelihood()) continue;
    responses.push_back(line->final_text);
    filtered.push_back(line->answer);
  }
  right /= static_cast<double>(answers.size());
  OrderedJson json = {
      {"doc_id", doc_id}, {"doc", doc}, {"target", first.expected}, {"arguments", arguments}};
  if (task.by_likelihood()) {
    json["resps"] = OrderedJson::array();
    for (const OrderedJson& option : options_json(first)) {
      json["resps"].push_back(OrderedJson::array({option}));
    }
    json["filtered_resps"] = options_json(first);
  } else {
    json["resps"] = OrderedJson::array({responses});
    json["filtered_resps"] = filtered;
  }
  json["filter"] = task.filter();
  json["metrics"] = OrderedJson::array({task.by_likelihood() ? "acc" : "exact_match"});
  json["doc_hash"] = hash_hex(content_hash(first.item));
  json["prompt_hash"] = first.item_hash;
  json["target_hash"] = hash_hex(content_hash(first.expected));
  json[task.by_likelihood() ? "acc" : "exact_match"] = right;
  return json;
}

std::string samples_text(const TaskCase& task) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const LedgerLine*>> by_item;
  for (const LedgerLine& line : task.lines) {
    auto& answers = by_item[line.item];
    if (answers.empty()) order.push_back(line.item);
    answers.push_back(&line);
  }
  std::sort(order.begin(), order.end());
  std::string text;
  for (std::size_t i = 0; i < order.size(); ++i) {
    auto& answers = by_item[order[i]];
    std::sort(answers.begin(), answers.end(),
              [](const auto* a, const auto* b) { return a->repeat < b->repeat; });
    text += json_line(sample_json(task, static_cast<std::int64_t>(i), answers)) + "\n";
  }
  return text;
}

OrderedJson results_json(const std::string& model, const std::string& plan,
                         const std::vector<TaskCase>& tasks) {
  OrderedJson results = OrderedJson::object();
  OrderedJson configs = OrderedJson::object();
  OrderedJson versions = OrderedJson::object();
  OrderedJson higher = OrderedJson::object();
  OrderedJson samples = OrderedJson::object();
  double seconds = 0;
  for (const TaskCase& task : tasks) {
    const Record& record = *task.record;
    const TaskScore score = score_lines(task.lines);
    const std::string metric = task.by_likelihood() ? "acc" : "exact_match";
    OrderedJson scores = {{"name", task.name}, {"alias", task.name}};
    std::map<std::string, int> items;
    for (const LedgerLine& line : task.lines) items[line.item] = 1;
    scores["sample_len"] = items.size();
    add_score(scores, metric, task.filter(), score.accuracy);
    higher[task.name] = {{metric, true}};
    for (const auto& [ours, theirs] :
         {std::pair{"characters", "acc_norm"}, {"bytes", "acc_bytes"}}) {
      const auto it = score.accuracy_by_normalisation.find(ours);
      if (it == score.accuracy_by_normalisation.end()) continue;
      add_score(scores, theirs, task.filter(), it->second);
      higher[task.name][theirs] = true;
    }
    results[task.name] = scores;
    const OrderedJson protocol = record.details.value("protocol", OrderedJson::object());
    configs[task.name] = {
        {"task", task.name},
        {"output_type", task.by_likelihood() ? "multiple_choice" : "generate_until"},
        {"generation_kwargs", sampling_json(record.scenario)},
        {"repeats", record.scenario.value("repeats", 1)},
        {"metadata",
         {{"version", record.details.value("dataset_hash", "")},
          {"moebench_task", record.scenario.value("task", "")},
          {"reasoning_effort", record.scenario.value("effort", "")},
          {"protocol", protocol.value("name", "")}}}};
    versions[task.name] = record.details.value("dataset_hash", "");
    samples[task.name] = {{"original", items.size()}, {"effective", items.size()}};
    seconds += record.duration_s;
  }
  const Record& first = *tasks.front().record;
  const std::int64_t limit = first.scenario.value("limit", std::int64_t{0});
  OrderedJson config = {{"model", "moebench"},
                        {"model_args", fmt::format("model={},plan={}", model, plan)},
                        {"batch_size", first.details.value("max_batch", std::int64_t{0})},
                        {"batch_sizes", OrderedJson::array()},
                        {"device", nullptr},
                        {"use_cache", nullptr},
                        {"limit", limit > 0 ? OrderedJson(limit) : OrderedJson()},
                        {"bootstrap_iters", 0},
                        {"gen_kwargs", sampling_json(first.scenario)},
                        {"random_seed", first.scenario.value("seed", std::int64_t{0})}};
  if (config.at("batch_size") == 0) config["batch_size"] = nullptr;
  return {{"results", results},
          {"group_subtasks", OrderedJson::object()},
          {"configs", configs},
          {"versions", versions},
          {"n-shot", OrderedJson::object()},
          {"higher_is_better", higher},
          {"n-samples", samples},
          {"config", config},
          {"git_hash", build_info::kGitCommit},
          {"date", first.started},
          {"lm_eval_version", fmt::format("moebench {}", build_info::kVersion)},
          {"task_hashes", OrderedJson::object()},
          {"model_source", "moebench"},
          {"model_name", fmt::format("{} ({})", model, plan)},
          {"model_name_sanitized", lm_eval_file_name(model + "__" + plan)},
          {"system_instruction", nullptr},
          {"chat_template", nullptr},
          {"total_evaluation_time_seconds", fmt::format("{}", seconds)}};
}

}  // namespace

std::string lm_eval_file_name(std::string name) {
  for (char& c : name) {
    const bool bad = std::string_view("\"<>:/|\\?*[] ").find(c) != std::string_view::npos ||
                     static_cast<unsigned char>(c) < 0x20;
    if (bad) c = '_';
  }
  return name.empty() || name.front() == '.' ? "_" + name : name;
}

std::vector<std::filesystem::path> export_lm_eval(const RunResults& run,
                                                  const std::filesystem::path& folder) {
  std::vector<std::pair<std::string, std::string>> plans;
  std::map<std::pair<std::string, std::string>, std::vector<TaskCase>> cases;
  for (const Record& record : run.records) {
    if (record.kind != "task" || record.status != Status::kOk) continue;
    TaskCase one{&record, title_of(record), run.answers(record.case_id), {}};
    if (one.lines.empty()) continue;
    one.items = public_items(record);
    const std::pair key{record.model, record.plan};
    if (!cases.contains(key)) plans.push_back(key);
    cases[key].push_back(std::move(one));
  }
  require(!plans.empty(), "export {}: it holds no answers to tasks", run.path.string());

  std::vector<std::filesystem::path> written;
  for (const auto& key : plans) {
    std::vector<TaskCase>& tasks = cases[key];
    std::map<std::string, int> ways;
    for (const TaskCase& task : tasks) ++ways[task.name];
    std::map<std::string, int> taken;
    for (TaskCase& task : tasks) {
      if (ways[task.name] > 1) task.name += "_" + task.record->scenario.value("effort", "");
      // The same task and effort with other sampling.
      if (const int number = taken[task.name]++; number > 0) {
        task.name += fmt::format("_{}", number + 1);
      }
    }
    const std::filesystem::path own = folder / lm_eval_file_name(key.first + "__" + key.second);
    std::filesystem::create_directories(own);
    const std::string time = file_time(*tasks.front().record);
    const auto write = [&](const std::string& name, const std::string& text) {
      write_file_atomically(own / name, text);
      written.push_back(own / name);
    };
    write(fmt::format("results_{}.json", time),
          results_json(key.first, key.second, tasks)
                  .dump(2, ' ', false, OrderedJson::error_handler_t::replace) +
              "\n");
    for (const TaskCase& task : tasks) {
      write(fmt::format("samples_{}_{}.jsonl", lm_eval_file_name(task.name), time),
            samples_text(task));
    }
  }
  return written;
}

}  // namespace moebench
