// vLLM's and SGLang's result files.
//
// Sources: vllm/benchmarks/serve.py (calculate_metrics, benchmark), sglang/bench_serving.py.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/definitions_support.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

using namespace definitions;

// The four latencies of vLLM and SGLang, in seconds.
struct Latencies {
  std::vector<double> ttft, tpot, itl, e2e;
};

Latencies latencies_in_seconds(const Totals& totals) {
  Latencies l;
  for (const RequestEvents* r : totals.done) {
    l.ttft.push_back(ttft_s(*r));
    l.e2e.push_back(latency_s(*r));
    if (r->output_tokens() > 1) {
      l.tpot.push_back((latency_s(*r) - ttft_s(*r)) / static_cast<double>(r->output_tokens() - 1));
    }
    for (std::size_t i = 1; i < r->token_ns.size(); ++i) {
      l.itl.push_back(seconds_between(r->token_ns[i - 1], r->token_ns[i]));
    }
  }
  return l;
}

// Tokens, and requests under way, by whole seconds since the first request; the largest of each.
std::pair<double, std::int64_t> peaks_by_second(const Totals& totals) {
  std::int64_t start = totals.done.front()->arrived_ns();
  for (const RequestEvents* r : totals.done) start = std::min(start, r->arrived_ns());
  const auto second = [&](std::int64_t ns) {
    return static_cast<std::size_t>((ns - start) / 1'000'000'000);
  };
  std::vector<std::int64_t> tokens;
  std::vector<std::int64_t> changes;  // of the number under way, at the start of each second
  const auto at = [](std::vector<std::int64_t>& list, std::size_t i) -> std::int64_t& {
    if (list.size() <= i) list.resize(i + 1);
    return list[i];
  };
  for (const RequestEvents* r : totals.done) {
    for (const std::int64_t ns : r->token_ns) ++at(tokens, second(ns));
    ++at(changes, second(r->arrived_ns()));
    --at(changes, second(r->token_ns.back()) + 1);  // the second it ends in still counts
  }
  std::int64_t now = 0;
  std::int64_t most = 0;
  for (const std::int64_t change : changes) most = std::max(most, now += change);
  return {static_cast<double>(*std::max_element(tokens.begin(), tokens.end())), most};
}

OrderedJson rate_json(std::optional<double> rate) {
  if (!rate) return OrderedJson();
  return std::isinf(*rate) ? OrderedJson("inf") : OrderedJson(*rate);
}

// "2026-01-31T12:00:00Z" as "20260131-120000".
OrderedJson compact_date(const std::string& utc) {
  if (utc.empty()) return OrderedJson();
  std::string date;
  for (const char c : utc) {
    if (c == 'T') date += '-';
    if (c >= '0' && c <= '9') date += c;
  }
  return date;
}

}  // namespace

OrderedJson vllm_result(std::span<const RequestEvents> log, const LoadFacts& facts) {
  const Totals totals = totals_of(log);
  const Latencies l = latencies_in_seconds(totals);
  const double seconds = totals.seconds;
  const auto completed = static_cast<double>(totals.done.size());
  const auto [peak_tokens, peak_requests] = peaks_by_second(totals);
  OrderedJson goodput;
  if (!facts.slo.empty()) {
    const auto good = std::count_if(log.begin(), log.end(),
                                    [&](const RequestEvents& r) { return meets(r, facts.slo); });
    goodput = static_cast<double>(good) / seconds;
  }
  const auto input = static_cast<double>(totals.input_tokens);
  const auto output = static_cast<double>(totals.output_tokens);
  OrderedJson json = {
      {"date", compact_date(facts.started)},
      {"endpoint_type", "moebench"},
      {"backend", "moebench"},
      {"label", OrderedJson()},
      {"model_id", facts.model},
      {"tokenizer_id", facts.model},
      {"num_prompts", facts.num_prompts},
      {"request_rate", rate_json(facts.rate)},
      {"burstiness", facts.burstiness ? OrderedJson(*facts.burstiness) : OrderedJson()},
      {"max_concurrency",
       facts.max_concurrency > 0 ? OrderedJson(facts.max_concurrency) : OrderedJson()},
      {"duration", seconds},
      {"completed", totals.done.size()},
      {"failed", totals.failed},
      {"total_input_tokens", totals.input_tokens},
      {"total_output_tokens", totals.output_tokens},
      {"request_throughput", completed / seconds},
      {"request_goodput", goodput},
      {"output_throughput", output / seconds},
      {"total_token_throughput", (input + output) / seconds},
      {"max_output_tokens_per_s", peak_tokens},
      {"max_concurrent_requests", peak_requests}};
  // Per request, in the order of submission; a failed one has zeroes and its error.
  OrderedJson input_lens = OrderedJson::array(), output_lens = OrderedJson::array(),
              ttfts = OrderedJson::array(), itls = OrderedJson::array(),
              starts = OrderedJson::array(), errors = OrderedJson::array();
  std::vector<const RequestEvents*> in_order;
  for (const RequestEvents& r : log) in_order.push_back(&r);
  std::stable_sort(in_order.begin(), in_order.end(),
                   [](const auto* a, const auto* b) { return a->id < b->id; });
  for (const RequestEvents* r : in_order) {
    const bool ok = r->succeeded();
    input_lens.push_back(r->prompt_tokens);
    output_lens.push_back(ok ? r->output_tokens() : 0);
    ttfts.push_back(ok ? ttft_s(*r) : 0.0);
    OrderedJson gaps = OrderedJson::array();
    for (std::size_t i = 1; ok && i < r->token_ns.size(); ++i) {
      gaps.push_back(seconds_between(r->token_ns[i - 1], r->token_ns[i]));
    }
    itls.push_back(std::move(gaps));
    starts.push_back(seconds_between(0, r->arrived_ns()));
    errors.push_back(ok || !r->error.empty() ? r->error
                                             : std::string(finish_reason_name(r->finish)));
  }
  json["input_lens"] = std::move(input_lens);
  json["output_lens"] = std::move(output_lens);
  json["ttfts"] = std::move(ttfts);
  json["itls"] = std::move(itls);
  json["start_times"] = std::move(starts);
  json["errors"] = std::move(errors);
  for (const auto& [name, values] :
       {std::pair<const char*, const std::vector<double>&>{"ttft", l.ttft},
        {"tpot", l.tpot},
        {"itl", l.itl},
        {"e2el", l.e2e}}) {
    json[fmt::format("mean_{}_ms", name)] = mean(values) * 1e3;
    json[fmt::format("median_{}_ms", name)] = numpy_percentile(values, 50) * 1e3;
    json[fmt::format("std_{}_ms", name)] = population_deviation(values) * 1e3;
    json[fmt::format("p99_{}_ms", name)] = numpy_percentile(values, 99) * 1e3;
  }
  return json;
}

