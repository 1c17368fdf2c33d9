// The end of a run as people see it.
#include "cli/run_summary.h"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <ctime>
#include <map>

#include "bench/interrupt.h"
#include "bench/run_folder.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "reports/report.h"

namespace moebench::cli {
namespace {

const Metric* find_metric(const Record& record, const std::string& name) {
  const auto it = record.metrics.find(name);
  return it == record.metrics.end() || it->second.absent ? nullptr : &it->second;
}

std::string rate_cell(const Metric* metric) {
  return metric == nullptr ? "-" : fmt::format("{:.1f}", metric->value);
}

std::string share_cell(const Metric* metric) {
  if (metric == nullptr) return "-";
  std::string cell = fmt::format("{:.1f} %", 100 * metric->value);
  if (metric->interval) {
    cell +=
        fmt::format(" [{:.0f}, {:.0f}]", 100 * metric->interval->low, 100 * metric->interval->high);
  }
  return cell;
}

// With repeats, also whether one of k answers is right, and whether most are, for the largest k.
void add_repeat_scores(const Record& record, std::string& column, std::string& cell) {
  const auto repeats = record.scenario.find("repeats");
  if (repeats == record.scenario.end() || !repeats->is_number_integer()) return;
  const auto k = repeats->get<std::int64_t>();
  const Metric* pass = find_metric(record, fmt::format("pass_at_{}", k));
  const Metric* majority = find_metric(record, fmt::format("maj_at_{}", k));
  if (pass == nullptr || majority == nullptr) return;
  column += fmt::format(", pass@{0}, maj@{0}", k);
  cell += fmt::format(", {:.1f} %, {:.1f} %", 100 * pass->value, 100 * majority->value);
}

}  // namespace

// The model is named if there are several.
std::string summary_table(const std::vector<Record>& records) {
  std::vector<std::string> scenarios;  // labels without the plan
  struct Row {
    std::string model;
    std::string plan;
    std::map<std::string, std::string> cells;
  };
  std::vector<Row> rows;
  bool several_models = false;
  for (const Record& record : records) {
    several_models = several_models || record.model != records.front().model;
    auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& r) {
      return r.model == record.model && r.plan == record.plan;
    });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{record.model, record.plan, {}});
    std::string column = scenario_of_label(record.label, record.plan);
    std::string cell;
    if (record.kind == "load") {
      column = "weights";
      const Metric* bytes = find_metric(record, "weights_bytes");
      cell = bytes == nullptr ? "-" : format_bytes(bytes->value);
    } else if (record.kind == "prefill" || record.kind == "decode" || record.kind == "mixed" ||
               record.kind == "serve") {
      column += ", tok/s";
      cell = rate_cell(find_metric(record, rate_metric(record.kind)));
      if (const Metric* percent = find_metric(record, "percent_of_limit")) {
        cell += fmt::format(" ({:.0f} % of limit)", percent->value);
      }
    } else if (record.kind == "task") {
      cell = share_cell(find_metric(record, "accuracy"));
      add_repeat_scores(record, column, cell);
      if (const auto it = record.details.find("settled"); it != record.details.end()) {
        if (it->contains("outcome")) {
          cell += fmt::format(" {} after {}", it->value("outcome", ""),
                              it->value("asked", std::int64_t{0}));
        }
      }
    } else if (record.kind == "perplexity") {
      column += ", bits/byte";
      const Metric* value = find_metric(record, "perplexity");
      const Metric* bits = find_metric(record, "bits_per_byte");
      if (value != nullptr && bits != nullptr) {
        cell = fmt::format("{:.4g}", value->value);
        if (value->interval) {
          cell += fmt::format(" [{:.4g}, {:.4g}]", value->interval->low, value->interval->high);
        }
        cell += fmt::format(", {:.4f}", bits->value);
      }
    } else if (record.kind == "fidelity") {
      column = "mean KL";
      const Metric* kl = find_metric(record, "mean_kl");
      cell = kl == nullptr ? "-" : fmt::format("{:.2e}", kl->value);
    } else {
      continue;
    }
    if (record.status != Status::kOk) cell = std::string(status_name(record.status));
    if (std::find(scenarios.begin(), scenarios.end(), column) == scenarios.end()) {
      scenarios.push_back(column);
    }
    row->cells[column] = cell;
  }
  std::vector<std::string> columns = {"plan"};
  if (several_models) columns.insert(columns.begin(), "model");
  for (const std::string& scenario : scenarios) columns.push_back(">" + scenario);
  Table table(columns);
  for (Row& row : rows) {
    std::vector<std::string> line = {row.plan};
    if (several_models) line.insert(line.begin(), row.model);
    for (const std::string& scenario : scenarios) line.push_back(row.cells[scenario]);
    table.add(line);
  }
  return table.text();
}

void print_as_json(const std::vector<Record>& records) {
  OrderedJson list = OrderedJson::array();
  for (const Record& record : records) list.push_back(to_json(record));
  fmt::print("{}\n", list.dump(2, ' ', false, OrderedJson::error_handler_t::replace));
}

int report_failures(const std::vector<Record>& records) {
  std::fflush(stdout);
  bool all_ok = true;
  for (const Record& record : records) {
    if (record.status == Status::kOk) continue;
    all_ok = false;
    fmt::print(stderr, "error: benchmark {}: {}: {}\n", record.label, status_name(record.status),
               record.reason);
  }
  return all_ok ? kExitOk : kExitFailed;
}

std::filesystem::path default_out_dir(const std::string& name) {
  return std::filesystem::path("moebench-out") /
         fmt::format("{}-{:%Y%m%d-%H%M%S}", name, fmt::gmtime(std::time(nullptr)));
}

int run_and_report(const Suite& suite, RunOptions options) {
  watch_for_interrupts();
  RunOutcome outcome;
  {
    ProgressLine line;
    options.on_progress = [&](const RunProgress& progress) { line.show(progress); };
    options.on_record = [&](const Record& record) {
      if (record.status == Status::kOk) return;
      line.say(fmt::format("{}: {}: {}", record.label, status_name(record.status), record.reason));
    };
    outcome = run_suite(suite, options);
  }
  fmt::print("{}\n", summary_table(read_records(options.out_dir)));
  fmt::print("{} of {} cases are ok{}; records: {}\n", outcome.cases_ok, outcome.cases_total,
             outcome.cases_kept > 0 ? fmt::format(" ({} from before)", outcome.cases_kept) : "",
             (options.out_dir / "results.jsonl").string());
  std::fflush(stdout);  // what is known is said, even if the disk has no room for the report
  fmt::print("report: {}\n", write_report(options.out_dir).string());
  std::fflush(stdout);
  if (outcome.interrupted) {
    fmt::print(stderr,
               "error: run {}: interrupted after {} of {} cases; what is finished is kept "
               "(continue with --resume --out {})\n",
               suite.name, outcome.cases_ok + outcome.cases_bad, outcome.cases_total,
               options.out_dir.string());
  } else if (outcome.cases_bad > 0) {
    fmt::print(stderr, "error: run {}: {} of {} cases failed; the report says why\n", suite.name,
               outcome.cases_bad, outcome.cases_total);
  }
  return outcome.complete() ? kExitOk : kExitFailed;
}

}  // namespace moebench::cli
