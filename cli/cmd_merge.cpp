// moebench merge: the parts of a run, done on several machines, as one run.
#include <fmt/core.h>

#include <memory>

#include "bench/run_folder.h"
#include "cli/command.h"
#include "cli/run_summary.h"
#include "reports/merge_runs.h"
#include "reports/report.h"

namespace moebench::cli {
namespace {

struct MergeOptions {
  std::vector<std::string> runs;
  std::string out;
};

int run_merge(const MergeOptions& options) {
  const std::filesystem::path out = options.out;
  const MergeOutcome outcome = merge_runs({options.runs.begin(), options.runs.end()}, out);
  fmt::print("{}\n", summary_table(read_records(out)));
  fmt::print("{} of {} cases are ok; records: {}\n", outcome.cases_ok, outcome.cases_total,
             (out / "results.jsonl").string());
  for (const std::string& note : outcome.notes) fmt::print("note: {}\n", note);
  fmt::print("report: {}\n", write_report(out).string());
  std::fflush(stdout);
  for (const std::string& label : outcome.missing) {
    fmt::print(stderr, "error: merge {}: no part has this case (run the part that is missing)\n",
               label);
  }
  const auto bad =
      outcome.cases_total - outcome.cases_ok - static_cast<std::int64_t>(outcome.missing.size());
  if (bad > 0) {
    fmt::print(stderr, "error: merge {}: {} of {} cases failed; the report says why\n",
               out.string(), bad, outcome.cases_total);
  }
  return outcome.complete() ? kExitOk : kExitFailed;
}

}  // namespace

void add_merge(CLI::App& app, Action& action) {
  auto options = std::make_shared<MergeOptions>();
  CLI::App* command = add_command(
      app, action, "merge", "Join the parts of a run that --shard dealt out", options, run_merge);
  command
      ->add_option("runs", options->runs,
                   "Folders of the parts, or a folder that holds them all; in any order")
      ->type_name("RUN...")
      ->required();
  command->add_option("-o,--out", options->out, "Folder of the whole run")
      ->type_name("DIR")
      ->required();
  add_examples(command, {"moebench run suite.json --shard 0/2 --out parts/0",
                         "moebench run suite.json --shard 1/2 --out parts/1",
                         "moebench merge parts -o whole"});
}

}  // namespace moebench::cli
