// The child process of a run, and the messages it sends.
//
// The parent writes one job to the child's standard input and reads JSON lines from its standard
// output: {"event": "start", "case": id}, {"event": "progress", "done": n, "total": n} and
// {"event": "record", "record": {...}}. A child that dies has said which case it was in.
#pragma once

#include <filesystem>
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/roofline.h"
#include "bench/suite.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/shard.h"

namespace moebench {

// The hidden command that makes a process a worker: `moebench worker`.
inline constexpr std::string_view kWorkerCommand = "worker";

struct Job {
  std::vector<Case> cases;  // of one (model, plan)
  EngineOptions engine;
  int threads = 0;
  std::filesystem::path out_dir;
  std::optional<Ceilings> ceilings;  // of the CPU
  bool trace = false;                // add to trace.json in out_dir
  Shard question_shard;              // of every task: the questions that are asked
};

OrderedJson to_json(const Job& job);
Job job_from_json(const Json& json, const std::string& where);

// One line to the parent process. Throws Error(kIo).
void send_message(int output, const OrderedJson& message);

// Reads a job from `input`, runs it, writes messages to file descriptor `output`. Returns the exit
// code: 0 if every case gave a record, whatever its status; 2 if interrupted.
int run_worker(std::istream& input, int output);

}  // namespace moebench
