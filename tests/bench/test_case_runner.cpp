// Cases run in this process: what each kind records, and that trouble becomes a status and a
// reason.
#include <catch2/catch.hpp>

#include "bench/case_runner.h"
#include "bench/run_folder.h"
#include "evals/ledger.h"
#include "evals/task.h"
#include "kernels/core/append_file.h"
#include "tests/support/scripted_model.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

struct Cases {
  TemporaryDirectory folder;
  std::vector<Case> list;

  Cases(const std::string& model, const std::string& plan, const std::vector<Scenario>& scenarios) {
    for (const Scenario& scenario : scenarios) {
      list.push_back({fmt::format("{:016x}", list.size()), model, parse_plan(plan), scenario});
    }
  }

  CaseRunner runner() const {
    CaseRunnerOptions options;
    options.engine.max_batch = 4;
    options.threads = 2;
    options.out_dir = folder.path();
    return CaseRunner(list, options);
  }

  std::vector<Record> run() const {
    CaseRunner one = runner();
    std::vector<Record> records;
    for (const Case& c : list) records.push_back(one.run(c));
    return records;
  }
};

std::string tiny() { return golden("gpt-oss-tiny-a").string(); }

TaskScenario task_of(std::int64_t limit) {
  TaskScenario scenario;
  scenario.limit = limit;
  return scenario;
}

}  // namespace

TEST_CASE("case runner: a text's perplexity, with its interval and what it rests on") {
  const TemporaryDirectory folder;
  std::string text;
  for (int i = 0; i < 20; ++i) text += "What is 33 + 29? 62. ";
  write_file(folder.path() / "t.txt", text);
  PerplexityScenario scenario;
  scenario.text = (folder.path() / "t.txt").string();
  scenario.window = 64;
  const Record r = Cases("nano", "fast", {scenario}).run().at(0);
  REQUIRE(r.status == Status::kOk);
  CHECK(r.label == "fast / perplexity t.txt, window 64");
  const Metric& perplexity = r.metrics.at("perplexity");
  const Metric& bits = r.metrics.at("bits_per_byte");
  REQUIRE(perplexity.interval);
  CHECK(perplexity.interval->low < perplexity.value);
  CHECK(perplexity.interval->high > perplexity.value);
  CHECK(r.details.at("bytes") == text.size());
  // log2(perplexity) bits a token, over the bytes of a token
  const auto tokens = r.details.at("tokens").get<double>();
  CHECK(bits.value ==
        Approx(std::log2(perplexity.value) * tokens / static_cast<double>(text.size())));
  CHECK(bits.interval->high ==
        Approx(std::log2(perplexity.interval->high) * tokens / static_cast<double>(text.size())));
  scenario.text = "/nonexistent";
  const Record missing = Cases("nano", "fast", {scenario}).run().at(0);
  CHECK(missing.status == Status::kFailed);
  CHECK_THAT(missing.reason, Catch::Contains("/nonexistent"));
}

TEST_CASE("case runner: the cache has room for the largest workload, not for all extremes at once") {
  const auto options_of = [](std::vector<Scenario> scenarios, EngineOptions options = {}) {
    std::vector<Case> cases;
    for (const Scenario& scenario : scenarios) cases.push_back({"", "nano", {}, scenario});
    return options_for(cases, options, 131072);
  };
  const DecodeScenario many{.batch = 128, .context = 1000, .tokens = 24};
  const PrefillScenario longest{.tokens = 8192};
  EngineOptions both = options_of({LoadScenario{}, many, longest});
  CHECK(both.max_batch == 128);
  CHECK(both.max_context == 8193);
  CHECK(both.kv_tokens == 128 * 1040);  // 1025 positions in whole pages of 16
  both = options_of({longest, DecodeScenario{.batch = 2, .context = 100, .tokens = 11}});
  CHECK(both.kv_tokens == 2 * 8208);  // the prompt, and what may be in the cache before it
  CHECK(both.max_batch == EngineOptions{}.max_batch);
  // Answers of tasks are as long as the context; what is asked for stays.
  EngineOptions task = options_of({LoadScenario{}, many, TaskScenario{}});
  CHECK(task.kv_tokens == 128 * 4096);
  EngineOptions asked;
  asked.kv_tokens = 777;
  CHECK(options_of({many, longest}, asked).kv_tokens == 777);
  // One that the model cannot run costs nothing.
  CHECK(options_of({many, PrefillScenario{.tokens = 200000}}).kv_tokens == 128 * 1040);
}

