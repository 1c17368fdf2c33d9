// Options that several commands share.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "bench/autotune.h"
#include "engine/harmony.h"
#include "engine/plan.h"
#include "kernels/core/error.h"

namespace moebench::cli {

// A check of a flag's value by the function that will read it: what that refuses is a usage error,
// in its words.
template <class Read>
CLI::Validator read_by(Read read) {
  return {[read](const std::string& value) {
            try {
              read(value);
            } catch (const Error& error) {
              return std::string(error.what());
            }
            return std::string();
          },
          ""};
}

inline CLI::Validator is_plan() {
  return read_by([](const std::string& text) { parse_plan(text); });
}

inline CLI::Validator is_effort() {
  return read_by([](const std::string& text) { effort_from_name(text, "read the effort"); });
}

struct ModelOptions {
  std::string model = "nano";
  std::string plan = "reference";
  int threads = 0;
};

inline void add_model_option(CLI::App* command, std::string& model) {
  command->add_option("--model", model, "Model directory, or nano")->type_name("DIR")->required();
}

inline void add_threads_option(CLI::App* command, int& threads) {
  command->add_option("-t,--threads", threads, "Threads (0: one per CPU)")
      ->type_name("N")
      ->check(CLI::Range(0, 1024));
}

inline void add_shard_option(CLI::App* command, std::string& shard) {
  command
      ->add_option(
          "--shard", shard,
          "Only part I of N (0/4, ..., 3/4; `moebench merge` joins them), or auto: as Slurm, "
          "Kubernetes, Open MPI, GitLab or MOEBENCH_SHARD says")
      ->type_name("I/N|auto");
}

inline constexpr const char* kPlanHelp =
    "reference, fast, accurate, a format for the experts (int4, nvfp4, ...), or choices one by "
    "one as in experts=int4,kv=fp8_e4m3,ops=accurate";

inline void add_autotune_flag(CLI::App* command, bool& wanted) {
  command->add_flag("--autotune", wanted,
                    "Measure which variants are fastest here, and remember it");
}

// `text` as a plan, with variants chosen by measuring if that is wanted.
inline Plan read_plan(const std::string& text, bool wants_autotune, const std::string& model,
                      int threads) {
  const Plan plan = parse_plan(text);
  if (!wants_autotune) return plan;
  return autotune(plan, model, threads,
                  [](std::string_view line) { fmt::print(stderr, "{}\n", line); });
}

inline void add_plan_option(CLI::App* command, std::string& plan) {
  command->add_option("--plan", plan, kPlanHelp)
      ->type_name("P")
      ->check(is_plan())
      ->capture_default_str();
}

}  // namespace moebench::cli
