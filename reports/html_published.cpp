// Looking published scores up for the page.
#include "reports/html_published.h"

#include <algorithm>
#include <cmath>

#include "bench/scenario.h"
#include "reports/html_text.h"
#include "reports/published_scores.h"

namespace moebench::page {

std::string PublishedPoint::text() const {
  return fmt::format("{}: {}, {}", benchmark, format_percent(value), model);
}

std::optional<PublishedPoint> published_point(const Report& report, const Row& row,
                                              std::string_view title) {
  const OrderedJson* record = record_of(report, row, "task", title);
  if (record == nullptr) return std::nullopt;
  const OrderedJson& scenario = record->at("scenario");
  for (const OrderedJson& run : report.json.at("runs")) {
    for (const OrderedJson& model : run.at("models")) {
      if (model.value("name", "") != row.model) continue;
      const PublishedScore* score =
          published_score(task_title(scenario.value("task", ""), scenario.value("protocol", "")),
                          published_model(model.value("parameters", 0.0)));
      if (score == nullptr || !score->is_share) continue;
      const double value = score->of_effort(scenario.value("effort", ""));
      if (std::isfinite(value)) return PublishedPoint{score->model, score->benchmark, value};
    }
  }
  return std::nullopt;
}

std::vector<PublishedPoint> published_points(const Report& report, std::string_view title) {
  std::vector<PublishedPoint> points;
  for (const Row& row : report.rows) {
    const auto point = published_point(report, row, title);
    const bool is_new = point && std::none_of(points.begin(), points.end(), [&](const auto& known) {
                          return known.model == point->model;
                        });
    if (is_new) points.push_back(*point);
  }
  return points;
}

OrderedJson published_lines(const Report& report, std::string_view title) {
  OrderedJson lines = OrderedJson::array();
  for (const PublishedPoint& point : published_points(report, title)) {
    lines.push_back(
        {{"value", point.value},
         {"text", fmt::format("☆ published: {}, {}", format_percent(point.value), point.model)}});
  }
  return lines;
}

}  // namespace moebench::page
