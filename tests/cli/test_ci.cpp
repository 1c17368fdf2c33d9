// What CI gets from us: documents that other tools' schemas and programs take, and the templates.
#include <catch2/catch.hpp>

#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/scripted_model.h"

namespace moebench::test {
namespace {

namespace fs = std::filesystem;

bool has_program(const std::string& name) { return run_shell("command -v " + name).exit_code == 0; }

// Two timed cases and a task, with names that want quoting everywhere.
struct Measured : RunFolder {
  explicit Measured(double rate, int correct = 60) {
    for (const char* kind : {"decode", "prefill"}) {
      Record record;
      record.case_id = kind == std::string("decode") ? "00000000000000aa" : "00000000000000bb";
      record.model = "m";
      record.plan = "a <b> & \"c\"]]>";
      record.label = fmt::format("{} / {} 'x'", record.plan, kind);
      record.kind = kind;
      record.scenario = {{"kind", kind}};
      Metric metric;
      metric.value = rate;
      metric.unit = "tokens/s";
      metric.better = "higher";
      metric.interval = Interval{rate * 0.99, rate * 1.01, 0.95};
      metric.samples = {rate, rate * 1.01, rate * 0.99, rate * 1.02, rate * 0.98};
      metric.count = 5;
      record.metrics[rate_metric(kind)] = metric;
      add(record);
    }
    std::vector<LedgerLine> lines;
    for (int i = 0; i < 100; ++i) lines.push_back(answer(fmt::format("q{:03}", i), i < correct));
    Record task = add_task("reference", lines);
    task.metrics.at("accuracy").better = "higher";
    add(task);
  }
  std::string text() const { return path().string(); }
};

std::string output_of(const std::string& arguments) {
  const ProcessResult result = run_moebench(arguments);
  INFO("moebench " << arguments << "\n" << result.out << result.err);
  CHECK(result.exit_code == 0);
  return result.out;
}

Json support_schema(const std::string& name) {
  return read_json(source_dir() / "tests" / "support" / name);
}

// A suite of one task on a model that always says the same, so that runs are equal.
struct Project {
  TemporaryDirectory folder;

  Project() {
    write_scripted_checkpoint(folder.path() / "model", kSaysB);
    write_file(path("suite.json"), OrderedJson({{"name", "ci"},
                                                {"models", {path("model")}},
                                                {"plans", {"reference"}},
                                                {"threads", 1},
                                                {"tasks", {{{"task", "nano"}, {"limit", 8}}}}})
                                       .dump());
    write_file(path("strict.json"),
               R"({"schema": "moebench.gate/1", "metrics": {"accuracy": {"minimum": 0.99}}})");
  }
  std::string path(const std::string& name) const { return (folder.path() / name).string(); }

