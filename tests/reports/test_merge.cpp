// Parts of a run, joined: the same records as one run, and what is refused.
#include <catch2/catch.hpp>
#include <set>

#include "bench/run_folder.h"
#include "reports/merge_runs.h"
#include "reports/report.h"
#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/scripted_model.h"

namespace moebench::test {
namespace {

namespace fs = std::filesystem;

// What does not depend on when and on how many machines a case ran.
OrderedJson without_times(const Record& record) {
  OrderedJson json = to_json(record);
  for (const char* name : {"started", "duration_s"}) json.erase(name);
  OrderedJson metrics = OrderedJson::object();
  for (const char* name : {"accuracy", "output_tokens_mean", "reasoning_tokens_mean", "mean_kl",
                           "weights_bytes", "deterministic", "batch_invariant"}) {
    if (json["metrics"].contains(name)) metrics[name] = json["metrics"][name];
  }
  json["metrics"] = metrics;
  OrderedJson details = OrderedJson::object();
  for (const char* name : {"verdicts", "categories", "dataset_hash", "protocol", "ledger",
                           "kl_by_trace", "traces_hash", "content_hashes", "plan"}) {
    if (json["details"].contains(name)) details[name] = json["details"][name];
  }
  json["details"] = details;
  return json;
}

std::vector<OrderedJson> records_of(const fs::path& run) {
  std::vector<OrderedJson> list;
  for (const Record& record : read_records(run)) list.push_back(without_times(record));
  return list;
}

// The answers of all cases, without their times, in no order.
std::multiset<std::string> answers_of(const fs::path& run) {
  std::multiset<std::string> lines;
  for (const Record& record : read_records(run)) {
    for (LedgerLine line : read_ledger(ledger_path(run, record.case_id))) {
      line.timing = {};
      line.cached_tokens = 0;  // of what is shared with questions asked beside it
      lines.insert(record.case_id + json_line(to_json(line)));
    }
  }
  return lines;
}

void run_ok(const std::string& arguments) {
  const ProcessResult result = run_moebench(arguments);
  INFO("moebench " << arguments << "\n" << result.out << result.err);
  REQUIRE(result.exit_code == 0);
}

struct Scripted {
  TemporaryDirectory folder;

  Scripted() {
    write_scripted_checkpoint(folder.path() / "model", kSaysB);
    write_file(path("suite.json"), OrderedJson({{"name", "parts"},
                                                {"models", {path("model")}},
                                                {"plans", {"reference", "int4", "int8"}},
                                                {"threads", 1},
                                                {"workloads",
                                                 {{{"kind", "decode"},
                                                   {"batch", 1},
                                                   {"context", 8},
                                                   {"tokens", 4},
                                                   {"repetitions", 3}}}},
                                                {"tasks", {{{"task", "nano"}, {"limit", 9}}}},
                                                {"probes",
                                                 {{{"kind", "fidelity"}, {"items", 2}},
                                                  {{"kind", "invariance"}, {"items", 2}}}}})
                                       .dump());
  }
  std::string path(const std::string& name) const { return (folder.path() / name).string(); }

