// Speed and latency.
#include <algorithm>

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

// A number of details.time_by_op; nothing in records from before there was such a one.
std::string milliseconds_cell(const OrderedJson& times, const char* name) {
  if (!times.contains(name)) return std::string(kNoValue);
  return format_number(times.at(name).get<double>());
}

// What an op takes and how near it is to its limit, or else its share of all.
std::string op_cell(const OrderedJson& times, const std::string& op) {
  if (!times.at("ms").contains(op)) return std::string(kNoValue);
  const auto took = times.at("ms").at(op).get<double>();
  const auto limit = op_limit_ms(times, op);
  if (!times.contains("limits")) {
    const auto total = times.at("total_ms").get<double>();
    return fmt::format("{} <small>{:.0f} %</small>", format_number(took),
                       100 * took / std::max(total, 1e-12));
  }
  if (!limit || !(took > 0)) return format_number(took);
  const auto bound = times.at("limits").at(op).value("bound", "");
  return fmt::format("{} <small>{:.0f} % of limit ({})</small>", format_number(took),
                     100 * *limit / took, escape_html(bound));
}

// Where one step spends its time: a table for each workload, op by op; its chart beside it.
std::string time_table(const Report& report, std::string_view kind, const std::string& title,
                       std::size_t number) {
  const auto times_of = [&](const Row& row) -> const OrderedJson* {
    const OrderedJson* record = record_of(report, row, kind, title);
    if (record == nullptr || !record->at("details").contains("time_by_op")) return nullptr;
    return &record->at("details").at("time_by_op");
  };
  std::vector<std::string> ops;
  for (const Row& row : report.rows) {
    const OrderedJson* times = times_of(row);
    if (times == nullptr) continue;
    for (const auto& [op, milliseconds] : times->at("ms").items()) {
      if (std::find(ops.begin(), ops.end(), op) == ops.end()) ops.push_back(op);
    }
  }
  if (ops.empty()) return "";
  std::string head =
      "<tr><th scope=col>plan</th><th scope=col>step</th><th scope=col>limit, ms</th><th "
      "scope=col>measured, ms</th><th scope=col>sum of ops, ms</th><th scope=col>unexplained, "
      "ms</th>";
  for (const std::string& op : ops) {
    head += fmt::format("<th scope=col>{}</th>", escape_html(op));
  }
  std::string body;
  for (const Row& row : report.rows) {
    const OrderedJson* times = times_of(row);
    if (times == nullptr) continue;
    body += fmt::format("<tr>{}<td>{}</td>", row_head(row),
                        escape_html(times->at("step").get<std::string>()));
    for (const char* name : {"limit_ms", "step_ms", "total_ms", "unexplained_ms"}) {
      body += fmt::format("<td>{}</td>", milliseconds_cell(*times, name));
    }
    for (const std::string& op : ops) body += fmt::format("<td>{}</td>", op_cell(*times, op));
    body += "</tr>";
  }
  return figure(chart_id(std::string(kind) + "-time", number),
                title + ": from the machine's limit to the measured step", "half") +
         fmt::format("<details><summary>Time by op, {}</summary>{}</details>", escape_html(title),
                     table(head + "</tr>", body));
}

