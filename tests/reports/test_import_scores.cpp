// Accuracy of other harnesses: lm-eval's own file, gpt_oss.evals' and simple-evals' names and keys.
#include <catch2/catch.hpp>

#include "reports/compare.h"
#include "reports/html.h"
#include "reports/import_results.h"
#include "reports/report.h"
#include "tests/support/files.h"
#include "tests/support/labels.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// As gpt_oss.evals writes it.
constexpr const char* kGptOss = R"({"chars": 1042.5, "chars:std": 310.0, "score": 0.6729,
  "score:std": 0.4691})";

Record only_record(std::string_view text, std::string_view file) {
  const ImportedRun run = import_results_text(text, file);
  REQUIRE(run.records.size() == 1);
  return run.records.front();
}

}  // namespace

TEST_CASE("import: lm-eval's results, as the harness itself wrote them") {
  const std::string text = read_file(golden("lm_eval") / "results_2026-01-31T12-00-00.000000.json");
  const Json theirs = Json::parse(text).at("results").at("nano_arc");
  const ImportedRun run = import_results_text(text, "results.json");
  REQUIRE(run.records.size() == 2);
  const Record& arc = run.records[0];
  CHECK(arc.kind == "task");
  CHECK(arc.model == "nano");
  CHECK(arc.plan == "lm-eval");
  CHECK(label_of(arc) == "nano_arc");
  const Metric& accuracy = arc.metrics.at("accuracy");
  CHECK(accuracy.value == theirs.at("acc,none").get<double>());
  CHECK(accuracy.count == 40);
  REQUIRE(accuracy.interval);
  const double se = theirs.at("acc_stderr,none").get<double>();
  CHECK(accuracy.interval->high == Approx(accuracy.value + 1.959964 * se).epsilon(1e-6));
  CHECK(arc.metrics.at("accuracy_per_character").value == theirs.at("acc_norm,none").get<double>());
  CHECK(arc.metrics.at("accuracy_per_byte").value == theirs.at("acc_bytes,none").get<double>());
  const Metric& bits = run.records[1].metrics.at("bits_per_byte");
  CHECK(bits.better == "lower");
  CHECK_FALSE(bits.interval);  // "N/A"
}

TEST_CASE("import: an answer filter of lm-eval is a way of its own") {
  const ImportedRun run = import_results_text(
      R"({"results": {"gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.5,
          "exact_match_stderr,strict-match": 0.6, "exact_match,flexible-extract": 0.75,
          "other,flexible-extract": 3}}, "n-shot": {"gsm8k": 5},
          "config": {"model": "vllm", "model_args": "pretrained=x"}})",
      "r.json");
  REQUIRE(run.records.size() == 2);
  std::map<std::string, const Record*> by_label;
  for (const Record& record : run.records) by_label[label_of(record)] = &record;
  const Metric& strict = by_label.at("gsm8k (strict-match)")->metrics.at("accuracy");
  CHECK(strict.value == 0.5);
  CHECK(strict.interval->low == 0);  // a share is not below 0
  CHECK(strict.interval->high == 1);
  CHECK(by_label.at("gsm8k (flexible-extract)")->metrics.at("accuracy").value == 0.75);
  CHECK(run.records[0].plan == "lm-eval (vllm)");
  CHECK(run.records[0].model == "pretrained=x");
}

TEST_CASE("import: gpt_oss.evals says in the file's name what it asked") {
  const Record gpqa =
      only_record(kGptOss, "gpqa_openai__gpt-oss-20b-low_temp1.0_20260131_120000.json");
  CHECK(gpqa.model == "openai/gpt-oss-20b");
  CHECK(gpqa.plan == "gpt_oss.evals");
  CHECK(label_of(gpqa) == "gpqa_diamond low");  // as ours
  CHECK(gpqa.scenario.at("effort") == "low");
  CHECK(gpqa.metrics.at("accuracy").value == 0.6729);
  CHECK_FALSE(gpqa.metrics.at("accuracy").interval);
  CHECK(label_of(only_record(kGptOss, "aime25_m-high_temp1.0_20260131_120000_DEBUG.json")) ==
        "aime_2025 high");
  const Record full = only_record(
      R"({"score": 1.0, "metrics": {}, "htmls": ["a", "b"], "convos": [], "metadata": null})",
      "healthbench_hard_m-medium_temp1.0_20260131_120000_allresults.json");
  CHECK(label_of(full) == "healthbench_hard medium");
  CHECK(full.metrics.at("accuracy").count == 2);
}

TEST_CASE("import: simple-evals has its own way to put a task") {
  const Record gpqa = only_record(kGptOss, "gpqa_gpt-4o.json");
  CHECK(gpqa.plan == "simple-evals");
  CHECK(gpqa.model == "gpt-4o");
  CHECK(label_of(gpqa) == "gpqa_diamond (simple-evals)");
  CHECK(label_of(only_record(kGptOss, "drop_gpt-4o.json")) == "drop");
  const Record nameless = only_record(kGptOss, "x.json");
  CHECK(nameless.model == "a model");
}