  // The whole run and its parts, by `flags`.
  void run_parts(int count, const std::string& flags = "") const {
    for (int i = 0; i < count; ++i) {
      run_ok(fmt::format("run {} {} --shard {}/{} --out {}/{}", path("suite.json"), flags, i, count,
                         path("parts"), i));
    }
  }
};

}  // namespace

TEST_CASE("merge: two parts of a suite give the records of one run") {
  const Scripted suite;
  run_ok("run " + suite.path("suite.json") + " --out " + suite.path("whole"));
  const auto whole = records_of(suite.path("whole"));
  REQUIRE(whole.size() == 14);  // 3 plans of 5 cases; reference is not compared with itself
  SECTION("dealt out by plan") { suite.run_parts(2); }
  SECTION("more parts than plans") { suite.run_parts(5); }
  SECTION("by question") { suite.run_parts(2, "--shard-questions"); }
  run_ok("merge " + suite.path("parts") + " -o " + suite.path("merged"));
  CHECK(records_of(suite.path("merged")) == whole);
  CHECK(answers_of(suite.path("merged")) == answers_of(suite.path("whole")));
  CHECK(answers_of(suite.path("merged")).size() == 27);
  CHECK(fs::exists(suite.path("merged/weights.jsonl")));
  const OrderedJson report = build_report({suite.path("merged")});
  CHECK(schema_errors(read_json(source_dir() / "reports" / "report.schema.json"),
                      Json::parse(report.dump())) == "");
  // The same answers to the same questions: nothing to compare but speed.
  CHECK(report.at("comparisons") == build_report({suite.path("whole")}).at("comparisons"));
}

TEST_CASE("merge: parts of an evaluation share its questions") {
  const Scripted model;
  const std::string command = "eval --model " + model.path("model") + " --task nano --limit 7 ";
  run_ok(command + "--out " + model.path("whole"));
  for (const char* part : {"2/3", "0/3", "1/3"}) {
    run_ok(command + "--shard " + part + " --out " + model.path("parts/") + part[0]);
  }
  const auto first = read_records(model.path("parts/0")).back();
  CHECK(first.metrics.at("accuracy").count == 3);  // questions 0, 3 and 6
  CHECK(first.details.at("question_shard") == "0/3");
  run_ok("merge " + model.path("parts") + " -o " + model.path("merged"));
  CHECK(records_of(model.path("merged")) == records_of(model.path("whole")));
  CHECK(answers_of(model.path("merged")) == answers_of(model.path("whole")));
  const Record merged = read_records(model.path("merged")).back();
  CHECK(merged.metrics.at("ttft_ms_p50").count == 7);
  CHECK(merged.metrics.count("answers_per_second") == 0);

  // A part that is missing is a case that failed, not a score over fewer questions.
  const ProcessResult two = run_moebench("merge " + model.path("parts/0") + " " +
                                         model.path("parts/2") + " -o " + model.path("two"));
  CHECK(two.exit_code == 2);
  CHECK(two.err.find("1 of 2 cases failed") != std::string::npos);
  const Record broken = read_records(model.path("two")).back();
  CHECK(broken.status == Status::kFailed);
  CHECK(broken.reason == "parts 1 of 3 are missing");
  CHECK(broken.metrics.empty());

  // More parts than questions: a part may have none.
  run_ok("eval --model " + model.path("model") + " --task nano --limit 1 --shard 1/2 --out " +
         model.path("none"));
  CHECK(read_records(model.path("none")).back().metrics.count("accuracy") == 0);
  // Another part does not go on in this folder.
  const ProcessResult other =
      run_moebench(command + "--shard 1/3 --resume --out " + model.path("parts/0"));
  CHECK(other.exit_code == 2);
  CHECK(other.err.find("give the same --shard") != std::string::npos);
}

TEST_CASE("merge: a case without a record is named, and the rest is kept") {
  const Scripted suite;
  run_ok("run " + suite.path("suite.json") + " --shard 0/3 --out " + suite.path("one"));
  const ProcessResult result =
      run_moebench("merge " + suite.path("one") + " -o " + suite.path("merged"));
  CHECK(result.exit_code == 2);
  CHECK(result.err.find("error: merge int8 / nano medium: no part has this case") !=
        std::string::npos);
  CHECK(read_records(suite.path("merged")).size() == 4);
  // The folder is taken now.
  CHECK(run_moebench("merge " + suite.path("one") + " -o " + suite.path("merged"))
            .err.find("holds a run already") != std::string::npos);
}

TEST_CASE("merge: what is no part of the same run is refused") {
  const TemporaryDirectory folder;
  const auto with_cases = [](RunFolder& run, const OrderedJson& cases) {
    Json json = read_json(run.path() / "run.json");
    json["cases"] = Json::parse(cases.dump());
    write_file(run.path() / "run.json", json.dump());
  };
  const OrderedJson one_case = {{{"id", "0000000000000001"}, {"label", "a"}, {"model", "m"}}};
  RunFolder a;
  RunFolder b("another suite");
  with_cases(a, one_case);
  with_cases(b, one_case);
  CHECK_THROWS_WITH(merge_runs({a.path(), b.path()}, folder.path() / "x"),
                    Catch::Contains("its suite are not those of"));
  CHECK_THROWS_WITH(merge_runs({a.path() / "run.json"}, folder.path() / "x"),
                    Catch::Contains("no folder of a run"));
  CHECK_THROWS_WITH(merge_runs({}, folder.path() / "x"), Catch::Contains("no run was given"));
  // An id is a name of a file; it must not lead elsewhere.
  RunFolder bad;
  with_cases(bad, {{{"id", "../../../etc/xx"}, {"label", "a"}, {"model", "m"}}});
  CHECK_THROWS_WITH(merge_runs({bad.path()}, folder.path() / "y"), Catch::Contains("no case id"));
  CHECK_FALSE(fs::exists(folder.path() / "y" / "run.json"));
}

}  // namespace moebench::test
