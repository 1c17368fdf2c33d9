// The scheduler: whatever it mixes into a step, every request gets the answer it would get alone.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <memory>

#include "engine/engine.h"
#include "engine/scheduler.h"
#include "kernels/core/random.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

struct Setup {
  std::int64_t step_tokens = 64;
  std::int64_t batch = 16;
  std::int64_t kv_tokens = 4096;
  std::int64_t max_context = 256;
  bool overlaps = false;
};

struct Fixture {
  explicit Fixture(const Setup& setup = {},
                   const std::filesystem::path& directory = golden("gpt-oss-tiny-a"))
      : pool(2),
        model(Weights::load(directory, {}, pool),
              {setup.step_tokens, setup.batch, setup.max_context}, pool),
        cache(model.config(), {.page_size = 4,
                               .max_sequences = setup.batch + 1,
                               .max_tokens = setup.kv_tokens,
                               .max_step = setup.step_tokens}) {
    model.set_overlap(setup.overlaps);
  }

  ThreadPool pool;
  Model model;
  KvCache cache;
};

using Results = std::map<std::uint64_t, RequestResult>;

Results run(Scheduler& scheduler) {
  while (scheduler.step()) {
  }
  Results results;
  for (RequestResult& result : scheduler.take_results()) results[result.id] = std::move(result);
  return results;
}

RequestResult run_alone(const Request& request) {
  static Fixture fixture;
  Scheduler scheduler(fixture.model, fixture.cache);
  scheduler.submit(request);
  return run(scheduler).at(request.id);
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::uint64_t seed) {
  RandomStream random(seed);
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>(random.below(500)));
  }
  return tokens;
}

Request request_of(std::uint64_t id, std::vector<std::int32_t> prompt, std::int64_t max_tokens) {
  Request request;
  request.id = id;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.detect_loops = false;
  return request;
}

// Prompts around the edges of pages, windows and chunks; greedy and sampled.
std::vector<Request> mixed_requests() {
  std::vector<Request> requests;
  std::uint64_t id = 0;
  for (const std::int64_t length : {1, 2, 4, 7, 8, 9, 33, 60}) {
    Request request = request_of(id, random_tokens(length, 100 + id), 5 + length % 9);
    if (id % 2 == 1) request.sampling = {.temperature = 0.9, .top_p = 0.95, .seed = 1000 + id};
    requests.push_back(request);
    ++id;
  }
  return requests;
}

void check_same(const RequestResult& got, const RequestResult& want) {
  INFO("request " << got.id);
  CHECK(got.tokens == want.tokens);
  CHECK(got.log_probabilities == want.log_probabilities);  // bit for bit
  CHECK(finish_reason_name(got.finish) == finish_reason_name(want.finish));
  CHECK(got.token_ns.size() == got.tokens.size());
}

}  // namespace

TEST_CASE("scheduler: batches and prompt chunks of any size give each request its answer alone") {
  const auto [step_tokens, batch] =
      GENERATE(table<std::int64_t, std::int64_t>({{64, 16}, {7, 3}, {1, 1}, {16, 8}, {3, 16}}));
  const bool overlaps = GENERATE(false, true);  // CPU plans do not, but can
  CAPTURE(step_tokens, batch, overlaps);
  Fixture fixture({.step_tokens = step_tokens, .batch = batch, .overlaps = overlaps});
  Scheduler scheduler(fixture.model, fixture.cache);
  const auto requests = mixed_requests();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    scheduler.submit(requests[i]);
    if (i % 2 == 1) scheduler.step();  // the others are under way when these arrive
  }
  const Results results = run(scheduler);
  REQUIRE(results.size() == requests.size());
  for (const Request& request : requests) check_same(results.at(request.id), run_alone(request));
  CHECK(scheduler.num_unfinished() == 0);
}

TEST_CASE("scheduler: with prompts first none decodes before all are computed, nor differs") {
  const std::vector<Request> requests = mixed_requests();
  const bool overlaps = GENERATE(false, true);
  for (const std::int64_t step_tokens : {3, 64}) {
    Fixture fixture({.step_tokens = step_tokens, .overlaps = overlaps});
    Scheduler scheduler(fixture.model, fixture.cache);
    scheduler.compute_prompts_first();
    for (const Request& request : requests) scheduler.submit(request);
    const Results results = run(scheduler);
    REQUIRE(results.size() == requests.size());
    std::int64_t last_first = 0;
    std::int64_t first_second = std::numeric_limits<std::int64_t>::max();
    for (const Request& request : requests) {
      const RequestResult& result = results.at(request.id);
      CHECK(result.tokens == run_alone(request).tokens);
      REQUIRE(result.token_ns.size() >= 2);
      last_first = std::max(last_first, result.token_ns[0]);
      first_second = std::min(first_second, result.token_ns[1]);
    }
    CHECK(last_first < first_second);
  }
}

