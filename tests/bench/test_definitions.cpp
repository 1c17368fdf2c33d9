// Each tool's definitions on one recorded log, with the arithmetic beside the numbers.
//
// The log, in ms (prompt tokens in brackets):
//   A [10]  arrives   0, tokens at 100, 150, 250            TTFT 100, latency 250
//   B [20]  arrives  50, tokens at 260 (thought), 300       TTFT 210, latency 250
//   C [30]  arrives 200, token  at 500                      TTFT 300, latency 300
//   D [40]  arrives 100, fails at 120
// B is handed over 10 ms late, which changes nothing: latencies count from the arrival. All of it
// takes 0.5 s; 60 prompt tokens and 6 output tokens belong to the three that succeeded.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "bench/definitions.h"
#include "tests/bench/event_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::vector<RequestEvents> recorded() {
  RequestEvents a = request(0, 0, {100, 150, 250}, 10);
  RequestEvents b = request(1, 50, {260, 300}, 20);
  b.submitted_ns = 60 * kMs;
  b.started_ns = 60 * kMs;
  b.channels = "rf";
  RequestEvents c = request(2, 200, {500}, 30);
  RequestEvents d = request(3, 100, {}, 40);
  d.finished_ns = 120 * kMs;
  d.finish = FinishReason::kFailed;
  d.error = "no room";
  return {d, b, a, c};  // in the order of ending, more or less
}

LoadFacts facts() {
  LoadFacts facts;
  facts.burstiness = 1;
  facts.model = "nano";
  facts.started = "2026-01-31T12:34:56Z";
  facts.rate = 8;
  facts.num_prompts = 4;
  facts.slo = parse_slo("ttft:250 e2el:260", "");
  return facts;
}

OrderedJson by(std::string_view definitions) {
  return metrics_by(definitions, recorded(), facts());
}

std::vector<std::string> keys_of(const OrderedJson& json) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  return keys;
}

double value(const OrderedJson& json, const std::string& key) { return json.at(key).get<double>(); }

}  // namespace

TEST_CASE("definitions: moebench's own") {
  const OrderedJson m = by("moebench");
  const auto v = [&](const char* name) { return m.at(name).at("value").get<double>(); };
  CHECK(v("ttft_ms_mean") == Approx(610.0 / 3));           // (100 + 210 + 300) / 3
  CHECK(v("tpot_ms_p50") == Approx(57.5));                 // A (250-100)/2 = 75, B 40; C has none
  CHECK(v("itl_ms_mean") == Approx(190.0 / 3));            // 50, 100, 40
  CHECK(v("longest_itl_ms_mean") == Approx(70));           // 100, 40
  CHECK(v("ttff_ms_mean") == Approx(250));                 // B: 300 - 50
  CHECK(v("lateness_ms_mean") == Approx(10.0 / 3));        // 0, 10, 0
  CHECK(v("requests_per_second") == Approx(6));            // 3 / 0.5
  CHECK(v("serve_tokens_per_second") == Approx(12));       // 6 / 0.5
  CHECK(v("total_tokens_per_second") == Approx(132));      // 66 / 0.5
  CHECK(v("goodput_share") == Approx(0.5));                // A and B of four
  CHECK(v("goodput_requests_per_second") == Approx(4));    // 2 / 0.5
  CHECK(v("user_tokens_per_second") == Approx(19.16667));  // median of 1000/75 and 1000/40
  CHECK(v("failed_requests") == 1);
  // A p99 of three requests is not quoted, and says why.
  CHECK(m.at("ttft_ms_p99").at("value").is_null());
  CHECK(m.at("ttft_ms_p99").at("interval_method") == "3 samples are too few");
  // The first success is at 250, the last arrival at 200: no steady time.
  CHECK(m.at("steady_requests_per_second").at("value").is_null());
}

