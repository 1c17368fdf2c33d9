// moebench export: a run's results for continuous benchmarking tools.
#include <fmt/core.h>

#include <memory>

#include "cli/command.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "reports/export_results.h"

namespace moebench::cli {
namespace {

struct ExportCommandOptions {
  std::string run;
  std::string format;
  std::string out;
  ExportOptions options;
};

int run_export(const ExportCommandOptions& command) {
  require_or(ErrorCode::kUsage,
             command.format != "action-benchmark" || !command.options.better.empty(),
             "export for github-action-benchmark: give --better higher (customBiggerIsBetter) or "
             "lower (customSmallerIsBetter); a file is one of the two");
  require_or(ErrorCode::kUsage,
             command.format != "gbench" ||
                 (command.options.better.empty() && command.options.metrics.empty()),
             "export for Google Benchmark: --metric and --better do not belong here (it holds the "
             "times of tokens)");
  const RunResults run = read_run_results(command.run);
  const OrderedJson json = command.format == "gbench" ? to_google_benchmark(run)
                           : command.format == "bmf"  ? to_bencher(run, command.options)
                                                      : to_action_benchmark(run, command.options);
  const bool empty = command.format == "gbench" ? json.at("benchmarks").empty() : json.empty();
  require(!empty, "export {}: no good case has such a metric", command.run);
  const std::string text = json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  if (command.out.empty()) {
    fmt::print("{}", text);
  } else {
    write_file_atomically(command.out, text);
  }
  return kExitOk;
}

}  // namespace

void add_export(CLI::App& app, Action& action) {
  auto options = std::make_shared<ExportCommandOptions>();
  CLI::App* command =
      add_command(app, action, "export", "Write a run's results as another tool reads them",
                  options, run_export);
  command->add_option("run", options->run, "Folder of a run")->type_name("RUN")->required();
  command
      ->add_option("--format", options->format,
                   "gbench (Google Benchmark's JSON), bmf (Bencher) or action-benchmark "
                   "(github-action-benchmark, custom)")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"gbench", "bmf", "action-benchmark"}))
      ->required();
  command
      ->add_option("--metric", options->options.metrics,
                   "Only this metric of records; repeatable (default: all with a direction)")
      ->type_name("NAME");
  command
      ->add_option("--better", options->options.better,
                   "Only metrics that are better higher, or lower")
      ->type_name("higher|lower")
      ->check(CLI::IsMember({"higher", "lower"}));
  command->add_option("-o,--out", options->out, "Write it there instead of printing it")
      ->type_name("FILE");
  add_examples(
      command,
      {"moebench export run --format gbench -o new.json   # compare.py benchmarks base.json "
       "new.json",
       "moebench export run --format bmf -o bmf.json      # bencher run --adapter json "
       "--file bmf.json",
       "moebench export run --format action-benchmark --better higher -o bigger.json"});
}

}  // namespace moebench::cli
