// The parent process of a run.
#include "bench/run.h"

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "bench/case_runner.h"
#include "bench/child_process.h"
#include "bench/environment.h"
#include "bench/host_details.h"
#include "bench/interrupt.h"
#include "bench/run_folder.h"
#include "bench/worker.h"
#include "engine/frontier.h"
#include "engine/mapped_file.h"
#include "kernels/core/append_file.h"
#include "kernels/core/clock.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

using Clock = std::chrono::steady_clock;

// Facts about a model that reports need, from headers alone.
OrderedJson describe_model(const std::string& name) {
  const std::filesystem::path directory = resolve_model(name);
  const ModelConfig config = load_model_config(directory);
  const Checkpoint checkpoint = Checkpoint::open(directory);
  const WeightLayout layout = plan_weights(checkpoint, config, Plan{});
  return {{"name", name},
          {"family", config.family},
          {"hash", checkpoint_hash(directory)},
          {"parameters", layout.parameters()},
          {"num_layers", config.num_layers},
          {"hidden_size", config.hidden_size},
          {"num_experts", config.num_experts},
          {"top_k", config.top_k},
          {"vocab_size", config.vocab_size},
          {"max_context", config.max_context}};
}

// Cases of one (model, plan), in the suite's order: what one child runs.
struct Group {
  std::vector<Case> cases;
};

std::vector<Group> group_cases(const std::vector<Case>& cases, const RunOptions& options) {
  std::vector<Group> groups;
  for (const Case& one : cases) {
    const auto same = [&](const Group& g) {
      return g.cases.front().model == one.model && g.cases.front().plan.name == one.plan.name;
    };
    auto found = std::find_if(groups.begin(), groups.end(), same);
    if (found == groups.end()) found = groups.insert(groups.end(), Group{});
    found->cases.push_back(one);
  }
  const auto& only = options.only_plans;
  std::erase_if(groups, [&](const Group& group) {
    const std::string& plan = group.cases.front().plan.name;
    return !only.empty() && std::find(only.begin(), only.end(), plan) == only.end();
  });
  return groups;
}

bool is_load(const Case& one) { return std::holds_alternative<LoadScenario>(one.scenario); }

// The cases of the groups that are this shard's, as RunOptions::shard describes it.
std::vector<Group> deal_out(std::vector<Group> groups, const RunOptions& options) {
  const Shard all = options.shard;
  if (all.is_whole()) return groups;
  const auto num_groups = static_cast<int>(groups.size());
  std::int64_t number = 0;  // of the case among those that are dealt out
  std::vector<Group> own;
  for (int g = 0; g < num_groups; ++g) {
    Group& group = groups[static_cast<std::size_t>(g)];
    Shard part = all;
    if (!options.shard_questions && all.count <= num_groups) {
      if (!all.takes(g)) continue;
      part = Shard{};
    } else if (!options.shard_questions) {
      if (all.index % num_groups != g) continue;
      part = {all.index / num_groups, (all.count - g + num_groups - 1) / num_groups};
    }
    const auto loads = std::count_if(group.cases.begin(), group.cases.end(), is_load);
    const bool only_loads = loads == static_cast<std::int64_t>(group.cases.size());
    if (!options.shard_questions) number = 0;
    std::erase_if(group.cases, [&](const Case& one) {
      const bool everywhere = is_load(one) || (options.shard_questions &&
                                               std::holds_alternative<TaskScenario>(one.scenario));
      return !everywhere && !part.takes(number++);
    });
    // A load alone is worth it only where nobody does more.
    const bool rest = std::any_of(group.cases.begin(), group.cases.end(),
                                  [](const Case& one) { return !is_load(one); });
    if (rest || (only_loads && part.index == 0)) own.push_back(std::move(group));
  }
  return own;
}

void check_plan_names(const Suite& suite, const std::vector<std::string>& only) {
  std::vector<std::string> known;
  for (const Plan& plan : suite.plans) known.push_back(plan.name);
  for (const std::string& name : only) {
    require_or(ErrorCode::kUsage, std::find(known.begin(), known.end(), name) != known.end(),
               "run plan '{}': the suite has no such plan; {}", name, suggestion(name, known));
  }
}

