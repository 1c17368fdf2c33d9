// Records and files of several folders into one.
#include "reports/merge_runs.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "bench/event_log.h"
#include "bench/run_folder.h"
#include "bench/task_record.h"
#include "bench/workloads.h"
#include "engine/mapped_file.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/shard.h"
#include "reports/compare_metrics.h"
#include "reports/run_results.h"

namespace moebench {
namespace {

namespace fs = std::filesystem;
using comparing::object_at;
using comparing::text_at;

// What answers of the record's task vote for; nothing if its questions are not here.
VoteOf votes_if_known(const Record& record) {
  try {
    const Task task = find_task(text_at(record.scenario, "task"));
    return votes_of(task, task.protocol(text_at(record.scenario, "protocol")));
  } catch (const Error&) {
    return {};
  }
}

// A case's record in one of the runs.
struct Found {
  const RunResults* run;
  const Record* record;
};

// What must be equal for two folders to be parts of one run.
OrderedJson identity_of(const RunResults& run) {
  const auto fields_of = [&](const char* list, const char* a, const char* b) {
    OrderedJson out = OrderedJson::array();
    for (const OrderedJson& one : object_at(run.description, list)) {
      out.push_back({text_at(one, a), text_at(one, b)});
    }
    return out;
  };
  return {{"suite", text_at(run.description, "suite")},
          {"models", fields_of("models", "name", "hash")},
          {"plans", fields_of("plans", "name", "canonical")},
          {"threads", object_at(run.description, "threads")},
          {"max_batch", object_at(run.description, "max_batch")},
          {"cases", fields_of("cases", "id", "label")}};
}

void check_same_suite(const std::vector<RunResults>& runs) {
  const OrderedJson first = identity_of(runs.front());
  for (const RunResults& run : runs) {
    const OrderedJson other = identity_of(run);
    for (const auto& [name, value] : first.items()) {
      require(
          other.at(name) == value,
          "merge {}: its {} are not those of {} (parts of one run come from one suite, with the "
          "same settings and models)",
          run.path.string(), name, runs.front().path.string());
    }
  }
}

// Ids become names of files.
std::string checked_id(const OrderedJson& one, const fs::path& where) {
  const std::string id = text_at(one, "id");
  const bool good = id.size() == 16 && id.find_first_not_of("0123456789abcdef") == id.npos;
  require(good, "merge {}: '{}' is no case id (16 hexadecimal digits)", where.string(),
          id.substr(0, 40));
  return id;
}

bool is_good(const Found& found) { return found.record->status == Status::kOk; }

// The part of a task's questions that a record is about; nothing if it is about all.
std::optional<Shard> question_shard(const Record& record) {
  const std::string text = text_at(record.details, "question_shard");
  if (text.empty()) return std::nullopt;
  return parse_shard(text, fmt::format("merge {}: its question_shard", record.label),
                     [](const char*) { return std::nullopt; });
}

class Merger {
 public:
  Merger(const std::vector<RunResults>& runs, const fs::path& out_dir, MergeOutcome& outcome)
      : runs_(runs), out_dir_(out_dir), outcome_(outcome), results_(out_dir / "results.jsonl") {}

  void add_case(const std::string& id, const std::string& label) {
    std::vector<Found> found;
    for (const RunResults& run : runs_) {
      for (const Record& record : run.records) {
        if (record.case_id == id) found.push_back({&run, &record});
      }
    }
    ++outcome_.cases_total;
    if (found.empty()) {
      outcome_.missing.push_back(label);
      return;
    }
    const bool parts = std::any_of(found.begin(), found.end(), [](const Found& f) {
      return question_shard(*f.record).has_value();
    });
    const bool whole = std::any_of(found.begin(), found.end(), [](const Found& f) {
      return is_good(f) && !question_shard(*f.record);
    });
    Record record = parts && !whole ? join_parts(found) : choose(found);
    outcome_.cases_ok += record.status == Status::kOk ? 1 : 0;
    results_.append(json_line(to_json(record)));
  }

