// The first screen: what failed, and all plans in one table.
#include <fmt/ranges.h>

#include <algorithm>

#include "bench/record.h"
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

// Cases of one plan that failed in the same way are one line.
struct Failure {
  std::string plan;
  std::string status;
  std::string reason;
  std::vector<std::string> scenarios;
};

std::vector<Failure> failures_of(const Report& report) {
  std::vector<Failure> failures;
  for (const Row& row : report.rows) {
    for (const OrderedJson& one : row.summary->at("failures")) {
      const Failure failure{row.label, one.value("status", ""), one.value("reason", ""), {}};
      auto it = std::find_if(failures.begin(), failures.end(), [&](const Failure& other) {
        return other.plan == failure.plan && other.status == failure.status &&
               other.reason == failure.reason;
      });
      if (it == failures.end()) it = failures.insert(it, failure);
      it->scenarios.push_back(scenario_of_label(one.value("label", ""), row.plan));
    }
  }
  return failures;
}

}  // namespace

// Said first: a page must not look whole when it is not.
std::string failures_section(const Report& report) {
  std::string body;
  for (const Failure& failure : failures_of(report)) {
    body += fmt::format(
        "<tr><th scope=row>{}</th><td>{}</td><td><span class=bad>{}</span></td><td>{}</td></tr>",
        escape_html(failure.plan),
        escape_html(fmt::format("{}", fmt::join(failure.scenarios, "; "))),
        escape_html(failure.status), escape_html(failure.reason));
  }
  if (body.empty()) return "";
  return section("failures", "What failed",
                 "These cases have no numbers; the rest of the page is without them.",
                 table("<tr><th scope=col>plan</th><th scope=col>cases</th><th "
                       "scope=col>status</th><th scope=col>reason</th></tr>",
                       body, "text"));
}

std::string summary_section(const Report& report) {
  const auto weights = [](const Row& row) -> const OrderedJson& {
    return metric_of(*row.summary, "weights_bytes");
  };
  double largest = 1;
  for (const Row& row : report.rows) {
    largest = std::max(largest, value_of(weights(row)).value_or(0));
  }
  std::vector<Column> columns = {{"weights", {}}};
  for (const Row& row : report.rows) {
    std::string content = metric_cell(weights(row), format_size);
    const Row* reference = report.reference_of(row);
    if (reference != nullptr && reference != &row) {
      content += small_text(ratio_text(value_of(weights(row)), value_of(weights(*reference))));
    }
    columns.back().cells.push_back(bar_cell(content, value_of(weights(row)).value_or(0) / largest));
  }
  for (const char* kind : {"decode", "prefill"}) {
    for (const std::string& title : scenario_titles(report, kind)) {
      columns.push_back(speed_column(report, kind, title));
    }
  }
  for (const std::string& title : scenario_titles(report, "task")) {
    columns.push_back({title + ", accuracy", {}});
    for (const Row& row : report.rows) {
      const OrderedJson& metric = metric_of(report, row, "task", title, "accuracy");
      columns.back().cells.push_back(
          bar_cell(metric_cell(metric, format_percent), value_of(metric).value_or(0)));
    }
  }
  if (!scenario_titles(report, "fidelity").empty()) {
    const auto add = [&](const char* title, const char* metric, std::string (*format)(double)) {
      columns.push_back({title, {}});
      for (const Row& row : report.rows) {
        columns.back().cells.push_back(
            fmt::format("<td>{}</td>", metric_cell(metric_of(*row.summary, metric), format)));
      }
    };
    add("mean KL, nats", "mean_kl", format_number);
    add("top-1 agreement", "top1_agreement", format_percent);
  }
  std::string plans;
  for (const Row& row : report.rows) {
    const std::string text = row.summary->value("text", "");
    if (!text.empty()) {
      plans += fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(row.label), escape_html(text));
    }
  }
  if (!plans.empty()) {
    plans =
        "<details><summary>What each plan is</summary><dl class=plans>" + plans + "</dl></details>";
  }
  return section("summary", "All plans at a glance",
                 "Values with their 95 % intervals; ×, the ratio to the reference plan.",
                 table_of_plans(report, columns, "summary") + plans + verdict_table(report));
}

}  // namespace moebench::page
