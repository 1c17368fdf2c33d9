// The workload `serve`: requests arrive on a schedule, or when others have finished, and the engine
// does what a server would.
//
// One thread steps the engine and keeps the schedule: a request whose time comes during a step is
// handed over after it. Nothing is lost by that, for a running step takes nobody in, and no thread
// takes time from the pool, which has one per CPU. Latencies count from the scheduled time, so the
// wait for the step is in them; how late requests were handed over is reported as `lateness`.
#pragma once

#include <string_view>
#include <vector>

#include "bench/latency.h"
#include "bench/record.h"
#include "bench/scenario.h"
#include "bench/workloads.h"
#include "engine/engine.h"

namespace moebench {

// The rates of a sweep: a list, or those that a search for the knee comes to.
struct Sweep {
  bool automatic = false;
  std::vector<double> rates;  // requests per second, rising
};
// "1 2 4.5" or "1,2,4.5", "auto", or "" for none. Throws Error(kInvalidArgument) naming `where`.
Sweep parse_sweep(std::string_view text, std::string_view where);

// Positions of the longest sequence that the workload can come to; 0 if that depends on the model's
// tokenizer (questions). Reads the trace if there is one.
std::int64_t serve_context(const ServeScenario& scenario);

// Fills record.metrics and record.details after one unmeasured request; hands every request's
// events to the hooks. A request that fails counts as such; that all fail is an Error.
void run_serve(Engine& engine, const ServeScenario& scenario, const WorkloadHooks& hooks,
               Record& record);

// Adds the metrics of one load: throughput, goodput if there are limits, and latencies.
void add_serve_metrics(std::span<const RequestEvents> log, const Slo& slo, Record& record);

// The highest rate at which a system holds up, by asking `holds(rate)`. Starts at `first`, doubles
// until it does not hold, or halves until it does, then narrows the interval by geometric means
// until its ends are within 10 %. 0 if it never holds. At most 24 questions.
double find_knee(double first, const std::function<bool(double rate)>& holds);

}  // namespace moebench