// Remaining time from what each kind of scenario has cost so far.
class Estimator {
 public:
  void learn(const Record& record) {
    auto& [sum, count] = seen_[key(record.kind, record.scenario)];
    sum += record.duration_s;
    ++count;
    total_ += record.duration_s;
    ++total_count_;
  }

  // Negative while nothing is known.
  double estimate(const std::vector<const Case*>& left) const {
    if (total_count_ == 0) return -1;
    double sum = 0;
    for (const Case* one : left) {
      const auto it = seen_.find(
          key(std::string(scenario_kind(one->scenario)), scenario_to_json(one->scenario)));
      sum += it != seen_.end() ? it->second.first / static_cast<double>(it->second.second)
                               : total_ / static_cast<double>(total_count_);
    }
    return sum;
  }

 private:
  static std::string key(const std::string& kind, const OrderedJson& scenario) {
    return kind + json_line(scenario);
  }
  std::map<std::string, std::pair<double, std::int64_t>> seen_;
  double total_ = 0;
  std::int64_t total_count_ = 0;
};

class Run {
 public:
  Run(const Suite& suite, const RunOptions& options)
      : suite_(suite), options_(options), results_(options.out_dir / "results.jsonl") {}

  RunOutcome go(std::vector<Group> groups) {
    for (Group& group : groups) {
      outcome_.cases_total += static_cast<std::int64_t>(group.cases.size());
    }
    if (options_.resume) drop_finished(groups);
    for (const Group& group : groups) {
      for (const Case& one : group.cases) left_.push_back(&one);
    }
    for (const Group& group : groups) {
      if (!outcome_.interrupted) run_group(group);
    }
    return outcome_;
  }

 private:
  // Cases that already have a good record need not run again.
  void drop_finished(std::vector<Group>& groups) {
    std::set<std::string> finished;
    for (const Record& record : read_records(options_.out_dir)) {
      if (record.status == Status::kOk) finished.insert(record.case_id);
    }
    for (Group& group : groups) {
      const auto kept =
          std::erase_if(group.cases, [&](const Case& one) { return finished.contains(one.id); });
      outcome_.cases_ok += static_cast<std::int64_t>(kept);
      outcome_.cases_kept += static_cast<std::int64_t>(kept);
    }
  }

  // Starts children until every case of the group has a record: a child that dies costs the case it
  // was in, and the next child goes on after it.
  void run_group(const Group& group) {
    std::size_t next = 0;
    while (next < group.cases.size() && !outcome_.interrupted) {
      const std::size_t before = next;
      const std::vector<Case> rest(group.cases.begin() + static_cast<std::ptrdiff_t>(next),
                                   group.cases.end());
      run_child(rest, next);
      if (next == before && !outcome_.interrupted) {
        lose_case(group.cases[next++], Status::kCrashed, "its worker gave no record");
      }
    }
  }

  // The machine's, if a case wants them: measured once, while nothing else runs.
  std::optional<Ceilings> ceilings_for(const std::vector<Case>& cases) {
    const bool wanted = std::any_of(cases.begin(), cases.end(), is_timed);
    if (!wanted || cases.front().plan.backend != PlanBackend::kCpu) return std::nullopt;
    if (!ceilings_) ceilings_ = cpu_ceilings(suite_.threads);
    return ceilings_;
  }

