// Charts of what plans answer: what a token budget buys, and where divergence grows.
#include <algorithm>
#include <map>

#include "reports/html_answers.h"
#include "reports/html_page.h"
#include "reports/html_published.h"

namespace moebench::page {
namespace {

constexpr std::size_t kMostPoints = 80;  // of a line

// One task case's answers as (output tokens, right), by row of the report.
using Answers = std::vector<std::vector<std::pair<std::int64_t, bool>>>;

// By "task effort".
std::map<std::string, Answers> answers_of(const Report& report) {
  std::map<std::string, Answers> all;
  for_each_answer(report,
                  [&](const std::string& title, std::size_t row, const OrderedJson& answer) {
                    Answers& by_row = all[title];
                    by_row.resize(report.rows.size());
                    by_row[row].emplace_back(answer.at("output_tokens").get<std::int64_t>(),
                                             answer.at("verdict") == "correct");
                  });
  return all;
}

// The share of all answers that are right and took at most so many output tokens: what accuracy
// would be if answers were cut there, if cutting changed nothing else.
OrderedJson budget_chart(const Answers& answers) {
  OrderedJson series = OrderedJson::array();
  std::int64_t longest = 0;
  for (const auto& row : answers) {
    for (const auto& [tokens, right] : row) longest = std::max(longest, tokens);
  }
  for (std::size_t row = 0; row < answers.size(); ++row) {
    std::vector<std::int64_t> right;
    for (const auto& [tokens, is_right] : answers[row]) {
      if (is_right) right.push_back(tokens);
    }
    if (right.empty()) continue;
    std::sort(right.begin(), right.end());
    const auto share = [&](std::size_t n) {
      return static_cast<double>(n) / static_cast<double>(answers[row].size());
    };
    OrderedJson points = {{right.front(), 0.0}};
    const std::size_t n = std::min(kMostPoints, right.size());
    for (std::size_t p = 0; p < n; ++p) {
      const std::size_t at = n == 1 ? 0 : p * (right.size() - 1) / (n - 1);
      points.push_back({right[at], share(at + 1)});
    }
    points.push_back({longest, share(right.size())});
    series.push_back({{"row", row}, {"points", points}});
  }
  return {{"kind", "curve"},    {"stepped", true},
          {"y_percent", true},  {"x_title", "output tokens, thinking included"},
          {"y_title", "right"}, {"series", series}};
}

OrderedJson position_chart(const Report& report) {
  OrderedJson series = OrderedJson::array();
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const auto records = report.records(report.rows[i], "fidelity");
    if (records.empty() || !records.front()->at("details").contains("kl_by_position")) continue;
    OrderedJson points = OrderedJson::array();
    for (const OrderedJson& stage : records.front()->at("details").at("kl_by_position")) {
      const auto kl = stage.at("mean_kl").get<double>();
      if (kl > 0) points.push_back({stage.at("from").get<std::int64_t>() + 1, kl});
    }
    if (points.size() > 1) series.push_back({{"row", i}, {"points", points}});
  }
  return {{"kind", "curve"},
          {"x_log", true},
          {"y_log", true},
          {"x_title", "token of the answer, from 1"},
          {"y_title", "mean KL, nats"},
          {"series", series}};
}

}  // namespace

void add_quality_charts(const Report& report, OrderedJson& charts) {
  const auto answers = answers_of(report);
  const auto titles = scenario_titles(report, "task");
  for (std::size_t i = 0; i < titles.size(); ++i) {
    const auto known = answers.find(titles[i]);
    if (known == answers.end()) continue;
    OrderedJson chart = budget_chart(known->second);
    chart["published"] = published_lines(report, titles[i]);
    charts[chart_id("budget", i)] = std::move(chart);
  }
  charts["kl-by-position"] = position_chart(report);
}

}  // namespace moebench::page
