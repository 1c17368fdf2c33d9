// The case of a text's perplexity.
#pragma once

#include "bench/record.h"
#include "bench/scenario.h"
#include "bench/workloads.h"
#include "engine/engine.h"

namespace moebench {

// Fills record.metrics (perplexity and bits per byte with intervals) and record.details (windows,
// tokens, and the sums by block that the intervals rest on). Errors as measure_perplexity, or
// kIo for the text.
void run_perplexity(Engine& engine, const PerplexityScenario& scenario, const WorkloadHooks& hooks,
                    Record& record);

}  // namespace moebench