  // Advances `next` by one for every record.
  void run_child(const std::vector<Case>& cases, std::size_t& next) {
    const Job job{cases,
                  suite_.engine,
                  suite_.threads,
                  options_.out_dir,
                  ceilings_for(cases),
                  options_.trace,
                  options_.shard_questions ? options_.shard : Shard{}};
    const std::filesystem::path program = options_.program.empty()
                                              ? std::filesystem::read_symlink("/proc/self/exe")
                                              : options_.program;
    ChildProcess child(program, {std::string(kWorkerCommand)}, json_line(to_json(job)),
                       options_.out_dir / "worker.log");
    std::size_t done = 0;
    Clock::time_point case_start = Clock::now();
    Status status = Status::kCrashed;  // of the case it leaves unfinished
    std::string broken;                // how it broke the protocol
    std::string line;
    for (;;) {
      const double left_s = static_cast<double>(suite_.timeout_s) - seconds_since(case_start);
      const int wait_ms = static_cast<int>(std::clamp(left_s * 1e3, 0.0, 1e9));
      const auto event = child.next_line(wait_ms, line);
      // A line that has arrived comes first: it may be the record of a finished case.
      if (event == ChildProcess::Wait::kLine) {
        const Json message = Json::parse(line, nullptr, false);
        const std::string kind = message.is_object() ? message.value("event", "") : "";
        if (kind == "start" && done < cases.size()) {
          case_start = Clock::now();
          progress_ = {};
          progress_.current = cases[done].label();
          tell(case_start);
        } else if (kind == "progress") {
          progress_.within_done = message.value("done", std::int64_t{0});
          progress_.within_total = message.value("total", std::int64_t{0});
          tell(case_start);
        } else if (kind == "record" && done < cases.size()) {
          keep(record_from_json(message.at("record"), "a worker's record"));
          ++next;
          ++done;
        } else {
          child.signal(SIGKILL);
          broken = fmt::format("said '{}', which is no message", line.substr(0, 100));
        }
      }
      if (interrupted()) {
        stop(child);
        return;
      }
      if (event == ChildProcess::Wait::kTimeout) {
        child.signal(SIGKILL);
        status = Status::kTimeout;
      }
      if (event == ChildProcess::Wait::kEnd || event == ChildProcess::Wait::kTimeout ||
          !broken.empty()) {
        break;
      }
    }
    const std::string death = child.wait_for_end();
    if (done == cases.size()) return;  // how it ended after its last record changes nothing
    std::string reason = "its worker ended early; see worker.log";
    if (status == Status::kTimeout) {
      reason = fmt::format("it ran longer than timeout_s = {}", suite_.timeout_s);
    } else if (!broken.empty() || !death.empty()) {
      reason = fmt::format("its worker {}; see worker.log", broken.empty() ? death : broken);
    }
    lose_case(cases[done], status, reason);
    ++next;
  }

  // Lets the child finish its sentence: it writes down the answer it has, then ends.
  void stop(ChildProcess& child) {
    outcome_.interrupted = true;
    child.signal(SIGINT);
    constexpr int kGraceMs = 10000;
    std::string line;
    const auto start = Clock::now();
    while (seconds_since(start) * 1e3 < kGraceMs) {
      const auto event = child.next_line(kGraceMs / 10, line);
      if (event == ChildProcess::Wait::kEnd) return;
      if (event != ChildProcess::Wait::kLine) continue;
      const Json message = Json::parse(line, nullptr, false);
      if (message.is_object() && message.value("event", "") == "record") {
        keep(record_from_json(message.at("record"), "a worker's record"));
      }
    }
  }

  void lose_case(const Case& one, Status status, const std::string& reason) {
    Record record = begin_record(one);
    record.status = status;
    record.reason = reason;
    keep(record);
  }

  void keep(const Record& record) {
    results_.append(json_line(to_json(record)));
    (record.status == Status::kOk ? outcome_.cases_ok : outcome_.cases_bad) += 1;
    estimator_.learn(record);
    std::erase_if(left_, [&](const Case* one) { return one->id == record.case_id; });
    if (options_.on_record) options_.on_record(record);
  }

  void tell(Clock::time_point case_start) {
    if (!options_.on_progress) return;
    progress_.cases_done = outcome_.cases_ok + outcome_.cases_bad;
    progress_.cases_total = outcome_.cases_total;
    progress_.eta_s = estimator_.estimate(left_);
    if (progress_.eta_s >= 0) {
      progress_.eta_s = std::max(0.0, progress_.eta_s - seconds_since(case_start));
    }
    options_.on_progress(progress_);
  }

  const Suite& suite_;
  const RunOptions& options_;
  LineWriter results_;
  std::optional<Ceilings> ceilings_;
  RunOutcome outcome_;
  RunProgress progress_;
  Estimator estimator_;
  std::vector<const Case*> left_;
};

// {model: frontier} of a plan, for those models whose shapes it can run here.
OrderedJson frontier_of(const Suite& suite, const Plan& plan) {
  OrderedJson by_model = OrderedJson::object();
  const int threads = suite.threads == 0 ? available_cpus() : suite.threads;
  for (const std::string& name : suite.models) {
    try {
      const ModelOutline model = outline_model(name);
      const WeightLayout layout = plan_weights(model.checkpoint, model.config, plan);
      by_model[name] =
          to_json(feasibility_frontier(model.config, layout, plan, threads, usual_memory_sizes()));
    } catch (const Error&) {
      // A plan that cannot hold or run this model here: its cases will say so.
    }
  }
  return by_model;
}

