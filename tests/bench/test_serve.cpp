// The workloads `serve` and `mixed`: what they measure, that the schedule is kept in order, and
// what they refuse. No test depends on how fast anything is.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "bench/case_runner.h"
#include "bench/mixed.h"
#include "bench/sample_watch.h"
#include "bench/serve.h"
#include "kernels/core/thread_pool.h"
#include "tests/bench/event_builder.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"
#include "tests/support/tiny_engine.h"

namespace moebench::test {
namespace {

ServeScenario scenario_of(const char* json) {
  Json parsed = Json::parse(json);
  parsed["kind"] = "serve";
  return std::get<ServeScenario>(scenario_from_json(parsed, "suite.json: workloads[0]"));
}

struct Outcome {
  Record record;
  std::vector<RequestEvents> log;
};

Outcome serve(Engine& engine, const ServeScenario& scenario) {
  Outcome outcome;
  WorkloadHooks hooks;
  hooks.on_request = [&](const RequestEvents& events) { outcome.log.push_back(events); };
  run_serve(engine, scenario, hooks, outcome.record);
  return outcome;
}

double value(const Record& record, const std::string& name) {
  const Metric& metric = record.metrics.at(name);
  CHECK_FALSE(metric.absent);
  return metric.value;
}

}  // namespace

TEST_CASE("serve: an open loop hands over every request, none before its time") {
  Tiny tiny(5);
  const ServeScenario scenario = scenario_of(
      R"({"rate": 400, "requests": 40, "input": "uniform:4:20", "output": "uniform:1:6",
          "seed": 3, "slo": "ttft:100000"})");
  const Outcome outcome = serve(tiny.engine, scenario);
  const auto schedule = make_schedule(scenario.arrivals, parse_length("uniform:4:20", "x"),
                                      parse_length("uniform:1:6", "x"), {});
  REQUIRE(outcome.log.size() == 40);
  // The distribution that the record keeps goes through its own percentiles.
  const OrderedJson& quantiles = outcome.record.details.at("latency_quantiles").at("ttft_ms");
  REQUIRE(quantiles.size() == 41);
  CHECK(std::is_sorted(quantiles.begin(), quantiles.end()));
  CHECK(quantiles[20].get<double>() == Approx(value(outcome.record, "ttft_ms_p50")));
  CHECK(quantiles[36].get<double>() == Approx(value(outcome.record, "ttft_ms_p90")));
  std::set<std::uint64_t> ids;
  for (const RequestEvents& r : outcome.log) {
    ids.insert(r.id);
    REQUIRE(r.id < 40);
    const ScheduledRequest& planned = schedule[r.id];
    CHECK(r.scheduled_ns == planned.arrival_ns);
    CHECK(r.submitted_ns >= planned.arrival_ns);
    CHECK(r.prompt_tokens == planned.input_tokens);
    CHECK(r.output_tokens() == planned.output_tokens);
    CHECK(r.finish == FinishReason::kLength);
    CHECK_NOTHROW(request_events_from_json(Json::parse(to_json(r).dump()), "line"));
  }
  CHECK(ids.size() == 40);
  const Record& record = outcome.record;
  CHECK(record.metrics.at("lateness_ms_p50").count == 40);
  CHECK(value(record, "lateness_ms_mean") >= 0);
  CHECK(record.metrics.at("ttft_ms_p99").absent);  // 40 requests cannot show a p99
  CHECK(value(record, "goodput_share") == 1);
  CHECK(record.metrics.at("goodput_share").interval);
  CHECK(value(record, "serve_tokens_per_second") > 0);
  CHECK(value(record, "failed_requests") == 0);
  CHECK(record.details.at("prompts") == "random ids");  // the tiny model has no tokenizer
  CHECK(record.details.at("finish").at("length") == 40);
}

