// Verdicts of plans, from comparing a run with itself.
#include "reports/plan_verdicts.h"

#include <algorithm>

#include "reports/compare.h"

namespace moebench {

OrderedJson plan_verdicts(const RunResults& run) {
  OrderedJson verdicts = OrderedJson::array();
  const bool has_reference =
      std::any_of(run.records.begin(), run.records.end(),
                  [](const Record& record) { return record.plan == "reference"; });
  const bool has_other =
      std::any_of(run.records.begin(), run.records.end(),
                  [](const Record& record) { return record.plan != "reference"; });
  if (!has_reference || !has_other) return verdicts;
  CompareOptions options;
  options.base_plan = "reference";
  const OrderedJson comparison = to_json(compare_sides({run}, {}, options));
  for (const OrderedJson& metric : comparison.at("metrics")) {
    OrderedJson verdict = OrderedJson::object();
    for (const char* name :
         {"model", "plan", "scenario", "metric", "family", "unit", "better", "outcome", "base",
          "candidate", "change", "relative", "margin", "interval", "reason", "required"}) {
      verdict[name] = metric.at(name);
    }
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

}  // namespace moebench
