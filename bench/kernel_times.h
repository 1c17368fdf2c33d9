// Which kernels a step on the GPU consists of and how long each takes, as CUPTI recorded them:
// below the ops of time_by_op (bench/step_limits.h), whose times are those between events.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/model.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/kernel_recorder.h"

namespace moebench {

// The kernels of one run of a step. ops[mark - 1] is the op whose launches carried that mark.
struct StepKernels {
  std::vector<gpu::KernelTime> kernels;
  std::vector<std::string> ops;
};
// Runs the step once, op by op (no graphs). `recorder` must be available.
StepKernels record_kernels(gpu::KernelRecorder& recorder, Model& model, const Step& step,
                           KvCache& cache);

// Runs the step once as it runs in use, from a graph where it has one. Which op a kernel belongs to
// is not known then.
StepKernels record_kernels_in_use(gpu::KernelRecorder& recorder, Model& model, const Step& step,
                                  KvCache& cache);

// Of several runs of one step, medians over them:
//   kernels      [{"op", "kernel", "launches", "ms", "exposed_ms"}], the longest first; of a step.
//                Kernels without a mark have op "". A kernel that is launched early waits for the
//                one before as part of its ms; exposed_ms counts only what it adds to the end of
//                all that began before it, so that these times add up to span_ms.
//   kernels_ms   {op: ms}: the sum of its kernels
//   busy_ms      time in which at least one kernel ran: less than the sum where they overlap
//   span_ms      from the first kernel's begin to the last one's end; span - busy is gaps
// Null for no runs, or where a run has no kernels.
OrderedJson kernel_times_json(std::span<const StepKernels> runs);

}  // namespace moebench
