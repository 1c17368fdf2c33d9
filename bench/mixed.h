// The workload `mixed`: what a prompt that arrives does to those who are being answered.
#pragma once

#include <vector>

#include "bench/event_log.h"
#include "bench/record.h"
#include "bench/scenario.h"
#include "bench/workloads.h"
#include "engine/engine.h"

namespace moebench {

// Gaps between the tokens of decoding sequences, in milliseconds, around the arrival of a prompt.
// A gap is `during` if it overlaps the time from the arrival to the prompt's first token, and
// `before` if it ends earlier and begins when all sequences have their first token.
struct Disturbance {
  std::vector<double> before;
  std::vector<double> during;
  double ttft_ms = 0;            // of the prompt that arrived
  double tokens_per_second = 0;  // of the others, between its arrival and its first token
};
Disturbance disturbance_of(const std::vector<RequestResult>& decoding,
                           const RequestResult& arrived);

// Fills record.metrics and record.details; as for the other workloads, all repetitions must give
// the same tokens.
void run_mixed(Engine& engine, const MixedScenario& scenario, const WorkloadHooks& hooks,
               Record& record);

}  // namespace moebench
