// A step enqueued before the last one is read: nothing that anybody sees may change, however fast
// or slow the device is, and the device must have something to go on with.
#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>

#include "engine/engine.h"
#include "engine/scheduler.h"
#include "engine/step_inputs.h"
#include "kernels/core/random.h"
#include "kernels/core/thread_pool.h"
#include "tests/simt/late_streams.h"
#include "tests/simt/support.h"

namespace moebench::test {
namespace {

using Results = std::map<std::uint64_t, RequestResult>;

// Memory for about two of the requests below at once.
Engine nano(const char* plan, ThreadPool& pool, std::int64_t kv_tokens = 0) {
  return load_engine(
      "nano", parse_plan(plan),
      {.max_batch = 4, .max_context = 128, .step_tokens = 24, .kv_tokens = kv_tokens}, pool);
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::uint64_t seed) {
  RandomStream random(seed);
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(700)));
  }
  return tokens;
}

Request request_of(std::uint64_t id, std::int64_t prompt, std::int64_t max_tokens) {
  Request request;
  request.id = id;
  request.prompt = random_tokens(prompt, 10 + id);
  request.max_tokens = max_tokens;
  request.detect_loops = false;
  return request;
}

// The last two begin with what is shared. Every other one is drawn.
std::vector<Request> mixed_requests(std::span<const std::int32_t> shared) {
  std::vector<Request> requests;
  using Sizes = std::vector<std::pair<std::int64_t, std::int64_t>>;
  const Sizes sizes = kShort ? Sizes{{3, 6}, {40, 3}, {9, 8}, {33, 1}, {2, 5}, {5, 6}}
                             : Sizes{{3, 9}, {40, 4}, {9, 12}, {33, 1}, {2, 7}, {5, 8}};
  for (const auto& [prompt, max_tokens] : sizes) {
    Request request = request_of(requests.size(), prompt, max_tokens);
    if (request.id >= 4)
      request.prompt.insert(request.prompt.begin(), shared.begin(), shared.end());
    if (request.id % 2 == 0)
      request.sampling = {.temperature = 0.9, .top_k = 40, .seed = request.id};
    requests.push_back(std::move(request));
  }
  return requests;
}

// Two at a time, a step apart.
Results answers(Engine& engine, const std::vector<Request>& requests,
                std::span<const std::int32_t> shared = {}) {
  Scheduler scheduler(*engine.model, *engine.cache);
  scheduler.share_prefix(shared);
  for (const Request& request : requests) {
    scheduler.submit(request);
    if (request.id % 2 == 1) scheduler.step();
  }
  while (scheduler.step()) {
  }
  Results results;
  for (RequestResult& result : scheduler.take_results()) results[result.id] = std::move(result);
  return results;
}

void check_same(const Results& got, const Results& want) {
  REQUIRE(got.size() == want.size());
  for (const auto& [id, one] : want) {
    INFO("request " << id);
    CHECK(got.at(id).tokens == one.tokens);
    CHECK(got.at(id).log_probabilities == one.log_probabilities);  // bit for bit
    CHECK(finish_reason_name(got.at(id).finish) == finish_reason_name(one.finish));
    CHECK(got.at(id).error == one.error);
    CHECK(got.at(id).cached_tokens == one.cached_tokens);
  }
}

}  // namespace

TEST_CASE("overlap: mixed loads have the same answers on a fast device and on a slow one") {
  ThreadPool pool(1);
  const auto shared = random_tokens(21, 1);  // ends within a page
  std::vector<Request> requests = mixed_requests(shared);
  Engine plain = nano("cuda_invariant", pool);
  plain.model->set_overlap(false);
  // Some end in the middle of what they would have said.
  const Results whole = answers(plain, requests, shared);
  for (const std::uint64_t id : {0U, 2U, 5U}) {
    const auto& tokens = whole.at(id).tokens;
    REQUIRE(tokens.size() > 3);
    requests[id].stop_tokens = {tokens[tokens.size() / 2]};
  }
  const Results want = answers(plain, requests, shared);
  CHECK(finish_reason_name(want.at(2).finish) == "stop");
  CHECK(want.at(4).cached_tokens == 21);

  for (const std::int64_t kv_tokens : {0, 112}) {  // room for all, nearly full
    Engine engine = nano("cuda_invariant", pool, kv_tokens);
    const std::int64_t free_pages = engine.cache->free_full_pages();
    for (const bool late : {false, true}) {
      CAPTURE(kv_tokens, late);
      std::optional<simt::LateStreams> slow;
      if (late) slow.emplace();
      check_same(answers(engine, requests, shared), want);
      if (late) CHECK(slow->waits_with_work_left() > slow->waits() / 2);
      CHECK(engine.model->num_graphs() > 0);
      CHECK(engine.cache->free_full_pages() == free_pages);
    }
  }
}

