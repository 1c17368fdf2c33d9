// When the world fails: a full disk, Ctrl-C, a closed pipe. What is finished is kept, the error
// names the file, and --resume completes the run.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "bench/case_runner.h"
#include "bench/run.h"
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

// The program with words as arguments, its output in a file; so that it can be sent a signal.
pid_t start(const std::vector<std::string>& words, const std::filesystem::path& output) {
  std::vector<std::string> all = {MOEBENCH_PROGRAM};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    if (std::freopen(output.c_str(), "w", stdout) == nullptr) _exit(126);
    dup2(STDOUT_FILENO, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  return pid;
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
  const pid_t pid = start(words, text);
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
  const pid_t pid = start(words, folder.path() / "text");
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
