// `moebench bench` as a load generator: options with the names that vLLM's benchmark gives them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace moebench::cli {

struct ServeBenchOptions {
  std::string rate;  // a number or inf; "": not asked for
  std::string arrivals;
  std::string burstiness;
  std::int64_t concurrency = 0;
  std::int64_t requests = -1;  // negative: the scenario's default
  double duration_s = 0;
  std::string input = "512";
  std::string output = "128";
  std::vector<std::string> slo;
  std::string trace;
  std::string prompts = "text";
  std::string sweep;
  std::int64_t seed = 0;
  std::int64_t max_batch = 16;
  std::string definitions;
  std::string save_events;
  std::string events;  // a log to derive from instead of running anything

  // Whether any option was given that makes the command serve.
  bool wanted() const {
    return !rate.empty() || !arrivals.empty() || !burstiness.empty() || concurrency > 0 ||
           !trace.empty() || !sweep.empty() || !events.empty();
  }
};

void add_serve_options(CLI::App* command, ServeBenchOptions& options);

// What the command knows beside these options.
struct ServeBench {
  std::string model;
  std::vector<std::string> plans;
  int threads = 0;
  bool autotune = false;
  std::string output;  // text, json, vllm, vllm-text, sglang
};
// Runs the load for every plan, or reads the log, and prints. Returns the exit code.
int run_serve_bench(const ServeBench& bench, const ServeBenchOptions& options);

}  // namespace moebench::cli
