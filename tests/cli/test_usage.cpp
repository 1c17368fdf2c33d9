// The program's manners: help with examples everywhere, and mistakes that end with the documented
// exit code, an error line on stderr, and the nearest name.
#include <catch2/catch.hpp>

#include "tests/support/process.h"

namespace moebench::test {
namespace {

// `arguments` must fail with `exit_code` and say all of `words` in one error line on stderr, and
// nothing on stdout.
void check_failure(const std::string& arguments, int exit_code,
                   const std::vector<std::string>& words) {
  INFO("moebench " << arguments);
  const ProcessResult result = run_moebench(arguments);
  CHECK(result.exit_code == exit_code);
  CHECK(result.out == "");
  CHECK_THAT(result.err, Catch::StartsWith("error: "));
  for (const std::string& word : words) CHECK_THAT(result.err, Catch::Contains(word));
}

}  // namespace

TEST_CASE("cli: every command has --help with an example") {
  const std::vector<std::string> commands = {"",
                                             "run",
                                             "bench",
                                             "eval",
                                             "eval extract",
                                             "fidelity",
                                             "generate",
                                             "model",
                                             "model info",
                                             "model logits",
                                             "model encode",
                                             "model decode",
                                             "model render",
                                             "kernels",
                                             "kernels list",
                                             "kernels verify",
                                             "report",
                                             "publish",
                                             "doctor"};
  for (const std::string& command : commands) {
    INFO("moebench " << command << " --help");
    const ProcessResult result = run_moebench(command + " --help");
    CHECK(result.exit_code == 0);
    CHECK(result.err == "");
    CHECK_THAT(result.out, Catch::Contains("Examples:"));
    CHECK_THAT(result.out, Catch::Contains("moebench " + command));
  }
}

TEST_CASE("cli: the top page states the exit codes, and hides the workers' command") {
  const std::string help = run_moebench("--help").out;
  CHECK_THAT(help, Catch::Contains("0 pass, 1 regression, 2 a run or case failed"));
  CHECK_THAT(help, Catch::Contains("3 usage, 4 inconclusive"));
  CHECK_THAT(help, !Catch::Contains("worker"));
}

TEST_CASE("cli: --version says the program and its version") {
  const ProcessResult result = run_moebench("--version");
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.out, Catch::StartsWith("moebench 0."));
}

TEST_CASE("cli: unknown commands and flags are usage errors that suggest the nearest") {
  check_failure("", 3, {"subcommand"});
  check_failure("benhc", 3, {"'benhc'", "did you mean 'bench'?"});
  check_failure("modle info", 3, {"'modle'", "did you mean 'model'?"});
  check_failure("model infos", 3, {"'infos'", "did you mean 'info'?"});
  check_failure("bench --modle " + tiny_model(), 3, {"'--modle'", "did you mean '--model'?"});
  check_failure("bench --model " + tiny_model() + " --repetition 3", 3,
                {"'--repetition'", "did you mean '--repetitions'?"});
  check_failure("eval extract --rul abcd --input x", 3, {"'--rul'", "did you mean '--rule'?"});
  check_failure("kernels lst", 3, {"'lst'", "did you mean 'list'?"});
  check_failure("doctor --jsn", 3, {"'--jsn'", "did you mean '--json'?"});
}

