// The workload `mixed` from the command line.
#include "cli/bench_mixed.h"

#include <fmt/core.h>

#include <algorithm>

#include "bench/case_runner.h"
#include "bench/interrupt.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/run_summary.h"
#include "cli/table.h"
#include "kernels/core/error.h"

namespace moebench::cli {
namespace {

std::vector<MixedScenario> scenarios_of(const MixedBench& bench) {
  std::vector<MixedScenario> scenarios;
  for (const std::int64_t depth : bench.depth) {
    for (const std::int64_t prompt : bench.prompt) {
      for (const std::int64_t tokens : bench.generate) {
        for (const std::int64_t batch : bench.batch) {
          // By way of JSON, so that one reader checks suites and options.
          const Json json = {{"kind", "mixed"},
                             {"batch", batch},
                             {"prefill", prompt},
                             {"tokens", tokens},
                             {"context", std::max<std::int64_t>(1, depth)},
                             {"repetitions", bench.repetitions}};
          try {
            scenarios.push_back(std::get<MixedScenario>(scenario_from_json(json, "bench --mixed")));
          } catch (const Error& error) {
            throw Error(ErrorCode::kUsage, error.what());
          }
        }
      }
    }
  }
  return scenarios;
}

std::string value_of(const Record& record, const std::string& name, bool with_interval = false) {
  const auto it = record.metrics.find(name);
  if (it == record.metrics.end() || it->second.absent) return "-";
  const Metric& metric = it->second;
  std::string text = fmt::format("{:.2f}", metric.value);
  if (with_interval && metric.interval) {
    text += fmt::format(" [{:.2f}, {:.2f}]", metric.interval->low, metric.interval->high);
  }
  return text;
}

void print_table(const std::vector<Record>& records, bool markdown) {
  Table table({"plan", "test", ">t/s meanwhile [95 %]", ">TTFT ms", ">ITL before p50 ms",
               ">during p50 ms", ">slower by"});
  for (const Record& record : records) {
    const std::string test = scenario_of_label(record.label, record.plan);
    if (record.status != Status::kOk) {
      table.add({record.plan, test, std::string(status_name(record.status)), "", "", "", ""});
      continue;
    }
    table.add({record.plan, test, value_of(record, rate_metric("mixed"), true),
               value_of(record, "ttft_ms"), value_of(record, "itl_before_ms_p50"),
               value_of(record, "itl_during_ms_p50"), value_of(record, "itl_slowdown", true)});
  }
  fmt::print(
      "{}\nmeanwhile: from the arrival of the prompt to its first token, tokens of the others; "
      "slower by: their mean gap then over that before\n",
      markdown ? table.markdown() : table.text());
}

}  // namespace

int run_mixed_bench(const MixedBench& bench) {
  require_or(ErrorCode::kUsage, !bench.model.empty(), "benchmark: --model is required");
  require_or(ErrorCode::kUsage,
             bench.output == "text" || bench.output == "md" || bench.output == "json",
             "benchmark: -o {} has no place for what --mixed measures; it has text, md and json",
             bench.output);
  const std::vector<MixedScenario> scenarios = scenarios_of(bench);
  watch_for_interrupts();
  std::vector<Record> records;
  for (const std::string& name :
       bench.plans.empty() ? std::vector<std::string>{"fast"} : bench.plans) {
    const Plan plan = read_plan(name, bench.autotune, bench.model, bench.threads);
    std::vector<Case> cases;
    for (const MixedScenario& scenario : scenarios) {
      cases.push_back({"bench", bench.model, plan, scenario});
    }
    CaseRunnerOptions options;
    options.engine.max_batch = 1;
    options.threads = bench.threads;
    options.stop_requested = interrupted;
    CaseRunner runner(cases, options);
    for (const Case& one : cases) records.push_back(runner.run(one));
  }
  if (bench.output == "json") {
    print_as_json(records);
  } else {
    print_table(records, bench.output == "md");
  }
  return report_failures(records);
}

}  // namespace moebench::cli
