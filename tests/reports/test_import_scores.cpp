// Accuracy of other harnesses: lm-eval's own file, gpt_oss.evals' and simple-evals' names and keys.
#include <catch2/catch.hpp>

#include "reports/html.h"
#include "reports/import_results.h"
#include "reports/report.h"
#include "tests/support/files.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// As gpt_oss.evals writes it.
constexpr const char* kGptOss = R"({"chars": 1042.5, "chars:std": 310.0, "score": 0.6729,
  "score:std": 0.4691})";

std::string label_of(const Record& record) { return scenario_of_label(record.label, record.plan); }

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