 private:
  Record choose(const std::vector<Found>& found) {
    const auto usable = [](const Found& f) { return is_good(f) && !question_shard(*f.record); };
    const auto good = std::find_if(found.begin(), found.end(), usable);
    const Found& chosen = good != found.end() ? *good : found.front();
    const auto num_good = std::count_if(found.begin(), found.end(), usable);
    if (num_good > 1 && chosen.record->kind != "load") {
      outcome_.notes.push_back(fmt::format("{}: {} runs have it; the one of {} is kept",
                                           chosen.record->label, num_good,
                                           text_at(chosen.run->description, "folder")));
    }
    const std::string& id = chosen.record->case_id;
    copy(ledger_path(chosen.run->path, id), ledger_path(out_dir_, id));
    copy(event_log_path(chosen.run->path, id), event_log_path(out_dir_, id));
    return *chosen.record;
  }

  // One record from those of parts of the questions.
  Record join_parts(const std::vector<Found>& found) {
    std::map<int, Found> by_index;
    std::vector<std::string> bad;
    int count = 0;
    for (const Found& f : found) {
      const std::optional<Shard> shard = question_shard(*f.record);
      if (!is_good(f) || !shard) {
        bad.push_back(fmt::format("{}: {}: {}", text_at(f.run->description, "folder"),
                                  status_name(f.record->status), f.record->reason));
        continue;
      }
      if (count == 0) count = shard->count;
      require(shard->count == count, "merge {}: one part is of {}, another of {}", f.record->label,
              count, shard->count);
      if (!by_index.emplace(shard->index, f).second) {
        outcome_.notes.push_back(fmt::format("{}: part {} is there twice; the first is kept",
                                             f.record->label, shard->text()));
      }
    }
    Record record = *(by_index.empty() ? found.front() : by_index.begin()->second).record;
    record.metrics.clear();
    for (const char* name : {"question_shard", "disturbance"}) record.details.erase(name);
    std::vector<LedgerLine> lines;
    LineWriter ledger(ledger_path(out_dir_, record.case_id));
    record.duration_s = 0;
    std::int64_t resumed = 0;
    double peak = 0;
    for (const auto& [index, f] : by_index) {
      require(text_at(f.record->details, "dataset_hash") == text_at(record.details, "dataset_hash"),
              "merge {}: its parts were asked questions of different datasets", record.label);
      for (LedgerLine& line : f.run->answers(record.case_id)) {
        ledger.append(json_line(to_json(line)));
        lines.push_back(std::move(line));
      }
      record.started = std::min(record.started, f.record->started);
      record.duration_s += f.record->duration_s;
      const OrderedJson& before = object_at(f.record->details, "resumed_answers");
      resumed += before.is_number_integer() ? before.get<std::int64_t>() : 0;
      const auto it = f.record->metrics.find("peak_rss_bytes");
      if (it != f.record->metrics.end()) peak = std::max(peak, it->second.value);
    }
    record.details["resumed_answers"] = resumed;
    record.details["question_parts"] = count;
    std::vector<int> absent;
    for (int i = 0; i < count; ++i) {
      if (!by_index.contains(i)) absent.push_back(i);
    }
    if (!absent.empty() || by_index.empty()) {
      record.status = Status::kFailed;
      record.reason =
          bad.empty() ? fmt::format("parts {} of {} are missing", fmt::join(absent, ", "), count)
                      : fmt::format("not every part is good: {}", fmt::join(bad, "; "));
      return record;
    }
    add_scores(lines, votes_if_known(record), record);
    add_answer_latencies(lines, record);
    if (peak > 0) record.metrics["peak_rss_bytes"] = plain_metric(peak, "bytes", "lower");
    return record;
  }

  static void copy(const fs::path& from, const fs::path& to) {
    if (!fs::is_regular_file(from)) return;
    fs::create_directories(to.parent_path());
    fs::copy_file(from, to, fs::copy_options::skip_existing);
  }

