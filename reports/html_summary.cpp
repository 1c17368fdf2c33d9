// The first screen: what failed, and all plans in one table.
#include <fmt/ranges.h>

#include <algorithm>

#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

const OrderedJson kNull;

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
      const std::string label = one.value("label", "");
      const std::string prefix = row.plan + " / ";
      it->scenarios.push_back(label.starts_with(prefix) ? label.substr(prefix.size()) : label);
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
  std::vector<std::string> head = {"plan", "weights"};
  std::vector<std::vector<std::string>> columns;
  std::vector<std::string> weights;
  double largest = 0;
  for (const Row& row : report.rows) {
    largest = std::max(largest, value_of(metric_of(*row.summary, "weights_bytes")).value_or(0));
  }
  for (const Row& row : report.rows) {
    const OrderedJson& metric = metric_of(*row.summary, "weights_bytes");
    const Row* reference = report.reference_of(row);
    std::string content = metric_cell(metric, format_size);
    if (reference != nullptr && reference != &row) {
      content +=
          ratio_text(value_of(metric), value_of(metric_of(*reference->summary, "weights_bytes")));
    }
    weights.push_back(bar_cell(content, value_of(metric).value_or(0) / std::max(1.0, largest)));
  }
  columns.push_back(weights);
  for (const char* kind : {"decode", "prefill"}) {
    for (const std::string& title : scenario_titles(report, kind)) {
      head.push_back(title + ", tokens/s");
      columns.push_back(speed_column(report, kind, title));
    }
  }
  for (const std::string& title : scenario_titles(report, "task")) {
    head.push_back(title + ", accuracy");
    std::vector<std::string> cells;
    for (const Row& row : report.rows) {
      const OrderedJson* record = record_of(report, row, "task", title);
      const OrderedJson& metric = record == nullptr ? kNull : metric_of(*record, "accuracy");
      cells.push_back(bar_cell(metric_cell(metric, format_percent), value_of(metric).value_or(0)));
    }
    columns.push_back(cells);
  }
  const bool has_fidelity =
      std::any_of(report.rows.begin(), report.rows.end(),
                  [&](const Row& row) { return !report.records(row, "fidelity").empty(); });
  if (has_fidelity) {
    head.insert(head.end(), {"mean KL, nats", "top-1 agreement"});
    std::vector<std::string> kl;
    std::vector<std::string> top1;
    for (const Row& row : report.rows) {
      kl.push_back(fmt::format("<td>{}</td>",
                               metric_cell(metric_of(*row.summary, "mean_kl"), format_number)));
      top1.push_back(fmt::format(
          "<td>{}</td>", metric_cell(metric_of(*row.summary, "top1_agreement"), format_percent)));
    }
    columns.push_back(kl);
    columns.push_back(top1);
  }
  std::string head_row = "<tr>";
  for (const std::string& text : head)
    head_row += fmt::format("<th scope=col>{}</th>", escape_html(text));
  std::string body;
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    body += "<tr>" + row_head(report.rows[i]);
    for (const auto& column : columns) body += column[i];
    body += "</tr>";
  }
  std::string plans;
  for (const Row& row : report.rows) {
    const std::string text = row.summary->value("text", "");
    if (!text.empty()) {
      plans += fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(row.label), escape_html(text));
    }
  }
  if (!plans.empty())
    plans =
        "<details><summary>What each plan is</summary><dl class=plans>" + plans + "</dl></details>";
  return section("summary", "All plans at a glance",
                 "Values with their 95 % intervals; ×, the ratio to the reference plan.",
                 table(head_row + "</tr>", body, "summary") + plans);
}

}  // namespace moebench::page