TEST_CASE("case runner: a plan is asked no more once its comparison is settled") {
  Cases cases("nano", "fast", {});
  TaskScenario scenario = task_of(150);
  scenario.settle = 0.1;
  scenario.settle_against = "fast";
  for (const char* plan : {"fast", "int8"}) {
    const bool is_base = std::string_view(plan) == "fast";
    cases.list.clear();
    cases.list.push_back({is_base ? "00000000000000aa" : "00000000000000bb", "nano",
                          parse_plan(plan), Scenario(scenario)});
    for (const Record& record : cases.run()) {
      LineWriter(cases.folder.path() / "results.jsonl").append(json_line(to_json(record)));
      const OrderedJson settled = record.details.value("settled", OrderedJson());
      if (record.plan == "fast") {
        CHECK(settled.is_null());
        CHECK(record.metrics.at("accuracy").count == 150);
        continue;
      }
      CHECK(settled.at("outcome") == "PASS");
      CHECK(settled.at("asked").get<int>() < 150);
      CHECK(settled.at("planned") == 150);
      CHECK(record.metrics.at("accuracy").count == settled.at("asked"));
      CHECK(settled.at("looks").size() >= 1);
    }
  }
  // Without the other plan all are asked, and the record says why.
  const auto alone = Cases("nano", "int8", {[] {
                             TaskScenario one = task_of(4);
                             one.settle = 0.1;
                             return one;
                           }()})
                         .run();
  CHECK(alone[0].metrics.at("accuracy").count == 4);
  CHECK_THAT(alone[0].details.at("settled").at("reason").get<std::string>(),
             Catch::Contains("reference"));
}

TEST_CASE("case runner: load records bytes, the encoding's cost, and a check of the outputs") {
  const auto records = Cases(tiny(), "int4", {LoadScenario{}}).run();
  const Record& r = records.at(0);
  CHECK(r.status == Status::kOk);
  CHECK(r.kind == "load");
  CHECK(r.label == "int4 / load");
  CHECK(r.metrics.at("weights_bytes").value > 0);
  CHECK(r.metrics.at("peak_rss_bytes").value > r.metrics.at("weights_bytes").value);
  CHECK(r.details.at("output_check").at("passed") == true);
  const auto& taken = r.details.at("memory_taken");
  CHECK(taken == r.details.at("memory_predicted"));
  std::int64_t total = 0;
  for (const auto& bytes : taken.at("weights")) total += bytes.get<std::int64_t>();
  for (const char* part : {"kv_cache", "activations", "workspace", "logits", "graphs"}) {
    total += taken.at(part).get<std::int64_t>();
  }
  CHECK(taken.at("total") == total);
  // MXFP4 re-encoded as int4 loses something, and only the experts were re-encoded.
  const auto& groups = r.details.at("encoding").at("groups");
  CHECK(groups.size() == 1);
  CHECK(groups.at("experts").at("sqnr_db").get<double>() > 10);
  CHECK(groups.at("experts").at("max_abs").get<double>() > 0);
}

