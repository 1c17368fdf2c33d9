// report.json: valid by its schema for real runs, also where cases failed, and right in what it
// compares.
#include <catch2/catch.hpp>

#include "bench/environment.h"
#include "reports/html.h"
#include "reports/report.h"
#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/scripted_model.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::string report_errors(const Json& report) {
  return schema_errors(read_json(source_dir() / "reports" / "report.schema.json"), report);
}

// Runs a suite with the built program and returns its report; the exit code must be as given.
Json report_of(const Json& suite, int exit_code) {
  const TemporaryDirectory folder;
  write_file(folder.path() / "suite.json", suite.dump());
  const auto out = folder.path() / "out";
  const ProcessResult run =
      run_moebench("run " + (folder.path() / "suite.json").string() + " --out " + out.string());
  INFO(run.out << run.err);
  REQUIRE(run.exit_code == exit_code);
  REQUIRE(std::filesystem::exists(out / "report.html"));
  return read_json(out / "report.json");
}

Json suite_of(const std::string& model) {
  return {
      {"name", "small"},
      {"models", {model}},
      {"plans", {"reference", "int4"}},
      {"threads", 2},
      {"max_batch", 4},
      {"workloads",
       {{{"kind", "prefill"}, {"tokens", 16}, {"repetitions", 3}},
        {{"kind", "decode"}, {"batch", {1, 2}}, {"context", 8}, {"tokens", 4}}}},
      {"tasks", {{{"task", "nano"}, {"effort", "low"}, {"limit", 10}}}},
      {"probes", {{{"kind", "invariance"}, {"items", 2}}, {{"kind", "fidelity"}, {"items", 2}}}}};
}

const Json& only(const Json& list, const std::string& field, const std::string& value) {
  for (const Json& one : list) {
    if (one.at(field) == value) return one;
  }
  FAIL("nothing with " << field << " " << value);
  throw std::logic_error("unreachable");
}

}  // namespace

TEST_CASE("report: a run with every kind of case validates, and says what its ledgers say") {
  const TemporaryDirectory model;
  write_scripted_checkpoint(model.path(), kSaysB);
  const Json report = report_of(suite_of(model.path().string()), 0);
  CHECK(report_errors(report) == "");
  CHECK(report.at("records").size() == 6 + 7);  // the reference is not compared with itself
  REQUIRE(report.at("summary").size() == 2);
  double correct = 0;
  std::istringstream lines(read_file(source_dir() / "datasets" / "nano" / "questions.jsonl"));
  std::string line;
  for (int i = 0; i < 10 && std::getline(lines, line); ++i) {
    correct += Json::parse(line).at("answer") == "B" ? 1 : 0;
  }
  for (const Json& row : report.at("summary")) {
    CHECK(row.at("accuracy").at(0).at("accuracy").at("value") == Approx(correct / 10));
    CHECK(row.at("decode").size() == 2);
    CHECK(row.at("prefill").size() == 1);
    CHECK(row.at("deterministic").at("value") == 1);
    CHECK(row.at("failures").empty());
    CHECK(row.at("peak_rss_bytes").get<double>() > 0);
  }
  CHECK(only(report.at("summary"), "plan", "int4").at("mean_kl").at("value") == 0);
  // Every position of an answer belongs to one stage of it.
  const Json& fidelity = only(report.at("records"), "kind", "fidelity").at("details");
  std::int64_t positions = 0;
  std::int64_t next = 0;
  for (const Json& stage : fidelity.at("kl_by_position")) {
    CHECK(stage.at("from") == next);
    next = stage.at("to").get<std::int64_t>();
    CHECK(next == 2 * stage.at("from").get<std::int64_t>() + 1);
    positions += stage.at("positions").get<std::int64_t>();
  }
  CHECK(positions == fidelity.at("positions"));
  for (const Json& verdict : report.at("verdicts")) CHECK(verdict.at("plan") == "int4");
  CHECK(only(report.at("verdicts"), "metric", "accuracy").at("outcome") == "SAME");
  CHECK(report.at("items").size() == 10);
  for (const Json& item : report.at("items")) {
    CHECK(item.at("answers").size() == 2);
    CHECK(item.at("choices").size() == 4);
    CHECK(item.at("flips") == 0);
  }
  REQUIRE(report.at("comparisons").size() == 1);
  CHECK(report.at("comparisons")[0].at("p_value") == 1);

  // The schema is no rubber stamp: each of these makes the same report invalid.
  const auto invalid_after = [&](const std::function<void(Json&)>& damage) {
    Json damaged = report;
    damage(damaged);
    CHECK(damaged != report);
    CHECK(report_errors(damaged) != "");
  };
  invalid_after([](Json& r) { r["schema"] = "moebench.report/2"; });
  invalid_after([](Json& r) { r.erase("summary"); });
  invalid_after([](Json& r) { r["surprise"] = 1; });
  invalid_after([](Json& r) { r["records"][0]["status"] = "fine"; });
  invalid_after([](Json& r) { r["records"][0]["metrics"].begin()->erase("unit"); });
  invalid_after([](Json& r) { r["records"][0]["metrics"].begin()->at("value") = "fast"; });
  invalid_after([](Json& r) { r["records"][0]["case_id"] = "XYZ"; });
  invalid_after([](Json& r) { r["items"][0]["answers"][0]["verdict"] = "right"; });
  invalid_after([](Json& r) { r["comparisons"][0]["p_value"] = 1.5; });
  invalid_after([](Json& r) { r["generated"] = "yesterday"; });
  invalid_after([](Json& r) { r["runs"] = Json::array(); });
}

