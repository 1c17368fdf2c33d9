// Prefill and decode.
#include "bench/workloads.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "bench/planted_slowdown.h"
#include "bench/sample_watch.h"
#include "bench/step_limits.h"
#include "evals/statistics.h"
#include "evals/task.h"
#include "evals/timing_statistics.h"
#include "kernels/core/clock.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

constexpr double kNsPerMs = 1e6;
constexpr double kNsPerSecond = 1e9;
constexpr std::int64_t kResamples = 2000;
constexpr std::uint64_t kBootstrapSeed = 1;
constexpr double kWarmUpSeconds = 0.3;

std::vector<RequestResult> run_batch(Engine& engine, const std::vector<Request>& requests,
                                     std::span<const std::int32_t> computed_before,
                                     const WorkloadHooks& hooks) {
  Scheduler scheduler(*engine.model, *engine.cache);
  // Or the first sequences would have decoded their tokens beside the last ones' prompts, and the
  // rate would be that of fewer.
  scheduler.compute_prompts_first();
  scheduler.share_prefix(computed_before);
  for (const Request& request : requests) scheduler.submit(request);
  const PlantedSlowdown slowdown;
  if (slowdown.is_planted()) engine.model->set_overlap(false);
  for (;;) {
    const auto start = slowdown.before_step();
    if (!scheduler.step()) break;
    slowdown.after_step(start);
    require_or(ErrorCode::kInterrupted, !hooks.stop_requested || !hooks.stop_requested(),
               "run a workload: interrupted");
  }
  return take_all_results(scheduler);
}

// Hash of all output tokens: the witness that the timed work was the right work.
std::string digest_of(const std::vector<RequestResult>& results) {
  std::uint64_t hash = 0;
  for (const RequestResult& result : results) {
    hash = content_hash(std::as_bytes(std::span(result.tokens)), hash);
  }
  return hash_hex(hash);
}

std::vector<Request> prefill_requests(const PromptSource& source, const PrefillScenario& s) {
  return make_requests(source, 1, s.context + s.tokens, 1);
}

// One token more than asked: the first belongs to prefill.
std::vector<Request> decode_requests(const PromptSource& source, const DecodeScenario& s) {
  return make_requests(source, s.batch, s.context, s.tokens + 1);
}

// When every sequence had its first token, and decoding began.
std::int64_t decoding_began(const std::vector<RequestResult>& results) {
  std::int64_t begin = 0;
  for (const RequestResult& result : results) begin = std::max(begin, result.token_ns.front());
  return begin;
}

// Tokens per second of steady decoding.
double decode_rate(const std::vector<RequestResult>& results) {
  const std::int64_t begin = decoding_began(results);
  std::int64_t end = 0;
  for (const RequestResult& result : results) end = std::max(end, result.token_ns.back());
  std::int64_t tokens = 0;
  for (const RequestResult& result : results) {
    tokens += std::count_if(result.token_ns.begin(), result.token_ns.end(),
                            [&](std::int64_t ns) { return ns > begin; });
  }
  return static_cast<double>(tokens) * kNsPerSecond /
         static_cast<double>(std::max<std::int64_t>(1, end - begin));
}

// What was computed is part of what a time means: results of other prompts are not comparable.
void note_prompts(const PromptSource& source, const std::vector<Request>& requests,
                  Record& record) {
  std::uint64_t hash = 0;
  for (const Request& request : requests) {
    hash = content_hash(std::as_bytes(std::span(request.prompt)), hash);
  }
  record.details["prompts"] = source.description;
  record.details["content_hashes"]["prompts"] = hash_hex(hash);
}

}  // namespace

std::vector<RequestResult> take_all_results(Scheduler& scheduler) {
  std::vector<RequestResult> results = scheduler.take_results();
  std::sort(results.begin(), results.end(),
            [](const RequestResult& a, const RequestResult& b) { return a.id < b.id; });
  for (const RequestResult& result : results) {
    require(result.finish != FinishReason::kFailed, "run a workload: {}", result.error);
  }
  return results;
}

std::vector<Request> make_requests(const PromptSource& source, std::int64_t batch,
                                   std::int64_t prompt_tokens, std::int64_t output_tokens) {
  std::vector<Request> requests;
  for (std::int64_t i = 0; i < batch; ++i) {
    Request request;
    request.id = static_cast<std::uint64_t>(i);
    request.prompt = cut_prompt(source, prompt_tokens, i);
    request.max_tokens = output_tokens;
    request.detect_loops = false;  // and no stop tokens: the work must not depend on the words
    requests.push_back(std::move(request));
  }
  return requests;
}

WarmUpResult warm_up_until_steady(const std::function<double()>& repeat,
                                  const WarmUpLimits& limits) {
  const auto start = std::chrono::steady_clock::now();
  WarmUpResult result;
  std::vector<double> rates;
  while (!result.steady &&
         (result.repetitions < limits.least_repetitions || seconds_since(start) < limits.most_s)) {
    rates.push_back(repeat());
    ++result.repetitions;
    result.steady = seconds_since(start) >= limits.least_s && is_steady(rates);
  }
  return result;
}

