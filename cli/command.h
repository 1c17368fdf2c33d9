// How a command plugs into the program: it declares its options on a CLI11 subcommand and sets the
// action that main() runs after parsing.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace moebench::cli {

// Exit codes, the same for every command.
inline constexpr int kExitOk = 0;
inline constexpr int kExitRegression = 1;
inline constexpr int kExitFailed = 2;
inline constexpr int kExitUsage = 3;
inline constexpr int kExitInconclusive = 4;

using Action = std::function<int()>;

void add_run(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_data(CLI::App& app, Action& action);
void add_fidelity(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_model(CLI::App& app, Action& action);
// Below add_model:
void add_model_info(CLI::App& model, Action& action);
void add_model_routing(CLI::App& model, Action& action);
void add_kernels(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_history(CLI::App& app, Action& action);
void add_merge(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_publish(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_roofline(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_worker(CLI::App& app, Action& action);

// A subcommand whose `run(options)` becomes the action. `Options` holds what the flags set.
template <class Options>
CLI::App* add_command(CLI::App& app, Action& action, const std::string& name,
                      const std::string& description, std::shared_ptr<Options> options,
                      int (*run)(const Options&)) {
  CLI::App* command = app.add_subcommand(name, description);
  command->callback([&action, command, options, run] {
    // CLI11 calls a command's callback after those of its subcommands: the innermost must win.
    if (!command->get_subcommands().empty()) return;
    action = [options, run] { return run(*options); };
  });
  return command;
}

// "Examples:" and the lines, as the footer of --help.
void add_examples(CLI::App* command, const std::vector<std::string>& lines);

}  // namespace moebench::cli
