// Traces read back as JSON: they nest, their times go forward, and they are whole at any moment.
#include <catch2/catch.hpp>
#include <map>

#include "bench/trace_file.h"
#include "bench/workloads.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {

TEST_CASE("trace: steps hold their ops, requests begin, tell a first token and end") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "trace.json";
  ThreadPool pool(1);
  EngineOptions options;
  options.max_batch = 2;
  options.max_context = 64;
  Engine engine = load_engine(golden("gpt-oss-tiny-a"), Plan{}, options, pool);
  {
    TraceFile trace(path);
    trace.begin_process("tiny / reference");
    engine.model->set_tracer(trace.tracer());
    Record record;
    run_decode(engine, {2, 4, 3, 1}, {}, record);
    engine.model->set_tracer({});
  }
  const Json events = read_json(path);
  REQUIRE(events.is_array());
  const Json* step = nullptr;
  std::vector<Json> ops;  // that wait for their step: it is written when it ends
  std::int64_t steps = 0;
  double last_end = 0;
  std::map<std::string, std::vector<Json>> requests;
  for (const Json& e : events) {
    const auto phase = e.at("ph").get<std::string>();
    if (phase == "M") continue;
    REQUIRE(e.at("ts").get<double>() > 0);
    CHECK(e.at("pid") == 1);
    if (phase != "X") {
      requests[e.at("id").get<std::string>()].push_back(e);
      continue;
    }
    const double begin = e.at("ts").get<double>();
    const double end = begin + e.at("dur").get<double>();
    CHECK(end >= last_end - 0.002);  // rounding of two doubles
    last_end = std::max(last_end, end);
    CHECK(e.at("args").at("tokens").get<std::int64_t>() > 0);
    if (e.at("cat") == "op") {
      ops.push_back(e);
      continue;
    }
    step = &e;
    ++steps;
    double at = begin - 0.002;
    double busy = 0;
    CHECK(ops.size() > 10);
    for (const Json& op : ops) {
      CHECK(op.at("ts").get<double>() >= at);  // after the one before it
      at = op.at("ts").get<double>() + op.at("dur").get<double>() - 0.002;
      busy += op.at("dur").get<double>();
    }
    CHECK(at <= end);
    CHECK(busy <= e.at("dur").get<double>() + 0.1);
    ops.clear();
  }
  REQUIRE(step != nullptr);
  // Unmeasured runs and a measured one of 1 + 3 steps each, and steps that are timed by op.
  CHECK(steps >= 8);
  CHECK(requests.size() >= 4);  // two of each run
  CHECK(requests.size() % 2 == 0);
  for (const auto& [id, one] : requests) {
    INFO(id);
    REQUIRE(one.size() == 3);
    CHECK(one[0].at("ph") == "b");
    CHECK(one[1].at("ph") == "n");
    CHECK(one[2].at("ph") == "e");
    CHECK(one[0].at("ts").get<double>() < one[1].at("ts").get<double>());
    CHECK(one[1].at("ts").get<double>() < one[2].at("ts").get<double>());
    CHECK(one[0].at("args").at("prompt_tokens") == 4);
    CHECK(one[2].at("args").at("output_tokens") == 4);
    CHECK(one[2].at("args").at("finish") == "length");
  }
}

TEST_CASE("trace: the file is whole after every write, and a next worker goes on with it") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "sub" / "trace.json";
  {
    TraceFile trace(path);
    CHECK(read_json(path).empty());
    trace.begin_process("a \"quoted\" model");
    trace.flush();
    CHECK(read_json(path).size() == 4);
    for (int i = 0; i < 5000; ++i)
      trace.add(Model::Span{"linear", 3, 2, 1, i * 1000, i * 1000 + 500});
    // Some is written by now, and nobody said flush: as if killed here.
    const std::size_t so_far = read_json(path).size();
    CHECK(so_far > 1000);
    CHECK(so_far < 5004);
  }
  CHECK(read_json(path).size() == 5004);
  {
    TraceFile trace(path, true);
    trace.begin_process("next");
    trace.add_case("fast / load", 1'000'000, 3'500'000);
  }
  const Json events = read_json(path);
  REQUIRE(events.size() == 5009);
  CHECK(events.back().at("pid") == 2);
  CHECK(events.back().at("ts") == 1000);
  CHECK(events.back().at("dur") == 2500);
  CHECK(events[4].at("args") == Json{{"tokens", 2}, {"sequences", 1}, {"layer", 3}});

  TraceFile again(path);  // a new trace replaces it
  CHECK(read_json(path).empty());
  write_file(folder.path() / "other.json", "{}");
  check_error([&] { TraceFile(folder.path() / "other.json", true); }, ErrorCode::kParse,
              {"other.json"});
}

}  // namespace moebench::test
