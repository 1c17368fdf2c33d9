// moebench bench with two arms or more: what it prints, what it writes, and how it fails; and with
// --mixed.
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "kernels/core/json_fields.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/schema.h"

namespace moebench::test {
namespace {

// Four rounds of blocks of a hundredth of a second: quick, and far too few for a verdict.
std::string quick(const std::string& more) {
  return "bench --model " + tiny_model() + " -p 0 -n 4 -r 4 --block 0.01 --seed 7 " + more;
}

std::string comparison_errors(const Json& json) {
  return schema_errors(read_json(source_dir() / "reports" / "bench_comparison.schema.json"), json);
}

}  // namespace

TEST_CASE("cli bench: two plans are timed in turns, and every sample is told") {
  const ProcessResult result =
      run_moebench(quick("--plan reference --plan int4 --plan reference -o compare"));
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  const Json json = Json::parse(result.out);
  CHECK(json.at("schema") == "moebench.bench_comparison/1");
  CHECK(comparison_errors(json) == "");
  // Files from before this name, and no other form that had the old one.
  Json old = json;
  old["schema"] = "moebench.comparison/1";
  CHECK(comparison_errors(old) == "");
  old.erase("samples");
  CHECK(comparison_errors(old) != "");
  CHECK(schema_errors(read_json(source_dir() / "reports" / "comparison.schema.json"), json) != "");
  CHECK(json.at("seed") == 7);
  REQUIRE(json.at("arms").size() == 3);
  CHECK(json.at("arms")[0].at("base") == true);
  CHECK(json.at("arms")[1].at("name") == "int4");
  CHECK(json.at("arms")[2].at("name") == "reference #2");  // the same plan twice is two arms
  CHECK(json.at("arms")[0].at("details").at("variants").at("linear") == "reference");
  CHECK(json.at("tests")[0].at("name") == "tg4");
  REQUIRE(json.at("comparisons").size() == 2);
  REQUIRE(json.at("self_tests").size() == 1);
  CHECK(json.at("sessions") == 2);  // four rounds are two mirrored pairs, each with fresh processes

  // Four processes (the base has two), four rounds: each in each round once, at every place, and
  // the second round of a pair in the mirrored order of the first.
  const Json& samples = json.at("samples");
  REQUIRE(samples.size() == 16);
  std::map<std::pair<int, int>, std::vector<std::pair<int, int>>> order;
  double last_start = 0;
  for (const Json& sample : samples) {
    order[{sample.at("session"), sample.at("round")}].push_back(
        {sample.at("arm"), sample.at("copy")});
    CHECK(sample.at("tokens_per_second").get<double>() > 0);
    CHECK(!sample.at("repetitions").empty());
    CHECK(sample.at("start_s").get<double>() > last_start);  // never two at a time
    last_start = sample.at("start_s").get<double>() + sample.at("seconds").get<double>();
  }
  REQUIRE(order.size() == 4);
  for (const int session : {0, 1}) {
    auto mirrored = order.at({session, 1});
    std::reverse(mirrored.begin(), mirrored.end());
    CHECK(order.at({session, 0}) == mirrored);
    std::sort(mirrored.begin(), mirrored.end());
    CHECK(mirrored == std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}, {2, 0}});
  }
  for (const Json& c : json.at("comparisons")) {
    CHECK(c.at("verdict") == "INCONCLUSIVE");
    CHECK(c.at("session_log_ratios").size() == 2);
    CHECK(c.at("interval").is_null());
    CHECK_THAT(c.at("reason").get<std::string>(), Catch::Contains("2 sessions are too few"));
  }
}

TEST_CASE("cli bench: rows of arms timed in turns are those of llama-bench, and a table follows") {
  const Json rows = Json::parse(run_moebench(quick("--plan reference --plan int4 -o json")).out);
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].at("plan") == "reference");
  CHECK(rows[1].at("plan") == "int4");
  CHECK(rows[1].at("samples_ts").size() == 4);

  const TemporaryDirectory folder;
  const std::string out = (folder.path() / "out").string();
  const ProcessResult text =
      run_moebench(quick("--plan reference --plan int4 --fail-if-slower --out " + out));
  CHECK(text.exit_code == 4);
  CHECK_THAT(text.out, Catch::Contains("against reference") && Catch::Contains("INCONCLUSIVE") &&
                           Catch::Contains("self-test") && Catch::Contains("2 sessions"));
  const Json written = Json::parse(read_file(out + "/compare.json"));
  CHECK(written.at("samples").size() == 12);
  CHECK(comparison_errors(written) == "");
  CHECK(run_moebench(quick("--plan reference --plan int4 --fail-if-slower --inconclusive-ok"))
            .exit_code == 0);
}

