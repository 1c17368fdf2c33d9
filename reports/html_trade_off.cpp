// Pareto fronts: what accuracy and fidelity cost in speed, energy and bytes.
#include <algorithm>
#include <cmath>

#include "bench/record.h"
#include "reports/html_page.h"
#include "reports/html_published.h"
#include "reports/html_text.h"
#include "reports/pareto.h"

namespace moebench::page {
namespace {

std::vector<OrderedJson> column(const Report& report, std::string_view kind, std::string_view title,
                                std::string_view metric) {
  std::vector<OrderedJson> values;
  for (const Row& row : report.rows) {
    values.push_back(metric_of(report, row, kind, title, metric));
  }
  return values;
}

void mark_front(TradeOff& t) {
  std::vector<ParetoPoint> points;
  for (std::size_t i = 0; i < t.x.size(); ++i) {
    const double x = value_of(t.x[i]).value_or(NAN);
    const double y = value_of(t.y[i]).value_or(NAN);
    points.push_back({t.x_higher_is_better ? -x : x, t.y_higher_is_better ? y : -y});
  }
  t.front = pareto_front(points);
}

}  // namespace

std::vector<TradeOff> trade_offs(const Report& report) {
  struct Axis {
    std::string title;
    std::string name;
    std::vector<OrderedJson> values;
    bool higher_is_better;
    bool is_share = false;
    bool is_logarithmic = false;
    OrderedJson published = OrderedJson::array();
  };
  std::vector<Axis> costs;
  if (const auto titles = scenario_titles(report, "decode"); !titles.empty()) {
    costs.push_back({titles.front() + ", tokens/s", "decode speed",
                     column(report, "decode", titles.front(), rate_metric("decode")), true});
    Axis joules{titles.front() + ", joules per token", "energy",
                column(report, "decode", titles.front(), "joules_per_token"), false};
    const bool measured = std::any_of(joules.values.begin(), joules.values.end(),
                                      [](const OrderedJson& metric) { return value_of(metric); });
    if (measured) costs.push_back(std::move(joules));
  }
  if (const auto titles = scenario_titles(report, "load"); !titles.empty()) {
    costs.push_back({"weights, bytes", "bytes",
                     column(report, "load", titles.front(), "weights_bytes"), false});
  }
  std::vector<Axis> gains;
  if (const auto titles = scenario_titles(report, "task"); !titles.empty()) {
    // The last effort of a suite is the one that thinks most: there damage has most room to show.
    gains.push_back({titles.back() + ", accuracy", titles.back() + " accuracy",
                     column(report, "task", titles.back(), "accuracy"), true, true, false,
                     published_lines(report, titles.back())});
  }
  if (const auto titles = scenario_titles(report, "fidelity"); !titles.empty()) {
    std::vector<OrderedJson> kl = column(report, "fidelity", titles.front(), "mean_kl");
    for (std::size_t i = 0; i < kl.size(); ++i) {
      // Its distance from itself need not be measured.
      if (report.rows[i].is_reference && kl[i].is_null()) kl[i] = {{"value", 0.0}};
    }
    gains.push_back(
        {"mean KL from the reference, nats", "KL divergence", std::move(kl), false, false, true});
  }
  std::vector<TradeOff> result;
  for (const Axis& gain : gains) {
    for (const Axis& cost : costs) {
      TradeOff t;
      t.id = chart_id("pareto", result.size());
      t.title = fmt::format("{} against {}", gain.name, cost.name);
      t.x_title = cost.title;
      t.y_title = gain.title;
      t.x_higher_is_better = cost.higher_is_better;
      t.y_higher_is_better = gain.higher_is_better;
      t.y_is_share = gain.is_share;
      t.y_is_logarithmic = gain.is_logarithmic;
      t.x = cost.values;
      t.y = gain.values;
      t.published = gain.published;
      mark_front(t);
      result.push_back(std::move(t));
    }
  }
  return result;
}

std::string trade_off_section(const Report& report) {
  const auto all = trade_offs(report);
  if (all.empty()) return "";
  std::string charts;
  std::vector<Column> columns;
  for (const TradeOff& t : all) {
    charts += figure(t.id, t.title, "half square");
    columns.push_back({t.title, {}});
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      const bool known = value_of(t.x[i]) && value_of(t.y[i]);
      columns.back().cells.push_back(
          fmt::format("<td>{}</td>", !known       ? std::string(kNoValue)
                                     : t.front[i] ? "<span class=good>● on the front</span>"
                                                  : "<span class=none>beaten</span>"));
    }
  }
  return section("trade-off", "Trade-off",
                 "A plan is on the front if no other plan is at least as good on both counts and "
                 "better on one. Fronts are drawn through the measured values; where intervals "
                 "overlap, a place on the front may be luck.",
                 "<div class=charts>" + charts + "</div>" + table_of_plans(report, columns));
}

}  // namespace moebench::page
