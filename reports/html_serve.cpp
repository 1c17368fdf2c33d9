// Serving: loads, sweeps, and what an arriving prompt does to others.
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

struct Shown {
  const char* metric;
  const char* title;
  std::string (*format)(double);
};

constexpr Shown kServeColumns[] = {
    {"requests_per_second", "requests/s", format_number},
    {"serve_tokens_per_second", "output tokens/s", format_number},
    {"steady_output_tokens_per_second", "steady output tokens/s", format_number},
    {"user_tokens_per_second", "tokens/s per user", format_number},
    {"goodput_share", "good requests", format_percent},
    {"ttft_ms_p50", "TTFT p50, ms", format_number},
    {"ttft_ms_p99", "TTFT p99, ms", format_number},
    {"ttff_ms_p50", "first final token p50, ms", format_number},
    {"tpot_ms_p50", "TPOT p50, ms", format_number},
    {"itl_ms_p99", "ITL p99, ms", format_number},
    {"e2e_ms_p50", "E2E p50, ms", format_number},
    {"queue_ms_p50", "queue p50, ms", format_number},
    {"lateness_ms_p50", "lateness p50, ms", format_number},
    {"knee_requests_per_second", "knee, requests/s", format_number},
};

constexpr Shown kMixedColumns[] = {
    {"mixed_tokens_per_second", "tokens/s meanwhile", format_number},
    {"itl_slowdown", "gaps, times as long", format_number},
    {"itl_before_ms_p50", "ITL before p50, ms", format_number},
    {"itl_during_ms_p50", "ITL during p50, ms", format_number},
    {"itl_during_ms_p99", "ITL during p99, ms", format_number},
    {"ttft_ms", "TTFT of the prompt, ms", format_number},
};

// One row per plan; columns that no plan has a metric for are left out.
template <std::size_t N>
std::string load_table(const Report& report, std::string_view kind, const std::string& title,
                       const Shown (&all)[N]) {
  std::vector<const Shown*> columns;
  std::string head = "<tr><th scope=col>plan</th>";
  for (const Shown& column : all) {
    for (const Row& row : report.rows) {
      if (metric_of(report, row, kind, title, column.metric).is_null()) continue;
      columns.push_back(&column);
      head += fmt::format("<th scope=col>{}</th>", column.title);
      break;
    }
  }
  std::string body;
  for (const Row& row : report.rows) {
    const OrderedJson* record = record_of(report, row, kind, title);
    if (record == nullptr) continue;
    body += "<tr>" + row_head(row);
    for (const Shown* column : columns) {
      body += fmt::format("<td>{}</td>",
                          metric_cell(metric_of(*record, column->metric), column->format));
    }
    body += "</tr>";
  }
  return fmt::format("<h3>{}</h3>", escape_html(title)) + table(head + "</tr>", body);
}

std::string sweep_table(const OrderedJson& details, const Row& row) {
  static constexpr std::pair<const char*, const char*> kColumns[] = {
      {"rate", "asked, requests/s"},
      {"requests_per_second", "done, requests/s"},
      {"serve_tokens_per_second", "output tokens/s"},
      {"goodput_share", "good requests"},
      {"ttft_ms_p50", "TTFT p50, ms"},
      {"ttft_ms_p99", "TTFT p99, ms"},
      {"tpot_ms_p50", "TPOT p50, ms"},
      {"itl_ms_p99", "ITL p99, ms"}};
  std::string head = "<tr>";
  for (const auto& [name, title] : kColumns) head += fmt::format("<th scope=col>{}</th>", title);
  std::string body;
  for (const OrderedJson& point : details.at("points")) {
    body += "<tr>";
    for (const auto& [name, title] : kColumns) {
      const OrderedJson value = point.value(name, OrderedJson());
      body += fmt::format("<td>{}</td>", value.is_number() ? format_number(value.get<double>())
                                                           : std::string(kNoValue));
    }
    body += fmt::format("<td>{}</td></tr>", point.value("holds", false) ? "holds" : "too much");
  }
  return fmt::format("<details><summary>Rates, {}: {}</summary>{}</details>",
                     escape_html(row.label), escape_html(details.value("knee_rule", "")),
                     table(head + "<th scope=col></th></tr>", body));
}

}  // namespace

std::string serve_section(const Report& report) {
  std::string body;
  const auto titles = scenario_titles(report, "serve");
  for (std::size_t i = 0; i < titles.size(); ++i) {
    body += load_table(report, "serve", titles[i], kServeColumns);
    std::string sweeps;
    for (const Row& row : report.rows) {
      const OrderedJson* record = record_of(report, row, "serve", titles[i]);
      if (record == nullptr || !record->at("details").contains("points")) continue;
      sweeps += sweep_table(record->at("details"), row);
    }
    std::string charts;
    if (!sweeps.empty()) {
      charts = figure(chart_id("sweep", i), "Waiting against throughput; a star is the knee");
    }
    charts += "<div class=charts>" +
              figure(chart_id("load-ttft_ms", i), "Share of requests with a TTFT within a time") +
              figure(chart_id("load-itl_ms", i), "Share of gaps between tokens within a time") +
              "</div>";
    body += charts + sweeps;
  }
  for (const std::string& title : scenario_titles(report, "mixed")) {
    body += load_table(report, "mixed", title, kMixedColumns);
  }
  if (body.empty()) return "";
  return section(
      "serving", "Serving",
      "TTFT: arrival to first output token, where arrival is the scheduled time, or the submission "
      "in a closed loop. ITL: a gap between output tokens, pooled over requests. TPOT: last minus "
      "first token over tokens minus one. E2E: arrival to last token. Queue: arrival to the first "
      "step. Lateness: how long after its time a request was handed over. Throughput counts from "
      "the first arrival to the last end; steady, from the first success to the last arrival. A "
      "percentile that the requests are too few for is left out.",
      body);
}

}  // namespace moebench::page
