// One series of a history, read as levels and steps between them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "evals/change_points.h"
#include "kernels/core/json_fields.h"
#include "reports/history.h"

namespace moebench {

// Changes, noise and `visible` are in parts of the level where `relative`, else in the unit.
struct TrendChange {
  std::size_t index = 0;  // of the first run of the new level
  std::string commit;     // that run's
  std::string started;
  double change = 0;
  std::optional<Interval> interval;
  double p_value = 1;
  bool for_the_worse = false;
};

struct Trend {
  HistorySeries series;
  bool relative = false;  // values are compared as ratios: all are positive, and no shares
  double level = 0;       // mean of the runs since the last change
  std::vector<TrendChange> changes;  // oldest first
  std::optional<double> noise;       // standard deviation of runs around their level
  // The step that three more runs of a new level would show in 8 of 10 cases.
  std::optional<double> visible;
  bool last_is_odd = false;  // the last run stands out of its level (p < 1 %): not a level yet
  double last_change = 0;    // how far
};

// `series` has one value at least.
Trend trend_of(HistorySeries series);

// The trends of these metrics, by default those that are compared, in good runs of a history: of
// the series that are wanted, or of all.
std::vector<Trend> read_trends(History& history, const HistoryFilter& filter,
                               std::vector<std::string> metrics = {},
                               const std::function<bool(const HistorySeries&)>& wanted = {});

OrderedJson to_json(const Trend& trend);

}  // namespace moebench
