// Schedules: gaps and lengths against the theory of their distributions, seeds, and bad input.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "bench/arrivals.h"
#include "kernels/core/random.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

struct Moments {
  double mean = 0;
  double variation = 0;  // standard deviation over mean
};

Moments moments(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return {mean, std::sqrt(squares / n) / mean};
}

std::vector<double> gaps_s(const std::vector<ScheduledRequest>& schedule) {
  std::vector<double> gaps;
  for (std::size_t i = 1; i < schedule.size(); ++i) {
    gaps.push_back(static_cast<double>(schedule[i].arrival_ns - schedule[i - 1].arrival_ns) / 1e9);
  }
  return gaps;
}

Arrivals arrivals_of(ArrivalKind kind, double rate, std::int64_t requests) {
  Arrivals arrivals;
  arrivals.kind = kind;
  arrivals.rate = rate;
  arrivals.requests = requests;
  return arrivals;
}

const LengthSpec kTen = parse_length("10", "x");

std::vector<ScheduledRequest> schedule_of(const Arrivals& arrivals) {
  return make_schedule(arrivals, kTen, kTen, {});
}

}  // namespace

TEST_CASE("arrivals: Poisson gaps have the mean 1/rate and vary as much as their mean") {
  const auto gaps = gaps_s(schedule_of(arrivals_of(ArrivalKind::kPoisson, 4, 20001)));
  REQUIRE(gaps.size() == 20000);
  const Moments m = moments(gaps);
  // Standard errors: 0.25 / sqrt(20000) = 0.0018, and sqrt(2 / 20000) = 0.01 of the variation, for
  // an exponential (its kurtosis is 9). Four of each.
  CHECK(m.mean == Approx(0.25).margin(0.0072));
  CHECK(m.variation == Approx(1).margin(0.04));
  // And the shape: a share of e^-1 is longer than the mean.
  double longer = 0;
  for (const double gap : gaps) longer += gap > 0.25 ? 1 : 0;
  CHECK(longer / 20000 == Approx(std::exp(-1)).margin(0.014));
}

TEST_CASE("arrivals: bursts keep the rate and vary by 1 / sqrt(burstiness)") {
  for (const double burstiness : {0.25, 4.0}) {
    Arrivals arrivals = arrivals_of(ArrivalKind::kBurst, 10, 40001);
    arrivals.burstiness = burstiness;
    const Moments m = moments(gaps_s(schedule_of(arrivals)));
    INFO(burstiness);
    const double variation = 1 / std::sqrt(burstiness);
    CHECK(m.mean == Approx(0.1).margin(4 * 0.1 * variation / 200));
    CHECK(m.variation == Approx(variation).epsilon(0.05));
  }
  // A gamma distribution of shape 1 is an exponential one: the same random numbers, the same gaps.
  Arrivals one = arrivals_of(ArrivalKind::kBurst, 10, 50);
  const auto burst = schedule_of(one);
  one.kind = ArrivalKind::kPoisson;
  const auto poisson = schedule_of(one);
  for (std::size_t i = 0; i < 50; ++i) {
    CHECK(static_cast<double>(burst[i].arrival_ns) ==
          Approx(static_cast<double>(poisson[i].arrival_ns)).margin(10));
  }
}

TEST_CASE("arrivals: constant gaps are equal, infinite rates put all at 0, the first is at 0") {
  const auto constant = schedule_of(arrivals_of(ArrivalKind::kConstant, 8, 5));
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(constant[i].arrival_ns == static_cast<std::int64_t>(i) * 125'000'000);
  }
  for (const ScheduledRequest& r : schedule_of(
           arrivals_of(ArrivalKind::kPoisson, std::numeric_limits<double>::infinity(), 5))) {
    CHECK(r.arrival_ns == 0);
  }
  CHECK(schedule_of(arrivals_of(ArrivalKind::kPoisson, 1, 3)).front().arrival_ns == 0);
}

TEST_CASE("arrivals: a seed is a schedule, and more requests leave the first ones alone") {
  Arrivals a = arrivals_of(ArrivalKind::kPoisson, 3, 40);
  a.seed = 7;
  const LengthSpec input = parse_length("uniform:1:1000", "x");
  const LengthSpec output = parse_length("lognormal:100:0.5", "x");
  const auto same = [](const ScheduledRequest& x, const ScheduledRequest& y) {
    return x.arrival_ns == y.arrival_ns && x.input_tokens == y.input_tokens &&
           x.output_tokens == y.output_tokens;
  };
  const auto first = make_schedule(a, input, output, {});
  const auto again = make_schedule(a, input, output, {});
  CHECK(std::equal(first.begin(), first.end(), again.begin(), again.end(), same));
  a.requests = 60;
  const auto longer = make_schedule(a, input, output, {});
  REQUIRE(longer.size() == 60);
  CHECK(std::equal(first.begin(), first.end(), longer.begin(), same));
  a.seed = 8;
  const auto other = make_schedule(a, input, output, {});
  CHECK_FALSE(same(first[1], other[1]));
}

