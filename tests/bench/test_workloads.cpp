// Latency metrics, and prefill and decode on the tiny golden checkpoint.
#include <catch2/catch.hpp>

#include "bench/workloads.h"
#include "tests/support/files.h"
#include "tests/support/near.h"
#include "tests/support/throws.h"
#include "tests/support/tiny_engine.h"

namespace moebench::test {
TEST_CASE("latency metrics: a percentile stands only where a sample is expected beyond it") {
  std::vector<double> samples(10);
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<double>(10 - i);
  Record record;
  add_latency_metrics("itl", samples, record);
  CHECK(record.metrics.at("itl_ms_mean").value == Approx(5.5));
  CHECK(record.metrics.at("itl_ms_p50").value == Approx(5.5));
  CHECK(record.metrics.at("itl_ms_p90").value == Approx(9.1));  // numpy.percentile(1..10, 90)
  const Metric& p99 = record.metrics.at("itl_ms_p99");
  CHECK(p99.absent);
  CHECK_THAT(p99.interval_method, Catch::Contains("10 samples are too few"));
  for (const auto& [name, metric] : record.metrics) {
    INFO(name);
    CHECK(metric.unit == "ms");
    CHECK(metric.better == "lower");
    CHECK(metric.count == 10);
  }
  Record none;
  add_latency_metrics("itl", {}, none);
  for (const auto& [name, metric] : none.metrics) CHECK(metric.absent);
}

TEST_CASE("median metric: the median, its samples, and an interval where samples differ") {
  const Metric m = median_metric({3, 1, 2}, "tokens/s", "higher");
  CHECK(m.value == 2);
  CHECK(m.samples == std::vector<double>{3, 1, 2});
  CHECK(m.count == 3);
  REQUIRE(m.interval);
  CHECK(m.interval->low >= 1);
  CHECK(m.interval->high <= 3);
  CHECK_FALSE(median_metric({7}, "s", "lower").interval);
  CHECK_FALSE(median_metric({7, 7, 7}, "s", "lower").interval);
}

TEST_CASE("prompts: cut at any place they have the length asked for, and differ by sequence") {
  const PromptSource source{{1, 2, 3, 4, 5}, "five"};
  CHECK(cut_prompt(source, 7, 0) == std::vector<std::int32_t>{1, 2, 3, 4, 5, 1, 2});
  CHECK(cut_prompt(source, 3, 1) == std::vector<std::int32_t>{3, 4, 5});  // 997 mod 5 = 2
  CHECK(cut_prompt(source, 0, 4).empty());
}

TEST_CASE("prompts: without a tokenizer they are random ids, and say so") {
  Tiny tiny;
  const PromptSource source = make_prompt_source(tiny.engine);
  CHECK(source.description == "random ids");
  CHECK(source.tokens == make_prompt_source(tiny.engine).tokens);
  for (const std::int32_t token : source.tokens) {
    if (token < 0 || token >= 512) FAIL("token " << token << " of 512");
  }
}

TEST_CASE("prefill: the rate is the new tokens over the time to the first token") {
  Tiny tiny;
  for (const std::int64_t context : {0, 16}) {
    Record record;
    run_prefill(tiny.engine, {24, context, 4}, {}, record);
    CHECK(record.status == Status::kOk);
    const Metric& rate = record.metrics.at("prefill_tokens_per_second");
    const Metric& ttft = record.metrics.at("ttft_ms");
    REQUIRE(rate.samples.size() == 4);
    REQUIRE(ttft.samples.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(rate.samples[i] * ttft.samples[i] / 1e3 == Approx(24));
    }
    CHECK(record.details.at("prompts") == "random ids");
    CHECK(record.details.at("output_digest").get<std::string>().size() == 16);
  }
}

TEST_CASE("decode: every repetition gives as many latencies as tokens") {
  Tiny tiny;
  std::vector<std::int64_t> seen;
  WorkloadHooks hooks;
  hooks.on_progress = [&](std::int64_t done, std::int64_t) { seen.push_back(done); };
  Record record;
  run_decode(tiny.engine, {3, 10, 6, 5}, hooks, record);
  CHECK(record.status == Status::kOk);
  CHECK(record.metrics.at("decode_tokens_per_second").samples.size() == 5);
  CHECK(record.metrics.at("decode_tokens_per_second").value > 0);
  CHECK(record.metrics.at("ttft_ms_p50").count == 3 * 5);
  CHECK(record.metrics.at("tpot_ms_p50").count == 3 * 5);
  CHECK(record.metrics.at("itl_ms_p50").count == 3 * 5 * 6);  // 7 tokens, the first by prefill
  CHECK(record.metrics.at("e2e_ms_p50").count == 3 * 5);
  CHECK(seen == std::vector<std::int64_t>{1, 2, 3, 4, 5});
  CHECK(record.details.at("warm_up").at("repetitions") >= 1);
  CHECK(record.details.at("warm_up").at("steady").is_boolean());
}

TEST_CASE("workloads: measured repetitions hand their requests to the event log") {
  Tiny tiny;
  std::vector<RequestEvents> log;
  WorkloadHooks hooks;
  hooks.on_request = [&](const RequestEvents& events) { log.push_back(events); };
  Record record;
  run_decode(tiny.engine, {2, 10, 6, 3}, hooks, record);
  REQUIRE(log.size() == 2 * 3);
  for (std::size_t i = 0; i < log.size(); ++i) {
    CHECK(log[i].point == static_cast<std::int64_t>(i / 2));
    CHECK(log[i].output_tokens() == 7);
    CHECK(log[i].prompt_tokens == 10);
    // What is written can be read: times are in order.
    CHECK_NOTHROW(request_events_from_json(Json::parse(to_json(log[i]).dump()), "line"));
  }
  CHECK(log[0].submitted_ns == 0);
}

TEST_CASE("workloads: a request to stop is an interruption, not a result") {
  Tiny tiny;
  WorkloadHooks hooks;
  hooks.stop_requested = [] { return true; };
  Record record;
  check_error(
      [&] {
        run_decode(tiny.engine, {1, 4, 4, 2}, hooks, record);
      },
      ErrorCode::kInterrupted, {"interrupted"});
  CHECK(record.metrics.empty());
}

}  // namespace moebench::test
