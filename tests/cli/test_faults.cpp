// When the world fails: a full disk, Ctrl-C, a closed pipe. What is finished is kept, the error
// names the file, and --resume completes the run.
#include <signal.h>
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "bench/run_folder.h"
#include "evals/ledger.h"
#include "tests/support/process.h"
#include "tests/support/scripted_model.h"

namespace moebench::test {
namespace {

struct ScriptedModel {
  TemporaryDirectory folder;
  ScriptedModel() { write_scripted_checkpoint(folder.path(), kSaysB); }
  std::string flag() const { return " --model " + folder.path().string(); }
};

// Whole lines of all ledgers of a run.
std::size_t num_answers(const std::filesystem::path& out) {
  std::size_t count = 0;
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(out / "ledger", ignored)) {
    count += read_ledger(file.path()).size();
  }
  return count;
}

std::set<std::string> answered(const std::filesystem::path& out) {
  std::set<std::string> answers;
  for (const auto& file : std::filesystem::directory_iterator(out / "ledger")) {
    for (const LedgerLine& line : read_ledger(file.path())) {
      CHECK(answers.insert(fmt::format("{} {}", line.item, line.repeat)).second);
    }
  }
  return answers;
}

}  // namespace

TEST_CASE("faults: output that cannot be written is an error, not a success with less text") {
  for (const char* command : {"kernels list", "kernels list --json"}) {
    INFO(command);
    const ProcessResult result =
        run_shell(std::string(MOEBENCH_PROGRAM) + " " + command + " > /dev/full");
    CHECK(result.exit_code == 2);
    CHECK_THAT(result.err, Catch::StartsWith("error: write to standard output: ") &&
                               Catch::Contains("No space left on device"));
  }
}

TEST_CASE("faults: results that no longer fit are named, the run ends with 2, and can be resumed") {
  const TemporaryDirectory folder;
  const auto out = folder.path() / "out";
  const std::string suite = (folder.path() / "suite.json").string();
  Json lengths = Json::array();
  for (int i = 1; i <= 20; ++i) lengths.push_back(i);
  write_file(suite, Json{{"name", "x"},
                         {"models", {golden("gpt-oss-tiny-a").string()}},
                         {"plans", {"reference"}},
                         {"workloads", {{{"kind", "prefill"}, {"tokens", lengths}}}}}
                        .dump());
  const std::string command = "run " + suite + " --out " + out.string();
  // The limit is in blocks of 512 bytes: run.json and weights.jsonl fit, and some of the records.
  const ProcessResult full = run_shell("ulimit -f 32; " MOEBENCH_PROGRAM " " + command);
  INFO(full.out << full.err);
  CHECK(full.exit_code == 2);
  CHECK_THAT(full.err, Catch::StartsWith("error: write " + (out / "results.jsonl").string()) &&
                           Catch::Contains("File too large"));
  const std::size_t kept = read_records(out).size();
  CHECK(kept > 0);
  CHECK(kept < 21);
  const ProcessResult resumed = run_moebench(command + " --resume");
  INFO(resumed.out << resumed.err);
  CHECK(resumed.exit_code == 0);
  CHECK_THAT(resumed.out, Catch::Contains(fmt::format("({} from before)", kept)));
  CHECK(read_records(out).size() == 21);
}

TEST_CASE("faults: a ledger that reaches the limit of file size keeps its whole lines") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const auto out = folder.path() / "out";
  const std::string command =
      "eval" + model.flag() + " --task nano --limit 40 --out " + out.string();
  // 16 blocks of 512 bytes: some 20 answers fit.
  const ProcessResult full =
      run_shell("ulimit -f 16; " MOEBENCH_PROGRAM " " + command + " --batch 4");
  INFO(full.out << full.err);
  CHECK(full.exit_code == 2);
  CHECK_THAT(full.err, Catch::Contains("ledger/") && Catch::Contains("File too large"));
  const std::size_t kept = num_answers(out);
  CHECK(kept > 0);
  CHECK(kept < 40);
  const ProcessResult resumed = run_moebench(command + " --batch 4 --resume");
  INFO(resumed.out << resumed.err);
  CHECK(resumed.exit_code == 0);
  CHECK(answered(out).size() == 40);
  const auto records = read_records(out);
  CHECK(records.back().details.at("resumed_answers") == kept);
}

TEST_CASE("faults: a folder that cannot be made is named") {
  const ScriptedModel model;
  const ProcessResult result =
      run_moebench("eval" + model.flag() + " --task nano --limit 1 --out /proc/no/such");
  CHECK(result.exit_code == 2);
  CHECK_THAT(result.err, Catch::StartsWith("error: ") && Catch::Contains("/proc/no/such"));
}

