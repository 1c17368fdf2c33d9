// Limits beside speeds: how fast the machine could run a workload at best, from what its steps must
// read and compute (engine/step_cost.h), with the experts that its own tokens chose, at the
// machine's measured rates (bench/roofline.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bench/record.h"
#include "bench/roofline.h"
#include "engine/engine.h"
#include "engine/scheduler.h"
#include "engine/step_cost.h"

namespace moebench {

// The floor under the time of one op: it reads at the rate of a step of that many bytes, or
// multiplies at the peak of its precision, whichever takes longer.
struct OpLimit {
  OpCost cost;
  double milliseconds = 0;
  bool memory_bound = true;
};
// One after the other: ops of a step depend on each other.
std::vector<OpLimit> op_limits(std::span<const OpCost> costs, const Ceilings& ceilings);
double total_milliseconds(std::span<const OpLimit> limits);

// The experts that tokens chose: [layer][(position - first) * top_k + k].
using Routing = std::vector<std::vector<std::int32_t>>;
// Of `tokens` from position `first` on, by running them; their keys and values are dropped again.
Routing routing_of(Engine& engine, std::span<const std::int32_t> tokens, std::int64_t first);
// How many different ones, in each layer, the tokens [begin, end) of several routings chose.
std::vector<double> touched_experts(std::span<const Routing> routings, std::int64_t begin,
                                    std::int64_t end, std::int64_t top_k);

// All steps of a workload together.
struct WorkloadLimit {
  double tokens = 0;
  double milliseconds = 0;  // at best
  double bytes_read = 0;    // weights, keys and values
  double touched_mean = 0;  // experts of a layer and step
  std::int64_t num_steps = 0;

  void add(const Engine& engine, const StepWork& work, const Ceilings& ceilings);
};
// The prompt from position `context` on, in the chunks that the scheduler cuts.
WorkloadLimit prefill_limit(Engine& engine, const Request& request, std::int64_t context,
                            const Ceilings& ceilings);
// Decoding `outputs`, of each request its tokens, all but the first: that is prefill's.
WorkloadLimit decode_limit(Engine& engine, std::span<const Request> requests,
                           std::span<const std::vector<std::int32_t>> outputs,
                           const Ceilings& ceilings);

// Adds limit_tokens_per_second, percent_of_limit, read_gb_per_s and touched_experts_mean beside the
// measured rate of the record's kind.
void add_limit_metrics(const WorkloadLimit& limit, const Ceilings& ceilings, Record& record);

// Where the time of one step goes, medians over some runs of that step:
//   step            what it holds
//   step_ms         all of it, as it runs in use
//   total_ms, ms    the sum of its ops, and each op ({op: ...}), timed one by one
//   unexplained_ms  step_ms - total_ms: gaps, and what is not an op; negative where ops overlap in
//                   use (graphs)
//   limit_ms, limits    with `ceilings`: the floor, and of each op
//                   {bytes, operations, precision, limit_ms, bound: "memory" or "arithmetic"}
//   kernels, kernels_ms, busy_ms, span_ms   on a GPU where CUPTI is: bench/kernel_times.h;
//                   elsewhere kernels_unavailable says why there are none
//   in_use          {kernels, ...}: the same of the step as it runs in use, where kernels overlap
// The last token of each prompt is a decode step; all of one prompt that a step can hold, prefill.
OrderedJson time_by_op(Engine& engine, std::span<const Request> requests, bool decode,
                       const Ceilings* ceilings);

}  // namespace moebench
