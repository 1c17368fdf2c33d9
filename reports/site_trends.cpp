// Trends on the first page of a site: a small picture of each metric over its runs, drawn here, so
// that it is seen without JavaScript.
#include <algorithm>
#include <cmath>

#include "reports/html_page.h"
#include "reports/html_text.h"
#include "reports/site.h"

namespace moebench {
namespace {

constexpr double kWidth = 280;
constexpr double kHeight = 72;
constexpr double kEdge = 7;  // room for the marks at the sides

struct Change {
  std::size_t index;
  std::string text;  // "−5.0 % since abc (worse)"
  bool for_the_worse;
};

std::string amount_text(const OrderedJson& trend, double change) {
  const auto unit = trend.at("unit").get<std::string>();
  if (trend.at("relative").get<bool>()) {
    return format_signed(100 * change) + " %";
  }
  if (unit == "share") return format_points(change) + " points";
  return fmt::format("{}{} {}", change < 0 ? "−" : "+", format_number(std::fabs(change)), unit);
}

std::vector<Change> changes_of(const OrderedJson& trend) {
  std::vector<Change> changes;
  for (const OrderedJson& change : trend.at("changes")) {
    const bool worse = change.at("for_the_worse").get<bool>();
    changes.push_back(
        {change.at("index").get<std::size_t>(),
         fmt::format("{} since {} ({})", amount_text(trend, change.at("change").get<double>()),
                     change.at("commit").get<std::string>(), worse ? "worse" : "better"),
         worse});
  }
  return changes;
}

std::vector<double> values_of(const OrderedJson& trend) {
  std::vector<double> values;
  for (const OrderedJson& point : trend.at("points")) {
    values.push_back(point.at("value").get<double>());
  }
  return values;
}

// Runs from left to right at equal distances; the levels that were found as lines, their beginnings
// as marks that point up or down.
std::string picture(const std::vector<double>& values, const std::vector<Change>& changes,
                    const std::string& label) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double middle = (*low + *high) / 2;
  // Of values that are all the same the line goes through the middle.
  const double span = *high > *low ? *high - *low : 1;
  const auto x = [&](std::size_t i) {
    const auto steps = static_cast<double>(std::max<std::size_t>(values.size() - 1, 1));
    return values.size() == 1 ? kWidth / 2
                              : kEdge + (kWidth - 2 * kEdge) * static_cast<double>(i) / steps;
  };
  const auto y = [&](double value) {
    return kHeight / 2 - (kHeight - 2 * kEdge) * (value - middle) / span;
  };
  std::string line;
  for (std::size_t i = 0; i < values.size(); ++i) {
    line += fmt::format("{}{:.1f},{:.1f}", i == 0 ? "" : " ", x(i), y(values[i]));
  }
  std::string levels;
  std::string marks;
  for (std::size_t c = 0; c <= changes.size(); ++c) {
    const std::size_t begin = c == 0 ? 0 : changes[c - 1].index;
    const std::size_t end = c == changes.size() ? values.size() : changes[c].index;
    if (begin >= end || end > values.size()) continue;
    double sum = 0;
    for (std::size_t i = begin; i < end; ++i) sum += values[i];
    const double level = sum / static_cast<double>(end - begin);
    levels += fmt::format("<path class=level d=\"M{:.1f} {:.1f}H{:.1f}\"/>", x(begin), y(level),
                          x(end - 1));
    if (c == 0) continue;
    marks += fmt::format("<path class={} d=\"M{:.1f} {:.1f}V{:.1f}\"><title>{}</title></path>",
                         changes[c - 1].for_the_worse ? "worse" : "better",
                         (x(begin - 1) + x(begin)) / 2, kEdge / 2, kHeight - kEdge / 2,
                         escape_html(changes[c - 1].text));
  }
  return fmt::format(
      "<svg viewBox=\"0 0 {0} {1}\" role=img aria-label=\"{2}\">{3}<polyline points=\"{4}\"/>{5}"
      "<circle cx={6:.1f} cy={7:.1f} r=3 /></svg>",
      kWidth, kHeight, escape_html(label), marks, line, levels, x(values.size() - 1),
      y(values.back()));
}

std::string card(const OrderedJson& trend) {
  const auto text = [&](const char* field) { return trend.at(field).get<std::string>(); };
  const std::vector<double> values = values_of(trend);
  const std::vector<Change> changes = changes_of(trend);
  const auto value = [&](double v) { return format_value(v, text("unit")); };
  const std::string unit = text("unit") == "share" || text("unit") == "bytes" ? "" : text("unit");
  std::string notes;
  for (const Change& change : changes) {
    notes += fmt::format("<p class={}>{} {}</p>", change.for_the_worse ? "bad" : "good",
                         change.for_the_worse ? "▼" : "▲", escape_html(change.text));
  }
  if (trend.at("last_is_odd").get<bool>()) {
    notes += "<p class=open>? the last run stands out</p>";
  }
  const std::string range =
      fmt::format("{} run{} since {}, from {} to {}", values.size(), values.size() == 1 ? "" : "s",
                  trend.at("points").front().at("started").get<std::string>().substr(0, 10),
                  value(*std::min_element(values.begin(), values.end())),
                  value(*std::max_element(values.begin(), values.end())));
  return fmt::format(
      "<figure class=trend><figcaption>{} <small>{}</small></figcaption><p class=metric>{}: "
      "<b>{}</b> {}</p>{}<p><small>{}</small></p>{}</figure>",
      escape_html(text("plan")), escape_html(text("model")),
      escape_html(text("scenario") + ", " + text("metric")),
      escape_html(value(trend.at("level").get<double>())), escape_html(unit),
      picture(values, changes, text("metric") + ": " + range), escape_html(range), notes);
}

}  // namespace

std::string site_trends(const OrderedJson& site) {
  if (!site.contains("trends")) return "";
  std::string body;
  for (const std::string& machine : machines_of(site.at("trends"))) {
    std::string changed;
    std::string steady;
    std::size_t num_steady = 0;
    for (const OrderedJson& trend : site.at("trends")) {
      if (trend.at("machine") != machine) continue;
      const bool moves = !trend.at("changes").empty() || trend.at("last_is_odd").get<bool>();
      (moves ? changed : steady) += card(trend);
      num_steady += moves ? 0 : 1;
    }
    body += fmt::format("<h3>{}</h3>", escape_html(machine));
    if (!changed.empty()) body += "<div class=trends>" + changed + "</div>";
    if (steady.empty()) continue;
    body += fmt::format("<details{}><summary>{} without a change of level</summary>{}</details>",
                        changed.empty() ? " open" : "", num_steady,
                        "<div class=trends>" + steady + "</div>");
  }
  return page::section(
      "trends", "Trends",
      "Each metric over the good runs of the history, oldest on the left, with the levels that can "
      "be told from its own noise: a step counts if fewer than 1 % of random orders of the same "
      "runs show as large a one. The number is the mean of the runs since the last step.",
      body);
}

}  // namespace moebench
