// Speed and latency.
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

std::string latency_table(const Report& report, std::string_view kind, const std::string& title) {
  static constexpr std::pair<const char*, const char*> kLatencies[] = {
      {"ttft_ms", "TTFT"}, {"tpot_ms", "TPOT"}, {"itl_ms", "ITL"}, {"e2e_ms", "E2E"}};
  std::string head = "<tr><th scope=col rowspan=2>plan</th>";
  std::string second = "<tr>";
  std::string body;
  std::vector<std::string> columns;
  for (const auto& [name, text] : kLatencies) {
    std::vector<std::string> known;
    for (const char* quantile : {"mean", "p50", "p90", "p99"}) {
      const std::string metric = fmt::format("{}_{}", name, quantile);
      for (const Row& row : report.rows) {
        if (value_of(metric_of(report, row, kind, title, metric))) {
          known.push_back(metric);
          second += fmt::format("<th scope=col>{}</th>", quantile);
          break;
        }
      }
    }
    if (known.empty()) continue;
    head += fmt::format("<th scope=colgroup colspan={}>{}, ms</th>", known.size(), text);
    columns.insert(columns.end(), known.begin(), known.end());
  }
  if (columns.empty()) return "";
  for (const Row& row : report.rows) {
    const OrderedJson* record = record_of(report, row, kind, title);
    if (record == nullptr) continue;
    body += fmt::format("<tr>{}", row_head(row));
    for (const std::string& column : columns) {
      body += fmt::format("<td>{}</td>", metric_cell(metric_of(*record, column), format_number));
    }
    body += "</tr>";
  }
  return fmt::format("<details><summary>Latency, {}</summary>{}</details>", escape_html(title),
                     table(head + "</tr>" + second + "</tr>", body));
}

}  // namespace

std::string speed_section(const Report& report) {
  std::vector<Column> columns;
  std::string charts;
  for (const char* kind : {"decode", "prefill"}) {
    const auto titles = scenario_titles(report, kind);
    for (std::size_t i = 0; i < titles.size(); ++i) {
      columns.push_back(speed_column(report, kind, titles[i]));
      charts += figure(chart_id(kind, i), titles[i] + ": tokens per second", "half");
    }
  }
  std::string latency;
  for (const char* kind : {"decode", "task"}) {
    for (const std::string& title : scenario_titles(report, kind)) {
      latency += latency_table(report, kind, title);
    }
  }
  if (columns.empty() && latency.empty()) return "";
  std::string body;
  if (!columns.empty()) {
    body += "<div class=charts>" + charts + "</div>" + table_of_plans(report, columns);
  }
  const auto tasks = scenario_titles(report, "task");
  std::string distributions;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    distributions +=
        figure(chart_id("e2e", i), tasks[i] + ": share of answers finished within a time", "half");
  }
  body += "<h3>Latency</h3><div class=charts>" + distributions + "</div>" + latency;
  return section(
      "speed", "Speed",
      "Medians over repetitions. Decode throughput counts output tokens only, from the moment "
      "every sequence has its first; prefill counts prompt tokens up to the first output token. "
      "Before anything was timed, each plan's outputs were checked against the reference, and "
      "every timed repetition had to give the same tokens. Intervals are over the repetitions of "
      "this run; plans were timed one after the other, so a disturbance of the machine may exceed "
      "them.",
      body);
}

}  // namespace moebench::page
