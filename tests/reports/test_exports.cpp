// A run for other tools: lm-eval's two files, which our importer reads back, and the Hub's YAML.
#include <catch2/catch.hpp>

#include "reports/export_hub.h"
#include "reports/export_lm_eval.h"
#include "reports/import_results.h"
#include "tests/support/files.h"
#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::vector<Json> lines_of(const std::filesystem::path& path) {
  std::vector<Json> lines;
  for_each_json_line(read_file(path), path.string(), 64,
                     [&](const Json& line, const std::string&) { lines.push_back(line); });
  return lines;
}

std::filesystem::path file_like(const std::vector<std::filesystem::path>& files,
                                const std::string& begin) {
  for (const auto& file : files) {
    if (file.filename().string().starts_with(begin)) return file;
  }
  FAIL("no file begins with " << begin);
  return {};
}

}  // namespace

TEST_CASE("export lm-eval: scores, errors and samples by its keys") {
  RunFolder run;
  // Two questions, two answers each: 1, 0 and 1, 1. Clustered by question: mean 3/4, SE 1/4.
  run.add_task("int4", {answer("q1", true, 0), answer("q1", false, 1), answer("q2", true, 0),
                        answer("q2", true, 1)});
  const TemporaryDirectory folder;
  const auto files = export_lm_eval(read_run_results(run.path()), folder.path());
  REQUIRE(files.size() == 2);
  CHECK(files[0].parent_path() == folder.path() / "m__int4");
  CHECK(files[0].filename() == "results_2026-01-31T12-00-00.000000.json");
  CHECK(files[1].filename() == "samples_nano_2026-01-31T12-00-00.000000.jsonl");

  const Json results = read_json(files[0]);
  const Json& scores = results.at("results").at("nano");
  CHECK(scores.at("exact_match,none") == 0.75);
  CHECK(scores.at("exact_match_stderr,none") == Approx(0.25));
  CHECK(scores.at("sample_len") == 2);
  CHECK(results.at("n-samples").at("nano").at("effective") == 2);
  CHECK(results.at("config").at("model_args") == "model=m,plan=int4");
  CHECK(results.at("higher_is_better").at("nano").at("exact_match") == true);
  CHECK(results.at("total_evaluation_time_seconds").is_string());

  const auto samples = lines_of(files[1]);
  REQUIRE(samples.size() == 2);
  CHECK(samples[0].at("doc_id") == 0);
  CHECK(samples[0].at("doc").at("id") == "q1");
  CHECK(samples[0].at("target") == "A");
  CHECK(samples[0].at("resps") == Json::array({Json::array({"Answer: A", "Answer: B"})}));
  CHECK(samples[0].at("filtered_resps") == Json::array({"A", "B"}));
  CHECK(samples[0].at("exact_match") == 0.5);
  CHECK(samples[1].at("exact_match") == 1.0);

  // Read back, it is what it was.
  const ImportedRun again = import_results(files[0]);
  REQUIRE(again.records.size() == 1);
  CHECK(again.records[0].label == "lm-eval (moebench) / nano low");
  CHECK(again.records[0].metrics.at("accuracy").value == 0.75);
  CHECK(again.answers.empty());  // half a question is no answer
}

TEST_CASE("export lm-eval: read back, its samples are the same questions, right and wrong") {
  RunFolder run;
  run.add_task("int4", {answer("q1", true), answer("q2", false)}, {{"protocol", "other way"}});
  const TemporaryDirectory folder;
  const auto files = export_lm_eval(read_run_results(run.path()), folder.path());
  const ImportedRun again = import_results(files[0]);
  REQUIRE(again.records.size() == 1);
  const auto& lines = again.answers.at(again.records[0].case_id);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].item == "q1");
  CHECK(lines[0].correct());
  CHECK(lines[1].item == "q2");
  CHECK(lines[1].answer == "B");
  CHECK(lines[1].category == "made up");
  CHECK_FALSE(lines[1].correct());
}

TEST_CASE("export lm-eval: likelihoods, efforts and plans apart") {
  RunFolder run;
  LedgerLine line = answer("q", false);
  line.options = {{-1.5, 1, 6, 6}, {-2.0, 2, 12, 12}};  // per byte the second is better
  line.expected = "B";
  line.answer = "A";
  run.add_task("fast",
               {line,
                [&] {
                  LedgerLine other = line;
                  other.item = "r";
                  return other;
                }()},
               {{"task", "arc_easy"}});
  run.add_task("int4", {answer("q", true)});
  run.add_task("int4", {answer("q", false)}, {{"effort", "high"}});
  const TemporaryDirectory folder;
  const auto files = export_lm_eval(read_run_results(run.path()), folder.path());
  REQUIRE(files.size() == 5);
  const Json results = read_json(files[0]);
  CHECK(results.at("results").at("arc_easy").at("acc,none") == 0);
  CHECK(results.at("results").at("arc_easy").at("acc_norm,none") == 1);
  CHECK(results.at("results").at("arc_easy").at("acc_stderr,none") == "N/A");  // no spread
  const auto samples = lines_of(file_like(files, "samples_arc_easy"));
  CHECK(samples[0].at("filtered_resps") == Json::parse(R"([["-1.5"], ["-2"]])"));
  CHECK(samples[0].at("metrics") == Json::array({"acc"}));
  file_like(files, "samples_nano_low");
  file_like(files, "samples_nano_high");
}