TEST_CASE("scheduler: the order of arrival changes no answer, drawn ones included") {
  Fixture fixture({.step_tokens = 16, .batch = 4});
  Scheduler scheduler(fixture.model, fixture.cache);
  auto requests = mixed_requests();
  std::reverse(requests.begin(), requests.end());
  for (const Request& request : requests) scheduler.submit(request);
  const Results results = run(scheduler);
  for (const Request& request : requests) check_same(results.at(request.id), run_alone(request));
}

TEST_CASE("scheduler: equal requests with different seeds differ, with equal seeds agree") {
  Fixture fixture;
  Scheduler scheduler(fixture.model, fixture.cache);
  for (std::uint64_t id = 0; id < 3; ++id) {
    Request request = request_of(id, random_tokens(5, 1), 20);
    request.sampling = {.temperature = 2, .seed = id == 2 ? 77U : 76U};
    scheduler.submit(request);
  }
  const Results results = run(scheduler);
  CHECK(results.at(0).tokens == results.at(1).tokens);
  CHECK(results.at(0).tokens != results.at(2).tokens);
}

TEST_CASE("scheduler: a cache with room for one request at a time still serves them all") {
  const bool overlaps = GENERATE(false, true);
  Fixture fixture({.step_tokens = 16, .batch = 4, .kv_tokens = 72, .overlaps = overlaps});
  const std::int64_t free_pages = fixture.cache.free_full_pages();
  Scheduler scheduler(fixture.model, fixture.cache);
  const auto requests = mixed_requests();
  for (const Request& request : requests) scheduler.submit(request);
  const Results results = run(scheduler);
  REQUIRE(results.size() == requests.size());
  for (const Request& request : requests) check_same(results.at(request.id), run_alone(request));
  CHECK(fixture.cache.free_full_pages() == free_pages);
}

TEST_CASE("scheduler: a shared prefix is not computed again, and changes no answer") {
  const std::int64_t prefix_length = GENERATE(3, 4, 17, 40);  // within, at and beyond pages
  const auto prefix = random_tokens(prefix_length, 9);
  const bool overlaps = GENERATE(false, true);
  Fixture fixture({.step_tokens = 7, .batch = 4, .overlaps = overlaps});
  const std::int64_t free_pages = fixture.cache.free_full_pages();
  {
    Scheduler scheduler(fixture.model, fixture.cache);
    scheduler.share_prefix(prefix);
    std::vector<Request> requests;
    for (std::uint64_t id = 0; id < 6; ++id) {
      auto prompt = prefix;
      const auto rest = random_tokens(static_cast<std::int64_t>(1 + id * 3), 50 + id);
      prompt.insert(prompt.end(), rest.begin(), rest.end());
      requests.push_back(request_of(id, prompt, 12));
    }
    requests.push_back(request_of(6, prefix, 12));  // nothing would be left to compute
    auto other = prefix;
    other[1] += 1;
    other.push_back(3);
    requests.push_back(request_of(7, other, 12));  // begins differently
    for (const Request& request : requests) scheduler.submit(request);
    const Results results = run(scheduler);
    REQUIRE(results.size() == requests.size());
    for (const Request& request : requests) {
      const RequestResult& result = results.at(request.id);
      check_same(result, run_alone(request));
      CHECK(result.prompt_tokens == static_cast<std::int64_t>(request.prompt.size()));
      CHECK(result.cached_tokens == (request.id < 6 ? prefix_length : 0));
    }
  }
  CHECK(fixture.cache.free_full_pages() == free_pages);
}

TEST_CASE("scheduler: of several shared prefixes the longest that fits is taken") {
  Fixture fixture;
  Scheduler scheduler(fixture.model, fixture.cache);
  const auto prompt = random_tokens(30, 3);
  scheduler.share_prefix(std::span(prompt).first(5));
  scheduler.share_prefix(std::span(prompt).first(21));
  scheduler.share_prefix(std::span(prompt).first(30));
  const Request request = request_of(1, prompt, 8);
  scheduler.submit(request);
  const RequestResult result = run(scheduler).at(1);
  CHECK(result.cached_tokens == 21);
  check_same(result, run_alone(request));
}

TEST_CASE("scheduler: a stop token ends the answer and is part of it") {
  const Request request = request_of(1, random_tokens(6, 11), 20);
  const auto whole = run_alone(request).tokens;
  REQUIRE(whole.size() == 20);
  Request stopping = request;
  stopping.stop_tokens = {511, whole[7]};
  const auto first = std::find(whole.begin(), whole.end(), whole[7]);
  const RequestResult result = run_alone(stopping);
  CHECK(finish_reason_name(result.finish) == "stop");
  CHECK(result.tokens == std::vector<std::int32_t>(whole.begin(), first + 1));
  CHECK(finish_reason_name(run_alone(request).finish) == "length");
}

