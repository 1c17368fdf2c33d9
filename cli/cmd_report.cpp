// moebench report: one page from one run or several.
#include <fmt/core.h>

#include <memory>

#include "cli/command.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "reports/export_hub.h"
#include "reports/export_lm_eval.h"
#include "reports/html.h"
#include "reports/report.h"

namespace moebench::cli {
namespace {

struct ReportCommandOptions {
  std::vector<std::string> runs;
  std::string out = "report.html";
  std::string json;
  std::string lm_eval;
  std::string model_index;
  std::string eval_results;
  std::string plan;
  ReportOptions report;
};

// What other tools read, beside the page.
void export_runs(const ReportCommandOptions& options) {
  require_or(
      ErrorCode::kUsage,
      options.runs.size() == 1 || (options.model_index.empty() && options.eval_results.empty()),
      "export for a model repository: give one run, not {}", options.runs.size());
  for (const std::string& path : options.runs) {
    if (options.lm_eval.empty() && options.model_index.empty() && options.eval_results.empty()) {
      return;
    }
    const RunResults run = read_run_results(path);
    if (!options.lm_eval.empty()) {
      for (const auto& file : export_lm_eval(run, options.lm_eval)) {
        fmt::print("lm-eval: {}\n", file.string());
      }
    }
    if (!options.model_index.empty()) {
      write_file_atomically(options.model_index, model_index_yaml(run, options.plan));
      fmt::print("model-index: {}\n", options.model_index);
    }
    if (!options.eval_results.empty()) {
      const std::vector<HubFile> files = eval_results_yaml(run, options.plan);
      std::filesystem::create_directories(options.eval_results);
      for (const HubFile& file : files) {
        const auto to = std::filesystem::path(options.eval_results) / file.name;
        write_file_atomically(to, file.text);
        fmt::print("eval result: {}\n", to.string());
      }
      if (files.empty()) fmt::print("eval results: no task on a dataset of the Hub\n");
    }
  }
}

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
  export_runs(options);
  return kExitOk;
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  auto options = std::make_shared<ReportCommandOptions>();
  CLI::App* command = add_command(
      app, action, "report", "Make one HTML page from the folders of runs", options, run_report);
  command
      ->add_option(
          "runs", options->runs,
          "Folders of runs; results of llama-bench (JSON), vllm bench serve, lm-eval (with "
          "the samples beside them), gpt_oss.evals or simple-evals")
      ->type_name("RUN...")
      ->required();
  command->add_option("-o,--out", options->out, "The page")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("--json", options->json, "Also the report as JSON")->type_name("FILE");
  command
      ->add_option("--lm-eval", options->lm_eval,
                   "Also the tasks as results_*.json and samples_*.jsonl of lm-eval, there")
      ->type_name("DIR");
  command
      ->add_option("--model-index", options->model_index,
                   "Also the accuracy of one plan as model-index, for a model card's header")
      ->type_name("FILE");
  command
      ->add_option("--eval-results", options->eval_results,
                   "Also that accuracy as files for a model repository's .eval_results, there")
      ->type_name("DIR");
  command->add_option("--plan", options->plan, "The plan of --model-index and --eval-results")
      ->type_name("NAME");
  command->add_option("--title", options->report.title, "Title of the page")->type_name("TEXT");
  command->add_flag("!--no-items", options->report.include_items,
                    "Leave out questions and transcripts");
  add_examples(command, {"moebench report demo-run -o report.html",
                         "moebench report run1 run2 -o both.html --json both.json",
                         "moebench report run1 llama-bench.json vllm.json",
                         "moebench report run1 --lm-eval out --model-index index.yaml "
                         "--plan int4"});
}

}  // namespace moebench::cli