TEST_CASE("serve: the digest of its tokens does not depend on the load, and sees other work") {
  Tiny tiny(5);
  const auto digest = [&](const char* json) {
    const Record record = serve(tiny.engine, scenario_of(json)).record;
    return record.details.at("output_digest").get<std::string>();
  };
  const std::string alone = digest(R"({"concurrency": 1, "requests": 6, "input": 8, "output": 5})");
  CHECK(alone.size() == 16);
  CHECK(digest(R"({"concurrency": 4, "requests": 6, "input": 8, "output": 5})") == alone);
  CHECK(digest(R"({"rate": "inf", "requests": 6, "input": 8, "output": 5})") == alone);
  CHECK(digest(R"({"concurrency": 1, "requests": 5, "input": 8, "output": 5})") != alone);
  CHECK(digest(R"({"concurrency": 1, "requests": 6, "input": 9, "output": 5})") != alone);
  CHECK(digest(R"({"concurrency": 1, "requests": 6, "input": 8, "output": 4})") != alone);

  const Record sweep =
      serve(tiny.engine, scenario_of(R"({"sweep": "50 5000", "requests": 6, "input": 8,
                                         "output": 5})"))
          .record;
  for (const OrderedJson& point : sweep.details.at("points")) {
    CHECK(point.at("output_digest") == alone);
  }
}

TEST_CASE("serve: what disturbed the machine stands beside its latencies") {
  Tiny tiny(5);
  const TemporaryDirectory nowhere;
  SampleWatch watch("", {nowhere.path() / "proc", nowhere.path() / "sys"});
  WorkloadHooks hooks;
  hooks.watch = &watch;
  Record record;
  run_serve(tiny.engine, scenario_of(R"({"rate": 400, "requests": 8, "input": 8, "output": 4})"),
            hooks, record);
  CHECK(record.metrics.at("disturbed_samples").count >= 1);
  CHECK(record.details.at("disturbance").at("samples").size() >= 1);
  CHECK(record.metrics.at("joules_per_token").absent);  // no counter in an empty folder
  CHECK_THAT(record.details.at("energy").get<std::string>(), Catch::Contains("not available"));
}

TEST_CASE("serve: a closed loop keeps as many under way as it says, and never more") {
  Tiny tiny(5);
  const Outcome outcome =
      serve(tiny.engine, scenario_of(R"({"concurrency": 3, "requests": 12, "input": 8,
                                         "output": 5})"));
  REQUIRE(outcome.log.size() == 12);
  CHECK(value(outcome.record, "peak_concurrency") == 3);
  CHECK(outcome.record.metrics.count("lateness_ms_p50") == 0);
  for (const RequestEvents& r : outcome.log) CHECK_FALSE(r.scheduled_ns);
  CHECK(value(outcome.record, "steady_output_tokens_per_second") > 0);
  CHECK(outcome.record.details.at("seconds").at("steady").get<double>() > 0);
}

TEST_CASE("serve: more arrive at once than the engine takes, and wait in its queue") {
  Tiny tiny(5);
  const Outcome outcome =
      serve(tiny.engine, scenario_of(R"({"rate": "inf", "requests": 9, "input": 8, "output": 4})"));
  REQUIRE(outcome.log.size() == 9);
  // Five places: the last four start no sooner than the first has ended.
  std::vector<std::int64_t> starts;
  std::int64_t first_end = outcome.log.front().finished_ns;
  for (const RequestEvents& r : outcome.log) starts.push_back(r.started_ns.value());
  std::sort(starts.begin(), starts.end());
  CHECK(starts[5] >= first_end);
  CHECK(starts[4] <= first_end);
}

TEST_CASE("serve: a trace gives times and lengths") {
  Tiny tiny(5);
  const TemporaryDirectory directory;
  const auto path = directory.path() / "trace.jsonl";
  write_file(path,
             "{\"timestamp\": 5, \"input_length\": 6, \"output_length\": 2}\n"
             "{\"timestamp\": 6, \"input_length\": 9, \"output_length\": 3}\n");
  Json json = {{"kind", "serve"}, {"trace", path.string()}};
  const auto scenario = std::get<ServeScenario>(scenario_from_json(json, "x"));
  CHECK(scenario.arrivals.kind == ArrivalKind::kTrace);
  CHECK(serve_context(scenario) == 13);
  const Outcome outcome = serve(tiny.engine, scenario);
  REQUIRE(outcome.log.size() == 2);
  for (const RequestEvents& r : outcome.log) {
    CHECK(r.scheduled_ns == static_cast<std::int64_t>(r.id) * kMs);
    CHECK(r.prompt_tokens == (r.id == 0 ? 6 : 9));
    CHECK(r.output_tokens() == (r.id == 0 ? 2 : 3));
  }
}

