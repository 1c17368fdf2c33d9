// Metrics by the definitions of guidellm, AIPerf, TensorRT-LLM, llama-bench and ourselves.
#include "bench/definitions.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "bench/definitions_support.h"
#include "bench/serve.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace definitions {

double population_deviation(const std::vector<double>& values) {
  if (values.empty()) return 0;
  const double middle = mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - middle) * (v - middle);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

Totals totals_of(std::span<const RequestEvents> log) {
  Totals totals;
  for (const RequestEvents& r : log) {
    if (!r.succeeded()) {
      ++totals.failed;
      continue;
    }
    totals.done.push_back(&r);
    totals.input_tokens += r.prompt_tokens;
    totals.output_tokens += r.output_tokens();
  }
  require(!totals.done.empty(), "derive metrics from an event log: none of {} requests succeeded",
          log.size());
  totals.seconds = whole_window(log)->seconds();
  require(totals.seconds > 0, "derive metrics from an event log: its requests took no time");
  return totals;
}

}  // namespace definitions

namespace {

using namespace definitions;

constexpr std::array<std::string_view, 7> kNames = {"moebench", "vllm",   "sglang",     "guidellm",
                                                    "aiperf",   "trtllm", "llama-bench"};

// --- guidellm ------------------------------------------------------------------------------------
// Source: guidellm/schemas/request_stats.py (GenerativeRequestStats) and statistics.py.

// The smallest value whose share of values at or below reaches q.
double inverse_cdf(const std::vector<double>& sorted, double q) {
  const double n = static_cast<double>(sorted.size());
  const auto rank = static_cast<std::size_t>(std::max(0.0, std::ceil(q * n - 1e-9) - 1));
  return sorted[std::min(rank, sorted.size() - 1)];
}

OrderedJson guidellm_summary(std::vector<double> values) {
  if (values.empty()) return OrderedJson();
  std::sort(values.begin(), values.end());
  OrderedJson percentiles;
  for (const auto& [name, q] : {std::pair{"p001", 0.001},
                                {"p01", 0.01},
                                {"p05", 0.05},
                                {"p10", 0.1},
                                {"p25", 0.25},
                                {"p50", 0.5},
                                {"p75", 0.75},
                                {"p90", 0.9},
                                {"p95", 0.95},
                                {"p99", 0.99},
                                {"p999", 0.999}}) {
    percentiles[name] = inverse_cdf(values, q);
  }
  return {{"mean", mean(values)},
          {"median", inverse_cdf(values, 0.5)},
          {"std_dev", population_deviation(values)},
          {"min", values.front()},
          {"max", values.back()},
          {"count", values.size()},
          {"total_sum", std::accumulate(values.begin(), values.end(), 0.0)},
          {"percentiles", percentiles}};
}

OrderedJson guidellm_metrics(std::span<const RequestEvents> log) {
  const Totals totals = totals_of(log);
  std::map<std::string, std::vector<double>> v;
  for (const RequestEvents* r : totals.done) {
    const auto output = static_cast<double>(r->output_tokens());
    v["request_latency"].push_back(latency_s(*r));
    v["time_to_first_token_ms"].push_back(1e3 * ttft_s(*r));
    // With the first token: the whole latency over all tokens.
    v["time_per_output_token_ms"].push_back(1e3 * latency_s(*r) / output);
    if (output > 1) {
      v["inter_token_latency_ms"].push_back(1e3 * (latency_s(*r) - ttft_s(*r)) / (output - 1));
    }
    if (const std::size_t at = r->channels.find(kFinalToken); at != std::string::npos) {
      v["time_to_first_output_token_ms"].push_back(
          1e3 * seconds_between(r->arrived_ns(), r->token_ns[at]));
    }
    if (latency_s(*r) > 0) {
      v["output_tokens_per_second"].push_back(output / latency_s(*r));
      v["tokens_per_second"].push_back((output + static_cast<double>(r->prompt_tokens)) /
                                       latency_s(*r));
    }
  }
  OrderedJson json = {
      {"requests", {{"successful", totals.done.size()}, {"errored", totals.failed}}}};
  for (const char* name :
       {"request_latency", "time_to_first_token_ms", "time_to_first_output_token_ms",
        "time_per_output_token_ms", "inter_token_latency_ms", "output_tokens_per_second",
        "tokens_per_second"}) {
    json[name] = guidellm_summary(v[name]);
  }
  return json;
}

// --- AIPerf --------------------------------------------------------------------------------------
// Source: aiperf/metrics/types/*_metric.py, each with its formula.

OrderedJson aiperf_summary(std::string_view unit, const std::vector<double>& values) {
  OrderedJson json = {{"unit", unit}};
  if (values.empty()) return json;
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  json["avg"] = mean(values);
  json["min"] = *least;
  json["max"] = *most;
  for (const int p : {1, 5, 10, 25, 50, 75, 90, 95, 99}) {
    json[fmt::format("p{}", p)] = numpy_percentile(values, p);
  }
  json["std"] = population_deviation(values);
  json["count"] = values.size();
  json["sum"] = std::accumulate(values.begin(), values.end(), 0.0);
  return json;
}

OrderedJson aiperf_metrics(std::span<const RequestEvents> log) {
  const Totals totals = totals_of(log);
  std::vector<double> ttft, ttst, ttfo, latency, itl, icl, user, input, output;
  for (const RequestEvents* r : totals.done) {
    ttft.push_back(1e3 * ttft_s(*r));
    latency.push_back(1e3 * latency_s(*r));
    input.push_back(static_cast<double>(r->prompt_tokens));
    output.push_back(static_cast<double>(r->output_tokens()));
    // The first token that is no reasoning: without known channels, the first token.
    const std::size_t at = r->channels.empty() ? 0 : r->channels.find(kFinalToken);
    if (at != std::string::npos) {
      ttfo.push_back(1e3 * seconds_between(r->arrived_ns(), r->token_ns[at]));
    }
    if (r->output_tokens() < 2) continue;
    ttst.push_back(1e3 * seconds_between(r->token_ns[0], r->token_ns[1]));
    itl.push_back((latency.back() - ttft.back()) / (output.back() - 1));
    if (itl.back() > 0) user.push_back(1e3 / itl.back());
    for (std::size_t i = 1; i < r->token_ns.size(); ++i) {
      icl.push_back(1e3 * seconds_between(r->token_ns[i - 1], r->token_ns[i]));
    }
  }
  const auto rate = [&](std::int64_t n) { return static_cast<double>(n) / totals.seconds; };
  return {
      {"time_to_first_token", aiperf_summary("ms", ttft)},
      {"time_to_second_token", aiperf_summary("ms", ttst)},
      {"time_to_first_output_token", aiperf_summary("ms", ttfo)},
      {"request_latency", aiperf_summary("ms", latency)},
      {"inter_token_latency", aiperf_summary("ms", itl)},
      {"inter_chunk_latency", aiperf_summary("ms", icl)},
      {"output_token_throughput_per_user", aiperf_summary("tokens/sec/user", user)},
      {"input_sequence_length", aiperf_summary("tokens", input)},
      {"output_sequence_length", aiperf_summary("tokens", output)},
      {"output_token_throughput", {{"unit", "tokens/sec"}, {"avg", rate(totals.output_tokens)}}},
      {"request_throughput",
       {{"unit", "requests/sec"}, {"avg", rate(static_cast<std::int64_t>(totals.done.size()))}}},
      {"request_count", {{"unit", "requests"}, {"avg", totals.done.size()}}},
      {"benchmark_duration", {{"unit", "sec"}, {"avg", totals.seconds}}}};
}

// --- TensorRT-LLM --------------------------------------------------------------------------------
// Source: tensorrt_llm/bench/dataclasses/reporting.py and statistics.py.

// Order statistics by truncation: element floor(n q) of the sorted values.
OrderedJson trtllm_percentiles(std::vector<double> values) {
  if (values.empty()) return OrderedJson();
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {
    return values[static_cast<std::size_t>(static_cast<double>(values.size()) * q)];
  };
  return {{"p50", at(0.5)},
          {"p90", at(0.9)},
          {"p95", at(0.95)},
          {"p99", at(0.99)},
          {"minimum", values.front()},
          {"maximum", values.back()},
          {"average", mean(values)}};
}

OrderedJson trtllm_report(std::span<const RequestEvents> log) {
  const Totals totals = totals_of(log);
  std::vector<double> ttft, tpot, latency, speed, generation;
  for (const RequestEvents* r : totals.done) {
    const double left_s = latency_s(*r) - ttft_s(*r);
    const auto generated = static_cast<double>(r->output_tokens() - 1);
    ttft.push_back(1e3 * ttft_s(*r));
    latency.push_back(1e3 * latency_s(*r));
    tpot.push_back(generated > 0 ? 1e3 * left_s / generated : 0);  // 0 counts, as there
    speed.push_back(latency_s(*r) > 0 ? static_cast<double>(r->output_tokens()) / latency_s(*r)
                                      : 0);
    generation.push_back(left_s > 0 ? generated / left_s : 0);
  }
  const auto n = static_cast<double>(totals.done.size());
  const auto output = static_cast<double>(totals.output_tokens);
  const auto input = static_cast<double>(totals.input_tokens);
  const double seconds = totals.seconds;
  return {{"request_info",
           {{"num_requests", totals.done.size()},
            {"avg_num_concurrent_requests",
             std::accumulate(latency.begin(), latency.end(), 0.0) / 1e3 / seconds},
            {"avg_input_length", input / n},
            {"avg_output_length", output / n}}},
          {"performance",
           {{"total_latency_ms", 1e3 * seconds},
            {"avg_request_latency_ms", mean(latency)},
            {"request_throughput_req_s", n / seconds},
            {"system_output_throughput_tok_s", output / seconds},
            {"system_total_throughput_tok_s", (input + output) / seconds},
            {"output_throughput_per_user_tok_s", mean(speed)},
            {"output_throughput_per_gpu_tok_s", output / seconds},
            {"request_latency_percentiles_ms", trtllm_percentiles(latency)}}},
          {"streaming_metrics",
           {{"token_output_speed_tok_s", mean(generation)},
            {"avg_ttft_ms", mean(ttft)},
            {"avg_tpot_ms", mean(tpot)},
            {"tpot_percentiles", trtllm_percentiles(tpot)},
            {"ttft_percentiles", trtllm_percentiles(ttft)},
            {"gen_tps_percentiles", trtllm_percentiles(generation)}}}};
}

// --- llama-bench ---------------------------------------------------------------------------------
// Source: llama.cpp/tools/llama-bench/llama-bench.cpp: each repetition's tokens over its time, then
// mean and sample deviation of these rates.

OrderedJson llama_bench_rates(std::string_view test, const std::vector<double>& rates) {
  OrderedJson json = {{"test", test}};
  if (rates.empty()) return json;
  const auto n = static_cast<double>(rates.size());
  json["avg_ts"] = mean(rates);
  json["stddev_ts"] = n > 1 ? population_deviation(rates) * std::sqrt(n / (n - 1)) : 0.0;
  json["samples_ts"] = rates;
  return json;
}

OrderedJson llama_bench_metrics(std::span<const RequestEvents> log) {
  const Totals totals = totals_of(log);
  std::map<std::int64_t, std::vector<RequestEvents>> by_point;
  for (const RequestEvents& r : log) by_point[r.point].push_back(r);
  for (const auto& [point, requests] : by_point) {
    const std::int64_t most = peak_concurrency(requests);
    require(most <= 1,
            "derive llama-bench's metrics: it runs one sequence at a time, here up to {} requests "
            "overlap (use a closed loop of concurrency 1)",
            most);
  }
  std::vector<double> prompt;
  std::vector<double> generate;
  for (const RequestEvents* r : totals.done) {
    const double left_s = latency_s(*r) - ttft_s(*r);
    const auto computed = static_cast<double>(r->prompt_tokens - r->cached_tokens);
    if (ttft_s(*r) > 0) prompt.push_back(computed / ttft_s(*r));
    if (left_s > 0) generate.push_back(static_cast<double>(r->output_tokens() - 1) / left_s);
  }
  return {{"pp", llama_bench_rates("pp", prompt)}, {"tg", llama_bench_rates("tg", generate)}};
}

// --- moebench ------------------------------------------------------------------------------------

OrderedJson own_metrics(std::span<const RequestEvents> log, const LoadFacts& facts) {
  totals_of(log);
  Record record;
  add_serve_metrics(log, facts.slo, record);
  return to_json(record).at("metrics");
}

}  // namespace

std::span<const std::string_view> definition_names() { return kNames; }

OrderedJson metrics_by(std::string_view definitions, std::span<const RequestEvents> log,
                       const LoadFacts& facts) {
  switch (index_of_name(kNames, definitions, "derive metrics", "definitions")) {
    case 0:
      return own_metrics(log, facts);
    case 1:
      return vllm_result(log, facts);
    case 2:
      return sglang_line(log, facts);
    case 3:
      return guidellm_metrics(log);
    case 4:
      return aiperf_metrics(log);
    case 5:
      return trtllm_report(log);
    default:
      return llama_bench_metrics(log);
  }
}

}  // namespace moebench
