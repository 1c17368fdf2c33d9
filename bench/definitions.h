// The metrics of a load under the names and definitions of other tools, from the same event log.
// bench/definitions.md says how each of them defines what, with sources.
//
// Where a tool and this one differ in what they would rather not quote (a p99 of ten requests, the
// mean of nothing), the tool is followed: who asks for its file wants its numbers.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/event_log.h"
#include "bench/latency.h"
#include "kernels/core/json_fields.h"

namespace moebench {

// What the tools write beside their metrics. What is not known is written as null.
struct LoadFacts {
  std::string model;
  std::string started;         // UTC, "2026-01-31T12:00:00Z"; "": not known
  std::optional<double> rate;  // requests per second; infinity: all at once, closed loops
  std::optional<double> burstiness;
  std::int64_t max_concurrency = 0;  // 0: no limit
  std::int64_t num_prompts = 0;      // asked for
  Slo slo;
};

// "moebench", "vllm", "sglang", "guidellm", "aiperf", "trtllm", "llama-bench"
std::span<const std::string_view> definition_names();

// The metrics by that tool's definitions. The units are the tool's too.
// Throws Error(kInvalidArgument) for an unknown name, a log without a request that succeeded, and
// for llama-bench, which knows one sequence at a time, a log where requests overlap.
OrderedJson metrics_by(std::string_view definitions, std::span<const RequestEvents> log,
                       const LoadFacts& facts);

// The result file of `vllm bench serve --save-result --save-detailed`, keys in its order.
OrderedJson vllm_result(std::span<const RequestEvents> log, const LoadFacts& facts);
// What it prints; `result` is its file.
std::string vllm_console(const OrderedJson& result, const LoadFacts& facts);
// The line that SGLang's bench_serving appends to its file.
OrderedJson sglang_line(std::span<const RequestEvents> log, const LoadFacts& facts);

}  // namespace moebench