// How a run's part is named in run.json; null for a whole run.
OrderedJson shard_json(const RunOptions& options) {
  if (options.shard.is_whole()) return {};
  return {{"part", options.shard.text()}, {"by", options.shard_questions ? "question" : "case"}};
}

OrderedJson run_json(const Suite& suite, const std::vector<Case>& cases,
                     const RunOptions& options) {
  OrderedJson models = OrderedJson::array();
  for (const std::string& model : suite.models) models.push_back(describe_model(model));
  OrderedJson plans = OrderedJson::array();
  for (const Plan& plan : suite.plans) {
    OrderedJson json = OrderedJson(plan_to_json(plan));
    json["text"] = plan.describe();
    json["canonical"] = plan.canonical_text();
    json["frontier"] = frontier_of(suite, plan);
    plans.push_back(json);
  }
  OrderedJson case_list = OrderedJson::array();
  for (const Case& one : cases) {
    case_list.push_back({{"id", one.id}, {"label", one.label()}, {"model", one.model}});
  }
  OrderedJson environment = to_json(read_environment());
  environment.update(host_details());
  OrderedJson json = {{"schema", kRunSchema},
                      {"suite", suite.name},
                      {"description", suite.description},
                      {"started", utc_now()},
                      {"environment", environment},
                      {"threads", suite.threads},
                      {"max_batch", suite.engine.max_batch},
                      {"step_tokens", suite.engine.step_tokens},
                      {"models", models},
                      {"plans", plans},
                      {"cases", case_list}};
  if (!options.shard.is_whole()) json["shard"] = shard_json(options);
  return json;
}

// Of every tensor of every model its format and a hash of its content: which one differs, where two
// runs have different weights.
void write_weights_list(const std::filesystem::path& path, const Suite& suite) {
  std::string lines;
  for (const std::string& model : suite.models) {
    lines += json_line({{"model", model}}) + "\n";  // those that follow are its tensors
    for (const TensorHash& t : tensor_hashes(resolve_model(model))) {
      lines +=
          json_line({{"name", t.name}, {"dtype", t.dtype}, {"shape", t.shape}, {"hash", t.hash}}) +
          "\n";
    }
  }
  write_file_atomically(path, lines);
}

// Results of a checkpoint that has changed since do not belong beside those of the new one, nor
// those of two parts in one folder.
void check_same_run(const std::filesystem::path& description, const Suite& suite,
                    const RunOptions& options) {
  const Json before = parse_json(read_text_file(description), description.string());
  const Json shard_before = before.value("shard", Json());
  const Json shard_now = shard_json(options);
  require(shard_before == shard_now,
          "resume {}: it holds {}, not {}; give the same --shard, or choose another --out",
          description.parent_path().string(),
          shard_before.is_null() ? "a whole run" : "part " + shard_before.dump(),
          shard_now.is_null() ? "a whole run" : "part " + shard_now.dump());
  for (const Json& model : before.value("models", Json::array())) {
    const auto name = model.value("name", "");
    if (std::find(suite.models.begin(), suite.models.end(), name) == suite.models.end()) continue;
    const std::string now = checkpoint_hash(resolve_model(name));
    require(model.value("hash", "") == now,
            "resume {}: model {} has changed since (hash {} then, {} now); choose another --out",
            description.parent_path().string(), name, model.value("hash", ""), now);
  }
}

}  // namespace

RunOutcome run_suite(const Suite& suite, const RunOptions& options) {
  check_plan_names(suite, options.only_plans);
  const std::vector<Case> cases = expand_suite(suite);
  std::vector<Group> groups = deal_out(group_cases(cases, options), options);
  const std::filesystem::path description = options.out_dir / "run.json";
  const bool described = std::filesystem::exists(description);
  require(
      options.resume || !(described || std::filesystem::exists(options.out_dir / "results.jsonl")),
      "run into {}: it holds a run already (continue it with --resume, or choose another --out)",
      options.out_dir.string());
  if (described) {
    check_same_run(description, suite, options);
  } else {
    write_weights_list(options.out_dir / "weights.jsonl", suite);
    write_file_atomically(description, run_json(suite, cases, options).dump(2) + "\n");
  }
  return Run(suite, options).go(std::move(groups));
}

}  // namespace moebench