TEST_CASE("report: a run with failed cases ends with 2, validates, and names them") {
  // Without a tokenizer the task and the probes cannot run; the rest can.
  const Json report = report_of(suite_of(golden("gpt-oss-tiny-a").string()), 2);
  CHECK(report_errors(report) == "");
  const Json& row = only(report.at("summary"), "plan", "int4");
  CHECK(row.at("accuracy").empty());
  CHECK(row.at("decode").size() == 2);
  CHECK(row.at("failures").size() == 3);
  for (const Json& failure : row.at("failures")) {
    CHECK(failure.at("status") == "unsupported");
    CHECK_THAT(failure.at("reason").get<std::string>(), Catch::Contains("tokenizer"));
  }
  CHECK(report.at("items").empty());
  CHECK(report.at("comparisons").empty());
}

TEST_CASE("report: gained and lost answers, and an exact p-value, by hand") {
  RunFolder run;
  std::vector<LedgerLine> before;
  std::vector<LedgerLine> after;
  for (int i = 0; i < 12; ++i) {
    const std::string item = fmt::format("item {}", i);
    before.push_back(answer(item, i < 9));  // 9 right
    after.push_back(answer(item, i >= 6));  // loses 0-5, gains 9-11
  }
  run.add_task("reference", before);
  run.add_task("int4", after);
  const Json report = build_report({run.path()}, {});
  CHECK(report_errors(report) == "");
  const Json& c = report.at("comparisons").at(0);
  CHECK(c.at("gained") == 3);
  CHECK(c.at("lost") == 6);
  CHECK(c.at("answers") == 12);
  CHECK(c.at("difference").get<double>() == Approx(-0.25));
  // 2 * P(X <= 3), X ~ Binomial(9, 1/2) = 2 * (1 + 9 + 36 + 84) / 512
  CHECK(c.at("p_value").get<double>() == Approx(260.0 / 512));
  // Flipped answers first.
  CHECK(report.at("items").at(0).at("flips") == 1);
  CHECK(report.at("items").at(11).at("flips") == 0);
}

