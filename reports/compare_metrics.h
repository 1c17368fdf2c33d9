// Comparing one metric of one case. Internal to reports/.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/record.h"
#include "evals/answer_pairs.h"
#include "reports/compare.h"

namespace moebench::comparing {

// Fields of a run's description, which is another program's file: what is missing or of another
// type is "", or null.
std::string text_at(const OrderedJson& object, const char* name);
const OrderedJson& object_at(const OrderedJson& object, const char* name);
// The element of the run's list ("models", "plans") with this name, or null.
const OrderedJson& element_of(const RunResults& run, const char* list, const std::string& name);

// What must be equal for two cases to be the same one: how often it was repeated need not, nor
// whether its texts were written down.
OrderedJson same_case_key(const Record& record);

// One case on both sides; `base` and `candidate` have a record for each run that has it in order,
// one at least.
struct CasePair {
  std::string model;
  std::vector<std::pair<const RunResults*, const Record*>> base;
  std::vector<std::pair<const RunResults*, const Record*>> candidate;
  // The answers of both, read once for all metrics that are made of them.
  std::optional<AnswerPairs> answers = {};

  const Record& base_record() const { return *base.front().second; }
  const Record& candidate_record() const { return *candidate.front().second; }
};

// Everything but the verdict, which waits for the number of tests: values, change, interval,
// p-value; or kNotComparable with the reason. Both records have the metric.
MetricComparison compare_metric(const std::string& name, const MetricRule& rule, CasePair& pair,
                                const CompareOptions& options);

}  // namespace moebench::comparing