bool repeat_witnessed(const std::function<std::vector<RequestResult>()>& run,
                      std::int64_t repetitions, const WorkloadHooks& hooks, Record& record,
                      const std::function<void(const std::vector<RequestResult>&)>& measure) {
  std::string witness;  // of the first run
  const auto agrees = [&](const std::vector<RequestResult>& results, const std::string& which) {
    const std::string digest = digest_of(results);
    if (witness.empty()) witness = digest;
    if (digest == witness || record.status == Status::kWrongOutput) return digest == witness;
    record.status = Status::kWrongOutput;
    record.reason = fmt::format(
        "{} gave other tokens than the first run ({} instead of {}); its time would mean nothing",
        which, digest, witness);
    return false;
  };
  const auto warm = [&] {
    const auto start = std::chrono::steady_clock::now();
    const auto results = run();
    const double seconds = seconds_since(start);
    agrees(results, "a repetition for warming up");
    return 1 / std::max(1e-9, seconds);
  };
  const WarmUpResult warm_up = warm_up_until_steady(warm, {1, 0, kWarmUpSeconds});
  record.details["warm_up"] = {{"repetitions", warm_up.repetitions}, {"steady", warm_up.steady}};
  record.details["output_digest"] = witness;
  if (record.status == Status::kWrongOutput) return false;
  for (std::int64_t r = 0; r < repetitions; ++r) {
    if (hooks.watch != nullptr) hooks.watch->begin();
    const auto results = run();
    if (hooks.watch != nullptr) hooks.watch->end();
    if (!agrees(results, fmt::format("repetition {}", r + 1))) return false;
    measure(results);
    if (hooks.on_request) {
      std::int64_t origin = results.front().submitted_ns;
      for (const RequestResult& one : results) origin = std::min(origin, one.submitted_ns);
      for (const RequestResult& one : results) {
        RequestEvents events = events_of(one, origin);
        events.point = r;
        hooks.on_request(events);
      }
    }
    if (hooks.on_progress) hooks.on_progress(r + 1, repetitions);
  }
  return true;
}

PromptSource make_prompt_source(const Engine& engine) {
  PromptSource source;
  if (engine.tokenizer) {
    std::string text;
    for (const TaskItem& item : find_task("nano").load().items) text += item.user_message + "\n";
    source.tokens = engine.tokenizer->encode(text);
    source.description = "text of the nano questions";
    return source;
  }
  return random_prompt_source(engine);
}

PromptSource random_prompt_source(const Engine& engine) {
  constexpr std::size_t kEnough = 1 << 16;
  PromptSource source;
  RandomStream random(1);
  for (std::size_t i = 0; i < kEnough; ++i) {
    source.tokens.push_back(
        static_cast<std::int32_t>(random.below(engine.model->config().vocab_size)));
  }
  source.description = "random ids";
  return source;
}

std::vector<std::int32_t> cut_prompt(const PromptSource& source, std::int64_t length,
                                     std::int64_t index) {
  // A stride that is prime to most lengths, so that sequences do not start at the same sentence.
  constexpr std::size_t kStride = 997;
  std::vector<std::int32_t> prompt;
  std::size_t at = static_cast<std::size_t>(index) * kStride;
  for (std::int64_t i = 0; i < length; ++i) {
    prompt.push_back(source.tokens[at++ % source.tokens.size()]);
  }
  return prompt;
}

void add_latency_metrics(std::string_view name, std::span<const double> samples, Record& record) {
  const auto n = static_cast<std::int64_t>(samples.size());
  const auto add = [&](std::string_view suffix, bool supported, auto compute) {
    Metric metric;
    metric.unit = "ms";
    metric.better = "lower";
    metric.count = n;
    metric.absent = !supported;
    if (supported) {
      metric.value = compute();
    } else {
      metric.interval_method = fmt::format("{} samples are too few", n);
    }
    record.metrics[fmt::format("{}_ms_{}", name, suffix)] = metric;
  };
  add("mean", n > 0, [&] {
    return std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(n);
  });
  for (const auto& [suffix, q] : {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}}) {
    const double quantile = q;
    add(suffix, n > 0 && percentile_is_supported(n, quantile),
        [&] { return percentile(samples, quantile); });
  }
}

Metric plain_metric(double value, std::string unit, std::string better, std::int64_t count) {
  Metric metric;
  metric.value = value;
  metric.unit = std::move(unit);
  metric.better = std::move(better);
  metric.count = count;
  return metric;
}

