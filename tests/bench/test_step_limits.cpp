// Limits beside speeds: floors from hand-made ceilings, experts counted from routing, and the
// metrics of whole workloads on the tiny golden checkpoint.
#include <catch2/catch.hpp>

#include "bench/step_limits.h"
#include "bench/workloads.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"
#include "tests/support/tiny_engine.h"

namespace moebench::test {
namespace {

// 10 GB/s, and 100 (f32) or 400 (int8) Gop/s.
Ceilings ceilings() {
  Ceilings c;
  c.machine = "by hand";
  c.read = {{1, 10}};
  c.gop_per_s = {100, 0, 400, 0, 0};
  return c;
}

OpCost cost(Precision precision, double bytes, double operations) {
  OpCost c;
  c.op = "an op";
  c.precision = precision;
  c.weight_bytes = bytes;
  c.operations = operations;
  return c;
}

}  // namespace

TEST_CASE("op limits: reading or multiplying, whichever takes longer, and the sum of the ops") {
  const std::vector<OpCost> costs = {
      cost(Precision::kF32, 2e6, 1e6),   // 0.2 ms of bytes, 0.01 ms of operations
      cost(Precision::kF32, 1e6, 4e7),   // 0.1 ms, 0.4 ms
      cost(Precision::kInt8, 1e6, 8e7),  // 0.1 ms, 0.2 ms
      cost(Precision::kBf16, 0, 4e7),    // not measured: the machine's best, 0.1 ms
  };
  const std::vector<OpLimit> limits = op_limits(costs, ceilings());
  REQUIRE(limits.size() == 4);
  CHECK(limits[0].milliseconds == Approx(0.2));
  CHECK(limits[0].memory_bound);
  CHECK(limits[1].milliseconds == Approx(0.4));
  CHECK_FALSE(limits[1].memory_bound);
  CHECK(limits[2].milliseconds == Approx(0.2));
  CHECK(limits[3].milliseconds == Approx(0.1));
  CHECK(total_milliseconds(limits) == Approx(0.9));
}

TEST_CASE("op limits: a step that fits a cache is held against that cache") {
  Ceilings c = ceilings();
  c.read = {{1e6, 100}, {1e9, 10}};
  const OpCost small = cost(Precision::kF32, 1e6, 0);
  CHECK(op_limits({&small, 1}, c)[0].milliseconds == Approx(0.01));
  const std::vector<OpCost> large = {small, cost(Precision::kF32, 2e9, 0)};
  CHECK(op_limits(large, c)[0].milliseconds == Approx(0.1));
}

TEST_CASE("touched experts: each counts once a layer, however many tokens of the step chose it") {
  // Two layers, two experts a token; tokens 0 .. 2 of two sequences.
  const std::vector<Routing> routings = {{{1, 2, 1, 3, 7, 0}, {4, 5, 4, 5, 4, 5}},
                                         {{2, 1, 3, 0, 7, 0}, {4, 5, 6, 7, 4, 5}}};
  CHECK(touched_experts(routings, 0, 1, 2) == std::vector<double>{2, 2});
  CHECK(touched_experts(routings, 1, 2, 2) == std::vector<double>{3, 4});
  CHECK(touched_experts(routings, 0, 3, 2) == std::vector<double>{5, 4});
  CHECK(touched_experts({routings.data(), 1}, 0, 2, 2) == std::vector<double>{3, 2});
  check_error([&] { touched_experts(routings, 2, 4, 2); }, ErrorCode::kInvalidArgument,
              {"tokens 2 to 4"});
}

TEST_CASE("routing: the experts of a token are the same in any chunk, and memory is given back") {
  Tiny tiny(3, 16);
  const PromptSource source = make_prompt_source(tiny.engine);
  const std::vector<std::int32_t> tokens = cut_prompt(source, 40, 0);
  const std::int64_t free = tiny.engine.cache->free_full_pages();
  const Routing all = routing_of(tiny.engine, tokens, 0);
  const Routing end = routing_of(tiny.engine, tokens, 37);
  CHECK(tiny.engine.cache->free_full_pages() == free);
  const ModelConfig& c = tiny.engine.model->config();
  REQUIRE(all.size() == static_cast<std::size_t>(c.num_layers));
  for (std::size_t l = 0; l < all.size(); ++l) {
    REQUIRE(all[l].size() == static_cast<std::size_t>(40 * c.top_k));
    REQUIRE(end[l].size() == static_cast<std::size_t>(3 * c.top_k));
    CHECK(std::equal(end[l].begin(), end[l].end(), all[l].end() - 3 * c.top_k));
  }
}

TEST_CASE("prefill limit: every token once, in the chunks of the scheduler") {
  Tiny tiny(3, 16);
  Request request;
  request.prompt = cut_prompt(make_prompt_source(tiny.engine), 50, 0);
  const WorkloadLimit limit = prefill_limit(tiny.engine, request, 10, ceilings());
  CHECK(limit.tokens == 40);
  CHECK(limit.num_steps == 3);  // 16 + 16 + 8
  CHECK(limit.touched_mean <= static_cast<double>(tiny.engine.model->config().num_experts));
  CHECK(limit.touched_mean >= static_cast<double>(tiny.engine.model->config().top_k));
}

TEST_CASE(
    "decode limit: one sequence touches exactly top_k experts, and reads its weights a token") {
  Tiny tiny(3, 16);
  const ModelConfig& c = tiny.engine.model->config();
  std::vector<Request> requests(1);
  requests[0].prompt = cut_prompt(make_prompt_source(tiny.engine), 8, 0);
  const std::vector<std::vector<std::int32_t>> outputs = {{1, 2, 3, 4}};
  const WorkloadLimit limit = decode_limit(tiny.engine, requests, outputs, ceilings());
  CHECK(limit.num_steps == 3);  // the first token came with the prompt
  CHECK(limit.tokens == 3);
  CHECK(limit.touched_mean == Approx(static_cast<double>(c.top_k)));
  StepWork work{
      {{8, 1}},
      1,
      std::vector<double>(static_cast<std::size_t>(c.num_layers), static_cast<double>(c.top_k))};
  double milliseconds = 0;
  for (std::int64_t s = 0; s < 3; ++s) {
    work.parts[0].first = 8 + s;
    milliseconds += total_milliseconds(
        op_limits(step_cost(c, tiny.engine.weights->layout, Format::kF32, work), ceilings()));
  }
  CHECK(limit.milliseconds == Approx(milliseconds));
}

TEST_CASE("speeds: with ceilings a record has limits, percent, bytes and floors by op") {
  Tiny tiny(3, 16);
  const Ceilings hand = ceilings();
  WorkloadHooks hooks;
  hooks.ceilings = &hand;
  for (const bool decode : {false, true}) {
    Record record;
    record.kind = decode ? "decode" : "prefill";
    if (decode) {
      run_decode(tiny.engine, {2, 8, 4, 3}, hooks, record);
    } else {
      run_prefill(tiny.engine, {24, 0, 3}, hooks, record);
    }
    INFO(record.kind);
    const double rate = record.metrics.at(rate_metric(record.kind)).value;
    const double limit = record.metrics.at("limit_tokens_per_second").value;
    const Metric& percent = record.metrics.at("percent_of_limit");
    CHECK(percent.value == Approx(100 * rate / limit));
    CHECK(percent.unit == "%");
    CHECK(percent.samples.size() == 3);
    CHECK(record.metrics.at("read_gb_per_s").value > 0);
    CHECK(record.metrics.at("touched_experts_mean").value >= 1);
    const OrderedJson& times = record.details.at("time_by_op");
    CHECK(times.at("unexplained_ms").get<double>() ==
          Approx(times.at("step_ms").get<double>() - times.at("total_ms").get<double>()));
    double sum = 0;
    for (const auto& [op, one] : times.at("limits").items()) {
      INFO(op);
      CHECK(times.at("ms").contains(op));
      CHECK(one.at("bytes").get<double>() > 0);
      sum += one.at("limit_ms").get<double>();
    }
    CHECK(times.at("limit_ms").get<double>() == Approx(sum));
    CHECK(record.details.at("ceilings").at("machine") == "by hand");
    CHECK_NOTHROW(to_json(record));
  }
}

TEST_CASE("speeds: without ceilings there are no limits, and the times are there") {
  Tiny tiny(3, 16);
  Record record;
  record.kind = "decode";
  run_decode(tiny.engine, {1, 4, 3, 2}, {}, record);
  CHECK(record.metrics.count("percent_of_limit") == 0);
  CHECK_FALSE(record.details.at("time_by_op").contains("limits"));
  CHECK(record.details.at("time_by_op").contains("step_ms"));
}

}  // namespace moebench::test