TEST_CASE("definitions: vLLM's result file has its keys in its order, seconds and milliseconds") {
  const OrderedJson r = by("vllm");
  CHECK(keys_of(r) == std::vector<std::string>{"date",
                                               "endpoint_type",
                                               "backend",
                                               "label",
                                               "model_id",
                                               "tokenizer_id",
                                               "num_prompts",
                                               "request_rate",
                                               "burstiness",
                                               "max_concurrency",
                                               "duration",
                                               "completed",
                                               "failed",
                                               "total_input_tokens",
                                               "total_output_tokens",
                                               "request_throughput",
                                               "request_goodput",
                                               "output_throughput",
                                               "total_token_throughput",
                                               "max_output_tokens_per_s",
                                               "max_concurrent_requests",
                                               "input_lens",
                                               "output_lens",
                                               "ttfts",
                                               "itls",
                                               "start_times",
                                               "errors",
                                               "mean_ttft_ms",
                                               "median_ttft_ms",
                                               "std_ttft_ms",
                                               "p99_ttft_ms",
                                               "mean_tpot_ms",
                                               "median_tpot_ms",
                                               "std_tpot_ms",
                                               "p99_tpot_ms",
                                               "mean_itl_ms",
                                               "median_itl_ms",
                                               "std_itl_ms",
                                               "p99_itl_ms",
                                               "mean_e2el_ms",
                                               "median_e2el_ms",
                                               "std_e2el_ms",
                                               "p99_e2el_ms"});
  CHECK(r.at("date") == "20260131-123456");
  CHECK(value(r, "request_rate") == 8);
  CHECK(value(r, "duration") == Approx(0.5));
  CHECK(r.at("completed") == 3);
  CHECK(r.at("failed") == 1);
  CHECK(r.at("total_input_tokens") == 60);
  CHECK(value(r, "request_throughput") == Approx(6));
  CHECK(value(r, "request_goodput") == Approx(4));
  CHECK(value(r, "output_throughput") == Approx(12));
  CHECK(value(r, "total_token_throughput") == Approx(132));
  CHECK(value(r, "max_output_tokens_per_s") == 6);  // all within the first second
  CHECK(r.at("max_concurrent_requests") == 3);      // likewise; D does not count
  CHECK(value(r, "mean_ttft_ms") == Approx(610.0 / 3));
  CHECK(value(r, "median_ttft_ms") == Approx(210));
  // Deviations of 100, 210, 300 from 203.333: 10677.8 + 44.4 + 9344.4 = 20066.7; / 3 = 6688.9.
  CHECK(value(r, "std_ttft_ms") == Approx(81.7856));
  CHECK(value(r, "p99_ttft_ms") == Approx(298.2));  // 210 + 0.98 * 90
  CHECK(value(r, "mean_tpot_ms") == Approx(57.5));  // 75 and 40; one token has none
  CHECK(value(r, "p99_tpot_ms") == Approx(74.65));  // 40 + 0.99 * 35
  CHECK(value(r, "median_itl_ms") == Approx(50));   // 40, 50, 100
  CHECK(value(r, "p99_itl_ms") == Approx(99));      // 50 + 0.98 * 50
  CHECK(value(r, "mean_e2el_ms") == Approx(800.0 / 3));
  // By request, in seconds; the failed one has zeroes and its error.
  CHECK(r.at("ttfts").dump() == "[0.1,0.21,0.3,0.0]");
  CHECK(r.at("itls").dump() == "[[0.05,0.1],[0.04],[],[]]");
  CHECK(r.at("output_lens").dump() == "[3,2,1,0]");
  CHECK(r.at("errors").dump() == R"(["","","","no room"])");

  LoadFacts closed = facts();
  closed.rate = std::numeric_limits<double>::infinity();
  closed.slo = {};
  const OrderedJson other = vllm_result(recorded(), closed);
  CHECK(other.at("request_rate") == "inf");
  CHECK(other.at("request_goodput").is_null());
  // Of a log alone nothing is known about what was asked for.
  const OrderedJson unknown = vllm_result(recorded(), {});
  CHECK(unknown.at("request_rate").is_null());
  CHECK(unknown.at("date").is_null());
  CHECK(vllm_console(unknown, {}).find("Request rate") == std::string::npos);
}

TEST_CASE("definitions: vLLM's console block is what people paste and scripts parse") {
  const std::string text = vllm_console(by("vllm"), facts());
  CHECK(text ==
        "============ Serving Benchmark Result ============\n"
        "Successful requests:                     3         \n"
        "Failed requests:                         1         \n"
        "Request rate configured (RPS):           8.00      \n"
        "Benchmark duration (s):                  0.50      \n"
        "Total input tokens:                      60        \n"
        "Total generated tokens:                  6         \n"
        "Request throughput (req/s):              6.00      \n"
        "Request goodput (req/s):                 4.00      \n"
        "Output token throughput (tok/s):         12.00     \n"
        "Peak output token throughput (tok/s):    6.00      \n"
        "Peak concurrent requests:                3.00      \n"
        "Total token throughput (tok/s):          132.00    \n"
        "---------------Time to First Token----------------\n"
        "Mean TTFT (ms):                          203.33    \n"
        "Median TTFT (ms):                        210.00    \n"
        "P99 TTFT (ms):                           298.20    \n"
        "-----Time per Output Token (excl. 1st token)------\n"
        "Mean TPOT (ms):                          57.50     \n"
        "Median TPOT (ms):                        57.50     \n"
        "P99 TPOT (ms):                           74.65     \n"
        "---------------Inter-token Latency----------------\n"
        "Mean ITL (ms):                           63.33     \n"
        "Median ITL (ms):                         50.00     \n"
        "P99 ITL (ms):                            99.00     \n"
        "==================================================\n");
}

TEST_CASE("definitions: SGLang's line") {
  const OrderedJson r = by("sglang");
  CHECK(keys_of(r).front() == "backend");
  CHECK(value(r, "input_throughput") == Approx(120));
  CHECK(value(r, "output_throughput") == Approx(12));
  CHECK(value(r, "mean_e2e_latency_ms") == Approx(800.0 / 3));
  CHECK(value(r, "p95_itl_ms") == Approx(95));    // 50 + 0.9 * 50
  CHECK(value(r, "concurrency") == Approx(1.6));  // (0.25 + 0.25 + 0.3) / 0.5
  CHECK(r.at("total_output_tokens_retokenized").is_null());
}

