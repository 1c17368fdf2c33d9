// Arms as child processes, which may be of another build of moebench.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/arm_host.h"
#include "bench/child_process.h"
#include "bench/worker.h"

namespace moebench {

struct ArmSpec {
  std::string name;  // what reports call it
  Plan plan;
  std::filesystem::path program;  // empty: this very program
};

struct ArmProcessOptions {
  std::string model;
  std::vector<Scenario> tests;
  EngineOptions engine;
  int threads = 0;
  double block_s = 0.02;
  double start_timeout_s = 1800;  // a large model may be re-encoded at load
  std::filesystem::path log;      // standard error of all arms
};

class ArmProcesses : public ArmHost {
 public:
  ArmProcesses(std::vector<ArmSpec> arms, ArmProcessOptions options);
  ~ArmProcesses() override;

  double now_s() override;
  Trouble start(ArmId id) override;
  Trouble warm_up(ArmId id, std::size_t test, WarmUp& out) override;
  Trouble run(ArmId id, std::size_t test, Block& out) override;
  void stop_all() override;

  // What the first process of an arm said of itself: variants, threads, output check. Empty before.
  const OrderedJson& details(std::size_t arm) const { return details_[arm]; }

 private:
  struct Process {
    std::unique_ptr<ChildProcess> child;
    std::vector<double> repetition_s;  // by test
  };

  void stop(ArmId id);
  Trouble ask(ArmId id, const OrderedJson& message, std::string_view expected, double timeout_s,
              Json& answer);
  Trouble listen(ArmId id, std::string_view expected, double timeout_s, Json& answer);
  // Times out what takes absurdly longer than it took before.
  double patience_s(const Process& process, std::size_t test) const;

  std::vector<ArmSpec> arms_;
  ArmProcessOptions options_;
  std::chrono::steady_clock::time_point begin_;
  std::map<std::pair<std::size_t, int>, Process> processes_;
  std::vector<bool> checked_;                      // by arm: its outputs, by its first process
  std::vector<std::vector<std::string>> digests_;  // by arm and test, of its first process
  std::vector<OrderedJson> details_;
};

}  // namespace moebench