// The kernels of one step on a GPU, of each plan whose record has them.
std::string kernel_table(const Report& report, std::string_view kind, const std::string& title) {
  std::string body;
  for (const Row& row : report.rows) {
    const OrderedJson* record = record_of(report, row, kind, title);
    if (record == nullptr) continue;
    const OrderedJson times = record->at("details").value("time_by_op", OrderedJson::object());
    if (!times.contains("kernels")) continue;
    const double busy = std::max(times.at("busy_ms").get<double>(), 1e-12);
    for (const OrderedJson& kernel : times.at("kernels")) {
      const auto took = kernel.at("ms").get<double>();
      const auto op = kernel.at("op").get<std::string>();
      body += fmt::format(
          "<tr>{}<td>{}</td><td><code>{}</code></td><td>{:.0f}</td><td>{}</td><td>{:.1f}</td></tr>",
          row_head(row), op.empty() ? std::string(kNoValue) : escape_html(op),
          escape_html(kernel.at("kernel").get<std::string>()), kernel.at("launches").get<double>(),
          format_number(took), 100 * took / busy);
    }
    body += fmt::format(
        "<tr>{}<td colspan=2>at least one kernel runs</td><td></td><td>{}</td><td>100.0</td></tr>",
        row_head(row), format_number(busy));
    body += fmt::format(
        "<tr>{}<td colspan=2>gaps between kernels</td><td></td><td>{}</td><td></td></tr>",
        row_head(row), format_number(times.at("span_ms").get<double>() - busy));
  }
  if (body.empty()) return "";
  return fmt::format(
      "<details><summary>Kernels of one step (CUPTI, launched one by one), "
      "{}</summary>{}</details>",
      escape_html(title),
      table("<tr><th scope=col>plan</th><th scope=col>op</th><th scope=col>kernel</th><th "
            "scope=col>launches</th><th scope=col>ms</th><th scope=col>% of busy time</th></tr>",
            body));
}

// The same of the step as it runs in use: what each kernel adds to it, the most first.
std::string kernel_table_in_use(const Report& report, std::string_view kind,
                                const std::string& title) {
  std::string body;
  for (const Row& row : report.rows) {
    const OrderedJson* record = record_of(report, row, kind, title);
    if (record == nullptr) continue;
    const OrderedJson times = record->at("details").value("time_by_op", OrderedJson::object());
    if (!times.contains("in_use") || times.at("in_use").is_null()) continue;
    const OrderedJson& in_use = times.at("in_use");
    const double span = std::max(in_use.at("span_ms").get<double>(), 1e-12);
    std::vector<OrderedJson> kernels = in_use.at("kernels").get<std::vector<OrderedJson>>();
    const auto exposed = [](const OrderedJson& kernel) {
      return kernel.at("exposed_ms").get<double>();
    };
    std::stable_sort(
        kernels.begin(), kernels.end(),
        [&](const OrderedJson& a, const OrderedJson& b) { return exposed(a) > exposed(b); });
    for (const OrderedJson& kernel : kernels) {
      body += fmt::format(
          "<tr>{}<td><code>{}</code></td><td>{:.0f}</td><td>{}</td><td>{:.1f}</td></tr>",
          row_head(row), escape_html(kernel.at("kernel").get<std::string>()),
          kernel.at("launches").get<double>(), format_number(exposed(kernel)),
          100 * exposed(kernel) / span);
    }
    body += fmt::format("<tr>{}<td>the step</td><td></td><td>{}</td><td>100.0</td></tr>",
                        row_head(row), format_number(span));
  }
  if (body.empty()) return "";
  return fmt::format(
      "<details><summary>What each kernel adds to a step in use, where they overlap (CUPTI), "
      "{}</summary>{}</details>",
      escape_html(title),
      table("<tr><th scope=col>plan</th><th scope=col>kernel</th><th scope=col>launches</th><th "
            "scope=col>ms more</th><th scope=col>% of the step</th></tr>",
            body));
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
  std::string where;
  for (const char* kind : {"decode", "prefill"}) {
    const auto titles = scenario_titles(report, kind);
    for (std::size_t i = 0; i < titles.size(); ++i) {
      where += time_table(report, kind, titles[i], i);
      where += kernel_table(report, kind, titles[i]);
      where += kernel_table_in_use(report, kind, titles[i]);
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
  if (!where.empty()) {
    body +=
        "<h3>Where the time goes</h3><p>One step of each workload, from left to right: the least "
        "time in which this machine could read the step's weights, the experts that its tokens "
        "chose and its cache, or multiply, whichever takes longer for each op, at rates measured "
        "here (<code>moebench roofline</code>); then what each op takes above its own limit, each "
        "timed alone; then gaps. The marker is the step as it runs in use: on a GPU it replays a "
        "graph, and may lie left of the sum.</p>" +
        where;
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
