// Reading llama-bench's and vLLM's results, and telling all tools' files apart.
#include "reports/import_results.h"

#include <algorithm>
#include <cmath>

#include "bench/environment.h"
#include "bench/run.h"
#include "bench/workloads.h"
#include "engine/mapped_file.h"
#include "evals/statistics.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "reports/export_lm_eval.h"
#include "reports/import_samples.h"
#include "reports/import_scores.h"

namespace moebench {
namespace {

constexpr std::size_t kMostResults = 100'000;
constexpr std::size_t kMostBytes = std::size_t{256} << 20;

// A key that may be absent or null, but has its type otherwise.
std::optional<double> number(const Json& json, const char* key, const std::string& where) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return std::nullopt;
  require(it->is_number() && std::isfinite(it->get<double>()), "{}.{}: expected a number, got {}",
          where, key, json_excerpt(*it));
  return it->get<double>();
}

std::int64_t whole(const Json& json, const char* key, const std::string& where) {
  const double value = number(json, key, where).value_or(0);
  require(value >= 0 && value <= 1e15 && value == std::floor(value),
          "{}.{}: {} is not a whole number of tokens, requests or bytes", where, key, value);
  return static_cast<std::int64_t>(value);
}

std::string text_of(const Json& json, const char* key, std::string fallback) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : fallback;
}

std::vector<double> numbers(const Json& json, const char* key, const std::string& where) {
  std::vector<double> values;
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return values;
  require(it->is_array(), "{}.{}: expected a list of numbers", where, key);
  for (const Json& value : *it) {
    require(value.is_number() && std::isfinite(value.get<double>()),
            "{}.{}: expected numbers, got {}", where, key, json_excerpt(value));
    values.push_back(value.get<double>());
  }
  return values;
}

// "2026-01-31T12:00:00Z" from what is given, or now: reports want a time.
std::string utc_or_now(const std::string& text) {
  const bool fits = text.size() == 20 && text[4] == '-' && text[7] == '-' && text[10] == 'T' &&
                    text[13] == ':' && text[16] == ':' && text[19] == 'Z';
  return fits ? text : utc_now();
}

bool is_llama_bench(const Json& json) { return json.is_object() && json.contains("avg_ts"); }
bool is_vllm(const Json& json) {
  return json.is_object() && json.contains("duration") && json.contains("request_throughput");
}

// A test of prompt and generation together (-pg) has no counterpart here.
bool is_combined(const Json& row, const std::string& where) {
  return whole(row, "n_prompt", where) > 0 && whole(row, "n_gen", where) > 0;
}

Record llama_bench_record(const Json& row, const std::string& where) {
  Record record;
  record.model = text_of(row, "model_filename", "a model");
  record.model = std::filesystem::path(record.model).filename().string();
  record.plan = text_of(row, "plan", "");
  if (record.plan.empty()) {
    record.plan = fmt::format("llama.cpp {} {}", text_of(row, "build_commit", ""),
                              text_of(row, "model_type", ""));
  }
  const std::int64_t depth = whole(row, "n_depth", where);
  const std::int64_t prompt = whole(row, "n_prompt", where);
  const std::int64_t generate = whole(row, "n_gen", where);
  const std::int64_t batch = std::max<std::int64_t>(1, whole(row, "n_parallel", where));
  require(prompt + generate > 0, "{}: neither n_prompt nor n_gen is there", where);
  Scenario scenario = PrefillScenario{prompt, depth, 1};
  if (prompt == 0) {
    scenario = DecodeScenario{batch, std::max<std::int64_t>(1, depth), generate, 1};
  }
  record.kind = scenario_kind(scenario);
  record.label = fmt::format("{} / {}", record.plan, scenario_label(scenario));
  record.scenario = scenario_to_json(scenario);
  record.started = utc_or_now(text_of(row, "test_time", ""));
  const auto samples = numbers(row, "samples_ts", where);
  const auto mean = number(row, "avg_ts", where);
  require(!samples.empty() || mean, "{}: neither samples_ts nor avg_ts is there", where);
  Metric rate = samples.empty() ? plain_metric(*mean, "tokens/s", "higher", 1)
                                : median_metric(samples, "tokens/s", "higher");
  if (samples.empty()) rate.interval_method = "the mean; the file has no samples";
  record.metrics[rate_metric(record.kind)] = rate;
  record.details["build_commit"] = text_of(row, "build_commit", "");
  return record;
}

// "512" if all are the same, else "mean 487".
std::string lengths_text(const std::vector<double>& each, double total, double count) {
  if (!each.empty() &&
      std::all_of(each.begin(), each.end(), [&](double v) { return v == each.front(); })) {
    return fmt::format("{}", each.front());
  }
  return fmt::format("mean {:.0f}", count > 0 ? total / count : 0);
}

