// moebench report: one page from one run or several.
#include <fmt/core.h>

#include <memory>

#include "cli/command.h"
#include "kernels/core/append_file.h"
#include "reports/html.h"
#include "reports/report.h"

namespace moebench::cli {
namespace {

struct ReportCommandOptions {
  std::vector<std::string> runs;
  std::string out = "report.html";
  std::string json;
  ReportOptions report;
};

int run_report(const ReportCommandOptions& options) {
  const std::vector<std::filesystem::path> runs(options.runs.begin(), options.runs.end());
  const OrderedJson report = build_report(runs, options.report);
  write_file_atomically(options.out, render_html(report));
  fmt::print("report: {}\n", options.out);
  if (!options.json.empty()) {
    write_file_atomically(options.json,
                          report.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
    fmt::print("json: {}\n", options.json);
  }
  return kExitOk;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<ReportCommandOptions>();
  CLI::App* command = add_command(
      app, action, "report", "Make one HTML page from the folders of runs", options, run_report);
  command
      ->add_option("runs", options->runs,
                   "Folders of runs; results of llama-bench (JSON) or vllm bench serve")
      ->type_name("RUN...")
      ->required();
  command->add_option("-o,--out", options->out, "The page")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("--json", options->json, "Also the report as JSON")->type_name("FILE");
  command->add_option("--title", options->report.title, "Title of the page")->type_name("TEXT");
  command->add_flag("!--no-items", options->report.include_items,
                    "Leave out questions and transcripts");
  add_examples(command, {"moebench report demo-run -o report.html",
                         "moebench report run1 run2 -o both.html --json both.json",
                         "moebench report run1 llama-bench.json vllm.json"});
}

}  // namespace moebench::cli
