// Scores that others published, where the page may stand them beside own ones: of the same model,
// task and reasoning effort.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "reports/html_page.h"

namespace moebench::page {

struct PublishedPoint {
  std::string_view model;      // as published: "gpt-oss-20b"
  std::string_view benchmark;  // "GPQA Diamond, no tools"
  double value = 0;            // a share

  std::string text() const;  // "GPQA Diamond, no tools: 71.5 %, gpt-oss-20b"
};

// For what `row` was asked under this title of a task; nothing if nothing is published for it.
std::optional<PublishedPoint> published_point(const Report& report, const Row& row,
                                              std::string_view title);

// Those of all rows, one of each model.
std::vector<PublishedPoint> published_points(const Report& report, std::string_view title);

// [{"value", "text"}...] of these: lines across a chart of accuracy.
OrderedJson published_lines(const Report& report, std::string_view title);

}  // namespace moebench::page
