// moebench run SUITE.json, and the hidden command that its children are.
#include <fmt/core.h>
#include <unistd.h>

#include <iostream>
#include <memory>

#include "bench/arm_worker.h"
#include "bench/suite.h"
#include "bench/worker.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/run_summary.h"
#include "kernels/core/error.h"

namespace moebench::cli {
namespace {

struct RunCommandOptions {
  std::string suite;
  std::string out;
  bool resume = false;
  std::vector<std::string> plans;
  std::string shard;
  bool shard_questions = false;
  std::vector<std::string> settings;
  bool trace = false;
};

int run_run(const RunCommandOptions& command) {
  require_or(ErrorCode::kUsage, !command.resume || !command.out.empty(),
             "resume a run: give its folder with --out DIR");
  const Suite suite = load_suite(command.suite, command.settings);
  RunOptions options;
  options.out_dir =
      command.out.empty() ? default_out_dir(suite.name) : std::filesystem::path(command.out);
  options.resume = command.resume;
  options.only_plans = command.plans;
  options.trace = command.trace;
  if (!command.shard.empty()) options.shard = parse_shard(command.shard, "read --shard");
  options.shard_questions = command.shard_questions;
  return run_and_report(suite, options);
}

struct NoOptions {};

int run_worker_command(const NoOptions&) { return run_worker(std::cin, STDOUT_FILENO); }
int run_arm_command(const NoOptions&) { return run_arm(std::cin, STDOUT_FILENO); }

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto options = std::make_shared<RunCommandOptions>();
  CLI::App* command = add_command(
      app, action, "run", "Run a suite: every plan in a process of its own, ends in a report",
      options, run_run);
  command->add_option("suite", options->suite, "Suite file, or the name of a shipped one: demo")
      ->type_name("SUITE.json")
      ->required();
  command->add_option("--out", options->out, "Folder of the run (default: moebench-out/...)")
      ->type_name("DIR");
  command->add_flag("--resume", options->resume, "Continue the run in --out where it stopped");
  command->add_option("--plan", options->plans, "Only this plan of the suite; repeatable")
      ->type_name("NAME");
  add_shard_option(command, options->shard);
  command->add_flag("--shard-questions", options->shard_questions,
                    "Parts share the questions of tasks, not cases: every part loads every plan");
  command
      ->add_option("--set", options->settings,
                   "Change the suite: tasks.*.limit=50, models.0=DIR; repeatable")
      ->type_name("KEY=VALUE");
  command->add_flag("--trace", options->trace,
                    "Also write steps, ops and requests to trace.json, for ui.perfetto.dev");
  add_examples(command, {"moebench run demo --out demo-run",
                         "moebench run suite.json --plan int4 --set 'tasks.*.limit=50'",
                         "moebench run suite.json --out DIR --resume"});
}

void add_worker(CLI::App& app, Action& action) {
  CLI::App* command =
      add_command(app, action, std::string(kWorkerCommand), "Runs cases for a parent process",
                  std::make_shared<NoOptions>(), run_worker_command);
  command->group("");  // not in --help
  add_command(app, action, std::string(kArmCommand), "Runs blocks for a parent process",
              std::make_shared<NoOptions>(), run_arm_command)
      ->group("");
}

}  // namespace moebench::cli
