// What a run says of each of its plans against the reference: the verdicts of `moebench compare
// RUN`, for the page.
#pragma once

#include "kernels/core/json_fields.h"
#include "reports/run_results.h"

namespace moebench {

// One object per plan and metric: model, plan, scenario, metric, family ("speed", "accuracy", ...),
// unit, better, outcome, base, candidate, change, relative, margin, interval or null, reason and
// required, as in comparison.schema.json, by the default gate. Empty where the run has no plan
// "reference" or nothing that could be compared.
OrderedJson plan_verdicts(const RunResults& run);

}  // namespace moebench