TEST_CASE("case runner: a task leaves its ledger, and its record counts what is in it") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  const Cases cases(model.path().string(), "reference", {LoadScenario{}, task_of(12)});
  const Record r = cases.run().at(1);
  INFO(r.reason);
  REQUIRE(r.status == Status::kOk);
  const auto lines = read_ledger(ledger_path(cases.folder.path(), r.case_id));
  REQUIRE(lines.size() == 12);
  double correct = 0;
  for (const LedgerLine& line : lines) correct += line.expected == "B" ? 1 : 0;
  CHECK(r.metrics.at("accuracy").value == Approx(correct / 12));
  CHECK(r.metrics.at("accuracy").interval.has_value());
  CHECK(r.details.at("verdicts").at("correct") == correct);
  CHECK(r.details.at("verdicts").at("wrong") == 12 - correct);
  CHECK(r.details.at("resumed_answers") == 0);
  CHECK(r.details.at("dataset_hash") == find_task("nano").load().hash);
  CHECK(r.metrics.at("answers_per_second").value > 0);
  CHECK(r.metrics.at("ttft_ms_p50").count == 12);
}

TEST_CASE("case runner: a task that was cut short asks only what its ledger lacks") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  const Cases cases(model.path().string(), "reference", {task_of(6)});
  cases.run();
  const auto path = ledger_path(cases.folder.path(), cases.list[0].id);
  const std::string whole = read_file(path);
  // Killed in the middle of its fourth line.
  std::size_t end = 0;
  for (int i = 0; i < 3; ++i) end = whole.find('\n', end) + 1;
  write_file(path, whole.substr(0, end + 40));
  const Record r = cases.run().at(0);
  CHECK(r.status == Status::kOk);
  CHECK(r.details.at("resumed_answers") == 3);
  CHECK(r.metrics.at("accuracy").count == 6);
  CHECK(r.metrics.at("answers_per_second").count == 3);  // times are of this process only
  CHECK(read_file(path).substr(0, end) == whole.substr(0, end));
  CHECK(read_ledger(path).size() == 6);
}

TEST_CASE("case runner: fidelity is measured on the reference's own words, written down once") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  FidelityScenario fidelity;
  fidelity.items = 3;
  const Cases cases(model.path().string(), "int4", {fidelity, fidelity});
  const auto records = cases.run();
  const auto words =
      static_cast<std::int64_t>(Tokenizer::load(model.path()).encode_with_special(kSaysB).size());
  for (const Record& r : records) {
    INFO(r.reason);
    REQUIRE(r.status == Status::kOk);
    CHECK(r.details.at("traces") == 3);
    CHECK(r.details.at("positions") == 3 * words);
    CHECK(r.metrics.at("mean_kl").value == 0);  // the script lies in groups that stay as stored
    CHECK(r.metrics.at("top1_agreement").value == 1);
    CHECK(r.metrics.at("diverged_traces").value == 0);
    CHECK(r.metrics.at("changed_answers").value == 0);
    CHECK(r.metrics.at("changed_answers").count == 3);
    CHECK(r.details.at("diverged_answers").empty());
    CHECK(r.metrics.at("gate_mass_moved").value == 0);
    CHECK(r.details.at("gate_mass_moved_by_layer").size() == 1);
    CHECK(r.metrics.at("perplexity_ratio").value == Approx(1));
  }
  const std::filesystem::directory_iterator files(cases.folder.path() / "traces");
  CHECK(std::distance(begin(files), end(files)) == 1);
}

TEST_CASE(
    "case runner: after a second model was held, peak memory is no longer called the plan's") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  FidelityScenario fidelity;
  fidelity.items = 1;
  const auto records =
      Cases(model.path().string(), "int4", {LoadScenario{}, fidelity, PrefillScenario{8, 0, 1}})
          .run();
  CHECK(records[0].metrics.contains("peak_rss_bytes"));
  CHECK_FALSE(records[2].metrics.contains("peak_rss_bytes"));
}