TEST_CASE("serve: nano's chats end by themselves, and their thoughts are told from answers") {
  ThreadPool pool(2);
  EngineOptions options;
  options.max_batch = 4;
  Engine engine = load_engine("nano", parse_plan("fast"), options, pool);
  const Outcome outcome =
      serve(engine, scenario_of(R"({"concurrency": 4, "requests": 6, "output": 400,
                              "prompts": "questions"})"));
  REQUIRE(outcome.log.size() == 6);
  for (const RequestEvents& r : outcome.log) {
    CHECK(r.finish == FinishReason::kStop);
    CHECK(r.channels.size() == r.token_ns.size());
    CHECK(r.channels.find(kFinalToken) != std::string::npos);
  }
  CHECK(value(outcome.record, "ttff_ms_mean") >= value(outcome.record, "ttft_ms_mean"));
}

TEST_CASE("serve: a sweep's points are in the record, and the knee is the last that holds") {
  Tiny tiny(5);
  const Outcome outcome =
      serve(tiny.engine, scenario_of(R"({"sweep": "300 200", "requests": 5, "input": 4, "output": 2,
                                   "slo": "e2e:100000"})"));
  const OrderedJson& points = outcome.record.details.at("points");
  REQUIRE(points.size() == 2);
  CHECK(points[0].at("rate") == 200);
  CHECK(points[1].at("rate") == 300);
  CHECK(points[1].at("holds") == true);
  CHECK(points[1].at("goodput_share") == 1);
  CHECK(points[1].at("ttft_ms_p99").is_null());
  CHECK(value(outcome.record, "knee_requests_per_second") == 300);
  // Of one request at a time, then of each rate.
  std::set<std::int64_t> numbers;
  for (const RequestEvents& r : outcome.log) numbers.insert(r.point);
  CHECK(numbers == std::set<std::int64_t>{0, 1, 2});

  const Outcome none =
      serve(tiny.engine, scenario_of(R"({"sweep": "200", "requests": 3, "input": 4, "output": 2,
                                   "slo": "e2e:0.000001"})"));
  CHECK(none.record.metrics.at("knee_requests_per_second").absent);
}

TEST_CASE("knee: found within 10 %, from below and from above, or not at all") {
  for (const double first : {0.5, 3.0, 7.3, 40.0, 3000.0}) {
    int questions = 0;
    const double knee = find_knee(first, [&](double rate) { return ++questions, rate <= 7.3; });
    INFO(first);
    CHECK(knee <= 7.3);
    CHECK(knee >= 7.3 / 1.1);
    CHECK(questions <= 24);
  }
  CHECK(find_knee(1, [](double) { return false; }) == 0);
  int endless = 0;
  CHECK(find_knee(1, [&](double) { return ++endless, true; }) > 0);
  CHECK(endless == 24);
}

TEST_CASE("serve: what does not fit together is refused when it is read") {
  const auto bad = [](const char* json, std::initializer_list<std::string> words) {
    INFO(json);
    check_error([&] { scenario_of(json); }, ErrorCode::kInvalidArgument, words);
  };
  bad(R"({"arrivals": "closed"})", {"concurrency", "closed loop"});
  bad(R"({"arrivals": "poisson", "concurrency": 4})", {"concurrency"});
  bad(R"({"arrivals": "trace"})", {"trace"});
  bad(R"({"arrivals": "poison"})", {"did you mean 'poisson'"});
  bad(R"({"rate": 0})", {"rate: 0 is out of range"});
  bad(R"({"rate": "fast"})", {"rate"});
  bad(R"({"arrivals": "constant", "burstiness": 2})", {"burstiness"});
  bad(R"({"burstiness": 0})", {"burstiness"});
  bad(R"({"input": "uniform:9:3"})", {"workloads[0].input", "larger end first"});
  bad(R"({"output": 0})", {"output"});
  bad(R"({"slo": "ttft"})", {"slo", "NAME:MILLISECONDS"});
  bad(R"({"sweep": "1 x"})", {"sweep", "'x' is no rate"});
  bad(R"({"sweep": "auto", "rate": 3})", {"sweep"});
  bad(R"({"sweep": "auto", "concurrency": 3})", {"sweep"});
  bad(R"({"requests": 0})", {"requests", "never end"});
  bad(R"({"prompts": "poems"})", {"prompts"});
  bad(R"({"duration": 4})", {"unknown field 'duration'"});
  CHECK(scenario_of(R"({"duration_s": 4})").arrivals.requests == 0);
  CHECK(scenario_of(R"({"burstiness": 0.5})").arrivals.kind == ArrivalKind::kBurst);
}

