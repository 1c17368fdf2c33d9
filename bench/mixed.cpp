// A prompt among decoding sequences.
#include "bench/mixed.h"

#include <algorithm>
#include <numeric>

#include "evals/statistics.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The last request is the one that arrives, once the first sequence has half of its tokens: after
// the same number of steps each time, so that outputs can be compared.
std::vector<RequestResult> run_once(Engine& engine, const std::vector<Request>& requests,
                                    const WorkloadHooks& hooks) {
  Scheduler scheduler(*engine.model, *engine.cache);
  std::int64_t seen = 0;
  const std::int64_t wanted = requests.front().max_tokens / 2;
  for (std::size_t i = 0; i + 1 < requests.size(); ++i) {
    Request request = requests[i];
    if (i == 0) request.on_token = [&](std::int32_t) { ++seen; };
    scheduler.submit(std::move(request));
  }
  bool arrived = false;
  while (scheduler.step()) {
    if (!arrived && seen >= wanted) {
      scheduler.submit(requests.back());
      arrived = true;
    }
    require_or(ErrorCode::kInterrupted, !hooks.stop_requested || !hooks.stop_requested(),
               "run a workload: interrupted");
  }
  return take_all_results(scheduler);
}

}  // namespace

Disturbance disturbance_of(const std::vector<RequestResult>& decoding,
                           const RequestResult& arrived) {
  const std::int64_t from = arrived.submitted_ns;
  const std::int64_t to = arrived.token_ns.front();
  std::int64_t all_started = 0;
  for (const RequestResult& one : decoding) {
    all_started = std::max(all_started, one.token_ns.front());
  }
  Disturbance d;
  d.ttft_ms = static_cast<double>(to - from) / 1e6;
  std::int64_t tokens = 0;
  for (const RequestResult& one : decoding) {
    for (std::size_t i = 1; i < one.token_ns.size(); ++i) {
      const std::int64_t begin = one.token_ns[i - 1];
      const std::int64_t end = one.token_ns[i];
      const double gap = static_cast<double>(end - begin) / 1e6;
      if (end <= from && begin >= all_started) d.before.push_back(gap);
      if (end > from && begin < to) d.during.push_back(gap);
      if (end > from && end <= to) ++tokens;
    }
  }
  if (to > from) d.tokens_per_second = static_cast<double>(tokens) * 1e3 / d.ttft_ms;
  return d;
}

void run_mixed(Engine& engine, const MixedScenario& scenario, const WorkloadHooks& hooks,
               Record& record) {
  const PromptSource source = make_prompt_source(engine);
  record.details["prompts"] = source.description;
  auto requests = make_requests(source, scenario.batch, scenario.context, scenario.tokens);
  Request arriving = make_requests(source, 1, scenario.prefill, 1).front();
  arriving.id = requests.size();
  arriving.prompt = cut_prompt(source, scenario.prefill, scenario.batch);
  requests.push_back(std::move(arriving));

  std::vector<double> before;
  std::vector<double> during;
  std::vector<double> slowdowns;
  std::vector<double> ttft;
  std::vector<double> rates;
  const auto measure = [&](const std::vector<RequestResult>& results) {
    const std::vector<RequestResult> decoding(results.begin(), results.end() - 1);
    const Disturbance d = disturbance_of(decoding, results.back());
    ttft.push_back(d.ttft_ms);
    rates.push_back(d.tokens_per_second);
    if (!d.before.empty() && !d.during.empty()) {
      slowdowns.push_back(mean(d.during) / std::max(1e-9, mean(d.before)));
    }
    before.insert(before.end(), d.before.begin(), d.before.end());
    during.insert(during.end(), d.during.begin(), d.during.end());
  };
  const auto run = [&] { return run_once(engine, requests, hooks); };
  if (!repeat_witnessed(run, scenario.repetitions, hooks, record, measure)) return;
  record.metrics[rate_metric("mixed")] = median_metric(rates, "tokens/s", "higher");
  record.metrics["ttft_ms"] = median_metric(ttft, "ms", "lower");
  if (!slowdowns.empty()) {
    record.metrics["itl_slowdown"] = median_metric(slowdowns, "ratio", "lower");
  }
  add_latency_metrics("itl_before", before, record);
  add_latency_metrics("itl_during", during, record);
}

}  // namespace moebench