std::string vllm_console(const OrderedJson& result, const LoadFacts& facts) {
  const auto value = [&](const std::string& key) { return result.at(key).get<double>(); };
  std::string text = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  const auto whole = [&](const char* name, const std::string& key) {
    text += fmt::format("{:<40} {:<10}\n", name, result.at(key).get<std::int64_t>());
  };
  const auto real = [&](const std::string& name, double v) {
    text += fmt::format("{:<40} {:<10.2f}\n", name, v);
  };
  whole("Successful requests:", "completed");
  whole("Failed requests:", "failed");
  if (facts.max_concurrency > 0) whole("Maximum request concurrency:", "max_concurrency");
  if (facts.rate && !std::isinf(*facts.rate)) {
    real("Request rate configured (RPS):", *facts.rate);
  }
  real("Benchmark duration (s):", value("duration"));
  whole("Total input tokens:", "total_input_tokens");
  whole("Total generated tokens:", "total_output_tokens");
  real("Request throughput (req/s):", value("request_throughput"));
  if (!facts.slo.empty()) real("Request goodput (req/s):", value("request_goodput"));
  real("Output token throughput (tok/s):", value("output_throughput"));
  real("Peak output token throughput (tok/s):", value("max_output_tokens_per_s"));
  real("Peak concurrent requests:", value("max_concurrent_requests"));
  real("Total token throughput (tok/s):", value("total_token_throughput"));
  for (const auto& [key, name, header] :
       {std::tuple{"ttft", "TTFT", "Time to First Token"},
        {"tpot", "TPOT", "Time per Output Token (excl. 1st token)"},
        {"itl", "ITL", "Inter-token Latency"}}) {
    text += fmt::format("{:-^50}\n", header);
    real(fmt::format("Mean {} (ms):", name), value(fmt::format("mean_{}_ms", key)));
    real(fmt::format("Median {} (ms):", name), value(fmt::format("median_{}_ms", key)));
    real(fmt::format("P99 {} (ms):", name), value(fmt::format("p99_{}_ms", key)));
  }
  return text + std::string(50, '=') + "\n";
}

OrderedJson sglang_line(std::span<const RequestEvents> log, const LoadFacts& facts) {
  const Totals totals = totals_of(log);
  const Latencies l = latencies_in_seconds(totals);
  const double seconds = totals.seconds;
  const auto input = static_cast<double>(totals.input_tokens);
  const auto output = static_cast<double>(totals.output_tokens);
  // What is particular to its datasets, and texts encoded again, has no counterpart here: null.
  OrderedJson json = {
      {"backend", "moebench"},
      {"dataset_name", OrderedJson()},
      {"request_rate", rate_json(facts.rate)},
      {"max_concurrency",
       facts.max_concurrency > 0 ? OrderedJson(facts.max_concurrency) : OrderedJson()},
      {"sharegpt_output_len", OrderedJson()},
      {"random_input_len", OrderedJson()},
      {"random_output_len", OrderedJson()},
      {"random_range_ratio", OrderedJson()},
      {"duration", seconds},
      {"completed", totals.done.size()},
      {"total_input_tokens", totals.input_tokens},
      {"total_output_tokens", totals.output_tokens},
      {"total_output_tokens_retokenized", OrderedJson()},
      {"request_throughput", static_cast<double>(totals.done.size()) / seconds},
      {"input_throughput", input / seconds},
      {"output_throughput", output / seconds}};
  const auto add = [&](const char* name, const std::vector<double>& values, bool p95) {
    json[fmt::format("mean_{}_ms", name)] = mean(values) * 1e3;
    json[fmt::format("median_{}_ms", name)] = numpy_percentile(values, 50) * 1e3;
    json[fmt::format("std_{}_ms", name)] = population_deviation(values) * 1e3;
    if (p95) json[fmt::format("p95_{}_ms", name)] = numpy_percentile(values, 95) * 1e3;
    json[fmt::format("p99_{}_ms", name)] = numpy_percentile(values, 99) * 1e3;
  };
  add("e2e_latency", l.e2e, false);
  add("ttft", l.ttft, false);
  add("tpot", l.tpot, false);
  add("itl", l.itl, true);
  json["concurrency"] = std::accumulate(l.e2e.begin(), l.e2e.end(), 0.0) / seconds;
  json["accept_length"] = OrderedJson();
  return json;
}

}  // namespace moebench