TEST_CASE("import: scores of other harnesses stand in the report beside a run") {
  RunFolder ours;
  ours.add_task("reference", {answer("a", true), answer("b", false)});
  const TemporaryDirectory folder;
  const auto file = folder.path() / "nano_m-low_temp1.0_20260131_120000.json";
  write_file(file, kGptOss);
  const OrderedJson report = build_report({ours.path(), file}, {});
  CHECK(schema_errors(read_json(source_dir() / "reports" / "report.schema.json"),
                      Json::parse(report.dump())) == "");
  const std::string page = render_html(report);
  CHECK(page.find("gpt_oss.evals") != std::string::npos);
  CHECK(page.find("67.3") != std::string::npos);
}

namespace {

const std::string kTime = "2026-01-31T12-00-00.000000";

// lm-eval's own files in a folder, its scores with the first `num_lost` right answers made wrong.
std::filesystem::path logged_run(const std::filesystem::path& folder, int num_lost) {
  Json results = read_json(golden("lm_eval") / ("results_" + kTime + ".json"));
  std::string samples;
  double right = 0;
  std::istringstream lines(read_file(golden("lm_eval") / ("samples_nano_arc_" + kTime + ".jsonl")));
  for (std::string text; std::getline(lines, text);) {
    Json line = Json::parse(text);
    if (line.at("acc") == 1.0 && num_lost-- > 0) line["acc"] = 0.0;
    right += line.at("acc").get<double>();
    samples += line.dump() + "\n";
  }
  results["results"]["nano_arc"]["acc,none"] = right / 40;
  std::filesystem::create_directories(folder);
  write_file(folder / ("samples_nano_arc_" + kTime + ".jsonl"), samples);
  write_file(folder / ("results_" + kTime + ".json"), results.dump());
  return folder / ("results_" + kTime + ".json");
}

std::vector<LedgerLine> only_answers(std::string_view text, std::string_view file) {
  const ImportedRun run = import_results_text(text, file);
  REQUIRE(run.records.size() == 1);
  return run.answers.at(run.records[0].case_id);
}

}  // namespace

TEST_CASE("import: lm-eval's samples, as the harness itself wrote them") {
  const std::string name = "samples_nano_arc_" + kTime + ".jsonl";
  const ImportedRun run = import_results_text(read_file(golden("lm_eval") / name), name);
  REQUIRE(run.records.size() == 1);
  const Record& record = run.records[0];
  CHECK(record.label == "lm-eval / nano_arc");
  CHECK(record.metrics.at("accuracy").value == 0.35);  // as its results file has it
  CHECK(record.metrics.at("accuracy").count == 40);
  REQUIRE(record.metrics.at("accuracy").interval);
  CHECK_FALSE(record.metrics.contains("output_tokens_mean"));
  CHECK(record.details.at("verdicts").at("correct") == 14);
  const std::vector<LedgerLine>& answers = run.answers.at(record.case_id);
  REQUIRE(answers.size() == 40);
  CHECK(answers[0].item == "nano-0014");
  CHECK(answers[0].expected == "C");  // target "2"
  CHECK(answers[0].answer == "B");    // -10.09 is the greatest
  CHECK(answers[0].verdict == Verdict::kWrong);
  for (const LedgerLine& line : answers) CHECK(line.correct() == (line.answer == line.expected));
}

TEST_CASE("import: samples beside lm-eval's results pair two runs by question") {
  const TemporaryDirectory folder;
  const RunResults base = read_run_results(logged_run(folder.path() / "a", 0));
  const RunResults candidate = read_run_results(logged_run(folder.path() / "b", 3));
  REQUIRE(base.answers(base.records[0].case_id).size() == 40);
  CHECK(base.records[0].metrics.at("accuracy").interval_method ==
        "normal, by lm-eval's standard error");
  CHECK(base.records[0].details.at("verdicts").at("wrong") == 26);
  const RunComparison comparison = compare_sides({base}, {{candidate}}, {});
  const auto accuracy = std::find_if(comparison.metrics.begin(), comparison.metrics.end(),
                                     [](const auto& m) { return m.metric == "accuracy"; });
  REQUIRE(accuracy != comparison.metrics.end());
  CHECK(accuracy->count == 40);
  CHECK(accuracy->counted == "answers");
  CHECK(accuracy->change == Approx(-3.0 / 40));
  CHECK(accuracy->lost.size() == 3);
  CHECK(accuracy->gained.empty());
  REQUIRE(accuracy->interval);
  CHECK(accuracy->interval->high < 0.02);
  // In the report they stand item by item.
  const OrderedJson report =
      build_report({folder.path() / "a" / ("results_" + kTime + ".json")}, {});
  CHECK(report.at("items").size() == 40);
  CHECK(schema_errors(read_json(source_dir() / "reports" / "report.schema.json"),
                      Json::parse(report.dump())) == "");
}

