// Options that several commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace moebench::cli {

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
  command->add_option("--plan", plan, kPlanHelp)->type_name("P")->capture_default_str();
}

}  // namespace moebench::cli