TEST_CASE("export lm-eval: names from a model's path stay in their folder") {
  RunFolder run;
  Record record = run.add_task("../../x y", {answer("q", true)});
  const TemporaryDirectory folder;
  const auto files = export_lm_eval(read_run_results(run.path()), folder.path());
  CHECK(files[0].parent_path() == folder.path() / "m__.._.._x_y");
  RunFolder empty;
  check_error([&] { export_lm_eval(read_run_results(empty.path()), folder.path()); },
              ErrorCode::kInvalidArgument, {"no answers"});
}

TEST_CASE("export for the hub: model-index of one plan, in per cent with its interval") {
  RunFolder run;
  Record record = run.add_task("int4", {answer("q", true)});
  record.case_id = "00000000000000aa";
  record.scenario["task"] = "gpqa_diamond";
  record.scenario["effort"] = "high";
  record.label = "int4 / gpqa_diamond high";
  record.details["protocol"] = {{"name", "openai"}};
  record.metrics["accuracy"].value = 0.7154;
  record.metrics["accuracy"].interval = Interval{0.65, 0.78, 0.95};
  record.metrics["accuracy"].count = 1584;
  run.add(record);
  const RunResults results = read_run_results(run.path());
  const std::string yaml = model_index_yaml(results);
  CHECK(
      yaml.starts_with("model-index:\n- name: \"m\"\n  results:\n  - task:\n"
                       "      type: text-generation\n      name: \"nano, effort low\"\n"));
  CHECK(yaml.find("    dataset:\n      type: \"Idavidrein/gpqa\"\n      name: \"gpqa_diamond\"\n"
                  "      config: \"gpqa_diamond\"\n      split: \"train\"\n") != std::string::npos);
  CHECK(yaml.find("    - type: accuracy\n      value: 71.54\n") != std::string::npos);
  CHECK(yaml.find("interval_95: \"65.00 to 78.00\"\n") != std::string::npos);

  // nano is on no hub.
  const auto files = eval_results_yaml(results);
  REQUIRE(files.size() == 1);
  CHECK(files[0].name == "gpqa_diamond_high.yaml");
  CHECK(files[0].text.starts_with(
      "- dataset:\n    id: \"Idavidrein/gpqa\"\n    task_id: \"gpqa_diamond\"\n  value: 71.54\n"
      "  date: \"2026-01-31\"\n  notes: \"Accuracy in per cent (0 to 100) of 1584 answers"));
}

TEST_CASE("export for the hub: several plans need a choice, and texts cannot break the YAML") {
  RunFolder run;
  run.add_task("int4", {answer("q", true)});
  run.add_task("fast", {answer("q", true)});
  const RunResults results = read_run_results(run.path());
  check_error([&] { model_index_yaml(results); }, ErrorCode::kInvalidArgument, {"int4, fast"});
  check_error([&] { model_index_yaml(results, "nvfp4"); }, ErrorCode::kInvalidArgument,
              {"'nvfp4'", "int4, fast"});
  CHECK(model_index_yaml(results, "fast").find("plan: \"fast\"") != std::string::npos);
  CHECK(yaml_text("a: \"b\"\n- c\\ é") == "\"a: \\\"b\\\"\\n- c\\\\ \\u00e9\"");
}

TEST_CASE("export: the command writes what was asked for beside the page") {
  RunFolder run;
  run.add_task("int4", {answer("q", true), answer("r", false)});
  const TemporaryDirectory folder;
  const std::string out = folder.path().string();
  const ProcessResult result =
      run_moebench(fmt::format("report {} -o {}/r.html --lm-eval {}/lm --model-index {}/index.yaml "
                               "--eval-results {}/results",
                               run.path().string(), out, out, out, out));
  INFO(result.out << result.err);
  CHECK(result.exit_code == 0);
  CHECK(std::filesystem::exists(folder.path() / "index.yaml"));
  CHECK(std::filesystem::exists(folder.path() / "lm" / "m__int4"));
  CHECK(result.out.find("no task on a dataset of the Hub") != std::string::npos);
  CHECK(run_moebench(fmt::format("report {0} {0} -o {1}/r.html --model-index {1}/i",
                                 run.path().string(), out))
            .exit_code == 3);
}

}  // namespace moebench::test
