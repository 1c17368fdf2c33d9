// Looking at the data several times without fooling oneself.
//
// A 95 % interval that is computed after every session, with a stop at the first one that leaves
// out zero, is wrong far more often than one time in twenty. Here the error that may be made in all
// is spent little by little: each look gets its own, stricter level, and the interval of that level
// may be used to stop, for any reason, at any look. All looks together then miss the truth with
// probability alpha at most.
//
// Sources: Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials" (Biometrika
// 70:659), the spending of alpha; Kim and DeMets 1987 (Biometrika 74:149), the power family;
// Armitage, McPherson and Rowe 1969 (J. R. Statist. Soc. A 132:235), the recursive integration;
// Jennison and Turnbull 1989, "Interim analyses: the repeated confidence interval approach"
// (J. R. Statist. Soc. B 51:305), intervals that hold whatever the rule for stopping.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "evals/statistics.h"

namespace moebench {

// Two-sided and symmetric. Holds the density of the test statistic over the paths that have not
// crossed a boundary yet, on a grid.
class AlphaSpending {
 public:
  // alpha in (0, 0.5): the chance that any look misses. By the share t of the budget alpha t^power
  // is spent; power 3 keeps most of it for the last look, whose interval is then hardly wider than
  // that of a single one.
  explicit AlphaSpending(double alpha, double power = 3);

  // The two-sided significance level of the next look. `information` is what the estimate rests on
  // so far (a count of sessions; any unit, increasing from look to look), `share` the part of the
  // budget that is used up, in (0, 1]; 1 spends what is left. Neither may depend on the sign or
  // size of the estimate. Levels are exact for a mean of normal values of known variance; used as
  // levels of t tests they hold closely (Jennison and Turnbull 2000, section 4.4).
  double next_look(double information, double share);

  // As above with the spent alpha itself, for other spending functions: increasing, <= alpha.
  double next_look_spending(double information, double spent);

  double alpha() const { return alpha_; }

 private:
  double alpha_;
  double power_;
  double spent_ = 0;
  double information_ = 0;
  // Of the score S = estimate * information, standard Brownian motion in information: nodes, and
  // density times integration weight. Empty before the first look.
  std::vector<double> nodes_;
  std::vector<double> masses_;
};

// The mean of few values, some of which may be outliers, with a t interval.
struct RobustMean {
  double mean = 0;
  double standard_error = 0;
  double degrees_of_freedom = 0;
  std::int64_t num_values = 0;

  // mean +- t quantile * standard error; `level` in (0, 1).
  Interval interval(double level) const;
  // The true value that an interval of this level would have told from 0 in `power` of all cases.
  double smallest_visible(double level, double power = 0.8) const;
};

// The mean without the g lowest and g highest of n values, g = n/5 from ten values on and 0 below,
// where the degrees of freedom are worth more. The standard error is that of the winsorised
// values over (1 - 2g/n) sqrt(n), with n - 2g - 1 degrees of freedom. At least 2 values.
// Source: Tukey and McLaughlin 1963; Wilcox 2012, "Introduction to Robust Estimation", section 4.4.
RobustMean robust_mean(std::span<const double> values);

}  // namespace moebench
