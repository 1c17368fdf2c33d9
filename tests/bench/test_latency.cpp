// Latencies, windows, throughput and goodput against logs small enough to compute by hand.
#include <catch2/catch.hpp>

#include "bench/latency.h"
#include "tests/bench/event_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {

TEST_CASE("latencies: each is what its definition says, on a hand-made log") {
  RequestEvents r = request(0, 5, {25, 30, 45, 47});
  r.submitted_ns = 7 * kMs;
  r.started_ns = 11 * kMs;
  r.channels = "orff";
  LatencySamples s;
  add_latencies(r, s);
  CHECK(s.ttft == std::vector<double>{20});       // 25 - 5: arrival to first token
  CHECK(s.ttff == std::vector<double>{40});       // 45 - 5: arrival to the first final token
  CHECK(s.itl == std::vector<double>{5, 15, 2});  // the gaps
  CHECK(s.longest_itl == std::vector<double>{15});
  CHECK(s.e2e == std::vector<double>{42});      // 47 - 5: arrival to last token
  CHECK(s.queue == std::vector<double>{6});     // 11 - 5
  CHECK(s.lateness == std::vector<double>{2});  // 7 - 5
  REQUIRE(s.tpot.size() == 1);
  CHECK(s.tpot[0] == Approx(22.0 / 3));  // (47 - 25) / (4 - 1)
}

TEST_CASE("latencies: without a schedule they count from submission, and there is no lateness") {
  RequestEvents r = request(0, 0, {30});
  r.scheduled_ns.reset();
  r.submitted_ns = 10 * kMs;
  r.started_ns.reset();
  LatencySamples s;
  add_latencies(r, s);
  CHECK(s.ttft == std::vector<double>{20});
  CHECK(s.lateness.empty());
  CHECK(s.queue.empty());
}

TEST_CASE("latencies: one token has no TPOT and no gap, none has nothing, failures do not count") {
  LatencySamples s;
  add_latencies(request(0, 5, {9}), s);
  CHECK(s.ttft == std::vector<double>{4});
  CHECK(s.e2e == std::vector<double>{4});
  CHECK(s.tpot.empty());
  CHECK(s.itl.empty());
  CHECK(s.ttff.empty());
  add_latencies(request(1, 5, {}), s);
  CHECK(s.ttft.size() == 1);
  RequestEvents failed = request(2, 0, {10, 20});
  failed.finish = FinishReason::kCancelled;
  CHECK(latencies_of(std::vector{failed, request(3, 0, {10, 20})}).ttft.size() == 1);
}

TEST_CASE("slo: pairs of name and milliseconds are read, anything else is named") {
  const Slo slo = parse_slo("ttft:200 tpot:50,itl:80  e2el:5000", "--goodput");
  CHECK(slo.ttft == 200);
  CHECK(slo.tpot == 50);
  CHECK(slo.itl == 80);
  CHECK(slo.e2e == 5000);
  CHECK_FALSE(slo.ttff);
  CHECK(parse_slo("", "x").empty());
  CHECK(parse_slo("ttff:1.5", "x").ttff == 1.5);
  const auto bad = [](std::string_view text, std::initializer_list<std::string> parts) {
    check_error([&] { parse_slo(text, "--goodput"); }, ErrorCode::kInvalidArgument, parts);
  };
  bad("ttft", {"--goodput", "'ttft' is not NAME:MILLISECONDS"});
  bad("tftt:200", {"--goodput: no latency 'tftt'", "did you mean 'ttft'"});
  bad("ttft:-1", {"'-1' of ttft is not a positive number"});
  bad("ttft:0", {"not a positive number"});
  bad("ttft:nan", {"not a positive number"});
  bad("ttft:inf", {"not a positive number"});
  bad("ttft:2ms", {"'2ms'"});
  bad("ttft:", {"''"});
  bad("ttft:1 ttft:2", {"ttft has two limits"});
  bad("e2e:1 e2el:2", {"has two limits"});
}

TEST_CASE("goodput: a request is good if it keeps every limit") {
  const RequestEvents r = request(0, 0, {100, 150, 250});  // TTFT 100, TPOT 75, longest gap 100
  CHECK(meets(r, parse_slo("", "")));
  CHECK(meets(r, parse_slo("ttft:100 tpot:75 itl:100 e2e:250", "")));
  CHECK_FALSE(meets(r, parse_slo("ttft:99", "")));
  CHECK_FALSE(meets(r, parse_slo("tpot:74", "")));
  CHECK_FALSE(meets(r, parse_slo("itl:99", "")));
  CHECK_FALSE(meets(r, parse_slo("e2e:249", "")));
  CHECK_FALSE(meets(r, parse_slo("ttff:1000", "")));  // not known: not kept
  CHECK(meets(request(1, 0, {50}), parse_slo("tpot:1 itl:1", "")));
  RequestEvents failed = r;
  failed.finish = FinishReason::kFailed;
  CHECK_FALSE(meets(failed, Slo{}));
}

TEST_CASE("windows: steady begins with the first success and ends with the last arrival") {
  RequestEvents refused = request(9, 20, {});
  refused.finish = FinishReason::kFailed;  // at 20 ms: no end of the ramp-up
  const std::vector<RequestEvents> log = {refused, request(0, 0, {40, 100}, 7),
                                          request(1, 50, {120, 200}, 11),
                                          request(2, 180, {240, 300}, 13)};
  const auto whole = whole_window(log);
  REQUIRE(whole);
  CHECK(whole->begin_ns == 0);
  CHECK(whole->end_ns == 300 * kMs);
  const auto steady = steady_window(log);
  REQUIRE(steady);
  CHECK(steady->begin_ns == 100 * kMs);
  CHECK(steady->end_ns == 180 * kMs);

  // 3 successes, 31 input tokens, 6 output tokens in 0.3 s.
  const Throughput all = throughput_in(log, *whole);
  CHECK(all.requests == Approx(10));
  CHECK(all.input_tokens == Approx(31 / 0.3));
  CHECK(all.output_tokens == Approx(20));
  CHECK(all.total_tokens() == Approx(37 / 0.3));
  // In (100, 180] ms: no end, one first token (of the prompt of 11), one output token (at 120).
  const Throughput part = throughput_in(log, *steady);
  CHECK(part.requests == 0);
  CHECK(part.input_tokens == Approx(11 / 0.08));
  CHECK(part.output_tokens == Approx(1 / 0.08));

  // All arrive before the first is done: there is no steady time.
  CHECK_FALSE(steady_window(std::vector{request(0, 0, {100}), request(1, 50, {200})}));
  CHECK_FALSE(steady_window({}));
  CHECK_FALSE(whole_window({}));
  CHECK(throughput_in(log, Window{5, 5}).requests == 0);
}

TEST_CASE("peak concurrency: who leaves at the moment another comes is not beside them") {
  CHECK(peak_concurrency({}) == 0);
  CHECK(peak_concurrency(std::vector{request(0, 0, {100}), request(1, 100, {200})}) == 1);
  CHECK(peak_concurrency(
            std::vector{request(0, 0, {100}), request(1, 99, {200}), request(2, 50, {60})}) == 2);
}

}  // namespace moebench::test
