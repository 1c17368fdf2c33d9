// Google Benchmark programs of the ops: every variant, in the shapes of a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/routing_trace.h"
#include "kernels/core/machine_limits.h"
#include "kernels/formats/format.h"

namespace moebench {

struct OpBenchmarkOptions {
  std::string op;       // empty: all that have a benchmark
  std::string variant;  // empty: all
  std::string backend;  // empty: all
  std::string shape = "20b";
  std::vector<Format> formats;  // of weights and cache; empty: those that gpt-oss ships
  std::vector<std::int64_t> tokens = {1, 8, 64, 512};
  std::vector<std::int64_t> contexts = {1024};  // of attention
  bool decode = false;                          // tokens of attention are a sequence's each
  std::optional<RoutingTrace> routing;          // of moe_experts; none: experts chosen evenly
  int threads = 0;
  double min_time_s = 0.5;
  int repetitions = 1;
  std::string out;    // a file for Google Benchmark's JSON; empty: none
  bool json = false;  // JSON on standard output instead of a table
};

// Measures the machine's limits, then runs. Each benchmark has counters: tokens/s, and for ops with
// weights GB/s of the weights that are read and Gop/s (two per multiply-add), each also as a part
// of the limit it approaches; for experts also how many different ones the tokens chose. Before a
// variant is timed its output is compared with the reference's; one that is wrong is reported as an
// error, without a time. Returns how many were.
int run_op_benchmarks(const OpBenchmarkOptions& options);

}  // namespace moebench
