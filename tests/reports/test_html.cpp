// report.html: one file that needs nothing else, and in which nothing a model wrote is markup.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "reports/html.h"
#include "reports/report.h"
#include "tests/support/run_folder.h"

namespace moebench::test {
namespace {

// Text that tries to leave every context it may stand in: element, attribute, script, comment.
const std::vector<std::string> kHostile = {
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"><svg onload=alert(2)>",
    "' onmouseover='alert(3)",
    "</pre></td></details><h1>owned</h1>",
    "]]><![CDATA[</textarea></title>",
    "&lt;b&gt; \xe2\x80\xa8 \xff\xfe",
};

std::string page_of(const OrderedJson& report) { return render_html(report); }

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

// Without the text between these two tags, tags included.
std::string without(std::string text, const std::string& begin_tag, const std::string& end_tag) {
  for (std::size_t begin; (begin = text.find(begin_tag)) != std::string::npos;) {
    text.erase(begin, text.find(end_tag, begin) + end_tag.size() - begin);
  }
  return text;
}

std::string without_scripts(const std::string& page) {
  return without(page, "<script", "</script>");
}

// What the charts of a page show, by their ids.
Json charts_of(const std::string& page) {
  const std::string begin = "<script type=\"application/json\" id=data>";
  const std::size_t at = page.find(begin) + begin.size();
  return Json::parse(page.substr(at, page.find("</script>", at) - at)).at("charts");
}

// What every page must be.
void check_page(const std::string& page) {
  CHECK_THAT(page.substr(0, 15), Catch::Equals("<!doctype html>", Catch::CaseSensitive::No));
  CHECK(count_of(page, "</html>") == 1);
  CHECK(count_of(page, "<script") == count_of(page, "</script>"));
  // Nothing is loaded from elsewhere: links are fragments or data.
  const std::string markup = without_scripts(page);
  CHECK(count_of(markup, "@import") == 0);
  CHECK(count_of(markup, "<link") == 0);
  CHECK_FALSE(std::regex_search(markup, std::regex("url\\((?!['\"]?(data:|#))")));
  const std::regex tag("<[a-zA-Z][^<>]{0,4000}>");
  const std::regex attribute("([a-zA-Z-]+)\\s*=\\s*(?:\"([^\"]*)\"|'([^']*)'|([^\\s\"'>]+))");
  const std::set<std::string> links = {"src", "href", "srcset", "action", "formaction", "poster"};
  for (std::sregex_iterator it(markup.begin(), markup.end(), tag), end; it != end; ++it) {
    const std::string text = it->str();
    for (std::sregex_iterator one(text.begin(), text.end(), attribute); one != end; ++one) {
      const std::string name = (*one)[1];
      const std::string target = (*one)[2].str() + (*one)[3].str() + (*one)[4].str();
      INFO(text);
      CHECK(name.rfind("on", 0) != 0);  // no handlers: scripts add what they need
      if (!links.contains(name)) continue;
      CHECK((target.empty() || target[0] == '#' || target.rfind("data:", 0) == 0));
    }
  }
}

}  // namespace

TEST_CASE("html: serving has a table of definitions, and a sweep its rates and its curve") {
  RunFolder run;
  Record record;
  record.case_id = "00000000000000e1";
  record.label = "reference / serve poisson sweep auto, 512 in, 128 out";
  record.model = "m";
  record.plan = "reference";
  record.kind = "serve";
  record.scenario = {{"kind", "serve"}};
  record.started = "2026-01-31T12:00:00Z";
  Metric rate;
  rate.unit = "tokens/s";
  rate.value = 123;
  record.metrics["serve_tokens_per_second"] = rate;
  Metric p99;
  p99.unit = "ms";
  p99.absent = true;
  p99.interval_method = "40 samples are too few";
  record.metrics["ttft_ms_p99"] = p99;
  record.details["knee_rule"] = "at least 95 % of requests keep ttft:200";
  record.details["points"] = {{{"rate", 2.0},
                               {"holds", true},
                               {"serve_tokens_per_second", 61.5},
                               {"ttft_ms_p50", 17.25},
                               {"ttft_ms_p99", nullptr}}};
  run.add(record);
  const OrderedJson report = build_report({run.path()}, {});
  const std::string page = page_of(report);
  check_page(page);
  CHECK(count_of(page, "<section id=serving>") == 1);
  CHECK(count_of(page, "href=\"#serving\"") == 1);
  const std::string words = without_scripts(page);
  CHECK(words.find("serve poisson sweep auto, 512 in, 128 out") != std::string::npos);
  CHECK(words.find("40 samples are too few") != std::string::npos);
  CHECK(words.find("at least 95 % of requests keep ttft:200") != std::string::npos);
  CHECK(words.find("<td>61.5</td>") != std::string::npos);
  CHECK(page.find("\"kind\":\"curve\"") != std::string::npos);
  CHECK(page.find("\"limits\":[]") != std::string::npos);

  // The knee is a point of the curve, and the limit that was set a line across it.
  record.scenario["slo"] = "ttft:200 tpot:50";
  record.metrics["knee_requests_per_second"].value = 2.0;
  RunFolder limited;
  limited.add(record);
  const std::string second = page_of(build_report({limited.path()}, {}));
  CHECK(second.find("\"knee\":0") != std::string::npos);
  CHECK(second.find(R"("limits":[{"value":200.0,"text":"limit of TTFT, 200 ms"}])") !=
        std::string::npos);
  // Another tool's limits are not ours to read.
  record.scenario["slo"] = "whatever";
  RunFolder foreign;
  foreign.add(record);
  check_page(page_of(build_report({foreign.path()}, {})));
}

TEST_CASE("html: a token budget counts what was right within it, of all answers") {
  RunFolder run;
  std::vector<LedgerLine> answers = {answer("a", true), answer("b", true), answer("c", false),
                                     answer("d", true)};
  const std::int64_t tokens[] = {40, 10, 5, 20};
  for (std::size_t i = 0; i < answers.size(); ++i) answers[i].output_tokens = tokens[i];
  run.add_task("reference", answers);
  const std::string page = page_of(build_report({run.path()}, {}));
  CHECK(page.find(R"("points":[[10,0.0],[10,0.25],[20,0.5],[40,0.75],[40,0.75]])") !=
        std::string::npos);
}

TEST_CASE("html: a page is one file without outside links") {
  RunFolder run;
  run.add_task("reference", {answer("x", true), answer("y", false)});
  run.add_task("int4", {answer("x", false), answer("y", false)});
  const std::string page = page_of(build_report({run.path()}, {}));
  check_page(page);
  CHECK(page.find("int4") != std::string::npos);
  CHECK(page.find("Answer: B") != std::string::npos);
}

TEST_CASE("html: a report of nothing is a page too") {
  RunFolder run;
  check_page(page_of(build_report({run.path()}, {})));
}

TEST_CASE("html: failed cases are shown with their reasons") {
  RunFolder run;
  Record failed;
  failed.case_id = "00000000000000ff";
  failed.label = "int4 / load";
  failed.model = "m";
  failed.plan = "int4";
  failed.kind = "load";
  failed.scenario = {{"kind", "load"}};
  failed.status = Status::kCrashed;
  failed.reason = "its worker was killed by signal 9";
  run.add(failed);
  const std::string page = page_of(build_report({run.path()}, {}));
  check_page(page);
  CHECK(page.find("its worker was killed by signal 9") != std::string::npos);
}

TEST_CASE("html: numbers that could not be measured do not stop the page") {
  RunFolder run;
  for (const char* kind : {"load", "prefill", "decode", "fidelity", "invariance", "task"}) {
    Record record;
    record.case_id = "00000000000000aa";
    record.case_id[14] = kind[0];
    record.case_id[15] = 'a';
    record.label = std::string("reference / ") + kind;
    record.model = "m";
    record.plan = "reference";
    record.kind = kind;
    record.scenario = {{"kind", kind},    {"tokens", 8},    {"context", 4}, {"batch", 1},
                       {"effort", "low"}, {"task", "nano"}, {"items", 2},   {"repetitions", 2}};
    Metric absent;
    absent.unit = "ms";
    absent.absent = true;
    absent.interval_method = "3 samples are too few";
    for (const char* name :
         {"accuracy", "mean_kl", "top1_agreement", "decode_tokens_per_second", "weights_bytes",
          "prefill_tokens_per_second", "itl_ms_p99", "ttft_ms", "load_seconds", "deterministic"}) {
      record.metrics[name] = absent;
    }
    run.add(record);
  }
  check_page(page_of(build_report({run.path()}, {})));
}

TEST_CASE("html: kernels that CUPTI recorded are a table, with gaps; names are escaped") {
  Record record;
  record.case_id = "00000000000000ab";
  record.label = "gpu / decode batch 1, context 8";
  record.model = "m";
  record.plan = "gpu";
  record.kind = "decode";
  record.scenario = {{"kind", "decode"}, {"batch", 1}, {"context", 8}, {"tokens", 8}};
  record.metrics["decode_tokens_per_second"].value = 50;
  record.details["time_by_op"] = {
      {"step", "one"},
      {"total_ms", 10},
      {"ms", {{"attention", 10}}},
      {"kernels",
       {{{"op", "attention"}, {"kernel", "split<8, 64>"}, {"launches", 24}, {"ms", 6}},
        {{"op", ""}, {"kernel", "fill"}, {"launches", 1}, {"ms", 2}}}},
      {"busy_ms", 8},
      {"span_ms", 9.5},
      {"in_use",
       {{"kernels",
         {{{"op", ""}, {"kernel", "long"}, {"launches", 1}, {"ms", 7}, {"exposed_ms", 1}},
          {{"op", ""}, {"kernel", "late<4>"}, {"launches", 3}, {"ms", 5}, {"exposed_ms", 4}}}},
        {"busy_ms", 5},
        {"span_ms", 5}}}};
  RunFolder run;
  run.add(record);
  const std::string page = page_of(build_report({run.path()}, {}));
  check_page(page);
  CHECK(page.find("<code>split&lt;8, 64&gt;</code></td><td>24</td>") != std::string::npos);
  CHECK(page.find("<td>75.0</td>") != std::string::npos);  // 6 of 8 ms
  CHECK(page.find("gaps between kernels</td><td></td><td>1.5") != std::string::npos);
  const std::size_t late = page.find("<code>late&lt;4&gt;</code></td><td>3</td>");
  REQUIRE(late != std::string::npos);  // what adds most comes first
  CHECK(page.find("<td>80.0</td>", late) < page.find("<code>long</code>"));
}

TEST_CASE("html: a limit stands beside its speed and its ops; records from before do without") {
  const auto decode = [](const char* plan, const OrderedJson& times) {
    Record record;
    record.case_id = std::string("00000000000000a") + plan[0];
    record.label = std::string(plan) + " / decode batch 1, context 8";
    record.model = "m";
    record.plan = plan;
    record.kind = "decode";
    record.scenario = {{"kind", "decode"}, {"batch", 1}, {"context", 8}, {"tokens", 8}};
    record.metrics["decode_tokens_per_second"].value = 50;
    record.details["time_by_op"] = times;
    return record;
  };
  const OrderedJson before = {{"step", "one"}, {"total_ms", 10}, {"ms", {{"attention", 10}}}};
  RunFolder old;
  old.add(decode("b", before));
  const std::string old_page = page_of(build_report({old.path()}, {}));
  check_page(old_page);
  CHECK(without_scripts(old_page).find("% of limit") == std::string::npos);
  CHECK(old_page.find("the step as measured") == std::string::npos);

  // A step of 20 ms: attention 10, of which 4 are its limit, embedding 5 without one, gaps 5.
  Record record =
      decode("a", {{"step", "one"},
                   {"step_ms", 20},
                   {"total_ms", 15},
                   {"unexplained_ms", 5},
                   {"limit_ms", 4},
                   {"ms", {{"attention", 10}, {"embedding", 5}}},
                   {"limits", {{"attention", {{"limit_ms", 4}, {"bound", "memory"}}}}}});
  record.metrics["percent_of_limit"].value = 37.4;
  record.metrics["percent_of_limit"].unit = "%";
  old.add(record);  // side by side with the old one
  const std::string page = page_of(build_report({old.path()}, {}));
  check_page(page);
  const std::string markup = without_scripts(page);
  CHECK(markup.find("37 % of limit") != std::string::npos);
  CHECK(markup.find("40 % of limit (memory)") != std::string::npos);
  const std::string begin = "<script type=\"application/json\" id=data>";
  const std::size_t at = page.find(begin) + begin.size();
  const Json chart = Json::parse(page.substr(at, page.find("</script>", at) - at))
                         .at("charts")
                         .at("decode-time-0");
  CHECK(chart.at("peaks") == Json::array({nullptr, 20}));
  std::map<std::string, Json> series;
  for (const Json& one : chart.at("series")) series[one.at("name")] = one.at("values");
  CHECK(series.at("limit of the machine") == Json::array({0.0, 4.0}));
  CHECK(series.at("attention") == Json::array({10.0, 6.0}));
  CHECK(series.at("embedding") == Json::array({0.0, 5.0}));
  CHECK(series.at("gaps between ops") == Json::array({0.0, 5.0}));
}

TEST_CASE("html: the banner says what a reader must know first") {
  const auto banner = [](const RunFolder& run) {
    const std::string page = page_of(build_report({run.path()}, {}));
    check_page(page);
    const std::size_t at = page.find("<div class=\"banner");
    return at == std::string::npos ? "" : page.substr(at, page.find("</div>", at) - at);
  };
  std::vector<LedgerLine> right;
  std::vector<LedgerLine> wrong;
  for (int i = 0; i < 60; ++i) {
    right.push_back(answer(fmt::format("q{}", i), true));
    wrong.push_back(answer(fmt::format("q{}", i), false));
  }
  RunFolder alone;
  alone.add_task("reference", right);
  CHECK(banner(alone).empty());  // nothing is compared, nothing failed
  RunFolder worse;
  worse.add_task("reference", right);
  worse.add_task("int4", wrong);
  CHECK_THAT(banner(worse),
             Catch::Contains("is-bad") &&
                 Catch::Contains("1 of 1 plan answer worse than the reference: int4"));
  RunFolder same;
  same.add_task("reference", right);
  same.add_task("int4", right);
  CHECK_THAT(banner(same), Catch::Contains("No plan"));
  CHECK_THAT(banner(same), !Catch::Contains("is-bad"));
  RunFolder broken;
  broken.add_task("reference", right);
  Record failed;
  failed.case_id = "00000000000000ff";
  failed.label = "int4 / load";
  failed.model = "m";
  failed.plan = "int4";
  failed.kind = "load";
  failed.scenario = {{"kind", "load"}};
  failed.status = Status::kFailed;
  broken.add(failed);
  CHECK_THAT(banner(broken), Catch::Contains("is-bad") && Catch::Contains("One case failed"));
}

TEST_CASE("html: the difference from the reference is shown also of a task's other protocol") {
  RunFolder run;
  for (const char* plan : {"reference", "int4"}) {
    run.add_task(plan, {answer("x", true), answer("y", plan[0] == 'r')},
                 {{"task", "mmlu"}, {"protocol", "lm-eval"}});
  }
  const OrderedJson report = build_report({run.path()}, {});
  REQUIRE(report.at("comparisons").at(0).at("task") == "mmlu (lm-eval)");
  CHECK_THAT(page_of(report), Catch::Contains("<td>0 / 1</td>"));  // gained and lost
}

TEST_CASE("html: a published score stands beside a model of its size, and says that it is one") {
  RunFolder run;
  run.add_task("reference", {answer("x", true)}, {{"task", "gpqa_diamond"}, {"effort", "high"}});
  const auto markup = [&] { return without_scripts(page_of(build_report({run.path()}, {}))); };
  CHECK(markup().find("☆ published") == std::string::npos);
  CHECK_FALSE(charts_of(page_of(build_report({run.path()}, {})))
                  .at("accuracy")
                  .at("series")
                  .at(0)
                  .contains("published"));
  Json description = read_json(run.path() / "run.json");
  description["models"][0]["parameters"] = 116'830'000'000;
  write_file(run.path() / "run.json", description.dump());
  const std::string page = page_of(build_report({run.path()}, {}));
  check_page(page);
  CHECK(count_of(without_scripts(page), "☆ published") == 1);
  CHECK(page.find("80.1 %") != std::string::npos);  // arXiv 2508.10925, Table 3
  CHECK(page.find("not measured here: gpt-oss-120b, GPQA Diamond, no tools") != std::string::npos);

  // In the charts: a star where the plan stands, and a line across what has accuracy as its height.
  Record decode;
  decode.case_id = "00000000000000d1";
  decode.label = "reference / decode batch 1, context 8";
  decode.model = "m";
  decode.plan = "reference";
  decode.kind = "decode";
  decode.scenario = {{"kind", "decode"}, {"batch", 1}, {"context", 8}, {"tokens", 8}};
  decode.metrics["decode_tokens_per_second"].value = 50;
  decode.metrics["decode_tokens_per_second"].unit = "tokens/s";
  run.add(decode);
  run.add_task("reference", {answer("x", true)}, {{"task", "gpqa_diamond"}, {"effort", "low"}});
  run.add_task("reference", {answer("x", true)});
  const Json charts = charts_of(page_of(build_report({run.path()}, {})));
  const Json& series = charts.at("accuracy").at("series");
  REQUIRE(series.size() == 1);  // labels by hand are the same; their first record counts
  CHECK(series.at(0).at("published").at(0).at("v").get<double>() == Approx(0.801));
  CHECK(series.at(0).at("published").at(0).at("text") ==
        "GPQA Diamond, no tools: 80.1 %, gpt-oss-120b");
  REQUIRE(charts.at("pareto-0").at("published").size() == 1);
  CHECK(charts.at("pareto-0").at("published").at(0).at("value").get<double>() == Approx(0.801));
}

TEST_CASE("html: joules are a side of the trade-off only where they were measured") {
  RunFolder run;
  const auto add = [&](const std::string& plan, std::optional<double> joules) {
    run.add_task(plan, {answer("x", true), answer("y", false)});
    Record decode;
    decode.case_id = "d0000000000000" + fmt::format("{:02x}", plan.size());
    decode.label = plan + " / decode batch 1, context 8";
    decode.model = "m";
    decode.plan = plan;
    decode.kind = "decode";
    decode.scenario = {{"kind", "decode"}, {"batch", 1}, {"context", 8}, {"tokens", 8}};
    Metric& rate = decode.metrics["decode_tokens_per_second"];
    rate.value = 50;
    rate.unit = "tokens/s";
    Metric& energy = decode.metrics["joules_per_token"];
    energy.unit = "J/token";
    energy.better = "lower";
    energy.absent = !joules;
    energy.value = joules.value_or(0);
    run.add(decode);
  };
  const auto joule_charts = [&] {
    std::vector<Json> found;
    for (const Json& chart : charts_of(page_of(build_report({run.path()}, {})))) {
      if (chart.value("x_title", "").ends_with("joules per token")) found.push_back(chart);
    }
    return found;
  };
  add("reference", std::nullopt);
  CHECK(joule_charts().empty());
  add("int4", 0.5);
  add("int8ish", 0.8);
  REQUIRE(joule_charts().size() == 1);
  const Json chart = joule_charts().front();
  CHECK(chart.at("x_better") == "left");
  REQUIRE(chart.at("points").size() == 2);  // not the one that was not measured
  CHECK(chart.at("points").at(0).at("x").at("v") == 0.5);
  CHECK(chart.at("points").at(0).at("front") == true);
  CHECK(chart.at("points").at(1).at("front") == false);
  check_page(page_of(build_report({run.path()}, {})));
}

TEST_CASE("html: what differs between the machines of two runs is marked") {
  RunFolder one;
  one.add_task("reference", {answer("x", true)});
  RunFolder other;
  other.add_task("reference", {answer("x", true)});
  Json description = read_json(other.path() / "run.json");
  description["environment"]["cpu"] = "another cpu";
  write_file(other.path() / "run.json", description.dump());
  const std::string page = page_of(build_report({one.path(), other.path()}, {}));
  check_page(page);
  CHECK(count_of(page, "<tr class=differs><th scope=row>processor</th>") == 1);
  CHECK(count_of(page, "<tr><th scope=row>system</th>") == 1);
  CHECK(page.find("The 2 runs differ in 1 of these lines") != std::string::npos);
}

TEST_CASE("html: perplexity stands with its interval and its change on the same text") {
  RunFolder run;
  const auto add = [&](const std::string& plan, double nats, double interval_high) {
    Record record;
    record.case_id = plan == "int4" ? "00000000000000e4" : "00000000000000e3";
    record.label = plan + " / perplexity a.txt";
    record.model = "m";
    record.plan = plan;
    record.kind = "perplexity";
    record.scenario = {{"kind", "perplexity"}, {"text", "a.txt"}};
    Metric& perplexity = record.metrics["perplexity"];
    perplexity.value = std::exp(nats);
    perplexity.unit = "per token";
    perplexity.better = "lower";
    perplexity.count = 20;
    perplexity.interval = Interval{7, interval_high};
    record.metrics["bits_per_byte"] = perplexity;
    record.metrics["bits_per_byte"].value = 1.25;
    record.details = {{"tokens", 20}, {"block_tokens", 10}};
    record.details["nll_by_block"] = {10 * nats - 0.1, 10 * nats + (plan == "int4" ? 0.3 : 0.1)};
    run.add(record);
  };
  add("reference", 2, 8);
  add("int4", 2.1, 9);
  const std::string page = page_of(build_report({run.path()}, {}));
  check_page(page);
  CHECK(count_of(page, "<section id=perplexity>") == 1);
  CHECK(page.find("<a href=\"#perplexity\">Perplexity</a>") != std::string::npos);
  CHECK(page.find("perplexity a.txt") != std::string::npos);
  CHECK(page.find("7.389") != std::string::npos);  // exp(2)
  CHECK(page.find("[7, 9]") != std::string::npos);
  // exp((1 + 1.2) / 20) - 1: more nats in each of the two blocks of ten tokens.
  CHECK(page.find("+11.63 %<small>[") != std::string::npos);
  CHECK(page.find("1.25") != std::string::npos);
}

TEST_CASE("html: fidelity shows flips by layer, and divergence by position") {
  RunFolder run;
  Record record;
  record.case_id = "00000000000000e2";
  record.label = "int4 / fidelity to reference";
  record.model = "m";
  record.plan = "int4";
  record.kind = "fidelity";
  record.scenario = {{"kind", "fidelity"}};
  record.metrics["mean_kl"].value = 0.5;
  record.metrics["gate_mass_moved"].value = 0.125;
  record.metrics["changed_answers"].value = 0.0625;
  record.details["router_flip_rate_by_layer"] = {0.0, 0.25};
  record.details["gate_mass_moved_by_layer"] = {0.03, 0.12};
  record.details["kl_by_position"] = {
      {{"from", 0}, {"to", 1}, {"positions", 3}, {"mean_kl", 0.25}},
      {{"from", 1}, {"to", 3}, {"positions", 6}, {"mean_kl", 0.625}}};
  run.add(record);
  const std::string page = page_of(build_report({run.path()}, {}));
  check_page(page);
  CHECK(page.find("<td class=flips style=\"--s:0%\">0.0</td><td class=flips "
                  "style=\"--s:85%\">25.0</td>") != std::string::npos);
  CHECK(page.find("<td class=flips style=\"--s:21%\">3.0</td><td class=flips "
                  "style=\"--s:85%\">12.0</td>") != std::string::npos);
  CHECK(page.find("gates of layer 1") != std::string::npos);
  CHECK(page.find("12.5 %") != std::string::npos);
  CHECK(page.find("6.2 %") != std::string::npos);
  CHECK(page.find(R"("points":[[1,0.25],[2,0.625]])") != std::string::npos);
}

TEST_CASE("html: what a model, a plan or a title says is never markup") {
  for (const std::string& hostile : kHostile) {
    INFO(hostile);
    RunFolder run(hostile);
    LedgerLine said = answer("x", false);
    said.analysis = said.final_text = said.answer = said.category = hostile;
    LedgerLine right = answer("x", true);
    run.add_task("reference", {right, answer(hostile, true)});
    run.add_task(hostile, {said, answer(hostile, false)});
    Record failed;
    failed.case_id = "00000000000000ff";
    failed.label = hostile + " / load";
    failed.model = "m";
    failed.plan = hostile;
    failed.kind = "load";
    failed.scenario = {{"kind", "load"}};
    failed.status = Status::kFailed;
    failed.reason = hostile;
    run.add(failed);
    ReportOptions options;
    options.title = hostile;
    const std::string page = page_of(build_report({run.path()}, options));
    check_page(page);
    CHECK(page.find("<img src=x") == std::string::npos);
    CHECK(page.find("<svg onload") == std::string::npos);
    CHECK(page.find("<h1>owned") == std::string::npos);
    CHECK(page.find("<!--<script>") == std::string::npos);
    CHECK(without_scripts(page).find("' onmouseover='") == std::string::npos);
    // The same text as plain words is welcome.
    RunFolder plain;
    plain.add_task("reference", {right, answer("y", true)});
    plain.add_task("int4", {answer("x", false), answer("y", false)});
    const std::string harmless = page_of(build_report({plain.path()}, {}));
    CHECK(count_of(page, "<script") == count_of(harmless, "<script"));
    CHECK(count_of(page, "</title>") == count_of(harmless, "</title>"));
  }
}

}  // namespace moebench::test