std::string vllm_load(const Json& row, const std::string& where) {
  const auto rate = row.find("request_rate");
  const bool endless = rate == row.end() || rate->is_string() || rate->is_null();
  const std::int64_t concurrency = whole(row, "max_concurrency", where);
  std::string load = "serve ";
  if (endless && concurrency > 0) {
    load += fmt::format("{} at once", concurrency);
  } else {
    const double burstiness = number(row, "burstiness", where).value_or(1);
    load += burstiness == 1 ? std::string("poisson") : fmt::format("burst {}", burstiness);
    load += endless ? std::string(" inf/s")
                    : fmt::format(" {}/s", number(row, "request_rate", where).value());
    if (concurrency > 0) load += fmt::format(", at most {}", concurrency);
  }
  const double completed = number(row, "completed", where).value_or(0);
  return fmt::format(
      "{}, {} in, {} out", load,
      lengths_text(numbers(row, "input_lens", where),
                   number(row, "total_input_tokens", where).value_or(0), completed),
      lengths_text(numbers(row, "output_lens", where),
                   number(row, "total_output_tokens", where).value_or(0), completed));
}

Record vllm_record(const Json& row, const std::string& file, const std::string& where) {
  Record record;
  record.model = text_of(row, "model_id", "a model");
  // Without a label, files are told apart by their names.
  record.plan =
      text_of(row, "label", fmt::format("{} ({})", text_of(row, "backend", "vllm"), file));
  record.kind = "serve";
  record.label = fmt::format("{} / {}", record.plan, vllm_load(row, where));
  record.scenario = {{"kind", "serve"}, {"imported", "vllm bench serve"}};
  record.started = utc_now();
  const std::int64_t completed = whole(row, "completed", where);
  const auto add = [&](const char* key, const std::string& name, const char* unit,
                       const char* better) {
    const auto value = number(row, key, where);
    if (value) record.metrics[name] = plain_metric(*value, unit, better, completed);
  };
  add("request_throughput", "requests_per_second", "requests/s", "higher");
  add("output_throughput", rate_metric("serve"), "tokens/s", "higher");
  add("total_token_throughput", "total_tokens_per_second", "tokens/s", "higher");
  add("request_goodput", "goodput_requests_per_second", "requests/s", "higher");
  add("failed", "failed_requests", "requests", "lower");
  for (const auto& [theirs, ours] :
       {std::pair{"ttft", "ttft"}, {"tpot", "tpot"}, {"itl", "itl"}, {"e2el", "e2e"}}) {
    for (const auto& [statistic, suffix, q] :
         {std::tuple{"mean", "mean", 0.5}, {"median", "p50", 0.5}, {"p99", "p99", 0.99}}) {
      const std::string name = fmt::format("{}_ms_{}", ours, suffix);
      add(fmt::format("{}_{}_ms", statistic, theirs).c_str(), name, "ms", "lower");
      const auto it = record.metrics.find(name);
      // Of gaps there are more than requests; how many, the file need not say.
      if (it == record.metrics.end() || theirs == std::string_view("itl") ||
          percentile_is_supported(completed, q)) {
        continue;
      }
      it->second.absent = true;
      it->second.interval_method = fmt::format("{} samples are too few", completed);
    }
  }
  record.details["duration_s"] = number(row, "duration", where).value_or(0);
  return record;
}

OrderedJson describe(std::string_view where, const Json& row, const std::vector<Record>& records) {
  const std::string cpu = text_of(row, "cpu_info", "not known");
  OrderedJson models = OrderedJson::array();
  OrderedJson plans = OrderedJson::array();
  const auto has = [](const OrderedJson& list, const std::string& name) {
    return std::any_of(list.begin(), list.end(),
                       [&](const OrderedJson& one) { return one.at("name") == name; });
  };
  for (const Record& record : records) {
    if (!has(models, record.model)) {
      // No weights were seen: the hash is that of the name, and equals no checkpoint's.
      models.push_back({{"name", record.model},
                        {"family", "not known"},
                        {"hash", hash_hex(content_hash("imported " + record.model))},
                        {"parameters", 0}});
    }
    if (!has(plans, record.plan)) {
      plans.push_back({{"name", record.plan},
                       {"kv", text_of(row, "type_k", "not known")},
                       {"text", "imported"},
                       {"canonical", "imported " + record.plan}});
    }
  }
  return {{"schema", kRunSchema},
          {"suite", where},
          {"description", "Imported: measured by another tool."},
          {"started", records.front().started},
          {"environment",
           {{"cpu", cpu},
            {"logical_cpus", 0},
            {"usable_cpus", 0},
            {"memory_bytes", 0},
            {"os", "not known"},
            {"compiler", "not known"},
            {"build_type", "not known"},
            {"version", "not known"},
            {"git_commit", text_of(row, "build_commit", "not known")}}},
          {"models", models},
          {"plans", plans},
          {"cases", OrderedJson::array()}};
}

// A file of samples alone: the answers are all there is.
std::vector<Record> sample_records(const std::vector<Json>& rows, std::string_view where,
                                   ImportedRun& run) {
  const std::string task = task_of_samples_file(where);
  SampleReader reader(task);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    reader.add(rows[i], fmt::format("{}: [{}]", where, i));
  }
  std::vector<Record> records;
  for (auto& [filter, answers] : reader.finish()) {
    require(!answers.lines.empty(), "{}: the answers of filter {} cannot be told apart: {}", where,
            filter, answers.reason);
    Record record = lm_eval_samples_record(task, filter);
    record.case_id = hash_hex(content_hash(fmt::format("{} {}", where, record.label)));
    add_answer_scores(answers.lines, record);
    run.answers[record.case_id] = std::move(answers.lines);
    records.push_back(std::move(record));
  }
  return records;
}

