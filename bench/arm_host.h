// What speed comparisons are made of: arms, and what runs their blocks.
//
// An arm is one thing to be timed: a plan of a model, run by a program. Its process stays alive for
// a session and runs one block of work whenever it is told to; meanwhile the processes of the other
// arms wait. A block repeats one test for a fraction of a second and yields one sample.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/disturbance.h"
#include "bench/record.h"

namespace moebench {

// One process of an arm. The base arm has two copies where it is compared with itself.
struct ArmId {
  std::size_t arm = 0;
  int copy = 0;
};

// Why something could not be measured; kOk where it could.
struct Trouble {
  Status status = Status::kOk;
  std::string reason;
  bool process_lost = false;  // the whole process is gone, not just this test

  bool ok() const { return status == Status::kOk; }
};

struct WarmUp {
  std::int64_t repetitions = 0;
  double repetition_s = 0;  // of the last one, prompts included
  bool steady = false;      // false: it was still getting faster when its time was over
  std::string digest;       // of the tokens
};

struct Block {
  double start_s = 0;  // since the comparison began
  double seconds = 0;
  std::vector<double> rates;  // tokens per second of each repetition
  // Share of the block in which the process could run and had no CPU, because others had it;
  // negative where the system does not tell.
  double wait_share = -1;
  // What the machine did meanwhile; empty where the process does not tell (an older build).
  std::optional<SampleConditions> conditions;
};

// Processes in a real comparison (bench/arm_process.h), formulas in the tests of the method.
class ArmHost {
 public:
  virtual ~ArmHost() = default;
  virtual double now_s() = 0;
  // A fresh process, that has loaded the model and, the first time, checked its outputs.
  virtual Trouble start(ArmId id) = 0;
  virtual Trouble warm_up(ArmId id, std::size_t test, WarmUp& out) = 0;
  virtual Trouble run(ArmId id, std::size_t test, Block& out) = 0;
  virtual void stop_all() = 0;
};

}  // namespace moebench