TEST_CASE("case runner: invariance says how each arrangement compared") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  const Record r =
      Cases(model.path().string(), "reference", {InvarianceScenario{"nano", 3}}).run().at(0);
  INFO(r.reason);
  REQUIRE(r.status == Status::kOk);
  CHECK(r.metrics.at("deterministic").value == 1);
  CHECK(r.metrics.at("batch_invariant").value == 1);
  CHECK(r.details.at("arrangements").size() == 4);
}

TEST_CASE("case runner: a resumed run may begin with any case") {
  const Record r = Cases(tiny(), "reference", {PrefillScenario{8, 0, 2}}).run().at(0);
  CHECK(r.status == Status::kOk);
  CHECK(r.metrics.contains("prefill_tokens_per_second"));
  CHECK_FALSE(r.metrics.contains("load_seconds"));
}

TEST_CASE("case runner: what cannot run becomes a status and a reason, without numbers") {
  const TemporaryDirectory folder;
  const auto record_of = [](const std::string& model, const Scenario& scenario) {
    Record record = Cases(model, "reference", {scenario}).run().at(0);
    CHECK(record.metrics.empty());
    return record;
  };
  using Catch::Contains;
  const Record missing = record_of("/no/such/model", LoadScenario{});
  CHECK(missing.status == Status::kFailed);
  CHECK_THAT(missing.reason, Contains("/no/such/model"));

  const Record wordless = record_of(tiny(), task_of(1));
  CHECK(wordless.status == Status::kUnsupported);
  CHECK_THAT(wordless.reason, Contains("tokenizer"));

  const Record long_context = record_of(tiny(), PrefillScenario{1 << 20, 0, 1});
  CHECK(long_context.status == Status::kUnsupported);
  CHECK_THAT(long_context.reason, Contains("1048577 positions of context"));
}

TEST_CASE("case runner: a case too long for the model does not cost the others") {
  const auto records = Cases(tiny(), "reference",
                             {PrefillScenario{8, 0, 2}, DecodeScenario{1, 1 << 20, 4, 2},
                              DecodeScenario{2, 8, 4, 2}})
                           .run();
  CHECK(records[0].status == Status::kOk);
  CHECK(records[1].status == Status::kUnsupported);
  CHECK(records[2].status == Status::kOk);
}

TEST_CASE("case runner: a model whose logits are not numbers gets a status instead of times") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  TensorSpecs tensors = read_tensors(model.path());
  TensorSpec& norm = find_tensor(tensors, "model.norm.weight");
  // Finite weights whose products are not: infinity times zero is no number.
  norm = tensor_of_floats(norm.name, "BF16", norm.shape,
                          std::vector<float>(static_cast<std::size_t>(norm.size()), 3e38F));
  const TemporaryDirectory broken;
  write_checkpoint(broken.path(), read_json(model.path() / "config.json"), tensors);
  const auto records = Cases(broken.path().string(), "reference",
                             {LoadScenario{}, PrefillScenario{8, 0, 2}, DecodeScenario{1, 8, 4, 2}})
                           .run();
  for (const Record& r : records) {
    INFO(r.label << ": " << r.reason);
    CHECK(r.status == Status::kWrongOutput);
    CHECK_THAT(r.reason, Catch::Contains("nan"));
    CHECK_FALSE(r.metrics.contains("prefill_tokens_per_second"));
    CHECK_FALSE(r.metrics.contains("decode_tokens_per_second"));
  }
}

TEST_CASE("case runner: an interruption passes through, and the ledger keeps its answers") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  const Cases cases(model.path().string(), "reference", {task_of(50)});
  CaseRunnerOptions options;
  options.engine.max_batch = 1;
  options.out_dir = cases.folder.path();
  const auto path = ledger_path(cases.folder.path(), cases.list[0].id);
  options.stop_requested = [&] { return read_ledger(path).size() >= 2; };
  CaseRunner runner(cases.list, options);
  check_error([&] { runner.run(cases.list[0]); }, ErrorCode::kInterrupted, {"interrupted"});
  CHECK(read_ledger(path).size() == 2);
}

}  // namespace moebench::test