TEST_CASE("scheduler: a step under way when some of its sequences end changes no answer") {
  std::vector<Request> requests = mixed_requests();
  Results want;
  for (Request& request : requests) {
    if (request.id % 3 != 2) {
      const auto whole = run_alone(request).tokens;
      request.stop_tokens = {whole[whole.size() / 2]};
    }
    want[request.id] = run_alone(request);
  }
  const auto [step_tokens, batch, kv_tokens] =
      GENERATE(table<std::int64_t, std::int64_t, std::int64_t>(
          {{64, 16, 4096}, {7, 3, 4096}, {1, 1, 4096}, {16, 4, 72}}));
  CAPTURE(step_tokens, batch, kv_tokens);
  Fixture fixture(
      {.step_tokens = step_tokens, .batch = batch, .kv_tokens = kv_tokens, .overlaps = true});
  const std::int64_t free_pages = fixture.cache.free_full_pages();
  Scheduler scheduler(fixture.model, fixture.cache);
  for (const Request& request : requests) scheduler.submit(request);
  const Results results = run(scheduler);
  REQUIRE(results.size() == requests.size());
  for (const auto& [id, result] : results) check_same(result, want.at(id));
  CHECK(fixture.cache.free_full_pages() == free_pages);
}

TEST_CASE("scheduler: an answer ends where the context does") {
  const bool overlaps = GENERATE(false, true);
  Fixture fixture(
      {.step_tokens = 64, .batch = 2, .kv_tokens = 512, .max_context = 40, .overlaps = overlaps});
  Scheduler scheduler(fixture.model, fixture.cache);
  scheduler.submit(request_of(1, random_tokens(30, 1), 1000));
  scheduler.submit(request_of(2, random_tokens(39, 2), std::numeric_limits<std::int64_t>::max()));
  const Results results = run(scheduler);
  CHECK(results.at(1).tokens.size() == 10);
  CHECK(results.at(2).tokens.size() == 1);
  for (const auto& [id, result] : results) CHECK(finish_reason_name(result.finish) == "length");
}

TEST_CASE("scheduler: a prompt longer than the context is refused with both lengths") {
  Fixture fixture({.step_tokens = 64, .batch = 2, .kv_tokens = 64, .max_context = 40});
  Scheduler scheduler(fixture.model, fixture.cache);
  const auto refused = [&](const Request& request, std::initializer_list<std::string> words) {
    check_error([&] { scheduler.submit(request); }, ErrorCode::kInvalidArgument, words);
  };
  refused(request_of(7, random_tokens(41, 1), 5), {"request 7", "41 tokens", "context of 40"});
  refused(request_of(7, random_tokens(40, 1), 5), {"40 tokens", "context of 40"});
  refused(request_of(7, {}, 5), {"request 7", "empty"});
  refused(request_of(7, {1, 512}, 5), {"request 7", "token 512", "vocabulary of 512"});
  refused(request_of(7, {-1}, 5), {"token -1"});
  refused(request_of(7, {1}, 0), {"max_tokens 0"});
  Request hot = request_of(7, {1}, 5);
  hot.sampling.temperature = -1;
  refused(hot, {"temperature -1"});
  CHECK_FALSE(scheduler.step());  // nothing of that was taken in
}

TEST_CASE("scheduler: a request that the cache can never hold is refused at once") {
  Fixture fixture({.step_tokens = 64, .batch = 1, .kv_tokens = 32});
  Scheduler scheduler(fixture.model, fixture.cache);
  check_error([&] { scheduler.submit(request_of(3, random_tokens(20, 1), 100)); },
              ErrorCode::kInvalidArgument, {"request 3", "20", "100", "32 tokens"});
}

TEST_CASE("scheduler: a model that repeats itself is stopped and said to loop") {
  // Equal logits: greedy says token 0 for ever.
  const TemporaryDirectory directory;
  TensorSpecs tensors = synthetic_tensors({}, 1);
  find_tensor(tensors, "lm_head.weight") = random_tensor("lm_head.weight", {128, 64}, 1, 0, 0);
  write_checkpoint(directory.path(), synthetic_config({}), tensors);
  Fixture fixture({.overlaps = GENERATE(false, true)}, directory.path());
  Scheduler scheduler(fixture.model, fixture.cache);
  Request request = request_of(1, {5, 6}, 200);
  scheduler.submit(request);
  request.id = 2;
  request.detect_loops = true;
  scheduler.submit(request);
  const Results results = run(scheduler);
  CHECK(results.at(1).tokens == std::vector<std::int32_t>(200, 0));
  CHECK(finish_reason_name(results.at(1).finish) == "length");
  CHECK(results.at(2).tokens == std::vector<std::int32_t>(LoopDetector::kMinRepeated + 1, 0));
  CHECK(finish_reason_name(results.at(2).finish) == "loop");
}