TEST_CASE("report: differences of accuracy are those of the verdicts, however they were found") {
  // Two of forty answers differ; and a plan all of whose tokens are the reference's.
  RunFolder run;
  std::vector<LedgerLine> before;
  std::vector<LedgerLine> after;
  std::vector<LedgerLine> same;
  for (int i = 0; i < 40; ++i) {
    before.push_back(answer(fmt::format("item {}", i), i < 30));
    before.back().token_digest = fmt::format("{:016x}", i);
    after.push_back(answer(fmt::format("item {}", i), i < 28));
    same.push_back(before.back());
  }
  run.add_task("reference", before);
  run.add_task("int4", after, {{"settle", 0.02}, {"include_items", true}});
  run.add_task("fast", same);
  const Json report = build_report({run.path()}, {});
  CHECK(report_errors(report) == "");
  REQUIRE(report.at("comparisons").size() == 2);
  for (const Json& c : report.at("comparisons")) {
    const auto is_same_metric = [&](const Json& v) {
      return v.at("plan") == c.at("plan") && v.at("metric") == "accuracy";
    };
    const auto& verdicts = report.at("verdicts");
    const auto verdict = std::find_if(verdicts.begin(), verdicts.end(), is_same_metric);
    REQUIRE(verdict != verdicts.end());
    CHECK(c.at("difference") == verdict->at("change"));
    CHECK(c.at("interval") == verdict->at("interval"));
  }
  const Json& fast = only(report.at("comparisons"), "plan", "fast");
  CHECK(fast.at("interval").at("low") == 0);
  CHECK(fast.at("interval").at("high") == 0);
  CHECK(fast.at("p_value") == 1);
  CHECK(only(report.at("comparisons"), "plan", "int4").at("interval").at("low") < -0.05);
}

TEST_CASE("report: repeats of one question are no new evidence about others") {
  // Five items, each lost in all of its eight repeats: 40 lost answers, but five items.
  RunFolder run;
  std::vector<LedgerLine> before;
  std::vector<LedgerLine> after;
  for (int i = 0; i < 5; ++i) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      before.push_back(answer(fmt::format("item {}", i), true, repeat));
      after.push_back(answer(fmt::format("item {}", i), false, repeat));
    }
  }
  run.add_task("reference", before);
  run.add_task("int4", after);
  const Json report = build_report({run.path()}, {});
  CHECK(report.at("comparisons")[0].at("lost") == 40);
  CHECK(report.at("comparisons")[0].at("p_value").get<double>() == Approx(2.0 / 32));
}

TEST_CASE("report: p-values are adjusted for all comparisons of the report") {
  RunFolder run;
  std::vector<LedgerLine> right;
  std::vector<LedgerLine> worse;
  for (int i = 0; i < 10; ++i) {
    right.push_back(answer(fmt::format("item {}", i), true));
    worse.push_back(answer(fmt::format("item {}", i), i < 4));
  }
  run.add_task("reference", right);
  run.add_task("a", worse);
  run.add_task("b", right);
  const Json report = build_report({run.path()}, {});
  const Json& a = only(report.at("comparisons"), "plan", "a");
  CHECK(a.at("p_value").get<double>() == Approx(2.0 / 64));
  CHECK(a.at("p_value_holm").get<double>() == Approx(4.0 / 64));  // the smallest of two
  CHECK(only(report.at("comparisons"), "plan", "b").at("p_value_holm") == 1);
}

TEST_CASE("report: answers say at which token they leave the reference, if tokens are known") {
  RunFolder run;
  LedgerLine base = answer("x", true);
  base.analysis = "two and two";
  base.final_text = "four";
  base.tokens = {9, 1, 2, 1, 8, 4};
  base.token_bytes = {0, 4, 4, 3, 0, 4};
  LedgerLine other = base;
  other.analysis = "two or two";
  other.tokens[2] = 3;
  other.token_bytes = {0, 4, 3, 3, 0, 4};
  LedgerLine old = answer("y", true);
  run.add_task("reference", {base, old});
  run.add_task("int4", {other, old});
  const OrderedJson report = build_report({run.path()}, {});
  CHECK(report_errors(report) == "");
  const OrderedJson& items = report.at("items");
  const OrderedJson& x = items.at(0).at("answers");
  CHECK_FALSE(x.at(0).contains("first_divergence"));
  CHECK(Json(x.at(1).at("first_divergence")) ==
        Json({{"token", 2}, {"text", "analysis"}, {"byte", 4}, {"bytes", 3}}));
  CHECK_FALSE(items.at(1).at("answers").at(1).contains("first_divergence"));
  // The page for readers without JavaScript marks the token.
  CHECK_THAT(render_html(report), Catch::Contains("two <mark class=first>or </mark><mark>two"));
}

