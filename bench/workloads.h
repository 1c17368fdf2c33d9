// Speed workloads: requests through the scheduler, and the metrics derived from their event log.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/event_log.h"
#include "bench/latency.h"
#include "bench/record.h"
#include "bench/scenario.h"
#include "engine/engine.h"
#include "engine/scheduler.h"

namespace moebench {

struct Ceilings;
class SampleWatch;

struct WorkloadHooks {
  std::function<void(std::int64_t done, std::int64_t total)> on_progress;
  std::function<bool()> stop_requested;
  const Ceilings* ceilings = nullptr;  // of the machine; without them no limits stand beside speeds
  std::function<void(const RequestEvents&)> on_request;  // as requests of measured parts end
  SampleWatch* watch = nullptr;                          // looks on at every timed repetition
};

// Real text for prompts: MoE routing of random ids is not that of words.
struct PromptSource {
  std::vector<std::int32_t> tokens;  // a long stretch to cut prompts from
  std::string description;           // "text of the nano questions" or "random ids"
};
PromptSource make_prompt_source(const Engine& engine);
PromptSource random_prompt_source(const Engine& engine);

// `length` tokens for sequence number `index`: different sequences start at different places.
std::vector<std::int32_t> cut_prompt(const PromptSource& source, std::int64_t length,
                                     std::int64_t index);

// Unmeasured repetitions until their rates have stopped rising (is_steady) and `least_s` is over,
// or `most_s` is; at least `least_repetitions`. repeat() runs one and returns its rate.
struct WarmUpLimits {
  std::size_t least_repetitions = 1;
  double least_s = 0;
  double most_s = 0;
};
struct WarmUpResult {
  std::size_t repetitions = 0;
  bool steady = false;
};
WarmUpResult warm_up_until_steady(const std::function<double()>& repeat,
                                  const WarmUpLimits& limits);

// A batch of requests run `repetitions` times after unmeasured runs until their speed has stopped
// rising (one at least, for 0.3 seconds at most; details.warm_up says): calls measure(results), by
// id, each time, and the hooks. False, with the record saying so, if the outputs are not the same
// each time: the time of wrong work means nothing.
bool repeat_witnessed(const std::function<std::vector<RequestResult>()>& run,
                      std::int64_t repetitions, const WorkloadHooks& hooks, Record& record,
                      const std::function<void(const std::vector<RequestResult>&)>& measure);

// The results so far, by id. Throws Error(kInvalidArgument) if a request failed.
std::vector<RequestResult> take_all_results(Scheduler& scheduler);

// `batch` requests for `output_tokens` after prompts of `prompt_tokens`, ids from 0, that nothing
// but their length ends.
std::vector<Request> make_requests(const PromptSource& source, std::int64_t batch,
                                   std::int64_t prompt_tokens, std::int64_t output_tokens);

// Both fill record.metrics and record.details, warmed up as above. The tokens of every
// repetition must be the same (greedy decoding of the same prompts); if they are not, the status
// becomes kWrongOutput and no time is reported.
void run_prefill(Engine& engine, const PrefillScenario& scenario, const WorkloadHooks& hooks,
                 Record& record);
void run_decode(Engine& engine, const DecodeScenario& scenario, const WorkloadHooks& hooks,
                Record& record);

// One prefill or decode workload, run as often as its caller likes.
class RepeatedWorkload {
 public:
  // Throws Error(kUnsupported) for scenarios that have no tokens per second.
  RepeatedWorkload(Engine& engine, const Scenario& scenario);

  struct Repetition {
    double tokens_per_second = 0;
    std::string digest;  // of the tokens: the same every time, or the time means nothing
  };
  Repetition run(const WorkloadHooks& hooks);

 private:
  Engine& engine_;
  std::vector<Request> requests_;
  std::int64_t computed_before_ = 0;  // tokens of the prompt that are in the cache already
  bool decodes_ = false;
};

// Adds "<name>_p50", "_p90" and "_p99" in ms (absent, with the reason, where the samples are too
// few) and "<name>_mean".
void add_latency_metrics(std::string_view name, std::span<const double> samples, Record& record);

// A value of `count` observations without an interval.
Metric plain_metric(double value, std::string unit, std::string better = "",
                    std::int64_t count = 1);

// The median of `samples` with a bootstrap interval, raw samples kept.
Metric median_metric(std::vector<double> samples, std::string unit, std::string better);

}  // namespace moebench