TEST_CASE("scheduler: a NaN fails the request it belongs to, and no other") {
  const TemporaryDirectory directory;
  TensorSpecs tensors = synthetic_tensors({}, 1);
  TensorSpec& embedding = find_tensor(tensors, "model.embed_tokens.weight");
  std::vector<float> values = floats_of(embedding);
  values[5 * 64 + 3] = std::nanf("");
  embedding = tensor_of_floats(embedding.name, "BF16", embedding.shape, values);
  write_checkpoint(directory.path(), synthetic_config({}), tensors);
  Fixture fixture({.overlaps = GENERATE(false, true)}, directory.path());
  const auto answers = [&](bool with_nan) {
    Scheduler scheduler(fixture.model, fixture.cache);
    scheduler.submit(request_of(1, {1, 2, 3}, 8));
    if (with_nan) scheduler.submit(request_of(2, {4, 5, 6}, 8));
    scheduler.submit(request_of(3, {7, 8}, 8));
    return run(scheduler);
  };
  const Results with = answers(true);
  const Results without = answers(false);
  CHECK(finish_reason_name(with.at(2).finish) == "failed");
  CHECK(with.at(2).error.find("nan") != std::string::npos);
  CHECK(with.at(2).tokens.empty());
  for (const std::uint64_t id : {1U, 3U}) {
    check_same(with.at(id), without.at(id));
    CHECK(with.at(id).error.empty());
  }
}

TEST_CASE("scheduler: cancelling keeps what was said, and frees everything") {
  Fixture fixture({.step_tokens = 64, .batch = 2, .overlaps = GENERATE(false, true)});
  const std::int64_t free_pages = fixture.cache.free_full_pages();
  Scheduler scheduler(fixture.model, fixture.cache);
  for (std::uint64_t id = 0; id < 3; ++id) {
    scheduler.submit(request_of(id, random_tokens(4, id), 50));
  }
  for (int i = 0; i < 5; ++i) scheduler.step();
  scheduler.cancel_all();
  Results results = run(scheduler);
  REQUIRE(results.size() == 3);
  for (const auto& [id, result] : results) {
    CHECK(finish_reason_name(result.finish) == "cancelled");
    CHECK(result.tokens.size() == (id < 2 ? 5 : 0));  // the third was waiting
  }
  CHECK(fixture.cache.free_full_pages() == free_pages);
  const Request again = request_of(9, random_tokens(4, 0), 10);
  scheduler.submit(again);
  check_same(run(scheduler).at(9), run_alone(again));
}

TEST_CASE("scheduler: tokens are told one by one, as they come") {
  Fixture fixture({.overlaps = GENERATE(false, true)});
  Scheduler scheduler(fixture.model, fixture.cache);
  std::vector<std::int32_t> told;
  Request request = request_of(1, random_tokens(4, 1), 6);
  request.on_token = [&](std::int32_t token) { told.push_back(token); };
  scheduler.submit(request);
  std::size_t steps = 0;
  while (scheduler.step()) CHECK(told.size() == ++steps);
  const auto results = scheduler.take_results();
  REQUIRE(results.size() == 1);
  CHECK(told == results[0].tokens);
  CHECK(std::is_sorted(results[0].token_ns.begin(), results[0].token_ns.end()));
  CHECK(results[0].submitted_ns <= results[0].token_ns.front());
  CHECK(results[0].token_ns.back() <= results[0].finished_ns);
}

TEST_CASE("scheduler: a full batch of the longest sequences runs together, whatever a page holds") {
  for (const std::int64_t context : {33, 34, 47, 48, 49}) {
    INFO("context " << context);
    ThreadPool pool(1);
    Engine engine = load_engine(golden("gpt-oss-tiny-a"), {},
                                {.max_batch = 8, .max_context = context, .step_tokens = 16}, pool);
    Scheduler scheduler(*engine.model, *engine.cache);
    for (std::uint64_t id = 0; id < 8; ++id) {
      Request request;
      request.id = id;
      request.prompt = {static_cast<std::int32_t>(id + 1)};
      request.max_tokens = context - 1;
      request.detect_loops = false;
      scheduler.submit(request);
    }
    std::int64_t steps = 0;
    while (scheduler.step()) ++steps;
    CHECK(scheduler.take_results().size() == 8);
    CHECK(steps <= context);  // one sequence that waited would need as many again
  }
}

}  // namespace moebench::test