TEST_CASE("overlap: after each step's tokens the device has the next step to do") {
  ThreadPool pool(1);
  const std::vector<Request> requests = {request_of(0, 3, 6), request_of(1, 5, 6)};
  std::int64_t graphs = 0;
  Results want;
  for (const bool overlaps : {false, true}) {
    CAPTURE(overlaps);
    Engine engine = nano("cuda_invariant", pool);
    engine.model->set_overlap(overlaps);
    const simt::LateStreams slow;
    Scheduler scheduler(*engine.model, *engine.cache);
    for (const Request& request : requests) scheduler.submit(request);
    std::int64_t steps = 1;
    while (scheduler.step()) ++steps;
    CHECK(steps == 6);
    CHECK(slow.waits() == steps);
    // The last step is known to be the last.
    CHECK(slow.waits_with_work_left() == (overlaps ? steps - 1 : 0));
    Results results;
    for (RequestResult& one : scheduler.take_results()) results[one.id] = std::move(one);
    if (overlaps) {
      check_same(results, want);
      CHECK(engine.model->num_graphs() == graphs);
    } else {
      want = std::move(results);
      graphs = engine.model->num_graphs();
      CHECK(graphs > 0);
    }
  }
}

TEST_CASE("overlap: prompts that arrive are computed beside the decoding, enqueued as early") {
  ThreadPool pool(1);
  Engine engine = nano("cuda_invariant", pool);
  const simt::LateStreams slow;
  Scheduler scheduler(*engine.model, *engine.cache);
  scheduler.submit(request_of(0, 3, 12));
  for (int i = 0; i < 3; ++i) scheduler.step();
  scheduler.submit(request_of(1, 60, 2));  // three steps of up to 24 tokens
  std::int64_t steps = 3;
  while (scheduler.step()) ++steps;
  CHECK(slow.waits() == steps + 1);
  CHECK(slow.waits_with_work_left() == steps);
  for (const RequestResult& result : scheduler.take_results()) CHECK(result.error == "");
}

TEST_CASE("overlap: what is cancelled or dropped with a step under way leaves nothing behind") {
  ThreadPool pool(1);
  Engine engine = nano("cuda_invariant", pool);
  const std::vector<Request> requests = {request_of(0, 15, 6), request_of(1, 5, 6)};
  const Results want = answers(engine, requests);
  const std::int64_t free_pages = engine.cache->free_full_pages();
  for (const std::string interrupted : {"cancelled", "destroyed", "thrown"}) {
    CAPTURE(interrupted);
    const simt::LateStreams slow;
    Scheduler scheduler(*engine.model, *engine.cache);
    for (Request request : requests) {
      if (interrupted == "thrown" && request.id == 1) {
        request.on_token = [count = 0](std::int32_t) mutable {
          if (++count == 4) throw std::runtime_error("enough");
        };
      }
      scheduler.submit(request);
    }
    for (int i = 0; i < 3; ++i) scheduler.step();
    CHECK(slow.waits_with_work_left() == 3);
    if (interrupted == "cancelled") {
      scheduler.cancel_all();
      CHECK_FALSE(scheduler.step());
      const auto results = scheduler.take_results();
      REQUIRE(results.size() == 2);
      for (const RequestResult& result : results) {
        CHECK(finish_reason_name(result.finish) == "cancelled");
        CHECK(result.tokens.size() == 3);
      }
      scheduler.submit(requests[0]);  // and it goes on
      while (scheduler.step()) {
      }
      CHECK(scheduler.take_results().at(0).tokens == want.at(0).tokens);
    } else if (interrupted == "thrown") {
      CHECK_THROWS_WITH(scheduler.step(), "enough");
    }
  }
  CHECK(engine.cache->free_full_pages() == free_pages);
  check_same(answers(engine, requests), want);
}

TEST_CASE("overlap: a prefix is copied into pages behind the step that still writes them") {
  ThreadPool pool(1);
  Engine engine = nano("cuda_invariant", pool);
  const auto shared = random_tokens(24, 1);  // a page, and 8 positions of another
  Request ends = request_of(0, 10, 12);
  ends.sampling = {.temperature = 2, .seed = 3};
  const Request goes_on = request_of(1, 3, 16);
  Request begins = request_of(2, 2, 3);
  begins.prompt.insert(begins.prompt.begin(), shared.begin(), shared.end());
  const Results want = answers(engine, {ends, begins}, shared);
  // It ends with a token whose keys and values go to one of those 8 positions of its own page.
  const auto& tokens = want.at(0).tokens;
  auto last = tokens.begin() + 6;
  while (last < tokens.end() && std::find(tokens.begin(), last, *last) != last) ++last;
  REQUIRE(last < tokens.begin() + 11);
  ends.stop_tokens = {*last};

  const simt::LateStreams slow;
  Scheduler scheduler(*engine.model, *engine.cache);
  scheduler.share_prefix(shared);
  scheduler.submit(ends);
  scheduler.submit(goes_on);
  while (scheduler.num_unfinished() == 2) scheduler.step();
  CHECK(scheduler.take_results().at(0).tokens.size() ==
        static_cast<std::size_t>(last - tokens.begin()) + 1);
  scheduler.submit(begins);
  while (scheduler.step()) {
  }
  const RequestResult result = scheduler.take_results().at(0);
  CHECK(result.id == 2);
  CHECK(result.cached_tokens == 24);
  CHECK(result.tokens == want.at(2).tokens);
  CHECK(result.log_probabilities == want.at(2).log_probabilities);
}