  const std::vector<RunResults>& runs_;
  const fs::path& out_dir_;
  MergeOutcome& outcome_;
  LineWriter results_;
};

void copy_shared_files(const std::vector<RunResults>& runs, const fs::path& out_dir) {
  std::string log;
  for (const RunResults& run : runs) {
    if (const fs::path weights = run.path / "weights.jsonl"; fs::is_regular_file(weights)) {
      fs::copy_file(weights, out_dir / "weights.jsonl", fs::copy_options::skip_existing);
    }
    if (const fs::path traces = run.path / "traces"; fs::is_directory(traces)) {
      fs::create_directories(out_dir / "traces");
      for (const auto& entry : fs::directory_iterator(traces)) {
        if (!entry.is_regular_file()) continue;
        fs::copy_file(entry.path(), out_dir / "traces" / entry.path().filename(),
                      fs::copy_options::skip_existing);
      }
    }
    if (const fs::path path = run.path / "worker.log"; fs::is_regular_file(path)) {
      log += fmt::format("== {}\n{}", text_at(run.description, "folder"), read_text_file(path));
    }
  }
  if (!log.empty()) write_file_atomically(out_dir / "worker.log", log);
}

// The first run's description, with a line for each part.
OrderedJson merged_description(const std::vector<RunResults>& runs, MergeOutcome& outcome) {
  OrderedJson json = runs.front().description;
  for (const char* name : {"folder", "shard"}) json.erase(name);
  OrderedJson parts = OrderedJson::array();
  std::set<std::string> machines;
  for (const RunResults& run : runs) {
    const OrderedJson& environment = object_at(run.description, "environment");
    const std::string gpu = text_at(object_at(environment, "gpu"), "name");
    const std::string cpu = text_at(environment, "cpu");
    machines.insert(gpu.empty() ? cpu : cpu + ", " + gpu);
    parts.push_back({{"folder", text_at(run.description, "folder")},
                     {"shard", object_at(run.description, "shard")},
                     {"started", text_at(run.description, "started")},
                     {"environment", environment}});
  }
  json["merged_from"] = parts;
  if (machines.size() > 1) {
    outcome.notes.push_back(
        fmt::format("the parts ran on different machines ({}): times of one part are not "
                    "comparable with those of another",
                    fmt::join(machines, "; ")));
  }
  return json;
}

}  // namespace

MergeOutcome merge_runs(const std::vector<fs::path>& runs, const fs::path& out_dir) {
  require(!runs.empty(), "merge runs: no run was given");
  require(!fs::exists(out_dir / "run.json") && !fs::exists(out_dir / "results.jsonl"),
          "merge into {}: it holds a run already (choose another -o)", out_dir.string());
  std::vector<RunResults> parts;
  for (const fs::path& run : runs) {
    require_or(ErrorCode::kIo, fs::is_directory(run),
               "merge {}: it is no folder of a run (what `moebench run --shard` wrote)",
               run.string());
    for (RunResults& part : read_runs_in(run)) parts.push_back(std::move(part));
  }
  check_same_suite(parts);
  MergeOutcome outcome;
  const OrderedJson description = merged_description(parts, outcome);
  const OrderedJson& cases = object_at(description, "cases");
  require(cases.is_array() && !cases.empty(), "merge {}: its run.json lists no cases",
          parts.front().path.string());
  std::vector<std::pair<std::string, std::string>> wanted;
  for (const OrderedJson& one : cases) {
    wanted.emplace_back(checked_id(one, parts.front().path), text_at(one, "label"));
  }
  // run.json comes last: a merge that is cut off leaves no folder that looks like a run.
  Merger merger(parts, out_dir, outcome);
  for (const auto& [id, label] : wanted) merger.add_case(id, label);
  copy_shared_files(parts, out_dir);
  write_file_atomically(
      out_dir / "run.json",
      description.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
  return outcome;
}

}  // namespace moebench