TEST_CASE("serve: every scenario survives the way through JSON and has a label of its own") {
  std::set<std::string> labels;
  for (const char* json :
       {R"({})", R"({"rate": "inf"})", R"({"rate": 2.5, "seed": 9})", R"({"concurrency": 8})",
        R"({"trace": "a/b.jsonl"})", R"({"trace": "a/b.jsonl", "rate": 3, "input": 7})",
        R"({"burstiness": 0.25, "rate": 4})", R"({"sweep": "auto", "slo": "ttft:200"})",
        R"({"prompts": "questions", "output": "lognormal:90:0.4"})", R"({"prompts": "random"})"}) {
    const Scenario scenario = scenario_of(json);
    const OrderedJson written = scenario_to_json(scenario);
    INFO(written.dump());
    const Scenario again = scenario_from_json(Json::parse(written.dump()), "x");
    CHECK(scenario_to_json(again) == written);
    CHECK(labels.insert(scenario_label(scenario)).second);
  }
}

TEST_CASE("mixed: gaps are told apart by the arrival of the prompt, on a hand-made log") {
  // Two sequences; the prompt comes at 100 and has its first token at 160.
  const auto result = [](std::int64_t submitted, std::vector<std::int64_t> tokens) {
    RequestResult r;
    r.submitted_ns = submitted * kMs;
    for (const std::int64_t ms : tokens) r.token_ns.push_back(ms * kMs);
    return r;
  };
  const Disturbance d = disturbance_of(
      {result(0, {50, 60, 72, 95, 130, 165, 175}), result(0, {60, 70, 90, 140, 170})},
      result(100, {160}));
  CHECK(d.ttft_ms == 60);
  // From 60 on, when both had begun, and ended by 100: 60-72, 72-95; 60-70, 70-90.
  CHECK(d.before == std::vector<double>{12, 23, 10, 20});
  // Over 100..160: 95-130, 130-165; 90-140, 140-170.
  CHECK(d.during == std::vector<double>{35, 35, 50, 30});
  // At 130 and at 140, in 60 ms.
  CHECK(d.tokens_per_second == Approx(2 / 0.06));
}

TEST_CASE("mixed: each repetition gives a TTFT, and the same tokens") {
  Tiny tiny(5);
  Record record;
  std::vector<RequestEvents> log;
  WorkloadHooks hooks;
  hooks.on_request = [&](const RequestEvents& events) { log.push_back(events); };
  run_mixed(tiny.engine, {3, 10, 40, 12, 4}, hooks, record);
  CHECK(record.status == Status::kOk);
  CHECK(record.metrics.at("ttft_ms").samples.size() == 4);
  CHECK(record.metrics.at("mixed_tokens_per_second").samples.size() == 4);
  CHECK(record.metrics.at("itl_slowdown").value > 0);
  CHECK(record.metrics.at("itl_before_ms_mean").count > 0);
  CHECK(record.metrics.at("itl_during_ms_mean").count > 0);
  REQUIRE(log.size() == 4 * 4);
  CHECK(log[3].prompt_tokens == 40);
  CHECK(log[3].submitted_ns > 0);  // it came when others were under way
  CHECK(log[3].output_tokens() == 1);
}

TEST_CASE("case runner: a workload leaves its event log in the run's folder") {
  const TemporaryDirectory folder;
  const Case one{"00000000000000aa", golden("gpt-oss-tiny-a").string(), parse_plan("reference"),
                 scenario_of(R"({"concurrency": 2, "requests": 4, "input": 6, "output": 3})")};
  CaseRunnerOptions options;
  options.threads = 2;
  options.out_dir = folder.path();
  // What an earlier try left is not mixed with this one's.
  std::filesystem::create_directories(folder.path() / "events");
  write_file(event_log_path(folder.path(), one.id), "{\"half\": ");
  const Record record = CaseRunner({one}, options).run(one);
  INFO(record.reason);
  REQUIRE(record.status == Status::kOk);
  CHECK(record.label == "reference / serve 2 at once, 6 in, 3 out");
  CHECK(record.details.at("event_log") == "events/00000000000000aa.jsonl");
  const auto log = read_event_log(event_log_path(folder.path(), one.id));
  REQUIRE(log.size() == 4);
  // The record's numbers are those of the log.
  CHECK(latencies_of(log).ttft.size() == 4);
  CHECK(record.metrics.at("ttft_ms_p50").value == Approx(median(latencies_of(log).ttft)));
}

}  // namespace moebench::test
