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
        const OrderedJson* record = record_of(report, row, kind, title);
        if (record != nullptr && value_of(metric_of(*record, metric))) {
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
  std::string body;
  std::string head = "<tr><th scope=col>plan</th>";
  std::vector<std::vector<std::string>> columns;
  std::string charts;
  for (const char* kind : {"decode", "prefill"}) {
    int number = 0;
    for (const std::string& title : scenario_titles(report, kind)) {
      head += fmt::format("<th scope=col>{}, tokens/s</th>", escape_html(title));
      columns.push_back(speed_column(report, kind, title));
      charts += figure(fmt::format("{}-{}", kind, number++), title + ": tokens per second", "half");
    }
  }
  std::string latency;
  for (const std::string& title : scenario_titles(report, "decode")) {
    latency += latency_table(report, "decode", title);
  }
  for (const std::string& title : scenario_titles(report, "task")) {
    latency += latency_table(report, "task", title);
  }
  if (columns.empty() && latency.empty()) return "";
  if (!columns.empty()) {
    std::string rows;
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      rows += "<tr>" + row_head(report.rows[i]);
      for (const auto& column : columns) rows += column[i];
      rows += "</tr>";
    }
    body += "<div class=charts>" + charts + "</div>" + table(head + "</tr>", rows);
  }
  int number = 0;
  std::string distributions;
  for (const std::string& title : scenario_titles(report, "task")) {
    distributions += figure(fmt::format("e2e-{}", number++),
                            title + ": share of answers finished within a time", "half");
  }
  body += "<h3>Latency</h3><div class=charts>" + distributions + "</div>" + latency;
  return section(
      "speed", "Speed",
      "Medians over repetitions. Decode throughput counts output tokens only, from the moment "
      "every "
      "sequence has its first; prefill counts prompt tokens up to the first output token. Before "
      "anything was timed, each plan's outputs were checked against the reference, and every timed "
      "repetition had to give the same tokens.",
      body);
}

}  // namespace moebench::page