TEST_CASE("import: samples that are not of the results beside them are left out") {
  const TemporaryDirectory folder;
  const auto file = logged_run(folder.path(), 0);
  const auto samples = folder.path() / ("samples_nano_arc_" + kTime + ".jsonl");
  SECTION("another score") {
    std::string text = read_file(samples);
    text.replace(text.find("\"acc\":0.0"), 9, "\"acc\":1.0");
    write_file(samples, text);
  }
  SECTION("a mean of answers") {
    std::string text = read_file(samples);
    text.replace(text.find("\"acc\":0.0"), 9, "\"acc\":0.5");
    write_file(samples, text);
  }
  const RunResults run = read_run_results(file);
  CHECK(run.answers(run.records[0].case_id).empty());
  CHECK(run.records[0].details.at("samples_left_out").get<std::string>().find("mean") !=
        std::string::npos);
}

TEST_CASE("import: what a sample is called, and what its answer was") {
  const auto sample = [](const std::string& fields) {
    return R"({"target": "4", "resps": [["so 4"]], "metrics": ["exact_match"], )" + fields + "}\n";
  };
  const std::string name = "samples_gsm8k_" + kTime + ".jsonl";
  const std::string first = sample(
      R"("doc_id": 0, "doc": {"id": 7}, "doc_hash": "aa", "filtered_resps": ["4"], "exact_match": 1.0)");
  const auto with = [&](const std::string& fields) {
    return only_answers(first + sample(fields), name);
  };
  auto lines = with(
      R"("doc_id": 1, "doc": {"id": "x", "subject": "sums"}, "doc_hash": "bb", "filtered_resps": ["[invalid]"], "exact_match": 0.0)");
  CHECK(lines[0].item == "7");
  CHECK(lines[1].item == "x");
  CHECK(lines[1].category == "sums");
  CHECK(lines[0].answer == "4");
  CHECK(lines[0].final_text == "so 4");
  CHECK(lines[1].verdict == Verdict::kUnparsed);
  CHECK(lines[1].answer.empty());
  // An id that two have is none; nor is one that one lacks.
  lines = with(
      R"("doc_id": 1, "doc": {"id": 7}, "doc_hash": "bb", "filtered_resps": ["5"], "exact_match": false)");
  CHECK(lines[1].item == "bb");
  CHECK(lines[1].verdict == Verdict::kWrong);
  lines = with(
      R"("doc_id": 1, "doc": {}, "doc_hash": "aa", "filtered_resps": [["5"]], "exact_match": 0)");
  CHECK(lines[1].item == "1");
  CHECK(lines[1].answer == "5");
  // Filters are records of their own.
  const ImportedRun two = import_results_text(
      sample(
          R"("doc_id": 0, "filtered_resps": ["4"], "exact_match": 1, "filter": "strict-match")") +
          sample(R"("doc_id": 0, "filtered_resps": ["4"], "exact_match": 0, "filter": "flexible")"),
      name);
  REQUIRE(two.records.size() == 2);
  CHECK(two.records[0].label == "lm-eval / gsm8k (flexible)");
  CHECK(two.records[0].metrics.at("accuracy").value == 0);

  // GPQA's texts stay where they are.
  lines = only_answers(first, "samples_leaderboard_gpqa_main_" + kTime + ".jsonl");
  CHECK(lines[0].final_text.empty());
  CHECK_FALSE(lines[0].hidden_text_hash.empty());

  const auto bad = [&](const std::string& fields, std::initializer_list<std::string> words) {
    check_error([&] { import_results_text(first + sample(fields), name); },
                ErrorCode::kInvalidArgument, words);
  };
  bad(R"("doc_id": 1, "filtered_resps": [], "exact_match": 1.5)", {name, "[1].exact_match", "1.5"});
  bad(R"("doc_id": 1, "filtered_resps": [], "acc": "yes")", {"[1].acc", "yes"});
  bad(R"("doc_id": 1)", {"[1]", "filtered_resps"});
  bad(R"("doc_id": 0, "filtered_resps": [], "exact_match": 1)", {"one question"});
  bad(R"("doc_id": 1, "filtered_resps": [], "exact_match": 0.5)", {"mean of several"});
  check_error([&] { import_results_text(sample(R"("doc_id": 1, "filtered_resps": [])"), name); },
              ErrorCode::kInvalidArgument, {"neither acc nor exact_match"});
}

TEST_CASE("import: scores that are none are refused by name") {
  const auto bad = [](std::string_view text, std::initializer_list<std::string> words) {
    INFO(text);
    check_error([&] { import_results_text(text, "x.json"); }, ErrorCode::kInvalidArgument, words);
  };
  bad(R"({"score": 67.3, "chars": 1})", {"x.json: [0].score", "share", "67.3"});
  bad(R"({"score": -0.1, "chars": 1})", {"score"});
  bad(R"({"results": {"t": {"acc,none": 1.5}}, "n-shot": {}})", {"results.t", "acc,none"});
  bad(R"({"results": {"t": {"acc,none": 0.5, "acc_stderr,none": -1}}, "n-shot": {}})",
      {"standard error"});
  bad(R"({"results": {"t": 5}, "n-shot": {}})", {"results.t"});
  bad(R"({"results": {}, "n-shot": {}})", {"no result"});
  bad(R"({"results": {"t": {"f1,none": 0.5}}, "n-shot": {}})", {"no result"});
}

}  // namespace moebench::test
