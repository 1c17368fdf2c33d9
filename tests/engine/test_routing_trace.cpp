// Routings: what is recorded is what the model chose, and files that do not add up are refused.
#include <catch2/catch.hpp>

#include "engine/routing_trace.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

const char* kHeader =
    R"({"schema": "moebench.routing/1", "num_experts": 4, "top_k": 2, "num_tokens": 3})";

std::string file(const std::string& header, const std::string& layers) {
  return header + "\n" + layers;
}

void refused(const std::string& text, std::initializer_list<std::string> words) {
  check_error([&] { parse_routing(text, "r.jsonl"); }, ErrorCode::kInvalidArgument, words);
}

}  // namespace

TEST_CASE("routing: windows are taken token by token, round the end") {
  const RoutingTrace trace =
      parse_routing(file(kHeader, R"({"layer": 0, "expert_ids": [0, 1, 2, 3, 1, 0]})"), "r.jsonl");
  CHECK(trace.window(0, 0, 2) == std::vector<std::int32_t>{0, 1, 2, 3});
  CHECK(trace.window(0, 2, 2) == std::vector<std::int32_t>{1, 0, 0, 1});
  CHECK(distinct_experts(trace.window(0, 2, 2)) == 2);
  CHECK(distinct_experts(trace.window(0, 0, 3)) == 4);
  // Written and read again it is the same.
  const RoutingTrace again = parse_routing(routing_text(trace), "written");
  CHECK(again.layers == trace.layers);
  CHECK(again.num_tokens == 3);
}

TEST_CASE("routing: counts that do not agree and impossible choices are refused") {
  refused("", {"r.jsonl", "no layer"});
  refused(kHeader, {"no layer"});
  refused(file(R"({"schema": "other"})", ""), {"schema", "other"});
  refused(file(R"({"schema": "moebench.routing/1", "num_experts": 2, "top_k": 3, "num_tokens": 1})",
               ""),
          {"top_k", "3"});
  refused(file(kHeader, R"({"layer": 1, "expert_ids": [0, 1, 2, 3, 1, 0]})"), {"layer", "0"});
  refused(file(kHeader, R"({"layer": 0, "expert_ids": [0, 1]})"), {"2 ids", "3 tokens"});
  refused(file(kHeader, R"({"layer": 0, "expert_ids": [0, 1, 2, 4, 1, 0]})"), {"expert 4 of 4"});
  refused(file(kHeader, R"({"layer": 0, "expert_ids": [0, 1, 2, 2, 1, 0]})"), {"token 1", "twice"});
}

TEST_CASE("routing: recorded ids are those that the model's router gives, in any chunking") {
  ThreadPool pool(1);
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 40; ++i) tokens.push_back(5 + i * 7 % 200);
  const auto record = [&](std::int64_t step_tokens, std::int64_t sequence_length = 64) {
    EngineOptions options;
    options.max_context = 64;
    options.step_tokens = step_tokens;
    Engine engine = load_engine("nano", Plan{}, options, pool);
    return record_routing(engine, tokens, sequence_length);
  };
  const RoutingTrace whole = record(64);
  const RoutingTrace chunks = record(8);
  REQUIRE(whole.layers.size() == 4);
  CHECK(whole.num_experts == 16);
  CHECK(whole.top_k == 2);
  for (const auto& ids : whole.layers) CHECK(ids.size() == 80);
  CHECK(whole.layers == chunks.layers);
  // Two sequences of twenty: the first does not know of the second.
  const RoutingTrace halves = record(64, 20);
  for (std::size_t layer = 0; layer < 4; ++layer) {
    CHECK(halves.layers[layer].size() == 80);
    CHECK(std::equal(halves.layers[layer].begin(), halves.layers[layer].begin() + 40,
                     whole.layers[layer].begin()));
  }
  CHECK(halves.layers != whole.layers);
  // It is a routing that a file may hold.
  CHECK(parse_routing(routing_text(whole), "written").layers == whole.layers);
}

}  // namespace moebench::test