// What lm-eval says of a filter's score must be what its samples say, or they are of another run.
std::string why_not_of(const Record& record, const LoggedAnswers& answers) {
  if (answers.lines.empty()) return answers.reason;
  const auto right = std::count_if(answers.lines.begin(), answers.lines.end(),
                                   [](const LedgerLine& line) { return line.correct(); });
  const double mean = static_cast<double>(right) / static_cast<double>(answers.lines.size());
  const auto accuracy = record.metrics.find("accuracy");
  const bool agrees =
      accuracy != record.metrics.end() && std::abs(accuracy->second.value - mean) <= 1e-6;
  return agrees ? "" : fmt::format("their mean is {:.6g}, which is not the score", mean);
}

// The samples beside results_<time>.json, of the same time.
void add_samples_beside(const std::filesystem::path& path, ImportedRun& run) {
  constexpr std::string_view kPrefix = "results_";
  const std::string stem = path.stem().string();
  if (!stem.starts_with(kPrefix)) return;
  const std::string ending = "_" + stem.substr(kPrefix.size()) + ".jsonl";
  std::map<std::string, std::filesystem::path> samples;  // by task
  for (const auto& entry : std::filesystem::directory_iterator(
           path.has_parent_path() ? path.parent_path() : std::filesystem::path("."))) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name.ends_with(ending)) {
      samples[task_of_samples_file(name)] = entry.path();
    }
  }
  std::map<std::string, std::map<std::string, LoggedAnswers>> read;
  for (Record& record : run.records) {
    const auto about = record.details.find("lm_eval");
    if (about == record.details.end()) continue;
    const auto task = about->at("task").get<std::string>();
    const auto file = samples.find(lm_eval_file_name(task));
    if (file == samples.end()) continue;
    if (!read.contains(task)) {
      SampleReader reader(task);
      for_each_json_line(
          read_text_file(file->second, kMostBytes), file->second.filename().string(), 64,
          [&](const Json& json, const std::string& place) { reader.add(json, place); });
      read[task] = reader.finish();
    }
    LoggedAnswers& answers = read[task][about->at("filter").get<std::string>()];
    const std::string reason = why_not_of(record, answers);
    if (!reason.empty()) {
      record.details["samples_left_out"] = reason;
      continue;
    }
    add_answer_details(answers.lines, record);
    run.answers[record.case_id] = std::move(answers.lines);
  }
}

// One value, a list of them, or lines.
std::vector<Json> rows_of(std::string_view text, std::string_view where) {
  std::vector<Json> rows;
  try {
    Json whole_text = parse_json(text, where);
    if (!whole_text.is_array()) return {std::move(whole_text)};
    for (Json& row : whole_text) rows.push_back(std::move(row));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kParse) throw;
    for_each_json_line(text, where, 64,
                       [&](const Json& row, const std::string&) { rows.push_back(row); });
  }
  return rows;
}

}  // namespace

ImportedRun import_results_text(std::string_view text, std::string_view where) {
  const std::vector<Json> rows = rows_of(text, where);
  require(rows.size() <= kMostResults, "{}: more than {} results", where, kMostResults);
  ImportedRun run;
  const Json* first = nullptr;
  if (!rows.empty() && is_lm_eval_sample(rows.front())) {
    run.records = sample_records(rows, where, run);
    require(!run.records.empty(), "{}: its samples have neither acc nor exact_match", where);
    run.description = describe(where, rows.front(), run.records);
    return run;
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::string place = fmt::format("{}: [{}]", where, i);
    std::vector<Record> records;
    if (is_llama_bench(rows[i])) {
      if (!is_combined(rows[i], place)) records.push_back(llama_bench_record(rows[i], place));
    } else if (is_vllm(rows[i])) {
      records.push_back(vllm_record(rows[i], std::string(where), place));
    } else if (is_lm_eval(rows[i])) {
      records = lm_eval_records(rows[i], place);
    } else {
      require(is_simple_evals(rows[i]),
              "{}: a result neither of llama-bench (avg_ts), vllm bench serve "
              "(request_throughput), lm-eval (results, or its samples), nor of gpt_oss.evals or "
              "simple-evals "
              "(score)",
              place);
      records.push_back(simple_evals_record(rows[i], std::string(where), place));
    }
    for (Record& record : records) {
      record.case_id = hash_hex(content_hash(fmt::format("{} {} {}", where, i, record.label)));
      run.records.push_back(std::move(record));
      if (first == nullptr) first = &rows[i];
    }
  }
  require(first != nullptr, "{}: it holds no result that has a counterpart here", where);
  run.description = describe(where, *first, run.records);
  return run;
}

ImportedRun import_results(const std::filesystem::path& path) {
  ImportedRun run = import_results_text(read_text_file(path, kMostBytes), path.filename().string());
  add_samples_beside(path, run);
  return run;
}

}  // namespace moebench