TEST_CASE("cli: a name that a flag cannot take is a usage error that suggests the nearest") {
  const std::string model = " --model " + tiny_model();
  check_failure("bench" + model + " --plan itn4", 3, {"--plan", "'itn4'", "did you mean 'int4'?"});
  check_failure("bench" + model + " --plan expert=int4", 3,
                {"'expert'", "did you mean 'experts'?"});
  check_failure("bench" + model + " --plan experts=nvpf4", 3, {"'nvpf4'", "did you mean 'nvfp4'?"});
  check_failure("bench" + model + " --plan linear=referense", 3,
                {"'referense'", "did you mean 'reference'?"});
  check_failure("bench" + model + " -o yaml", 3, {"yaml", "jsonl"});
  check_failure("fidelity" + model + " --plan mxpf4", 3, {"'mxpf4'", "did you mean 'mxfp4'?"});
  check_failure("fidelity" + model + " --plan int4 --against refrence", 3,
                {"did you mean 'reference'?"});
  check_failure("generate" + model + " --prompt x --effort hgh", 3,
                {"'hgh'", "did you mean 'high'?"});
  check_failure("eval" + model + " --task nanoo", 3, {"'nanoo'", "did you mean 'nano'?"});
  check_failure("eval" + model + " --task nano --effort lov", 3, {"did you mean 'low'?"});
  check_failure("eval extract --rule abdc --input x", 3, {"'abdc'", "did you mean 'abcd'?"});
  check_failure("kernels list --op liner", 3, {"'liner'", "did you mean 'linear'?"});
  check_failure("kernels verify --variant refrence", 3, {"did you mean 'reference'?"});
  check_failure("model logits" + model + " --tokens 1,x", 3, {"--tokens"});
  check_failure("model logits" + model + " --tokens 1,-2", 3, {"-2 is not a token id"});
}

TEST_CASE("cli: numbers out of range and missing flags are usage errors") {
  const std::string model = " --model " + tiny_model();
  check_failure("bench", 3, {"--model"});
  check_failure("bench" + model + " -b 0", 3, {"--batch", "0"});
  check_failure("bench" + model + " -p x", 3, {"--n-prompt", "x"});
  check_failure("bench" + model + " -p 0 -n 0", 3, {"nothing to measure"});
  check_failure("eval" + model, 3, {"--task"});
  check_failure("eval --task nano", 3, {"--model"});
  check_failure("eval" + model + " --task nano --seed -1", 3, {"--seed"});
  check_failure("eval" + model + " --task nano --resume", 3, {"--out"});
  check_failure("run demo --resume", 3, {"--out"});
  check_failure("run demo --shard 4/4", 3, {"0 <= I < N"});
  check_failure("run demo --plan int44", 3, {"'int44'", "did you mean 'int4'?"});
  check_failure("model encode --text x", 3, {"--tokenizer", "--model"});
  check_failure("fidelity" + model + " --plan int4 --text a --traces b", 3, {"not both"});
}

TEST_CASE("cli: input that is invalid ends with 2 and names file, field and value") {
  const TemporaryDirectory folder;
  const std::string suite = (folder.path() / "suite.json").string();
  const auto suite_with = [&](const std::string& text) {
    write_file(suite, text);
    return "run " + suite + " --out " + (folder.path() / "out").string();
  };
  check_failure("bench --model /no/such/model", 2, {"/no/such/model"});
  check_failure("model info --model /no/such/model", 2, {"/no/such/model"});
  check_failure("run /no/suite.json", 2, {"/no/suite.json"});
  check_failure("run demoo", 2, {"demoo.json"});
  check_failure(suite_with("{\"name\": \"x\","), 2, {suite, "parse"});
  check_failure(suite_with(R"({"name":"x","models":["m"],"plans":["reference"],"worklods":[]})"), 2,
                {suite, "'worklods'", "did you mean 'workloads'?"});
  check_failure(suite_with(R"({"name":"x","models":["m"],"plans":["reference"],
                            "tasks":[{"task":"nano","effort":"extreme"}]})"),
                2, {suite, "tasks[0].effort", "'extreme'"});
  check_failure(suite_with(R"({"name":"x","models":["m"],"plans":["reference"],
                            "tasks":[{"task":"nanno"}]})"),
                2, {suite, "tasks[0].task", "'nanno'", "did you mean 'nano'?"});
  check_failure(suite_with(R"({"name":"x","models":["m"],"plans":["reference"],
                            "tasks":[{"task":"nano","top_p":2}]})"),
                2, {suite, "tasks[0].top_p", "2"});
  check_failure("report /no/such/run -o " + (folder.path() / "r.html").string(), 2,
                {"/no/such/run"});
  check_failure("eval extract --rule abcd --input /no/file.jsonl", 2, {"/no/file.jsonl"});
  CHECK_FALSE(std::filesystem::exists(folder.path() / "out"));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "r.html"));
}

}  // namespace moebench::test
