// What page.js draws: every chart as data, made from the same report as the tables.
#include <algorithm>
#include <map>

#include "bench/latency.h"
#include "bench/record.h"
#include "kernels/core/error.h"
#include "reports/html_answers.h"
#include "reports/html_page.h"
#include "reports/html_published.h"

namespace moebench::page {
namespace {

constexpr double kBytesPerMb = 1e6;
constexpr std::size_t kDistributionPoints = 60;
constexpr double kShownShare = 0.02;  // of the longest step: shorter ops are joined

// {"v", "lo", "hi"} of a metric, or null.
OrderedJson point_of(const OrderedJson& metric) {
  const auto value = value_of(metric);
  if (!value) return OrderedJson();
  OrderedJson point = {{"v", *value}};
  if (metric.contains("interval") && metric.at("interval").is_object()) {
    point["lo"] = metric.at("interval").at("low");
    point["hi"] = metric.at("interval").at("high");
  }
  return point;
}

OrderedJson labels_of(const Report& report) {
  OrderedJson labels = OrderedJson::array();
  for (const Row& row : report.rows) labels.push_back(row.label);
  return labels;
}

OrderedJson points_of(const Report& report, std::string_view kind, std::string_view title,
                      std::string_view metric) {
  OrderedJson points = OrderedJson::array();
  for (const Row& row : report.rows) {
    points.push_back(point_of(metric_of(report, row, kind, title, metric)));
  }
  return points;
}

OrderedJson accuracy_chart(const Report& report) {
  OrderedJson series = OrderedJson::array();
  for (const std::string& title : scenario_titles(report, "task")) {
    series.push_back({{"name", title}, {"points", points_of(report, "task", title, "accuracy")}});
    if (published_points(report, title).empty()) continue;
    OrderedJson published = OrderedJson::array();
    for (const Row& row : report.rows) {
      const auto point = published_point(report, row, title);
      published.push_back(point ? OrderedJson{{"v", point->value}, {"text", point->text()}}
                                : OrderedJson());
    }
    series.back()["published"] = std::move(published);
  }
  return {{"kind", "dots"}, {"percent", true}, {"series", series}};
}

OrderedJson memory_chart(const Report& report) {
  static constexpr const char* kParts[] = {"kv_cache", "activations", "workspace", "logits"};
  OrderedJson series = OrderedJson::array();
  const auto add = [&](const std::string& name, auto bytes_of) {
    OrderedJson values = OrderedJson::array();
    bool any = false;
    for (const Row& row : report.rows) {
      const auto loads = report.records(row, "load");
      const double bytes = loads.empty() ? 0 : bytes_of(loads.front()->at("details"));
      any = any || bytes > 0;
      values.push_back(bytes / kBytesPerMb);
    }
    if (any) series.push_back({{"name", name}, {"values", values}});
  };
  add("program", [](const OrderedJson& d) { return d.value("baseline_rss_bytes", 0.0); });
  const auto taken = [](const OrderedJson& d) {
    return d.value("memory_taken", OrderedJson::object());
  };
  for (const char* group : {"experts", "attention", "embedding", "unembedding", "other"}) {
    add(group, [&](const OrderedJson& d) {
      return taken(d).value("weights", OrderedJson::object()).value(group, 0.0);
    });
  }
  for (const char* part : kParts) {
    add(std::string(part) == "kv_cache" ? "KV cache" : part,
        [&](const OrderedJson& d) { return taken(d).value(part, 0.0); });
  }
  OrderedJson graphs = OrderedJson::array();
  bool any_graphs = false;
  for (const Row& row : report.rows) {
    const auto bytes = graphs_bytes(row).value_or(0);
    any_graphs = any_graphs || bytes > 0;
    graphs.push_back(bytes / kBytesPerMb);
  }
  if (any_graphs) series.push_back({{"name", "CUDA graphs"}, {"values", graphs}});
  OrderedJson peaks = OrderedJson::array();
  for (const Row& row : report.rows) {
    const OrderedJson& peak = row.summary->at("peak_rss_bytes");
    peaks.push_back(peak.is_null() ? OrderedJson() : OrderedJson(peak.get<double>() / kBytesPerMb));
  }
  return {{"kind", "stack"}, {"x_title", "MB"}, {"series", series}, {"peaks", peaks}};
}

// One step of each plan, from left to right: the machine's limit, what each op takes above its own,
// the largest first, and what no op explains; the marker is the step as measured. Null if no plan
// was looked at so closely. Plans without a limit have their whole ops.
OrderedJson time_chart(const Report& report, std::string_view kind, std::string_view title) {
  const std::size_t n = report.rows.size();
  std::vector<double> limits(n);
  std::vector<double> gaps(n);
  OrderedJson steps = OrderedJson::array();
  std::map<std::string, std::vector<double>> above;
  double longest = 0;
  bool any_limit = false;
  for (std::size_t i = 0; i < n; ++i) {
    const OrderedJson* record = record_of(report, report.rows[i], kind, title);
    const OrderedJson times =
        record == nullptr ? OrderedJson::object()
                          : record->at("details").value("time_by_op", OrderedJson::object());
    steps.push_back(times.value("step_ms", OrderedJson()));
    if (!times.contains("ms")) continue;
    for (const auto& [op, milliseconds] : times.at("ms").items()) {
      const auto took = milliseconds.get<double>();
      const double floor = std::min(took, op_limit_ms(times, op).value_or(0));
      limits[i] += floor;
      auto& values = above[op];
      values.resize(n);
      values[i] = took - floor;
    }
    any_limit = any_limit || limits[i] > 0;
    gaps[i] = std::max(0.0, times.value("unexplained_ms", 0.0));
    longest = std::max({longest, times.value("step_ms", 0.0), times.value("total_ms", 0.0)});
  }
  if (above.empty()) return OrderedJson();
  const auto most = [](const auto& op) {
    return *std::max_element(op.second.begin(), op.second.end());
  };
  std::vector<std::pair<std::string, std::vector<double>>> ops;
  std::vector<double> others(n);
  for (const auto& op : above) {
    if (most(op) >= kShownShare * longest) {
      ops.push_back(op);
      continue;
    }
    for (std::size_t i = 0; i < n; ++i) others[i] += op.second[i];
  }
  std::stable_sort(ops.begin(), ops.end(),
                   [&](const auto& a, const auto& b) { return most(a) > most(b); });
  OrderedJson series = OrderedJson::array();
  const auto add = [&](const std::string& name, const std::vector<double>& values,
                       const std::string& color) {
    if (*std::max_element(values.begin(), values.end()) <= 0) return;
    series.push_back({{"name", name}, {"values", values}, {"color", color}});
  };
  add("limit of the machine", limits, "c0");
  for (std::size_t i = 0; i < ops.size(); ++i) {
    add(ops[i].first, ops[i].second, fmt::format("c{}", 1 + i % 9));
  }
  add(any_limit ? "other ops, above their limits" : "other ops", others, "muted");
  add("gaps between ops", gaps, "whisker");
  OrderedJson chart = {{"kind", "stack"}, {"x_title", "ms"}, {"series", series}};
  const bool any_step = std::any_of(steps.begin(), steps.end(),
                                    [](const OrderedJson& step) { return !step.is_null(); });
  if (any_step) {
    chart["peaks"] = steps;
    chart["peaks_name"] = "the step as measured";
  }
  return chart;
}

// The limit of TTFT that a serving scenario sets, if it does and is one of ours.
std::optional<double> ttft_limit(const OrderedJson& record) {
  const OrderedJson slo = record.at("scenario").value("slo", OrderedJson());
  try {
    return slo.is_string() ? parse_slo(slo.get<std::string>(), "slo").ttft : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Median TTFT against output throughput, one line per plan through the rates of its sweep, with the
// knee and the limits that were set.
OrderedJson sweep_chart(const Report& report, std::string_view title) {
  OrderedJson series = OrderedJson::array();
  OrderedJson limits = OrderedJson::array();
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const OrderedJson* record = record_of(report, report.rows[i], "serve", title);
    if (record == nullptr || !record->at("details").contains("points")) continue;
    const auto knee = value_of(metric_of(*record, "knee_requests_per_second"));
    OrderedJson points = OrderedJson::array();
    OrderedJson one = {{"row", i}};
    for (const OrderedJson& point : record->at("details").at("points")) {
      const OrderedJson x = point.value("serve_tokens_per_second", OrderedJson());
      const OrderedJson y = point.value("ttft_ms_p50", OrderedJson());
      if (!x.is_number() || !y.is_number()) continue;
      if (knee && point.value("rate", 0.0) == *knee) one["knee"] = points.size();
      points.push_back({x, y});
    }
    one["points"] = std::move(points);
    series.push_back(std::move(one));
    const auto limit = ttft_limit(*record);
    if (limit && limits.empty()) {
      limits.push_back({{"value", *limit}, {"text", fmt::format("limit of TTFT, {} ms", *limit)}});
    }
  }
  if (series.empty()) return OrderedJson();
  return {{"kind", "curve"},
          {"x_title", "output tokens/s (more is better)"},
          {"y_title", "median TTFT, ms (less is better)"},
          {"y_log", true},
          {"limits", limits},
          {"series", series}};
}

// The distribution of one latency over the requests of a load, one line per plan.
OrderedJson load_latency_chart(const Report& report, std::string_view title, const char* latency) {
  OrderedJson series = OrderedJson::array();
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const OrderedJson* record = record_of(report, report.rows[i], "serve", title);
    if (record == nullptr) continue;
    const OrderedJson quantiles =
        record->at("details").value("latency_quantiles", OrderedJson::object());
    if (!quantiles.contains(latency) || quantiles.at(latency).size() < 2) continue;
    const OrderedJson& values = quantiles.at(latency);
    OrderedJson points = OrderedJson::array();
    for (std::size_t q = 0; q < values.size(); ++q) {
      points.push_back(
          {values[q], static_cast<double>(q) / static_cast<double>(values.size() - 1)});
    }
    series.push_back({{"row", i}, {"points", points}});
  }
  return {{"kind", "distribution"}, {"x_title", "milliseconds"}, {"series", series}};
}

OrderedJson trade_off_chart(const Report& report, const TradeOff& t) {
  OrderedJson points = OrderedJson::array();
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const OrderedJson x = point_of(t.x[i]);
    const OrderedJson y = point_of(t.y[i]);
    if (x.is_null() || y.is_null()) continue;
    points.push_back({{"row", i}, {"x", x}, {"y", y}, {"front", static_cast<bool>(t.front[i])}});
  }
  return {{"kind", "pareto"},          {"x_title", t.x_title},
          {"y_title", t.y_title},      {"x_better", t.x_higher_is_better ? "right" : "left"},
          {"y_percent", t.y_is_share}, {"y_log", t.y_is_logarithmic},
          {"published", t.published},  {"points", points}};
}

// The times of whole answers in milliseconds, by "task effort" and row of the report.
using AnswerTimes = std::map<std::string, std::vector<std::vector<double>>>;

AnswerTimes answer_times(const Report& report) {
  AnswerTimes times;
  for_each_answer(report,
                  [&](const std::string& title, std::size_t row, const OrderedJson& answer) {
                    auto& by_row = times[title];
                    by_row.resize(report.rows.size());
                    by_row[row].push_back(answer.at("e2e_ms").get<double>());
                  });
  return times;
}

// Their quantiles per plan.
OrderedJson latency_chart(std::vector<std::vector<double>> times_by_row) {
  OrderedJson series = OrderedJson::array();
  for (std::size_t row = 0; row < times_by_row.size(); ++row) {
    std::vector<double>& times = times_by_row[row];
    if (times.size() < 2) continue;
    std::sort(times.begin(), times.end());
    OrderedJson points = OrderedJson::array();
    const std::size_t n = std::min(kDistributionPoints, times.size());
    for (std::size_t p = 0; p < n; ++p) {
      const std::size_t at = p * (times.size() - 1) / (n - 1);
      points.push_back(
          {times[at], static_cast<double>(at + 1) / static_cast<double>(times.size())});
    }
    series.push_back({{"row", row}, {"points", points}});
  }
  return {{"kind", "distribution"}, {"x_title", "milliseconds"}, {"series", series}};
}

}  // namespace