TEST_CASE("cli bench: an arm that another program runs, and programs that are none") {
  const ProcessResult both = run_moebench(
      quick(std::string("--plan reference --against-program ") + MOEBENCH_PROGRAM + " -o compare"));
  INFO(both.err);
  REQUIRE(both.exit_code == 0);
  const Json json = Json::parse(both.out);
  CHECK(json.at("arms")[0].at("name") == "reference by moebench");
  CHECK(json.at("arms")[1].at("program") == "this program");

  const ProcessResult missing = run_moebench(quick("--against-program /no/such"));
  CHECK(missing.exit_code == 3);
  CHECK_THAT(missing.err, Catch::Contains("/no/such"));
  const ProcessResult two =
      run_moebench(quick("--plan reference --plan int4 --against-program " MOEBENCH_PROGRAM));
  CHECK(two.exit_code == 3);

  // A program that ends without a word, and one of another protocol.
  const ProcessResult silent = run_moebench(quick("--plan reference --against-program /bin/true"));
  CHECK(silent.exit_code == 2);
  CHECK_THAT(silent.err, Catch::Contains("before it said hello") && Catch::Contains("/bin/true"));
  const TemporaryDirectory folder;
  const std::string other = (folder.path() / "newer").string();
  write_file(
      other,
      "#!/bin/sh\necho '{\"event\": \"hello\", \"protocol\": \"moebench.arm/99\"}'\nread line\n");
  std::filesystem::permissions(other, std::filesystem::perms::owner_all);
  const ProcessResult newer = run_moebench(quick("--plan reference --against-program " + other));
  CHECK(newer.exit_code == 2);
  CHECK_THAT(newer.err, Catch::Contains("moebench.arm/99") && Catch::Contains("moebench.arm/1"));
}

TEST_CASE("cli bench: an arm that cannot run a test loses that test only") {
  const ProcessResult result = run_moebench("bench --model " + tiny_model() +
                                            " --plan reference --plan int4 -p 8,9000000 -n 0 -r 2 "
                                            "--block 0.01 -o json");
  CHECK(result.exit_code == 2);
  CHECK(Json::parse(result.out).size() == 2);
  CHECK_THAT(result.err, Catch::Contains("error: benchmark reference pp9000000: unsupported: ") &&
                             Catch::Contains("error: benchmark int4 pp9000000: "));
}

TEST_CASE("cli bench: options of comparisons that make no sense are usage errors") {
  CHECK(run_moebench(quick("-o compare")).exit_code == 3);
  CHECK(run_moebench(quick("--plan int4 --fail-if-slower")).exit_code == 3);
  CHECK(run_moebench(quick("--plan int4 --budget 0")).exit_code == 3);
  CHECK(run_moebench(quick("--plan int4 --threshold nan")).exit_code == 3);
}

TEST_CASE("cli bench: blocks are short unless told otherwise, and say what disturbed them") {
  const Json json =
      Json::parse(run_moebench("bench --model " + tiny_model() +
                               " --plan reference --plan int4 -p 0 -n 4 -r 2 -o compare")
                      .out);
  CHECK(json.at("block_s") == 0.02);
  CHECK(json.at("complete") == true);
  CHECK_THAT(json.at("disturbance_rules").get<std::string>(), Catch::Contains("waited"));
  for (const Json& sample : json.at("samples")) {
    CHECK(sample.at("conditions").at("seconds").get<double>() > 0);
  }
  CHECK(json.at("comparisons")[0].at("blocks") == 6);  // two rounds of the arm and two bases
  CHECK(json.at("comparisons")[0].at("disturbed_blocks").get<int>() <= 6);
}

TEST_CASE("cli bench: a comparison that is killed leaves what it had measured") {
  const TemporaryDirectory folder;
  const auto file = folder.path() / "out" / "compare.json";
  const pid_t pid =
      start_moebench({"bench", "--model", tiny_model(), "--plan", "reference", "--plan", "int4",
                      "-p", "0", "-n", "4", "--budget", "24", "--precision", "0.01", "--threshold",
                      "0.01", "--out", (folder.path() / "out").string()},
                     folder.path() / "text");
  REQUIRE(pid > 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(100);
  while (!std::filesystem::exists(file) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  INFO(read_file(folder.path() / "text"));
  const Json json = Json::parse(read_file(file));
  CHECK(json.at("complete") == false);
  CHECK(json.at("sessions").get<int>() >= 1);
  CHECK(!json.at("samples").empty());
  CHECK(json.at("comparisons").size() == 1);
}

TEST_CASE("cli bench: --mixed tells what an arriving prompt does to the others") {
  const std::string command = "bench --mixed --model " + tiny_model() + " --plan reference ";
  const ProcessResult result = run_moebench(command + "-p 8,12 -n 16 -b 2 -d 4 -r 2 -o json");
  INFO(result.err);
  REQUIRE(result.exit_code == 0);
  const Json records = Json::parse(result.out);
  REQUIRE(records.size() == 2);
  CHECK(records[0].at("kind") == "mixed");
  CHECK(records[0].at("scenario").at("prefill") == 8);
  CHECK(records[1].at("scenario").at("prefill") == 12);
  CHECK(records[1].at("scenario").at("batch") == 2);
  CHECK(records[1].at("scenario").at("context") == 4);
  CHECK(records[1].at("metrics").at("ttft_ms").at("samples").size() == 2);
  CHECK(records[1].at("metrics").at("disturbed_samples").at("count") == 2);

  const ProcessResult text = run_moebench(command + "-p 8 -n 16 -b 2 -r 2");
  CHECK(text.exit_code == 0);
  CHECK_THAT(text.out, Catch::Contains("slower by") && Catch::Contains("reference"));
  for (const char* wrong : {"-n 2", "-o csv", "--request-rate 5", "--trace x.json",
                            "--against-program " MOEBENCH_PROGRAM}) {
    INFO(wrong);
    CHECK(run_moebench(command + "-p 8 -b 2 " + wrong).exit_code == 3);
  }
  CHECK(run_moebench(command + "-p 9000000 -n 8").exit_code == 2);
}

}  // namespace moebench::test