TEST_CASE("definitions: guidellm counts the first token in TPOT and quotes values that occurred") {
  const OrderedJson r = by("guidellm");
  const OrderedJson& tpot = r.at("time_per_output_token_ms");
  CHECK(value(tpot, "mean") == Approx(169.4444));  // 250/3, 250/2, 300/1
  CHECK(value(tpot, "median") == Approx(125));     // the second of three
  CHECK(value(tpot.at("percentiles"), "p99") == Approx(300));
  const OrderedJson& itl = r.at("inter_token_latency_ms");
  CHECK(value(itl, "mean") == Approx(57.5));  // 75 and 40
  CHECK(value(itl, "median") == Approx(40));  // half of the values are at most 40
  CHECK(value(r.at("time_to_first_output_token_ms"), "mean") == Approx(250));
  CHECK(value(r.at("request_latency"), "max") == Approx(0.3));          // seconds
  CHECK(value(r.at("output_tokens_per_second"), "max") == Approx(12));  // A: 3 / 0.25
  CHECK(r.at("requests").at("errored") == 1);
}

TEST_CASE("definitions: AIPerf's ITL is per request, gaps are its ICL") {
  const OrderedJson r = by("aiperf");
  CHECK(value(r.at("inter_token_latency"), "avg") == Approx(57.5));       // 75, 40
  CHECK(value(r.at("inter_chunk_latency"), "avg") == Approx(190.0 / 3));  // 50, 100, 40
  CHECK(value(r.at("time_to_second_token"), "avg") == Approx(45));        // 50, 40
  // A and C have no known thoughts: their first token; B: its second.
  CHECK(value(r.at("time_to_first_output_token"), "avg") == Approx(650.0 / 3));
  CHECK(value(r.at("output_token_throughput_per_user"), "avg") == Approx(19.16667));
  CHECK(value(r.at("output_token_throughput"), "avg") == Approx(12));
  CHECK(value(r.at("request_latency"), "p50") == Approx(250));
  CHECK(r.at("request_latency").at("unit") == "ms");
}

TEST_CASE("definitions: TensorRT-LLM takes element floor(n q), and one token has a TPOT of 0") {
  const OrderedJson r = by("trtllm");
  CHECK(value(r.at("request_info"), "avg_num_concurrent_requests") == Approx(1.6));
  CHECK(value(r.at("request_info"), "avg_output_length") == Approx(2));
  CHECK(value(r.at("performance"), "total_latency_ms") == Approx(500));
  // 3/0.25 = 12, 2/0.25 = 8, 1/0.3 = 3.333
  CHECK(value(r.at("performance"), "output_throughput_per_user_tok_s") == Approx(7.77778));
  const OrderedJson& s = r.at("streaming_metrics");
  CHECK(value(s, "avg_tpot_ms") == Approx(115.0 / 3));              // 75, 40, 0
  CHECK(value(s.at("tpot_percentiles"), "p50") == Approx(40));      // element 1 of 0, 40, 75
  CHECK(value(s.at("ttft_percentiles"), "p99") == Approx(300));     // element 2
  CHECK(value(s, "token_output_speed_tok_s") == Approx(12.77778));  // 13.333, 25, 0
}

TEST_CASE("definitions: llama-bench's mean of rates, of one sequence at a time") {
  check_error([] { by("llama-bench"); }, ErrorCode::kInvalidArgument,
              {"one sequence at a time", "up to 3"});
  // Two repetitions. pp: 10/0.1 = 100, 10/0.125 = 80. tg: 2/0.15 = 13.333, 1/0.1 = 10.
  RequestEvents first = request(0, 0, {100, 150, 250});
  RequestEvents second = request(0, 0, {125, 225});
  second.point = 1;
  const OrderedJson r = metrics_by("llama-bench", std::vector{first, second}, facts());
  CHECK(value(r.at("pp"), "avg_ts") == Approx(90));
  CHECK(value(r.at("pp"), "stddev_ts") == Approx(std::sqrt(200.0)));  // (10^2 + 10^2) / (2 - 1)
  CHECK(value(r.at("tg"), "avg_ts") == Approx(11.66667));
}

TEST_CASE("definitions: nothing is derived from nothing, and names are checked") {
  RequestEvents failed = request(0, 0, {});
  failed.finish = FinishReason::kFailed;
  for (const std::string_view name : definition_names()) {
    INFO(name);
    check_error([&] { metrics_by(name, std::vector{failed}, facts()); },
                ErrorCode::kInvalidArgument, {"none of 1 requests succeeded"});
    // Nowhere is a NaN or infinity: JSON has none, and would write null.
    const OrderedJson one = metrics_by(name, std::vector{request(0, 0, {5})}, facts());
    CHECK_FALSE(one.empty());
  }
  check_error([] { by("vlm"); }, ErrorCode::kInvalidArgument, {"did you mean 'vllm'"});
}

}  // namespace moebench::test
