// `moebench run`: a suite's cases, each (model, plan) in a child process, records kept as they
// arrive.
//
// A run's folder holds
//   run.json         the suite as expanded, the environment, the models; written once at the start
//   results.jsonl    one record per line (bench/record.h), appended as cases end
//   events/ID.jsonl  one request of a workload per line (bench/event_log.h), appended as they end
//   ledger/ID.jsonl  one answer per line (evals/ledger.h), appended as answers end
//   traces/          the reference's answers that fidelity is measured on
//   weights.jsonl    format and content hash of every tensor of every model, one a line
//   trace.json       with `trace`: steps, ops and requests (bench/trace_file.h)
//   worker.log       what workers wrote to standard error
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bench/record.h"
#include "bench/suite.h"
#include "kernels/core/shard.h"

namespace moebench {

inline constexpr std::string_view kRunSchema = "moebench.run/1";

// What a run tells while it goes on.
struct RunProgress {
  std::string current;  // label of the case under way
  std::int64_t cases_done = 0;
  std::int64_t cases_total = 0;
  std::int64_t within_done = 0;  // of the case under way: answers, repetitions
  std::int64_t within_total = 0;
  double eta_s = -1;  // estimate; negative: not known yet
};

struct RunOptions {
  std::filesystem::path out_dir;
  std::filesystem::path program;        // that runs workers; empty: this very program
  bool resume = false;                  // keep the good records of out_dir, run the rest
  std::vector<std::string> only_plans;  // names; empty: all
  // The part of the suite that is run; the parts of all indices together are the whole
  // (reports/merge_runs.h). Every part loads the plans it needs.
  Shard shard;
  // Off: cases are dealt out by (model, plan), and those of one plan where there are more parts
  // than plans. On: every part puts its share of a task's questions to every plan; other cases are
  // dealt out one by one.
  bool shard_questions = false;
  bool trace = false;  // write trace.json
  std::function<void(const RunProgress&)> on_progress;
  std::function<void(const Record&)> on_record;
};

struct RunOutcome {
  std::int64_t cases_total = 0;
  std::int64_t cases_ok = 0;
  std::int64_t cases_bad = 0;
  std::int64_t cases_kept = 0;  // of cases_ok: from before, by resume
  bool interrupted = false;

  bool complete() const { return !interrupted && cases_ok == cases_total; }
};

// Throws Error for a folder that holds another run (without `resume`) or cannot be written, a suite
// without matching plans, a model that cannot be opened. What fails inside a case is a record.
RunOutcome run_suite(const Suite& suite, const RunOptions& options);

}  // namespace moebench
