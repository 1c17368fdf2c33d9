// Accuracy: scores, paired differences from the reference, how every answer ended, categories.
#include <algorithm>
#include <cmath>

#include "bench/scenario.h"
#include "reports/html_page.h"
#include "reports/html_published.h"
#include "reports/html_text.h"
#include "reports/published_scores.h"

namespace moebench::page {
namespace {

// The comparison of a row with the reference on (task, effort), or null.
const OrderedJson& comparison_of(const Report& report, const Row& row,
                                 const OrderedJson& scenario) {
  const std::string task = task_title(scenario.value("task", ""), scenario.value("protocol", ""));
  for (const OrderedJson& c : report.json.at("comparisons")) {
    if (c.at("model") == row.model && c.at("plan") == row.plan && c.at("task") == task &&
        c.at("effort") == scenario.at("effort")) {
      return c;
    }
  }
  return kNull;
}

std::string difference_cell(const OrderedJson& comparison) {
  if (comparison.is_null()) return fmt::format("<td>{}</td>", kNoValue);
  const bool significant = comparison.at("p_value_holm").get<double>() < 0.05;
  const double difference = comparison.at("difference").get<double>();
  std::string text = fmt::format("<span class={}>{}</span>",
                                 !significant     ? "plain"
                                 : difference < 0 ? "bad"
                                                  : "good",
                                 format_points(difference));
  if (comparison.contains("interval")) {
    const OrderedJson& interval = comparison.at("interval");
    text += fmt::format("<small>[{}, {}]</small>", format_points(interval.at("low").get<double>()),
                        format_points(interval.at("high").get<double>()));
  }
  return fmt::format("<td>{}</td>", text);
}

// How the answers split, as one bar: every answer is one of these, and none is hidden.
std::string verdict_bar(const OrderedJson& verdicts) {
  double total = 0;
  for (const auto& [name, count] : verdicts.items()) total += count.get<double>();
  if (!(total > 0)) return std::string(kNoValue);
  std::string bar;
  std::string words;
  for (const auto& [name, count] : verdicts.items()) {
    const auto n = count.get<std::int64_t>();
    if (n == 0) continue;
    bar += fmt::format("<i class=v-{} style=\"flex-grow:{}\"></i>", name, n);
    words += fmt::format("{}{} {}", words.empty() ? "" : ", ", n, name);
  }
  return fmt::format("<span class=split title=\"{0}\">{1}</span><small>{0}</small>",
                     escape_html(words), bar);
}

// What is published for the task and the models of these rows, as rows of their own, marked.
std::string published_rows(const Report& report, const std::string& title) {
  std::string rows;
  for (const PublishedPoint& point : published_points(report, title)) {
    rows += fmt::format(
        "<tr class=published><th scope=row>☆ published</th>{}<td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td class=wide><small>not measured here: {}, {}; {}</small></td></tr>",
        bar_cell(escape_html(format_percent(point.value)), point.value), kNoValue, kNoValue,
        kNoValue, kNoValue, escape_html(point.model), escape_html(point.benchmark),
        escape_html(kPublishedSource));
  }
  return rows;
}

std::string task_table(const Report& report, const std::string& title) {
  std::string body;
  for (const Row& row : report.rows) {
    const OrderedJson* record = record_of(report, row, "task", title);
    if (record == nullptr) continue;
    const OrderedJson& accuracy = metric_of(*record, "accuracy");
    const OrderedJson& comparison = comparison_of(report, row, record->at("scenario"));
    body += fmt::format(
        "<tr>{}{}", row_head(row),
        bar_cell(metric_cell(accuracy, format_percent), value_of(accuracy).value_or(0)));
    if (row.is_reference || comparison.is_null()) {
      body += fmt::format("<td>{0}</td><td>{0}</td><td>{0}</td>", kNoValue);
    } else {
      body += difference_cell(comparison);
      body +=
          fmt::format("<td>{} / {}</td><td>{}</td>", comparison.at("gained").get<std::int64_t>(),
                      comparison.at("lost").get<std::int64_t>(),
                      escape_html(format_p_value(comparison.at("p_value_holm").get<double>())));
    }
    body +=
        fmt::format("<td>{}</td><td class=wide>{}</td></tr>",
                    metric_cell(metric_of(*record, "output_tokens_mean"), format_number),
                    verdict_bar(record->at("details").value("verdicts", OrderedJson::object())));
  }
  body += published_rows(report, title);
  return fmt::format("<h3>{}</h3>", escape_html(title)) +
         table(
             "<tr><th scope=col>plan</th><th scope=col>accuracy</th><th scope=col>against "
             "reference, points</th><th scope=col>gained / lost</th><th scope=col>p, "
             "Holm</th><th scope=col>tokens per answer</th><th scope=col>every answer</th></tr>",
             body);
}

// Accuracy by category, tinted by the difference from the reference.
std::string category_table(const Report& report, const std::string& title) {
  std::vector<std::string> names;
  for (const Row& row : report.rows) {
    const OrderedJson* record = record_of(report, row, "task", title);
    if (record == nullptr) continue;
    // Held by name: items() does not keep a temporary alive.
    const OrderedJson categories = record->at("details").value("categories", OrderedJson::object());
    for (const auto& [name, unused] : categories.items()) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  if (names.size() < 2) return "";
  const auto accuracy = [&](const Row& row, const std::string& name) -> std::optional<double> {
    const OrderedJson* record = record_of(report, row, "task", title);
    if (record == nullptr || !record->at("details").contains("categories")) return std::nullopt;
    const OrderedJson& categories = record->at("details").at("categories");
    if (!categories.contains(name)) return std::nullopt;
    return value_of(OrderedJson{{"value", categories.at(name).at("accuracy")}});
  };
  std::string head = "<tr><th scope=col>plan</th>";
  for (const std::string& name : names)
    head += fmt::format("<th scope=col>{}</th>", escape_html(name));
  std::string body;
  for (const Row& row : report.rows) {
    if (record_of(report, row, "task", title) == nullptr) continue;
    const Row* reference = report.reference_of(row);
    body += fmt::format("<tr>{}", row_head(row));
    for (const std::string& name : names) {
      const auto value = accuracy(row, name);
      const auto base = reference == nullptr ? std::nullopt : accuracy(*reference, name);
      if (!value) {
        body += fmt::format("<td>{}</td>", kNoValue);
        continue;
      }
      const double difference = base ? *value - *base : 0;
      body += fmt::format("<td class={} style=\"--s:{:.0f}%\">{:.0f}</td>",
                          difference < 0 ? "tint-bad" : "tint-good",
                          std::min(100.0, 250 * std::fabs(difference)), 100 * *value);
    }
    body += "</tr>";
  }
  return fmt::format("<details open><summary>{}: by category, % right</summary>{}</details>",
                     escape_html(title), table(head + "</tr>", body, "heat"));
}

}  // namespace

std::string accuracy_section(const Report& report) {
  const auto titles = scenario_titles(report, "task");
  if (titles.empty()) return "";
  std::string body =
      figure("accuracy", "Accuracy by plan and reasoning effort, with 95 % intervals");
  std::string charts;
  for (std::size_t i = 0; i < titles.size(); ++i) {
    charts += figure(chart_id("budget", i),
                     titles[i] + ": share right within a budget of output tokens", "half");
  }
  body += "<div class=charts>" + charts + "</div>";
  for (const std::string& title : titles) body += task_table(report, title);
  for (const std::string& title : titles) body += category_table(report, title);
  return section(
      "accuracy", "Accuracy",
      "Intervals treat a question as the unit. Differences are paired: the same question, repeat "
      "and seed under both plans; p is exact (McNemar; with repeats by flipping signs of "
      "questions), adjusted for all comparisons of this "
      "page. A difference is coloured only where that p is below 0.05.",
      body);
}

}  // namespace moebench::page