  ProcessResult compare(const std::string& arguments, const std::string& environment = "") const {
    const auto script = source_dir() / "docs" / "templates" / "ci-compare.sh";
    return run_shell(environment + " " + script.string() + " --suite " + path("suite.json") +
                     " --program " MOEBENCH_PROGRAM " " + arguments);
  }
};

}  // namespace

TEST_CASE("ci: JUnit XML validates against what its readers take") {
  if (!has_program("xmllint")) {
    WARN("SKIPPED: there is no xmllint (apt-get install libxml2-utils)");
    return;
  }
  const Measured base(100);
  const Measured slower(80, 50);
  Measured broken(100);
  Record crashed;
  crashed.case_id = "00000000000000aa";
  crashed.model = "m";
  crashed.plan = "a <b> & \"c\"]]>";
  crashed.label = crashed.plan + " / decode 'x'";
  crashed.kind = "decode";
  crashed.scenario = {{"kind", "decode"}};
  crashed.status = Status::kCrashed;
  crashed.reason = "killed \x01\x1b[31m by <signal> \xff & \"more\"";
  broken.add(crashed);
  const TemporaryDirectory folder;
  const auto validate = [&](const std::string& sides) {
    const std::string file = (folder.path() / "x.xml").string();
    run_moebench("compare " + sides + " --format junit -o " + file);
    const ProcessResult result =
        run_shell("xmllint --noout --schema " +
                  (source_dir() / "tests" / "support" / "junit.xsd").string() + " " + file);
    INFO(sides << "\n" << read_file(file) << result.err);
    CHECK(result.exit_code == 0);
    return read_file(file);
  };
  CHECK_THAT(validate(base.text() + " " + slower.text()), Catch::Contains("<failure"));
  CHECK_THAT(validate(base.text() + " " + broken.text()), Catch::Contains("<error"));
  CHECK_THAT(validate(base.text() + " " + slower.text() + " --inconclusive-ok"),
             Catch::Contains("<testsuites"));
  validate(base.text() + " " + base.text());
}

TEST_CASE("ci: Bencher and github-action-benchmark take our exports") {
  const Measured run(100);
  const Json bmf = Json::parse(output_of("export " + run.text() + " --format bmf"));
  CHECK(schema_errors(support_schema("bmf.schema.json"), bmf) == "");
  const Json& decode = bmf.at("m / a <b> & \"c\"]]> / decode 'x'").at("decode-tokens-per-second");
  CHECK(decode.at("value") == 100);
  CHECK(decode.at("lower_value") == 99);
  CHECK(bmf.at("m / reference / nano low").at("accuracy").at("value") == 0.5);
  const std::string action = "export " + run.text() + " --format action-benchmark";
  const Json bigger = Json::parse(output_of(action + " --better higher"));
  CHECK(schema_errors(support_schema("action_benchmark.schema.json"), bigger) == "");
  CHECK(bigger.size() == 3);
  CHECK(bigger[0].at("range") == "99 to 101");
  CHECK(run_moebench(action).exit_code == 3);                      // a file is one direction
  CHECK(run_moebench(action + " --better lower").exit_code == 2);  // there is none
  const Json one = Json::parse(output_of(action + " --better higher --metric accuracy"));
  CHECK(one.size() == 1);
}

TEST_CASE("ci: Google Benchmark's compare.py tells a slower run from its base") {
  const Measured base(100);
  const Measured slower(80);
  const TemporaryDirectory folder;
  const std::string old_file = (folder.path() / "old.json").string();
  const std::string new_file = (folder.path() / "new.json").string();
  output_of("export " + base.text() + " --format gbench -o " + old_file);
  output_of("export " + slower.text() + " --format gbench -o " + new_file);
  const Json json = read_json(new_file);
  CHECK(json.at("benchmarks").size() == 10);
  CHECK(json.at("benchmarks")[0].at("real_time") == Approx(1e9 / 80));
  CHECK(run_moebench("export " + base.text() + " --format gbench --better lower").exit_code == 3);
  const char* const compare = "/usr/share/benchmark/compare.py";
  if (!fs::exists(compare) || run_shell("/usr/bin/python3 -c 'import scipy'").exit_code != 0) {
    WARN("SKIPPED: there is no compare.py (apt-get install libbenchmark-tools python3-scipy)");
    return;
  }
  const ProcessResult result = run_shell(std::string("/usr/bin/python3 ") + compare +
                                         " --no-color benchmarks " + old_file + " " + new_file);
  INFO(result.out << result.err);
  CHECK(result.exit_code == 0);
  // A quarter more time per token; and the U test over repetitions sees it.
  CHECK_THAT(result.out, Catch::Contains("+0.25") && Catch::Contains("pvalue"));
}

TEST_CASE("ci: the gate runs both sides, leaves its documents, and its exit code is the verdict") {
  const Project project;
  const std::string sides = "--base-program " MOEBENCH_PROGRAM " --runs 2 --out ";
  const ProcessResult same = project.compare(sides + project.path("same"),
                                             "GITHUB_STEP_SUMMARY=" + project.path("summary.md"));
  INFO(same.out << same.err);
  CHECK(same.exit_code == 0);
  for (const char* file : {"compare.md", "compare.xml", "compare.json", "report.html", "bmf.json",
                           "higher.json", "base/2/results.jsonl", "new/2/results.jsonl"}) {
    INFO(file);
    CHECK(fs::exists(project.path("same") + "/" + file));
  }
  CHECK_THAT(read_file(project.path("summary.md")), Catch::StartsWith("### SAME"));
  const ProcessResult strict =
      project.compare(sides + project.path("strict") + " --gate " + project.path("strict.json"));
  CHECK(strict.exit_code == 1);
  CHECK_THAT(read_file(project.path("strict") + "/compare.xml"), Catch::Contains("<failure"));
  CHECK(project.compare("--out x").exit_code == 3);
  CHECK(project.compare(sides + project.path("y") + " --runs none").exit_code == 3);
  const ProcessResult broken =
      project.compare("--base-program /nonexistent --runs 1 --out " + project.path("z"));
  CHECK(broken.exit_code == 2);  // what broke is no regression
}

TEST_CASE("ci: the gate against a history, which remembers what passed") {
  const Project project;
  const std::string db = " --db " + project.path("h.db");
  output_of("run " + project.path("suite.json") + " --out " + project.path("first"));
  output_of("history add " + project.path("first") + " --name main" + db);
  const std::string against = "--baseline history:main --runs 1 --remember main" + db + " --out ";
  const ProcessResult good = project.compare(against + project.path("good"), "GITHUB_SHA=abc");
  INFO(good.out << good.err);
  CHECK(good.exit_code == 0);
  CHECK(project.compare(against + project.path("bad") + " --gate " + project.path("strict.json"))
            .exit_code == 1);
  const Json list = Json::parse(output_of("history list --json" + db));
  REQUIRE(list.size() == 3);
  int good_ones = 0;
  for (const Json& entry : list) good_ones += entry.at("good").get<bool>() ? 1 : 0;
  CHECK(good_ones == 2);
}

TEST_CASE("ci: templates are what they say they are") {
  const fs::path templates = source_dir() / "docs" / "templates";
  for (const auto& entry : fs::directory_iterator(templates)) {
    INFO(entry.path());
    const std::string text = read_file(entry.path());
    if (entry.path().extension() == ".sh") {
      CHECK(run_shell("bash -n " + entry.path().string()).exit_code == 0);
    } else if (run_shell("python3 -c 'import yaml'").exit_code == 0) {
      CHECK(
          run_shell("python3 -c 'import sys, yaml; list(yaml.safe_load_all(open(sys.argv[1])))' " +
                    entry.path().string())
              .exit_code == 0);
    } else {
      WARN("SKIPPED: there is no YAML parser (apt-get install python3-yaml)");
    }
    // Commands of ours that they use exist.
    for (const char* command : {"history add", "history trend", "merge", "eval", "run"}) {
      if (text.find(std::string("moebench ") + command) == std::string::npos) continue;
      CHECK(run_moebench(std::string(command) + " --help").exit_code == 0);
    }
  }
  // An array's task as Slurm would start it.
  const Project project;
  const ProcessResult task = run_shell(
      "SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=2 "
      "SLURM_ARRAY_TASK_COUNT=2 MOEBENCH_PROGRAM=" MOEBENCH_PROGRAM " MOEBENCH_OUT=" +
      project.path("parts") + " " + (templates / "slurm-array.sh").string() + " eval --model " +
      project.path("model") + " --task nano --limit 4");
  INFO(task.out << task.err);
  CHECK(task.exit_code == 0);
  CHECK(read_json(project.path("parts/2/run.json")).at("shard").at("part") == "1/2");
}

}  // namespace moebench::test