OrderedJson chart_specifications(const Report& report) {
  OrderedJson charts = OrderedJson::object();
  charts["accuracy"] = accuracy_chart(report);
  for (const char* kind : {"decode", "prefill"}) {
    const auto titles = scenario_titles(report, kind);
    for (std::size_t i = 0; i < titles.size(); ++i) {
      charts[chart_id(kind, i)] = {
          {"kind", "bars"}, {"points", points_of(report, kind, titles[i], rate_metric(kind))}};
      const OrderedJson times = time_chart(report, kind, titles[i]);
      if (!times.is_null()) charts[chart_id(std::string(kind) + "-time", i)] = times;
    }
  }
  const auto loads = scenario_titles(report, "serve");
  for (std::size_t i = 0; i < loads.size(); ++i) {
    const OrderedJson sweep = sweep_chart(report, loads[i]);
    if (!sweep.is_null()) charts[chart_id("sweep", i)] = sweep;
    for (const char* latency : {"ttft_ms", "itl_ms"}) {
      charts[chart_id(std::string("load-") + latency, i)] =
          load_latency_chart(report, loads[i], latency);
    }
  }
  AnswerTimes times = answer_times(report);
  const auto tasks = scenario_titles(report, "task");
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    charts[chart_id("e2e", i)] = latency_chart(std::move(times[tasks[i]]));
  }
  for (const TradeOff& t : trade_offs(report)) charts[t.id] = trade_off_chart(report, t);
  if (const auto titles = scenario_titles(report, "fidelity"); !titles.empty()) {
    charts["kl"] = {{"kind", "dots"},
                    {"log", true},
                    {"series",
                     {{{"name", "mean KL, nats"},
                       {"points", points_of(report, "fidelity", titles.front(), "mean_kl")}}}}};
  }
  charts["memory"] = memory_chart(report);
  add_quality_charts(report, charts);
  OrderedJson references = OrderedJson::array();
  for (const Row& row : report.rows) references.push_back(row.is_reference);
  return {{"labels", labels_of(report)}, {"reference", references}, {"charts", charts}};
}

}  // namespace moebench::page