TEST_CASE("overlap: a traced model finishes each step before the next") {
  ThreadPool pool(1);
  Engine engine = nano("cuda_invariant", pool);
  const simt::LateStreams slow;
  Scheduler scheduler(*engine.model, *engine.cache);
  scheduler.submit(request_of(0, 3, 6));
  scheduler.step();
  CHECK(slow.waits_with_work_left() == 1);
  std::int64_t steps = 0;
  engine.model->set_tracer({[&](const Model::Span& span) { steps += span.name == "step" ? 1 : 0; },
                            [](const RequestResult&) {}});
  while (scheduler.step()) {
  }
  CHECK(slow.waits_with_work_left() == 1);
  CHECK(steps == 4);  // neither the first nor the one under way
  CHECK(scheduler.take_results().at(0).tokens.size() == 6);
}

TEST_CASE("overlap: a model has two steps under way, and finishes them in their order") {
  ThreadPool pool(1);
  Engine engine = nano("cuda_invariant", pool);
  const simt::LateStreams slow;
  const std::int32_t sequence = engine.cache->create();
  engine.cache->grow(sequence, 8);
  const auto enqueue = [&](std::int32_t token, std::int64_t position) {
    const std::vector<sample::RowParams> greedy(1);
    return engine.model->enqueue_step({{token}, {position}, {sequence}, {0}}, *engine.cache,
                                      greedy);
  };
  CHECK_THROWS_WITH(enqueue(-1, 0), Catch::Contains("token -1"));  // nothing was drawn
  const std::int64_t first = enqueue(5, 0);
  CHECK_THROWS_WITH(enqueue(-2, 1), Catch::Contains("token -2"));
  const std::int64_t second = enqueue(-1, 1);
  CHECK_THROWS_WITH(enqueue(-1, 2), Catch::Contains("2 are under way"));
  CHECK_THROWS_WITH(engine.model->finish_step(second), Catch::Contains("another scheduler"));
  const Model::Draw drawn = engine.model->finish_step(first)[0];
  const Model::Draw then = engine.model->finish_step(second)[0];
  CHECK_THROWS_WITH(engine.model->finish_step(second), Catch::Contains("another scheduler"));
  // The same with the token told by the host.
  engine.model->finish_step(enqueue(5, 0));
  const Model::Draw told = engine.model->finish_step(enqueue(drawn.token, 1))[0];
  CHECK(then.token == told.token);
  CHECK(then.log_probability == told.log_probability);
  engine.cache->release(sequence);
}

TEST_CASE("overlap: a step's inputs stay what they were until the device has read them") {
  ThreadPool pool(1);
  Engine engine = nano("cuda_invariant", pool);
  const std::int32_t sequence = engine.cache->create();
  engine.cache->grow(sequence, 128);
  const gpu::OwnedStream stream(gpu::device().create_stream());
  const simt::LateStreams slow;
  StepInputs inputs(Place::kDevice);
  DeviceArray<std::int32_t> seen(std::vector<std::int32_t>(4, 0));
  // The last is larger than the device's block, which then moves.
  for (const std::int32_t step : {0, 1, 2, 3}) {
    Step packed;
    for (int t = 0; t < (step == 3 ? 3000 : 2); ++t) {
      packed.tokens.push_back(step + 10);
      packed.positions.push_back(t % 128);
      packed.sequences.push_back(sequence);
    }
    if (step == 2) gpu::device().synchronize(stream.get());  // no more than two are under way
    inputs.pack(packed, *engine.cache, {});
    inputs.upload(stream.get());
    CHECK(inputs.generation() == (step == 3 ? 2 : 1));
    gpu::device().copy(&seen[static_cast<std::size_t>(step)], inputs.tokens().data,
                       sizeof(std::int32_t), gpu::Copy::kOnDevice, stream.get());
  }
  gpu::device().synchronize(stream.get());
  CHECK(seen.values() == std::vector<std::int32_t>{10, 11, 12, 13});
  engine.cache->release(sequence);
}

}  // namespace moebench::test
