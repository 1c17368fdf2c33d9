// Options that several commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

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

inline constexpr const char* kPlanHelp =
    "reference, a format for the experts (int4, nvfp4, ...), or group=format,... "
    "as in experts=int4,kv=fp8_e4m3";

inline void add_plan_option(CLI::App* command, std::string& plan) {
  command->add_option("--plan", plan, kPlanHelp)
      ->type_name("P")
      ->check(is_plan())
      ->capture_default_str();
}

}  // namespace moebench::cli
