// The event log: written, read, and refused.
#include <algorithm>
#include <catch2/catch.hpp>

#include "bench/event_log.h"
#include "kernels/core/append_file.h"
#include "tests/bench/event_builder.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {

TEST_CASE("event log: a request survives the way through a file, a torn line is left out") {
  const TemporaryDirectory directory;
  const auto path = event_log_path(directory.path(), "00000000000000ab");
  CHECK(path == directory.path() / "events" / "00000000000000ab.jsonl");
  RequestEvents one = request(3, 5, {25, 30}, 12);
  one.point = 2;
  one.channels = "rf";
  one.cached_tokens = 4;
  RequestEvents failed = request(4, 6, {});
  failed.scheduled_ns.reset();
  failed.started_ns.reset();
  failed.finish = FinishReason::kFailed;
  failed.error = "no room \"here\"\n";
  {
    LineWriter writer(path);
    writer.append(json_line(to_json(one)));
    writer.append(json_line(to_json(failed)));
  }
  write_file(path, read_file(path) + "{\"id\": 5, \"sub");
  const auto log = read_event_log(path);
  REQUIRE(log.size() == 2);
  CHECK(to_json(log[0]) == to_json(one));
  CHECK(log[0].channels == "rf");
  CHECK(log[0].scheduled_ns == 5 * kMs);
  CHECK(log[1].finish == FinishReason::kFailed);
  CHECK(log[1].error == failed.error);
  CHECK_FALSE(log[1].scheduled_ns);
  CHECK_FALSE(log[1].started_ns);
  check_error([&] { read_event_log(directory.path() / "none.jsonl"); }, ErrorCode::kIo,
              {"none.jsonl"});
}

TEST_CASE("event log: a line that cannot be true is refused") {
  const auto error_of = [](const std::function<void(OrderedJson&)>& damage) {
    OrderedJson json = to_json(request(3, 5, {25, 30}, 12));
    damage(json);
    try {
      request_events_from_json(Json::parse(json.dump()), "log: line 1");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  using Catch::Contains;
  CHECK(error_of([](OrderedJson&) {}) == "no error");
  CHECK_THAT(error_of([](OrderedJson& j) { j["token_ns"] = {30, 25}; }), Contains("token_ns"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["token_ns"] = {30.5}; }), Contains("token_ns"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["token_ns"] = 3; }), Contains("token_ns"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["finished_ns"] = 29 * kMs; }),
             Contains("finished_ns"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["started_ns"] = 4 * kMs; }), Contains("started_ns"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["scheduled_ns"] = 6 * kMs; }),
             Contains("submitted before its time"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["submitted_ns"] = -1; }),
             Contains("-1 is out of range"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["finished_ns"] = std::int64_t{1} << 62; }),
             Contains("finished_ns"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["channels"] = "r"; }),
             Contains("1 letters for 2 tokens"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["channels"] = "rx"; }),
             Contains("letters r, f and o"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["finish"] = "stopp"; }),
             Contains("did you mean 'stop'"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["cached_tokens"] = 13; }), Contains("13 of 12"));
  CHECK_THAT(error_of([](OrderedJson& j) { j["prompt"] = 1; }), Contains("unknown field 'prompt'"));
  CHECK_THAT(error_of([](OrderedJson& j) { j.erase("id"); }), Contains("'id' is missing"));
}

TEST_CASE("event log: thoughts, the answer and the marks between them are told apart") {
  const Tokenizer tokenizer = Tokenizer::load(source_dir() / "datasets/nano/model");
  const auto ids = tokenizer.encode_with_special(
      "<|channel|>analysis<|message|>2 + 2<|end|><|start|>assistant<|channel|>final<|message|>4"
      "<|return|>");
  const std::string channels = token_channels(tokenizer, ids);
  REQUIRE(channels.size() == ids.size());
  const auto thought = static_cast<std::ptrdiff_t>(tokenizer.encode("2 + 2").size());
  const auto answer = static_cast<std::ptrdiff_t>(tokenizer.encode("4").size());
  CHECK(std::count(channels.begin(), channels.end(), kReasoningToken) == thought);
  CHECK(std::count(channels.begin(), channels.end(), kFinalToken) == answer);
  CHECK(channels.find(kFinalToken) > channels.rfind(kReasoningToken));
  CHECK(channels.front() == kOtherToken);
  CHECK(channels.back() == kOtherToken);
}

}  // namespace moebench::test
