// Comparing runs: which metric of which case became better, stayed, became worse, or cannot be
// told, and what that means for a gate.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "evals/non_inferiority.h"
#include "evals/statistics.h"
#include "kernels/core/json_fields.h"
#include "reports/gate.h"
#include "reports/run_results.h"

namespace moebench {

inline constexpr std::string_view kComparisonSchema = "moebench.comparison/1";

// Of one metric. "Change" is candidate against base; "worse" is by the metric's `better`.
enum class Outcome {
  kImproved,       // shown to be better, and by the margin or more
  kSame,           // the whole interval of the change lies within the margin
  kRegressed,      // shown to be worse, and by the margin or more; or a bound is broken
  kInconclusive,   // neither: the data cannot tell
  kNotComparable,  // different questions, weights, machines ...: `reason` says which
};
std::string_view outcome_name(Outcome outcome);  // "IMPROVED", "SAME", ...

// How p-values are corrected for their number within a family.
enum class Correction {
  kHolm,               // the chance of any false alarm
  kBenjaminiHochberg,  // the share of false alarms among the alarms; sees more in large families
};
std::string_view correction_name(Correction correction);  // "holm", "benjamini_hochberg"

struct MetricComparison {
  std::string model;
  std::string base_plan;
  std::string plan;      // the candidate's
  std::string scenario;  // "decode batch 1, context 64"
  std::string metric;    // as in records
  std::string unit;
  std::string better;  // "higher", "lower"
  MetricRule rule;
  double base = 0;
  double candidate = 0;
  // In parts of the base where rule.relative, else in the metric's unit; so are the interval,
  // `visible` and the margin.
  double change = 0;
  std::optional<Interval> interval;
  std::optional<double> p_value;           // of no change
  std::optional<double> p_value_adjusted;  // for the number of tests in the family
  std::string method;                      // how the interval was made, or why there is none
  std::int64_t count = 0;                  // pairs, traces or samples behind it
  std::string counted;                     // what `count` counts: "answers"
  std::optional<double> visible;           // change that 8 of 10 such comparisons would have shown
  // How many would decide in 8 of 10 cases, if there is no true change.
  std::optional<std::int64_t> to_settle;
  std::vector<std::string> gained;  // items whose answer became right, for accuracy
  std::vector<std::string> lost;    // and wrong
  Outcome outcome = Outcome::kInconclusive;
  bool not_worse = false;  // a change for the worse by more than the margin is ruled out
  std::string reason;

  // As a gate reads it: kPass if it is not worse by the margin, kFail if it is REGRESSED; nothing
  // where nothing could be compared.
  std::optional<GateOutcome> gate() const;
  // "fast / decode batch 1", or "reference → int4 / decode batch 1".
  std::string label() const;
};

// A case without numbers on the candidate's side: it failed there, or it is missing.
struct CaseProblem {
  std::string label;
  std::string status;  // of the record; "missing" if there is none
  std::string reason;
};

struct RunComparison {
  std::string base;                     // folder names
  std::vector<std::string> candidates;  // as many as were given
  double level = 0.95;
  Correction correction = Correction::kHolm;
  std::vector<MetricComparison> metrics;
  std::vector<CaseProblem> problems;  // cases that the base has and a candidate has not
  std::vector<std::string> notes;     // what a reader should know

  // What decides the exit code, from required metrics: kRegressed if one is; else kInconclusive if
  // one might be (not `not_worse`); else kImproved if one is, or kSame. kNotComparable if nothing
  // could be compared.
  Outcome verdict() const;
};

struct CompareOptions {
  Gate gate = default_gate();
  // Every plan of the candidate against this plan of the base; empty: each against its namesake.
  std::string base_plan;
  std::vector<std::string> plans;  // of the candidate; empty: all
  Correction correction = Correction::kHolm;
  bool force = false;  // compare also what differs in weights, dataset or machine
};

// `base` and each of `candidates` are one side: runs of the same suite, of which more than one
// shows how much runs differ. Without candidates the plans of `base` are compared with each other
// (base_plan, "reference" unless given).
RunComparison compare_sides(const std::vector<RunResults>& base,
                            const std::vector<std::vector<RunResults>>& candidates,
                            const CompareOptions& options);

// Fills in outcome and reason from change, interval, adjusted p-value and rule.
void judge(MetricComparison& metric, double level);

// comparison.schema.json describes it.
OrderedJson to_json(const RunComparison& comparison);

// For CI servers: a test case per metric; a failure is what the gate did not let pass, an error is
// a case that broke. Required metrics that may be worse are failures unless `inconclusive_ok`;
// that, what is not required and what could not be compared is skipped, with the reason.
std::string junit_xml(const RunComparison& comparison, bool inconclusive_ok);

}  // namespace moebench
