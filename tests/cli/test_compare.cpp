// moebench compare from the outside: exit codes, and a document of each kind.
#include <catch2/catch.hpp>

#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"

namespace moebench::test {
namespace {

// A run of 400 answers, the first `correct` of them right; no token digests, so that a sample they
// remain.
struct Answers : RunFolder {
  explicit Answers(int correct) {
    std::vector<LedgerLine> lines;
    for (int i = 0; i < 400; ++i) lines.push_back(answer(fmt::format("q{:03}", i), i < correct));
    add_task("reference", lines);
  }
  std::string text() const { return path().string(); }
};

int exit_code_of(const std::string& arguments) {
  const ProcessResult result = run_moebench("compare " + arguments);
  INFO(result.out << result.err);
  return result.exit_code;
}

}  // namespace

TEST_CASE("cli compare: the exit code is the verdict") {
  const Answers base(300);
  const Answers worse(270);
  const Answers unclear(294);
  const std::string sides = base.text() + " " + worse.text();
  CHECK(exit_code_of(base.text() + " " + base.text()) == 0);
  CHECK(exit_code_of(sides) == 1);
  CHECK(exit_code_of(worse.text() + " " + base.text()) == 0);
  CHECK(exit_code_of(base.text() + " " + unclear.text()) == 4);
  CHECK(exit_code_of(base.text() + " " + unclear.text() + " --inconclusive-ok") == 0);
  CHECK(exit_code_of(base.text() + " /nonexistent") == 2);
  CHECK(exit_code_of("") == 3);
  // A gate that minds nothing below ten points.
  write_file(base.path() / "gate.json",
             R"({"schema": "moebench.gate/1", "metrics": {"accuracy": {"margin": 0.15}}})");
  CHECK(exit_code_of(sides + " --gate " + (base.path() / "gate.json").string()) == 0);
  write_file(base.path() / "gate.json", R"({"schema": "moebench.gate/1", "metrics": {"x": {}}})");
  CHECK(exit_code_of(sides + " --gate " + (base.path() / "gate.json").string()) == 2);
}

TEST_CASE("cli compare: text and markdown are tables, JSON validates, JUnit goes to a file") {
  const Answers base(300);
  const Answers worse(270);
  const std::string sides = "compare " + base.text() + " " + worse.text();
  const ProcessResult text = run_moebench(sides);
  CHECK(text.err == "");
  CHECK(text.out.find("-7.50 points") != std::string::npos);
  CHECK(text.out.find("30 lost, 0 gained of 400") != std::string::npos);
  const ProcessResult markdown = run_moebench(sides + " --format markdown");
  CHECK(markdown.out.find("### REGRESSED") == 0);
  CHECK(markdown.out.find("| --- |") != std::string::npos);
  const ProcessResult json = run_moebench(sides + " --format json");
  CHECK(schema_errors(read_json(source_dir() / "reports" / "comparison.schema.json"),
                      Json::parse(json.out)) == "");
  const auto file = base.path() / "out.xml";
  const ProcessResult junit = run_moebench(sides + " --format junit -o " + file.string());
  CHECK(junit.exit_code == 1);
  CHECK(read_file(file).find("<failure message=\"REGRESSED") != std::string::npos);
}

TEST_CASE("cli compare: a case that broke is exit code 2 and a line on stderr") {
  RunFolder base;
  RunFolder candidate;
  const Record good = base.add_task("reference", {answer("a", true)});
  Record bad = good;
  bad.status = Status::kCrashed;
  bad.reason = "its worker was killed by signal 11";
  bad.metrics.clear();
  candidate.add(bad);
  const ProcessResult result =
      run_moebench("compare " + base.path().string() + " " + candidate.path().string());
  CHECK(result.exit_code == 2);
  CHECK(result.err.find("error: compare reference / nano low: crashed") != std::string::npos);
}

}  // namespace moebench::test
