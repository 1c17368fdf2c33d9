// The parent process of a run, with workers that crash, hang, babble or stop in the middle.
#include <catch2/catch.hpp>
#include <filesystem>

#include "bench/run.h"
#include "bench/run_folder.h"
#include "kernels/core/append_file.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

namespace fs = std::filesystem;

// A worker in shell: `body` runs for each case with $id set; `record ok` writes a good record.
fs::path fake_worker(const fs::path& folder, const std::string& body) {
  const fs::path path = folder / "worker.sh";
  write_file(path, R"sh(#!/bin/sh
job=$(cat)
record() {
  printf '{"event":"record","record":{"schema":"moebench.record/1","case_id":"%s","label":"l / x",' "$id"
  printf '"model":"m","plan":"p","kind":"prefill","scenario":{"kind":"prefill"},"status":"%s"}}\n' "$1"
}
n=0
for id in $(printf '%s' "$job" | grep -o '"id":"[0-9a-f]*"' | cut -d'"' -f4); do
  n=$((n + 1))
  printf '{"event":"start","case":"%s"}\n' "$id"
)sh" + body + "\ndone\n");
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

Suite suite_of(int num_cases, std::int64_t timeout_s = 60) {
  Suite suite;
  suite.name = "test";
  suite.models = {golden("gpt-oss-tiny-a").string()};
  suite.plans = {parse_plan("reference")};
  suite.timeout_s = timeout_s;
  for (int i = 0; i < num_cases; ++i) {
    suite.scenarios.emplace_back(PrefillScenario{10 + i, 0, 1});
  }
  return suite;
}

struct Run {
  TemporaryDirectory folder;
  RunOptions options;

  explicit Run(const std::string& worker_body) {
    options.out_dir = folder.path() / "out";
    options.program = fake_worker(folder.path(), worker_body);
  }
};

std::vector<std::string> statuses(const fs::path& out_dir) {
  std::vector<std::string> result;
  for (const Record& record : read_records(out_dir)) {
    result.emplace_back(status_name(record.status));
  }
  return result;
}

}  // namespace

TEST_CASE("run: every case gives a record, in order") {
  Run run("record ok");
  const RunOutcome outcome = run_suite(suite_of(3), run.options);
  CHECK(outcome.complete());
  CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"ok", "ok", "ok"});
  const Json description = read_json(run.options.out_dir / "run.json");
  CHECK(description.at("schema") == "moebench.run/1");
  CHECK(description.at("models")[0].at("num_layers") == 4);
}

TEST_CASE("run: a worker that dies costs the case it was in, and the rest still run") {
  // The second case of the first worker dies; the next worker starts after it.
  Run run(R"sh(
  if [ $n = 2 ] && [ ! -e "$0.died" ]; then touch "$0.died"; kill -SEGV $$; sleep 5; fi
  record ok)sh");
  const RunOutcome outcome = run_suite(suite_of(4), run.options);
  CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"ok", "crashed", "ok", "ok"});
  CHECK(outcome.cases_bad == 1);
  CHECK_FALSE(outcome.complete());
  const auto records = read_records(run.options.out_dir);
  CHECK_THAT(records[1].reason, Catch::Contains("signal 11"));
}

TEST_CASE("run: a worker that ends early with an exit code is a crash with that code") {
  Run run("exit 7");
  run_suite(suite_of(2), run.options);
  const auto records = read_records(run.options.out_dir);
  REQUIRE(records.size() == 2);
  CHECK(records[0].status == Status::kCrashed);
  CHECK_THAT(records[0].reason, Catch::Contains("exited with code 7"));
}

TEST_CASE("run: a worker that hangs is killed at the time limit") {
  Run run(R"sh(
  if [ $n = 1 ] && [ ! -e "$0.hung" ]; then touch "$0.hung"; exec sleep 60; fi
  record ok)sh");
  run_suite(suite_of(2, 1), run.options);
  CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"timeout", "ok"});
}

TEST_CASE("run: a worker that babbles costs its case, and the rest still run") {
  for (const std::string nonsense : {"Segmentation fault", "[1]", "{\"event\":\"song\"}", ""}) {
    INFO(nonsense);
    Run run("if [ $n = 2 ] && [ ! -e \"$0.said\" ]; then touch \"$0.said\"; echo '" + nonsense +
            "'; exec sleep 60; fi\nrecord ok");
    run_suite(suite_of(3), run.options);
    CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"ok", "crashed", "ok"});
    CHECK_THAT(read_records(run.options.out_dir)[1].reason,
               Catch::Contains("said '" + nonsense + "', which is no message"));
  }
}

TEST_CASE("run: a worker that hangs or dies after its last record changes nothing") {
  for (const std::string end : {"exec sleep 60", "kill -SEGV $$", "exit 9"}) {
    INFO(end);
    Run run("record ok\nif [ $n = 2 ]; then " + end + "; fi");
    const RunOutcome outcome = run_suite(suite_of(2, 1), run.options);
    CHECK(outcome.complete());
    CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"ok", "ok"});
  }
}