Metric median_metric(std::vector<double> samples, std::string unit, std::string better) {
  Metric metric;
  metric.value = median(samples);
  metric.unit = std::move(unit);
  metric.better = std::move(better);
  metric.count = static_cast<std::int64_t>(samples.size());
  metric.interval = bootstrap_interval(
      samples, [](std::span<const double> values) { return median(values); }, kResamples, 0.95,
      kBootstrapSeed);
  metric.interval_method = metric.interval ? "bootstrap of the median over repetitions"
                                           : "too few different repetitions for an interval";
  metric.samples = std::move(samples);
  return metric;
}

void run_prefill(Engine& engine, const PrefillScenario& scenario, const WorkloadHooks& hooks,
                 Record& record) {
  const PromptSource source = make_prompt_source(engine);
  std::vector<double> rates;
  LatencySamples latencies;
  const auto measure = [&](const std::vector<RequestResult>& results) {
    add_latencies(events_of(results.front(), 0), latencies);
    rates.push_back(static_cast<double>(scenario.tokens) * 1e3 / latencies.ttft.back());
  };
  const auto requests = prefill_requests(source, scenario);
  note_prompts(source, requests, record);
  const auto before =
      std::span(requests.front().prompt).first(static_cast<std::size_t>(scenario.context));
  const auto run = [&] { return run_batch(engine, requests, before, hooks); };
  if (!repeat_witnessed(run, scenario.repetitions, hooks, record, measure)) return;
  record.metrics[rate_metric("prefill")] = median_metric(rates, "tokens/s", "higher");
  record.metrics["ttft_ms"] = median_metric(latencies.ttft, "ms", "lower");
  record.details["time_by_op"] = time_by_op(engine, requests, false, hooks.ceilings);
  if (hooks.ceilings == nullptr) return;
  add_limit_metrics(prefill_limit(engine, requests.front(), scenario.context, *hooks.ceilings),
                    *hooks.ceilings, record);
}

void run_decode(Engine& engine, const DecodeScenario& scenario, const WorkloadHooks& hooks,
                Record& record) {
  const PromptSource source = make_prompt_source(engine);
  std::vector<double> rates;
  LatencySamples latencies;
  LatencySamples decoding;                         // from when every sequence had its first token
  std::vector<std::vector<std::int32_t>> outputs;  // the same in every repetition
  const auto measure = [&](const std::vector<RequestResult>& results) {
    outputs.clear();
    const std::int64_t begin = decoding_began(results);
    for (const RequestResult& result : results) {
      outputs.push_back(result.tokens);
      add_latencies(events_of(result, 0), latencies);
      // Waiting for the prompts of others is no time between tokens.
      RequestResult decoded = result;
      decoded.token_ns.front() = begin;
      add_latencies(events_of(decoded, 0), decoding);
    }
    rates.push_back(decode_rate(results));
  };
  const auto requests = decode_requests(source, scenario);
  note_prompts(source, requests, record);
  const auto run = [&] { return run_batch(engine, requests, {}, hooks); };
  if (!repeat_witnessed(run, scenario.repetitions, hooks, record, measure)) return;
  record.metrics[rate_metric("decode")] = median_metric(rates, "tokens/s", "higher");
  add_latency_metrics("ttft", latencies.ttft, record);
  add_latency_metrics("tpot", decoding.tpot, record);
  add_latency_metrics("itl", decoding.itl, record);
  add_latency_metrics("e2e", latencies.e2e, record);
  record.details["time_by_op"] = time_by_op(engine, requests, true, hooks.ceilings);
  if (hooks.ceilings == nullptr) return;
  add_limit_metrics(decode_limit(engine, requests, outputs, *hooks.ceilings), *hooks.ceilings,
                    record);
}

RepeatedWorkload::RepeatedWorkload(Engine& engine, const Scenario& scenario) : engine_(engine) {
  const PromptSource source = make_prompt_source(engine);
  if (const auto* prefill = std::get_if<PrefillScenario>(&scenario)) {
    requests_ = prefill_requests(source, *prefill);
    computed_before_ = prefill->context;
  } else if (const auto* decode = std::get_if<DecodeScenario>(&scenario)) {
    requests_ = decode_requests(source, *decode);
    decodes_ = true;
  } else {
    fail(ErrorCode::kUnsupported, "repeat '{}': only prefill and decode have tokens per second",
         scenario_label(scenario));
  }
}

RepeatedWorkload::Repetition RepeatedWorkload::run(const WorkloadHooks& hooks) {
  const auto& prompt = requests_.front().prompt;
  const auto before = std::span(prompt).first(static_cast<std::size_t>(computed_before_));
  const auto results = run_batch(engine_, requests_, before, hooks);
  if (decodes_) return {decode_rate(results), digest_of(results)};
  const RequestResult& only = results.front();
  const auto computed =
      static_cast<double>(static_cast<std::int64_t>(prompt.size()) - computed_before_);
  return {
      computed * 1e3 / (static_cast<double>(only.token_ns.front() - only.submitted_ns) / kNsPerMs),
      digest_of(results)};
}

}  // namespace moebench
