// From values to levels, in the scale that fits the metric.
#include "reports/trend.h"

#include <algorithm>
#include <cmath>

#include "evals/two_sample.h"
#include "reports/gate.h"

namespace moebench {

Trend trend_of(HistorySeries series) {
  Trend trend;
  const std::vector<double>& values = series.values;
  const bool positive = std::all_of(values.begin(), values.end(), [](double v) { return v > 0; });
  trend.relative = positive && series.unit != "share" && series.unit != "bool";
  // Ratios are differences of logarithms.
  std::vector<double> scaled = values;
  if (trend.relative) {
    std::transform(values.begin(), values.end(), scaled.begin(),
                   [](double v) { return std::log(v); });
  }
  const auto change_of = [&](double d) { return trend.relative ? std::expm1(d) : d; };
  const LevelHistory found = find_changes(scaled);
  const Segment& last = found.segments.back();
  trend.level = trend.relative ? std::exp(last.mean) : last.mean;
  trend.noise = found.noise;
  const double better = series.better == "lower" ? -1 : 1;
  for (const ChangePoint& change : found.changes) {
    TrendChange out;
    out.index = change.index;
    out.commit = series.commits[change.index];
    out.started = series.started[change.index];
    out.change = change_of(change.difference);
    if (change.interval) {
      out.interval = Interval{change_of(change.interval->low), change_of(change.interval->high),
                              change.interval->level};
    }
    out.p_value = change.p_value;
    out.for_the_worse = better * change.difference < 0;
    trend.changes.push_back(std::move(out));
  }
  const auto degrees = static_cast<double>(values.size() - found.segments.size());
  constexpr double kFewest = 3;  // below, the noise is hardly known
  if (found.noise && degrees >= kFewest) {
    constexpr double kMoreRuns = 3;
    const auto level_runs = static_cast<double>(last.end - last.begin);
    trend.visible =
        smallest_visible(*found.noise * std::sqrt(1 / level_runs + 1 / kMoreRuns), degrees, 0.99);
  }
  const auto level = std::span(scaled).subspan(last.begin, last.end - last.begin);
  constexpr double kOdd = 0.01;
  constexpr std::size_t kEnough = 5;  // runs, before one is called odd
  if (const auto p = last_value_p(level); level.size() >= kEnough && p && *p < kOdd) {
    trend.last_is_odd = true;
    double sum = 0;
    for (const double v : level.first(level.size() - 1)) sum += v;
    trend.last_change = change_of(level.back() - sum / static_cast<double>(level.size() - 1));
  }
  trend.series = std::move(series);
  return trend;
}

std::vector<Trend> read_trends(History& history, const HistoryFilter& filter,
                               std::vector<std::string> metrics,
                               const std::function<bool(const HistorySeries&)>& wanted) {
  if (metrics.empty()) {
    for (const auto& [name, rule] : default_gate().metrics) metrics.push_back(name);
  }
  std::vector<Trend> trends;
  for (HistorySeries& series : history.series(filter, metrics)) {
    if (!wanted || wanted(series)) trends.push_back(trend_of(std::move(series)));
  }
  return trends;
}

OrderedJson to_json(const Trend& trend) {
  const HistorySeries& s = trend.series;
  const auto number = [](const std::optional<double>& value) {
    return value ? OrderedJson(*value) : OrderedJson();
  };
  OrderedJson points = OrderedJson::array();
  for (std::size_t i = 0; i < s.values.size(); ++i) {
    points.push_back({{"run", s.ids[i]},
                      {"commit", s.commits[i]},
                      {"started", s.started[i]},
                      {"value", s.values[i]}});
  }
  OrderedJson changes = OrderedJson::array();
  for (const TrendChange& change : trend.changes) {
    OrderedJson json = {{"index", change.index},     {"commit", change.commit},
                        {"started", change.started}, {"change", change.change},
                        {"p_value", change.p_value}, {"for_the_worse", change.for_the_worse}};
    if (change.interval) json["interval"] = to_json(*change.interval);
    changes.push_back(std::move(json));
  }
  return {{"model", s.model},
          {"plan", s.plan},
          {"scenario", s.scenario},
          {"metric", s.metric},
          {"unit", s.unit},
          {"better", s.better},
          {"machine", s.machine},
          {"relative", trend.relative},
          {"level", trend.level},
          {"noise", number(trend.noise)},
          {"visible", number(trend.visible)},
          {"last_is_odd", trend.last_is_odd},
          {"changes", changes},
          {"points", points}};
}

}  // namespace moebench
