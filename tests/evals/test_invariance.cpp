// Determinism and batch invariance on the tiny golden checkpoint: the reference plan has both.
#include <catch2/catch.hpp>

#include "evals/invariance.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

Engine tiny(const Plan& plan, ThreadPool& pool, std::int64_t max_batch = 4) {
  EngineOptions options;
  options.max_batch = max_batch;
  options.max_context = 128;
  return load_engine(golden("gpt-oss-tiny-a"), plan, options, pool);
}

std::vector<Trace> long_traces() {
  std::vector<Trace> traces;
  for (std::int32_t i = 0; i < 3; ++i) {
    Trace trace{fmt::format("{}", i), {}, 1};
    for (std::int32_t t = 0; t < 20 + 7 * i; ++t) trace.tokens.push_back((t * 37 + i * 11) % 251);
    traces.push_back(trace);
  }
  return traces;
}

}  // namespace

TEST_CASE("invariance: every family gives the same bits again, in chunks, alone and in company") {
  for (const char* plan : {"reference", "accurate", "fast", "int4", "kv=fp8_e4m3"}) {
    INFO(plan);
    ThreadPool pool(2);
    Engine engine = tiny(parse_plan(plan), pool);
    const InvarianceResult r = measure_invariance(engine, long_traces());
    CHECK(r.deterministic());
    CHECK(r.batch_invariant());
    CHECK(r.again.num_positions == 20 + 27 + 34);
    REQUIRE(r.arrangements.size() == 3);
    for (const ArrangementResult& a : r.arrangements) {
      INFO(a.name);
      CHECK(a.num_positions == 20 + 27 + 34);
      CHECK(a.num_different == 0);
      CHECK(a.max_abs_difference == 0);
    }
    CHECK(r.arrangements[2].name == "batch of 3");
  }
}

TEST_CASE("invariance: the digest is that of the logits, whatever the number of threads") {
  const auto digest = [](const char* plan, int threads) {
    ThreadPool pool(threads);
    Engine engine = tiny(parse_plan(plan), pool);
    return measure_invariance(engine, long_traces()).digest;
  };
  const std::string reference = digest("reference", 1);
  CHECK(reference.size() == 16);
  CHECK(digest("reference", 3) == reference);
  CHECK(digest("int4", 1) != reference);
}

TEST_CASE("invariance: no more traces are used than the batch holds") {
  ThreadPool pool(1);
  Engine engine = tiny({}, pool, 2);
  const InvarianceResult r = measure_invariance(engine, long_traces());
  CHECK(r.arrangements[2].name == "batch of 2");
  CHECK(r.again.num_positions == 20 + 27);
}

TEST_CASE("invariance: without traces there is nothing to say") {
  ThreadPool pool(1);
  Engine engine = tiny({}, pool);
  check_error([&] { measure_invariance(engine, {}); }, ErrorCode::kInvalidArgument, {"no traces"});
}

TEST_CASE("invariance: one differing position is enough to deny a property") {
  InvarianceResult r;
  r.again.num_different = 1;
  CHECK_FALSE(r.deterministic());
  r.arrangements.resize(2);
  CHECK(r.batch_invariant());
  r.arrangements[1].num_different = 1;
  CHECK_FALSE(r.batch_invariant());
}

}  // namespace moebench::test
