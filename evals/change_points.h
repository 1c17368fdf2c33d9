// Where a history of measurements changed its level: steps that stand out of what the series itself
// shows as noise.
//
// As in evals/statistics.h: Error(kInvalidArgument) for NaN and infinities.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "evals/statistics.h"

namespace moebench {

// values[begin, end): one level.
struct Segment {
  std::size_t begin = 0;
  std::size_t end = 0;
  double mean = 0;
};

// The step from one segment to the next.
struct ChangePoint {
  std::size_t index = 0;             // of the first value of the new level
  double difference = 0;             // of the means: new - old
  std::optional<Interval> interval;  // of it; nothing where neither segment scatters
  double p_value = 1;                // of there being no step in the stretch it was found in
};

struct ChangeOptions {
  double alpha = 0.01;  // chance that a stretch without a step is said to have one
  // Values that a level has at least: one odd run is no level.
  std::int64_t min_segment = 2;
  std::int64_t permutations = 999;
  std::uint64_t seed = 1;
};

struct LevelHistory {
  std::vector<Segment> segments;     // at least one, in order, without gaps
  std::vector<ChangePoint> changes;  // one fewer
  // Standard deviation of values around their levels: the noise floor of this history. 0 where
  // values do not scatter at all; nothing where there are too few to tell.
  std::optional<double> noise;
};

// Binary segmentation: in each stretch the split with the largest |t| of its two sides (pooled
// variance) is kept if fewer than alpha of random orders of the same values have as large a one;
// then both sides are searched. The test assumes that without a step all orders are equally likely
// (no drift), and nothing about the distribution. p = (1 + count) / (1 + permutations). Less than
// 2 min_segment values are one segment. At least one value.
// Sources: Scott and Knott 1974 (Biometrics 30:507), binary segmentation; James and Matteson 2014,
// "ecp" (J. Stat. Software 62:7), permutation tests within it; Daly et al. 2020, "The Use of Change
// Point Detection to Identify Software Performance Regressions in a Continuous Integration System"
// (ICPE), its use on such histories; Phipson and Smyth 2010, the p-value.
LevelHistory find_changes(std::span<const double> values, const ChangeOptions& options = {});

// Whether the last value is out of line with the others of its level: two-sided p-value of a t test
// of one new observation, with as many degrees of freedom as the others have. 0 if the others are
// all equal and it differs; 1 if it does not. Nothing where there are fewer than two others.
std::optional<double> last_value_p(std::span<const double> level);

}  // namespace moebench
