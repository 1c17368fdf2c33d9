// Runs cases of one (model, plan) in this process. The harness calls it in a child process; a test
// or a command may call it directly.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/event_log.h"
#include "bench/record.h"
#include "bench/roofline.h"
#include "bench/suite.h"
#include "engine/engine.h"
#include "kernels/core/shard.h"

namespace moebench {

class SampleWatch;

struct CaseRunnerOptions {
  EngineOptions engine;
  int threads = 0;
  std::filesystem::path out_dir;  // ledgers, event logs and shared traces go here; "": no logs
  // Of the CPU, for plans that run there: measured by somebody else, since it takes memory that
  // would count as the plan's. The GPU's are measured here.
  std::optional<Ceilings> ceilings;
  Shard question_shard;  // of every task: the questions that are asked
  std::function<void(std::int64_t done, std::int64_t total)> on_progress;
  std::function<bool()> stop_requested;
  std::function<void(const RequestEvents&)> on_request;  // of workloads, beside the event log
  std::filesystem::path trace;  // file that a trace of all cases is added to; empty: none
};

class CaseRunner {
 public:
  // `cases` are all that will be asked for: the engine is sized for the largest of them.
  CaseRunner(std::vector<Case> cases, CaseRunnerOptions options);
  ~CaseRunner();

  // Never throws for what goes wrong inside a case: the record says it. Error(kInterrupted) passes.
  Record run(const Case& one);

 private:
  struct State;

  void load(const Case& one, Record& record);
  void run_task_case(const Case& one, const TaskScenario& scenario, SampleWatch& watch,
                     Record& record);
  void run_fidelity_case(const Case& one, const FidelityScenario& scenario, Record& record);
  void run_invariance_case(const InvarianceScenario& scenario, Record& record);

  std::vector<Case> cases_;
  CaseRunnerOptions options_;
  std::unique_ptr<State> state_;
};

// Whether the case is a speed, beside which limits stand.
bool is_timed(const Case& one);
// Positions of the longest sequence of a workload; 0 for what takes the context it is given.
std::int64_t context_needed(const Scenario& scenario);

// `options` with room for every one of `cases` that the model can run at all: one that it cannot
// must not cost the others. `model_context` is the longest context of the model.
EngineOptions options_for(const std::vector<Case>& cases, EngineOptions options,
                          std::int64_t model_context);

// The record of a case that has begun: what it is, and when.
Record begin_record(const Case& one);

}  // namespace moebench