TEST_CASE("run: a model that changed since is not mixed into its old results") {
  const TemporaryDirectory model;
  fs::copy(golden("gpt-oss-tiny-a"), model.path(), fs::copy_options::recursive);
  Suite suite = suite_of(2);
  suite.models = {model.path().string()};
  Run run("if [ $n = 2 ]; then record failed; else record ok; fi");
  run_suite(suite, run.options);
  run.options.resume = true;
  CHECK_NOTHROW(run_suite(suite, run.options));
  Json config = read_json(model.path() / "config.json");
  config["sliding_window"] = 3;
  write_file(model.path() / "config.json", config.dump());
  CHECK_THROWS_WITH(run_suite(suite, run.options),
                    Catch::Contains(model.path().string()) && Catch::Contains("has changed since"));
  CHECK(read_records(run.options.out_dir).size() == 2);
}

TEST_CASE("run: resume keeps good records and runs the others again") {
  Run run(R"sh(
  if [ $n = 2 ] && [ ! -e "$0.second" ]; then record failed; else record ok; fi)sh");
  const RunOutcome first = run_suite(suite_of(3), run.options);
  CHECK(first.cases_bad == 1);
  CHECK_THROWS_WITH(run_suite(suite_of(3), run.options), Catch::Contains("--resume"));
  write_file(run.options.program.string() + ".second", "");
  run.options.resume = true;
  const RunOutcome second = run_suite(suite_of(3), run.options);
  CHECK(second.complete());
  CHECK(second.cases_kept == 2);
  CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"ok", "ok", "ok"});
  // Nothing is left: no worker starts at all.
  write_file(run.options.program, "#!/bin/sh\nexit 9\n");
  CHECK(run_suite(suite_of(3), run.options).complete());
}

TEST_CASE("run: a half-written last record is dropped and its case run again") {
  Run run("record ok");
  run_suite(suite_of(2), run.options);
  const fs::path results = run.options.out_dir / "results.jsonl";
  const std::string whole = read_file(results);
  write_file(results, whole.substr(0, whole.size() - 20));
  CHECK(read_records(run.options.out_dir).size() == 1);
  run.options.resume = true;
  CHECK(run_suite(suite_of(2), run.options).complete());
  CHECK(statuses(run.options.out_dir) == std::vector<std::string>{"ok", "ok"});
}

TEST_CASE("run: shards part the plans without loss or overlap") {
  Suite suite = suite_of(2);
  suite.plans = {parse_plan("reference"), parse_plan("bf16"), parse_plan("int8")};
  std::size_t total = 0;
  for (const int index : {0, 1}) {
    Run run("record ok");
    run.options.shard = {index, 2};
    run_suite(suite, run.options);
    total += read_records(run.options.out_dir).size();
  }
  CHECK(total == 6);
}

TEST_CASE("run: unknown plan names and models that are none are errors before any work") {
  Run run("record ok");
  run.options.only_plans = {"referense"};
  CHECK_THROWS_WITH(run_suite(suite_of(1), run.options),
                    Catch::Contains("did you mean 'reference'?"));
  run.options.only_plans.clear();
  Suite suite = suite_of(1);
  suite.models = {"/no/such/model"};
  CHECK_THROWS_AS(run_suite(suite, run.options), Error);
}

TEST_CASE("records: what is written can be read back") {
  Record record;
  record.case_id = "0123456789abcdef";
  record.label = "int4 / prefill 16";
  record.model = "nano";
  record.plan = "int4";
  record.kind = "prefill";
  record.scenario = {{"kind", "prefill"}, {"tokens", 16}};
  record.status = Status::kWrongOutput;
  record.reason = "because \"quoted\"\n\xff";
  Metric metric;
  metric.value = 1.5;
  metric.unit = "tokens/s";
  metric.better = "higher";
  metric.interval = Interval{1, 2, 0.95};
  metric.interval_method = "bootstrap";
  metric.count = 3;
  metric.samples = {1, 2, 1.5};
  record.metrics["speed"] = metric;
  Metric absent;
  absent.unit = "ms";
  absent.absent = true;
  record.metrics["p99"] = absent;
  record.details["list"] = {1, 2};
  const std::string line = json_line(to_json(record));
  const Record back = record_from_json(Json::parse(line), "test");
  CHECK(json_line(to_json(back)) == line);
  CHECK(back.metrics.at("p99").absent);
  CHECK(back.metrics.at("speed").interval->high == 2);
}

TEST_CASE("records: a number that is not finite is never written") {
  Record record;
  record.metrics["speed"].value = std::nan("");
  CHECK_THROWS_WITH(to_json(record), Catch::Contains("speed is nan"));
}

TEST_CASE("records: other versions and broken lines are refused with their place") {
  const TemporaryDirectory folder;
  write_file(folder.path() / "results.jsonl", "{\"schema\":\"moebench.record/9\"}\n");
  CHECK_THROWS_WITH(read_records(folder.path()), Catch::Contains("line 1") &&
                                                     Catch::Contains("moebench.record/9") &&
                                                     Catch::Contains("moebench.record/1 is"));
  write_file(folder.path() / "results.jsonl", "not json\n");
  CHECK_THROWS_AS(read_records(folder.path()), Error);
}

}  // namespace moebench::test