TEST_CASE("faults: Ctrl-C ends a run with 2, and --resume gives what a whole run gives") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const auto out = folder.path() / "out";
  const std::vector<std::string> words = {"eval",
                                          "--model",
                                          model.folder.path().string(),
                                          "--task",
                                          "nano",
                                          "--limit",
                                          "150",
                                          "--temperature",
                                          "6",
                                          "--max-tokens",
                                          "24",
                                          "--batch",
                                          "4",
                                          "--out",
                                          out.string()};
  const auto text = folder.path() / "text";
  const pid_t pid = start_moebench(words, text);
  REQUIRE(pid > 0);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (num_answers(out) < 8 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  REQUIRE(num_answers(out) >= 8);
  kill(pid, SIGINT);
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  INFO(read_file(text));
  REQUIRE(WIFEXITED(status));
  const std::size_t kept = num_answers(out);
  CHECK(kept >= 8);
  CHECK(kept < 150);
  CHECK(WEXITSTATUS(status) == 2);
  CHECK_THAT(read_file(text), Catch::Contains("error: run eval: interrupted") &&
                                  Catch::Contains("--resume --out " + out.string()));
  std::string command;
  for (const std::string& word : words) command += word + " ";
  const ProcessResult resumed = run_moebench(command + "--resume");
  INFO(resumed.out << resumed.err);
  CHECK(resumed.exit_code == 0);
  CHECK(answered(out).size() == 150);
  CHECK(read_records(out).back().details.at("resumed_answers") == kept);

  // The same answers as without the interruption.
  const auto whole = folder.path() / "whole";
  command.replace(command.find(out.string()), out.string().size(), whole.string());
  REQUIRE(run_moebench(command).exit_code == 0);
  const auto digests = [](const std::filesystem::path& run) {
    std::map<std::string, std::string> by_item;
    for (const auto& file : std::filesystem::directory_iterator(run / "ledger")) {
      for (const LedgerLine& line : read_ledger(file.path())) {
        by_item[line.item] = line.token_digest;
      }
    }
    return by_item;
  };
  CHECK(digests(out) == digests(whole));
}

TEST_CASE("faults: a killed run leaves no worker behind, and can be resumed") {
  const ScriptedModel model;
  const TemporaryDirectory folder;
  const auto out = folder.path() / "out";
  const std::vector<std::string> words = {"eval",   "--model",   model.folder.path().string(),
                                          "--task", "nano",      "--limit",
                                          "200",    "--batch",   "4",
                                          "--out",  out.string()};
  const pid_t pid = start_moebench(words, folder.path() / "text");
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (num_answers(out) < 4 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  // The worker dies with its parent: the ledger stops growing.
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const std::size_t kept = num_answers(out);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(num_answers(out) == kept);
  std::string command;
  for (const std::string& word : words) command += word + " ";
  CHECK(run_moebench(command + "--resume").exit_code == 0);
  CHECK(answered(out).size() == 200);
}

TEST_CASE(
    "faults: a run that is killed, and killed again, has in the end the records of a whole one") {
  const TemporaryDirectory folder;
  const std::string suite = (folder.path() / "suite.json").string();
  const Json serve = {
      {"kind", "serve"}, {"rate", 200}, {"requests", 30}, {"input", 8}, {"output", 6}};
  const Json mixed = {{"kind", "mixed"}, {"batch", 2},   {"context", 4},
                      {"prefill", 8},    {"tokens", 16}, {"repetitions", 3}};
  const Json decode = {{"kind", "decode"}, {"batch", {1, 2}}, {"context", 4}, {"tokens", 8}};
  write_file(suite, Json{{"name", "x"},
                         {"models", {golden("gpt-oss-tiny-a").string()}},
                         {"plans", {"reference", "int4"}},
                         {"workloads", {serve, mixed, decode}}}
                        .dump());
  // By case: the status, and the digest of its tokens.
  const auto results = [](const std::filesystem::path& out) {
    std::map<std::string, std::string> by_case;
    std::error_code ignored;
    if (!std::filesystem::exists(out / "results.jsonl", ignored)) return by_case;
    for (const Record& record : read_records(out)) {
      const std::string digest = record.details.value("output_digest", std::string("-"));
      // Each case once, whatever happened.
      CHECK(by_case.emplace(record.label, fmt::format("{} {}", status_name(record.status), digest))
                .second);
    }
    return by_case;
  };
  const auto whole = folder.path() / "whole";
  const ProcessResult reference = run_moebench("run " + suite + " --out " + whole.string());
  INFO(reference.out << reference.err);
  REQUIRE(reference.exit_code == 0);
  REQUIRE(results(whole).size() == 10);  // of two plans: load, serve, mixed and two of decode

  const auto out = folder.path() / "out";
  std::vector<std::string> words = {"run", suite, "--out", out.string(), "--resume"};
  int kills = 0;
  for (const int milliseconds : {30, 90, 180, 300, 450, 650}) {
    const pid_t pid = start_moebench(words, folder.path() / "text");
    REQUIRE(pid > 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    kill(pid, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    kills += WIFSIGNALED(status) ? 1 : 0;
    // The worker dies with its parent; nobody writes into the folder that is resumed next.
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  CHECK(kills >= 1);
  const ProcessResult resumed =
      run_moebench("run " + suite + " --out " + out.string() + " --resume");
  INFO(resumed.out << resumed.err);
  CHECK(resumed.exit_code == 0);
  CHECK(results(out) == results(whole));
}

TEST_CASE("faults: a task whose prompts exceed the context fails with item and lengths") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB, 64);
  const TemporaryDirectory folder;
  const ProcessResult result =
      run_moebench("eval --model " + model.path().string() + " --task nano --limit 3 --out " +
                   (folder.path() / "out").string());
  CHECK(result.exit_code == 2);
  CHECK_THAT(result.err,
             Catch::Contains("item 'nano-0001' of nano") && Catch::Contains("context of 64"));
}

}  // namespace moebench::test
