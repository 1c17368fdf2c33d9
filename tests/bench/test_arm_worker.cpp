// An arm's side of the protocol, talked to in this process; and the planted slowdown.
#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <sstream>

#include "bench/arm_worker.h"
#include "bench/disturbance.h"
#include "bench/planted_slowdown.h"
#include "bench/worker.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// What an arm says to these lines; the first message is its hello.
std::vector<Json> answers_to(const std::string& input) {
  const TemporaryDirectory folder;
  const std::string path = (folder.path() / "out").string();
  const int output = open(path.c_str(), O_WRONLY | O_CREAT, 0644);
  std::istringstream stream(input);
  CHECK(run_arm(stream, output) == 0);
  close(output);
  std::vector<Json> answers;
  for_each_json_line(read_file(path), path, 64,
                     [&](const Json& json, const std::string&) { answers.push_back(json); });
  return answers;
}

std::string orders(const std::string& model) {
  Job job;
  job.cases.push_back({"bench", model, Plan{}, DecodeScenario{2, 3, 4, 1}});
  job.cases.push_back({"bench", model, Plan{}, PrefillScenario{9000000, 0, 1}});
  job.cases.push_back({"bench", model, Plan{}, LoadScenario{}});
  job.engine.max_batch = 1;
  job.threads = 1;
  return OrderedJson{{"job", to_json(job)}, {"check_outputs", true}}.dump() + "\n";
}

std::string question(std::string_view what, int test) {
  return OrderedJson{{"do", what}, {"test", test}, {"seconds", 0.001}}.dump() + "\n";
}

}  // namespace

TEST_CASE("arm: it says hello, loads, warms up, and runs blocks with the same tokens") {
  const auto said = answers_to(orders(golden("gpt-oss-tiny-a").string()) + question("warm_up", 0) +
                               question("block", 0) + question("block", 0));
  REQUIRE(said.size() == 5);
  CHECK(said[0].at("event") == "hello");
  CHECK(said[0].at("protocol") == kArmProtocol);
  CHECK(said[1].at("event") == "ready");
  CHECK(said[1].at("details").contains("output_check"));
  CHECK(said[2].at("event") == "warm");
  CHECK(said[2].at("repetitions").get<int>() >= 2);
  CHECK(said[2].at("digest").get<std::string>().size() == 16);
  for (const std::size_t i : {3, 4}) {
    CHECK(said[i].at("event") == "block");
    REQUIRE(!said[i].at("rates").empty());
    for (const Json& rate : said[i].at("rates")) CHECK(rate.get<double>() > 0);
    const auto conditions = conditions_from_json(said[i].at("conditions"), "a block");
    CHECK(conditions.seconds >= said[i].at("seconds").get<double>());
  }
  CHECK(said[3].at("start_ns").get<std::int64_t>() < said[4].at("start_ns").get<std::int64_t>());
}

TEST_CASE("arm: what it cannot do is an answer with a status, and it goes on") {
  const auto said = answers_to(orders(golden("gpt-oss-tiny-a").string()) + question("warm_up", 1) +
                               question("warm_up", 2) + question("block", 0) +
                               question("block", 3) + question("dance", 0) + "[\n" + "\n" +
                               "{\"do\": 5, \"test\": \"x\"}\n" + question("warm_up", 0));
  REQUIRE(said.size() == 11);
  for (std::size_t i = 2; i < 10; ++i) CHECK(said[i].at("event") == "failed");
  CHECK(said[2].at("status") == "unsupported");
  CHECK_THAT(said[2].at("reason").get<std::string>(), Catch::Contains("positions of context"));
  CHECK(said[3].at("status") == "unsupported");
  CHECK_THAT(said[4].at("reason").get<std::string>(), Catch::Contains("not warmed up"));
  CHECK_THAT(said[6].at("reason").get<std::string>(), Catch::Contains("'dance'"));
  CHECK(said[10].at("event") == "warm");
}

TEST_CASE("arm: orders that are none end it with the reason") {
  for (const std::string text : {"{}\n", "nonsense\n", "{\"job\": 3, \"check_outputs\": true}\n"}) {
    const auto said = answers_to(text);
    REQUIRE(said.size() == 2);
    CHECK(said[1].at("event") == "failed");
    CHECK(!said[1].at("reason").get<std::string>().empty());
  }
  const auto said = answers_to(orders("/no/such/model"));
  REQUIRE(said.size() == 2);
  CHECK_THAT(said[1].at("reason").get<std::string>(), Catch::Contains("/no/such/model"));
  CHECK(answers_to("").size() == 1);
}

TEST_CASE("planted slowdown: spins for its share of a step, refuses what is no percentage") {
  setenv("MOEBENCH_TEST_SPIN_PERCENT", "50", 1);
  const PlantedSlowdown slowdown;
  const auto start = PlantedSlowdown::Clock::now() - std::chrono::milliseconds(20);
  slowdown.after_step(start);
  CHECK(PlantedSlowdown::Clock::now() - start >= std::chrono::milliseconds(30));
  for (const char* bad : {"x", "-1", "nan", "1e9", "3%"}) {
    setenv("MOEBENCH_TEST_SPIN_PERCENT", bad, 1);
    CHECK_THROWS_AS(PlantedSlowdown(), Error);
  }
  unsetenv("MOEBENCH_TEST_SPIN_PERCENT");
  CHECK(PlantedSlowdown().before_step() == PlantedSlowdown::Clock::time_point());
}

}  // namespace moebench::test