TEST_CASE("arrivals: a duration ends the schedule, with or without a number of requests") {
  Arrivals a = arrivals_of(ArrivalKind::kConstant, 10, 0);
  a.duration_s = 0.5;  // 0, 0.1, ..., 0.4; 0.5 is over
  CHECK(schedule_of(a).size() == 5);
  a.requests = 3;
  CHECK(schedule_of(a).size() == 3);
}

TEST_CASE("lengths: each spec gives what it says") {
  CHECK(parse_length("512", "x").at(0.99) == 512);
  const LengthSpec uniform = parse_length("uniform:3:6", "x");
  CHECK(uniform.most() == 6);
  CHECK(uniform.at(0) == 3);
  CHECK(uniform.at(0.2499) == 3);
  CHECK(uniform.at(0.25) == 4);
  CHECK(uniform.at(0.9999) == 6);
  const LengthSpec lognormal = parse_length("lognormal:400:0.6", "x");
  CHECK(lognormal.at(0.5) == 400);
  // The standard normal's quantile at 0.8413 is 1: 400 * e^0.6 = 728.8.
  CHECK(lognormal.at(0.841344746) == 729);
  CHECK(lognormal.most() == 2420);  // ceil(400 * e^1.8 = 2419.86)
  CHECK(lognormal.at(0.9999999) == 2420);
  CHECK(parse_length("lognormal:400:0.6:500", "x").at(0.99) == 500);
  CHECK(parse_length("lognormal:2:3", "x").at(0.001) == 1);
  RandomStream random(3);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) sum += static_cast<double>(uniform.at(random.uniform()));
  CHECK(sum / 10000 == Approx(4.5).margin(0.05));
  for (const char* bad : {"", "0", "-3", "12x", "1e9", "uniform:5", "uniform:6:3", "uniform:0:3",
                          "normal:3:4", "lognormal:0:1", "lognormal:5:-1", "lognormal:5:nan",
                          "lognormal:5:1:0", "99999999999999999999", "uniform:1:2:3"}) {
    INFO(bad);
    check_error([&] { parse_length(bad, "--input-len"); }, ErrorCode::kInvalidArgument,
                {"--input-len"});
  }
}

TEST_CASE("trace: times count from the first line, and lengths go round") {
  const auto trace = parse_trace(
      "{\"timestamp\": 1000, \"input_length\": 5, \"output_length\": 2, \"hash_ids\": [1, 2]}\n"
      "\n"
      "{\"timestamp\": 1027.5, \"input_length\": 7, \"output_length\": 3}\n",
      "trace.jsonl", true);
  REQUIRE(trace.size() == 2);
  CHECK(trace[0].arrival_ns == 0);
  CHECK(trace[1].arrival_ns == 27'500'000);
  const auto replayed = make_schedule(arrivals_of(ArrivalKind::kTrace, 1, 100), kTen, kTen, trace);
  REQUIRE(replayed.size() == 2);  // ends with the trace
  CHECK(replayed[1].arrival_ns == 27'500'000);
  CHECK(replayed[1].input_tokens == 7);
  const auto lengths = make_schedule(arrivals_of(ArrivalKind::kConstant, 1, 3), kTen, kTen, trace);
  REQUIRE(lengths.size() == 3);
  CHECK(lengths[2].arrival_ns == 2'000'000'000);
  CHECK(lengths[2].input_tokens == 5);
  CHECK(lengths[1].output_tokens == 3);
}

TEST_CASE("trace: what is wrong is named with its line") {
  const auto bad = [](std::string_view text, std::initializer_list<std::string> parts) {
    check_error([&] { parse_trace(text, "t.jsonl", true); }, ErrorCode::kInvalidArgument, parts);
  };
  bad("", {"t.jsonl", "holds no request"});
  bad(R"({"timestamp": 0, "input_length": 5})", {"line 1", "'output_length' is missing"});
  bad(R"({"input_length": 5, "output_length": 5})", {"'timestamp' is missing"});
  bad(R"({"timestamp": -1, "input_length": 5, "output_length": 5})", {"timestamp", "out of range"});
  bad(R"({"timestamp": 0, "input_length": 0, "output_length": 5})", {"input_length"});
  bad(R"({"timestamp": 0, "input_length": 5, "output_length": 99999999})", {"output_length"});
  bad(R"({"timestamp": 0, "input_length": "5", "output_length": 5})", {"expected an integer"});
  bad(R"({"timestamp": 0, "input_len": 5, "output_length": 5})", {"input_len"});
  bad("{\"timestamp\": 9, \"input_length\": 5, \"output_length\": 5}\n"
      "{\"timestamp\": 8, \"input_length\": 5, \"output_length\": 5}",
      {"line 2", "sort the trace by time"});
  check_error([] { parse_trace("{", "t.jsonl", true); }, ErrorCode::kParse, {"t.jsonl"});
  // A file of lengths needs no times.
  CHECK(parse_trace(R"({"input_length": 5, "output_length": 5})", "t", false).size() == 1);
}

}  // namespace moebench::test