TEST_CASE("report: only answers that were asked in the same way are compared") {
  for (const OrderedJson& other : std::vector<OrderedJson>{
           {{"effort", "high"}}, {{"temperature", 1.0}}, {{"seed", 9}}, {{"max_tokens", 5}}}) {
    INFO(other.dump());
    RunFolder run;
    run.add_task("reference", {answer("x", true), answer("y", false)});
    run.add_task("int4", {answer("x", true), answer("y", true)}, other);
    CHECK(build_report({run.path()}, {}).at("comparisons").empty());
  }
  // A limit only says how many there are.
  RunFolder run;
  run.add_task("reference", {answer("x", true), answer("y", false)}, {{"limit", 2}});
  run.add_task("int4", {answer("x", true)}, {{"limit", 1}});
  CHECK(build_report({run.path()}, {}).at("comparisons").at(0).at("answers") == 1);
}

TEST_CASE("report: a run without any record yet still gives a valid report") {
  RunFolder run;
  const Json report = build_report({run.path()}, {});
  CHECK(report_errors(report) == "");
  CHECK(report.at("summary").empty());
}

TEST_CASE("report: the GPU that a run was measured on is in the report and on the page") {
  RunFolder run;
  Environment environment;
  environment.cpu = "a cpu";
  environment.cuda = "CUDA 13.0.88 for 90a-real";
  GpuEnvironment gpu{"NVIDIA H200",   "GPU-1",     "9.0",  132,
                     150'000'000'000, "580.65.06", "13.0", "13.0",
                     700.0,           1980,        3201,   true};
  for (const bool told : {true, false}) {
    if (!told) gpu.power_limit_watts.reset();
    environment.gpu = gpu;
    OrderedJson description = OrderedJson::parse(read_file(run.path() / "run.json"));
    description["environment"] = to_json(environment);
    write_file(run.path() / "run.json", json_line(description));
    const OrderedJson report = build_report({run.path()}, {});
    CHECK(report_errors(report) == "");
    const std::string page = render_html(report);
    CHECK_THAT(page, Catch::Contains("NVIDIA H200, compute capability 9.0, 132 SMs, 150.00 GB"));
    CHECK_THAT(page, Catch::Contains("driver 580.65.06 (CUDA 13.0)"));
    CHECK_THAT(page, Catch::Contains("SM clock up to 1980 MHz"));
    CHECK((page.find("700 W") != std::string::npos) == told);
  }
}

TEST_CASE("report: CUDA graphs are a category of memory, by the most that a case had") {
  RunFolder run;
  Record record;
  record.model = "m";
  record.plan = "cuda";
  record.started = "2026-01-31T12:00:00Z";
  record.kind = "load";
  record.case_id = "0000000000000001";
  record.scenario = {{"kind", "load"}};
  record.details["memory_taken"] = {{"weights", {{"experts", 5000000}}}, {"kv_cache", 1000000}};
  run.add(record);
  for (const int bytes : {2000000, 4000000, 3000000}) {
    record.kind = "invariance";
    record.scenario = {{"kind", "invariance"}};
    record.case_id = fmt::format("{:016x}", bytes);
    record.details = {{"graphs", {{"count", 2}, {"bytes", bytes}}}};
    run.add(record);
  }
  const OrderedJson report = build_report({run.path()}, {});
  CHECK(report_errors(report) == "");
  CHECK(report.at("summary").at(0).at("graphs_bytes") == 4000000);
  const std::string page = render_html(report);
  CHECK_THAT(page, Catch::Contains(R"({"name":"CUDA graphs","values":[4.0]})"));
  CHECK_THAT(page, Catch::Contains(">CUDA graphs</th>"));
}

TEST_CASE("report: transcripts can be left out") {
  RunFolder run;
  run.add_task("reference", {answer("x", true)});
  ReportOptions options;
  options.include_items = false;
  CHECK(build_report({run.path()}, options).at("items").empty());
}

TEST_CASE("report: what is no run, or of another version, is named") {
  const TemporaryDirectory empty;
  check_error([&] { build_report({empty.path()}, {}); }, ErrorCode::kIo,
              {empty.path().string(), "run.json"});
  check_error([] { build_report({}, {}); }, ErrorCode::kInvalidArgument, {"no run"});
  RunFolder run;
  write_file(run.path() / "run.json", R"({"schema": "moebench.run/7"})");
  check_error([&] { build_report({run.path()}, {}); }, ErrorCode::kInvalidArgument,
              {"run.json", "moebench.run/7", "moebench.run/1 is"});
}

}  // namespace moebench::test
