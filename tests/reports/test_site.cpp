// The published site: right numbers in the leaderboard, regressions found and fed, every link
// there, and nothing a run says is markup.
#include <catch2/catch.hpp>
#include <regex>

#include "reports/published_scores.h"
#include "reports/site.h"
#include "tests/support/browser.h"
#include "tests/support/process.h"
#include "tests/support/run_folder.h"
#include "tests/support/schema.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::vector<LedgerLine> answers(int count, bool right) {
  std::vector<LedgerLine> lines;
  for (int i = 0; i < count; ++i) lines.push_back(answer(fmt::format("q{}", i), right));
  return lines;
}

// Changes run.json of a folder.
void edit(const RunFolder& run, const std::function<void(Json&)>& change) {
  Json description = read_json(run.path() / "run.json");
  change(description);
  write_file(run.path() / "run.json", description.dump());
}

void start(const RunFolder& run, const std::string& time) {
  edit(run, [&](Json& json) { json["started"] = time; });
}

OrderedJson site_of(const std::vector<const RunFolder*>& folders,
                    const std::vector<std::string>& names, const SiteOptions& options = {}) {
  std::vector<RunResults> runs;
  for (const RunFolder* folder : folders) runs.push_back(read_run_results(folder->path()));
  return build_site(runs, names, options);
}

std::string schema_errors_of(const OrderedJson& site) {
  return schema_errors(read_json(source_dir() / "reports" / "site.schema.json"),
                       Json::parse(site.dump()));
}

const OrderedJson& number(const OrderedJson& site, const std::string& plan) {
  for (const OrderedJson& one : site.at("leaderboard")) {
    if (one.at("plan") == plan) return one;
  }
  throw std::runtime_error("no number of " + plan);
}

// Twenty runs of a metric, the last eight at another level.
HistorySeries series_of(const std::string& plan, double before, double after) {
  HistorySeries series{"m",
                       plan,
                       "decode batch 1",
                       "decode_tokens_per_second",
                       "tokens/s",
                       "higher",
                       "a machine",
                       {},
                       {},
                       {},
                       {}};
  for (int i = 0; i < 20; ++i) {
    series.values.push_back((i < 12 ? before : after) + 0.1 * (i % 3));
    series.commits.push_back(fmt::format("<b>{}", i));
    series.started.push_back(fmt::format("2026-03-{:02}T12:00:00Z", i + 1));
    series.ids.push_back(fmt::format("{:032x}", i));
  }
  return series;
}

// A run where int4 was right, and one where it is not.
struct TwoRuns {
  RunFolder before;
  RunFolder after;
  TwoRuns() {
    for (RunFolder* run : {&before, &after}) run->add_task("reference", answers(60, true));
    before.add_task("int4", answers(60, true));
    after.add_task("int4", answers(60, false));
    start(before, "2026-01-30T12:00:00Z");
    start(after, "2026-02-01T09:05:00Z");
  }
};

}  // namespace

TEST_CASE("site: the leaderboard has the newest number of each plan on each machine") {
  RunFolder old_run;
  old_run.add_task("reference", answers(2, true));
  old_run.add_task("gone", answers(2, true));
  RunFolder new_run;
  new_run.add_task("reference", answers(2, true));
  RunFolder elsewhere;
  elsewhere.add_task("reference", answers(2, true));
  start(old_run, "2026-01-01T00:00:00Z");
  start(new_run, "2026-01-02T00:00:00Z");
  start(elsewhere, "2026-01-03T00:00:00Z");
  edit(elsewhere, [](Json& json) { json["environment"]["cpu"] = "another cpu"; });
  // Whatever order they are given in.
  const OrderedJson site = site_of({&new_run, &elsewhere, &old_run}, {"new", "elsewhere", "old"});
  CHECK(schema_errors_of(site) == "");
  REQUIRE(site.at("leaderboard").size() == 3);
  CHECK(number(site, "gone").at("run") == "old");
  std::map<std::string, std::string> run_of;
  for (const OrderedJson& one : site.at("leaderboard")) {
    if (one.at("plan") == "reference") run_of[one.at("machine")] = one.at("run");
  }
  CHECK(run_of == std::map<std::string, std::string>{{"a cpu, 2 CPUs", "new"},
                                                     {"another cpu, 2 CPUs", "elsewhere"}});
  CHECK(site.at("runs").at(0).at("name") == "elsewhere");  // newest first
  CHECK(site.at("runs").at(2).at("plans") == OrderedJson({"reference", "gone"}));
}

TEST_CASE("site: a regression is in the page, the feed and the badge") {
  const TwoRuns runs;
  SiteOptions options;
  options.url = "https://example.org/bench";
  const OrderedJson site = site_of({&runs.before, &runs.after}, {"before", "after"}, options);
  CHECK(schema_errors_of(site) == "");
  REQUIRE(site.at("comparisons").size() == 1);
  const OrderedJson& comparison = site.at("comparisons")[0];
  CHECK(comparison.at("run") == "after");
  CHECK(comparison.at("base") == "before");
  CHECK(comparison.at("verdict") == "REGRESSED");
  REQUIRE(comparison.at("regressions").size() == 1);
  CHECK(comparison.at("regressions")[0].at("plan") == "int4");
  CHECK(comparison.at("regressions")[0].at("metric") == "accuracy");
  CHECK(comparison.at("regressions")[0].at("change") == -1.0);

  const std::string feed = site_feed(site);
  CHECK_THAT(feed,
             Catch::Contains("<title>1 regression of by hand in after against before</title>"));
  CHECK_THAT(feed, Catch::Contains("<link>https://example.org/bench/runs/after/index.html</link>"));
  // 1 February 2026 is a Sunday.
  CHECK_THAT(feed, Catch::Contains("<pubDate>Sun, 01 Feb 2026 09:05:00 GMT</pubDate>"));
  const std::string page = site_page(site);
  CHECK_THAT(page, Catch::Contains("1 regression</b>"));
  CHECK_THAT(page, Catch::Contains("−100.0 points"));
  const auto badges = site_badges(site);
  REQUIRE(badges.front().first == "verdict.json");
  CHECK(Json::parse(badges.front().second) == Json({{"schemaVersion", 1},
                                                    {"label", "moebench"},
                                                    {"message", "1 regression"},
                                                    {"color", "red"}}));

  // The other way round in time nothing became worse.
  start(runs.before, "2026-03-01T00:00:00Z");
  const OrderedJson better = site_of({&runs.before, &runs.after}, {"before", "after"}, options);
  CHECK(better.at("comparisons")[0].at("regressions").empty());
  CHECK_THAT(site_feed(better), !Catch::Contains("<item>"));
  CHECK_THAT(site_page(better), Catch::Contains("<p>None.</p>"));
}

TEST_CASE("site: runs that cannot be compared say why and stop nothing") {
  TwoRuns runs;
  Record other = runs.after.add_task("reference", answers(2, true), {{"task", "another"}});
  edit(runs.after, [](Json& json) { json["models"][0]["hash"] = "fedcba9876543210"; });
  const OrderedJson site = site_of({&runs.before, &runs.after}, {"before", "after"});
  CHECK(schema_errors_of(site) == "");
  CHECK(site.at("comparisons").size() == 1);
  CHECK_THAT(site_page(site), Catch::Contains("</html>"));
}

TEST_CASE("site: published scores stand beside models of their size, marked, with their source") {
  CHECK(published_model(20.91e9) == "gpt-oss-20b");
  CHECK(published_model(116.83e9) == "gpt-oss-120b");
  CHECK(published_model(5.3e6).empty());
  CHECK(published_model(0).empty());
  // arXiv 2508.10925, Table 3.
  REQUIRE(published_score("gpqa_diamond", "gpt-oss-20b") != nullptr);
  CHECK(published_score("gpqa_diamond", "gpt-oss-20b")->of_effort("high") == Approx(0.715));
  CHECK(published_score("aime_2025", "gpt-oss-120b")->of_effort("low") == Approx(0.504));
  CHECK(published_score("nano", "gpt-oss-20b") == nullptr);
  CHECK(published_score("", "gpt-oss-20b") == nullptr);

  RunFolder run;
  run.add_task("reference", answers(4, true), {{"task", "gpqa_diamond"}, {"effort", "low"}});
  edit(run, [](Json& json) { json["models"][0]["parameters"] = 20'910'000'000; });
  const OrderedJson site = site_of({&run}, {"run"});
  CHECK(schema_errors_of(site) == "");
  CHECK(number(site, "reference").at("published").at("value").get<double>() == Approx(0.568));
  const std::string page = site_page(site);
  CHECK_THAT(page, Catch::Contains("☆ published<small>gpt-oss-20b</small>"));
  CHECK_THAT(page, Catch::Contains("56.8 %<small>GPQA Diamond, no tools</small>"));
  CHECK_THAT(page, Catch::Contains("arXiv 2508.10925, Table 3"));
  CHECK_THAT(site_csv(site), Catch::Contains(",0.568\r\n"));

  RunFolder small;
  small.add_task("reference", answers(4, true));
  CHECK_FALSE(number(site_of({&small}, {"run"}), "reference").contains("published"));
}

TEST_CASE("site: names of folders become safe and different; tables quote what needs it") {
  std::vector<RunResults> runs(5);
  const char* folders[] = {"run 1", "run/1", "../../etc", "<script>", ""};
  for (std::size_t i = 0; i < runs.size(); ++i) runs[i].description = {{"folder", folders[i]}};
  CHECK(site_names(runs) == std::vector<std::string>{"run-1", "run-1-2", "etc", "script", "run"});

  RunFolder run;
  run.add_task("a \"b\", c", answers(2, true));
  const OrderedJson site = site_of({&run}, {"run"});
  const std::string csv = site_csv(site);
  CHECK_THAT(csv, Catch::StartsWith("machine,model,plan,scenario,metric,unit,value,low,high,run,"
                                    "started,published\r\n"));
  CHECK_THAT(
      csv, Catch::Contains("\"a cpu, 2 CPUs\",m,\"a \"\"b\"\", c\",nano low,accuracy,share,0.5,"));
  CHECK(site_badges(site).front().first == "m-a-b-c-nano-low-accuracy.json");
}

TEST_CASE("site: a history gives each metric a picture, those whose level changed first") {
  RunFolder run;
  run.add_task("reference", answers(4, true));
  CHECK_FALSE(site_of({&run}, {"run"}).contains("trends"));
  CHECK(site_trends(site_of({&run}, {"run"})).empty());
  SiteOptions options;
  options.trends.push_back(trend_of(series_of("steady", 50, 50)));
  options.trends.push_back(trend_of(series_of("slower<script>", 50, 40)));
  HistorySeries one = series_of("new", 50, 50);
  for (auto* list : {&one.commits, &one.started, &one.ids}) list->resize(1);
  one.values.resize(1);
  options.trends.push_back(trend_of(one));
  const OrderedJson site = site_of({&run}, {"run"}, options);
  CHECK(schema_errors_of(site) == "");
  CHECK(schema_errors(read_json(source_dir() / "reports" / "history_trend.schema.json"),
                      Json::parse(site.at("trends").dump())) == "");
  const std::string trends = site_trends(site);
  const auto place = [&](const char* text) { return trends.find(text); };
  CHECK(trends.find("<b>1") == std::string::npos);
  CHECK(trends.find("<script") == std::string::npos);
  CHECK(place("slower&lt;script&gt;") < place("2 without a change of level"));
  CHECK(place("2 without a change of level") < place("steady"));
  CHECK_THAT(trends, Catch::Contains("▼ −20.0 % since &lt;b&gt;12 (worse)"));
  CHECK_THAT(trends, Catch::Contains("20 runs since 2026-03-01, from 40.0 to 50.2"));
  CHECK_THAT(trends, Catch::Contains("1 run since 2026-03-01"));
  CHECK(trends.find("nan") == std::string::npos);
  CHECK(trends.find("inf") == std::string::npos);
  // One line of all values in each picture, and a line at each level.
  const auto count = [&](const std::string& text) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = trends.find(text, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  CHECK(count("<polyline") == 3);
  CHECK(count("<path class=level") == 4);
  CHECK(count("<path class=worse") == 1);

  if (browser_path().empty()) return;
  const TemporaryDirectory folder;
  write_file(folder.path() / "index.html", site_page(site));
  Browser browser;
  for (const int width : {1280, 360}) {
    browser.set_size(width, 900);
    browser.open(folder.path() / "index.html", "#trends");
    CHECK(browser.value("document.documentElement.scrollWidth") == width);
    browser.screenshot(screenshot_folder() / fmt::format("site-{}.png", width));
    CHECK(browser.value("document.querySelectorAll('.trend svg').length") == 3);
    CHECK(browser.value("document.querySelector('.trend svg').getBoundingClientRect().width")
              .get<double>() > 200);
    CHECK(browser.problems() == std::vector<std::string>{});
  }
}

TEST_CASE("site: what is written holds together, link by link, and opens in a browser") {
  const std::string hostile = "</script><img src=x onerror=alert(1)>\"'&";
  TwoRuns runs;
  runs.after.add_task(hostile, answers(3, true));
  const TemporaryDirectory folder;
  const auto out = folder.path() / "site";
  SiteOptions options;
  options.title = hostile;
  write_site({runs.before.path(), runs.after.path()}, out, options);
  for (const char* file : {"index.html", "index.json", "leaderboard.csv", "feed.xml", ".nojekyll",
                           "badges/verdict.json"}) {
    INFO(file);
    CHECK(std::filesystem::exists(out / file));
  }
  const std::string page = read_file(out / "index.html");
  CHECK(page.find("<img") == std::string::npos);
  int num_links = 0;
  const std::regex link("href=\"([^\"#:]+)\"");
  for (std::sregex_iterator it(page.begin(), page.end(), link), end; it != end; ++it) {
    INFO(it->str());
    CHECK(std::filesystem::exists(out / (*it)[1].str()));
    ++num_links;
  }
  CHECK(num_links >= 8);
  CHECK(schema_errors_of(OrderedJson::parse(read_file(out / "index.json"))) == "");

  if (browser_path().empty()) {
    WARN("no Chromium here: the site is not looked at in a browser");
    return;
  }
  Browser browser;
  for (const int width : {1280, 360}) {
    browser.set_size(width, 900);
    browser.open(out / "index.html");
    CHECK(browser.value("document.documentElement.scrollWidth") == width);
    CHECK(browser.value("document.querySelectorAll('img').length") == 0);
    CHECK(browser.problems() == std::vector<std::string>{});
  }
  const std::string feed = Json(read_file(out / "feed.xml")).dump(-1, ' ', true);
  CHECK(browser.value("(() => { const d = new DOMParser().parseFromString(" + feed +
                      ", 'text/xml'); return [d.querySelectorAll('parsererror').length, "
                      "d.querySelectorAll('item').length]; })()") == Json({0, 1}));
  // A run's page leads back.
  browser.open(out / "runs" / runs.after.path().filename() / "index.html");
  CHECK(browser.value("document.querySelector('nav a').textContent") == "‹ All runs");
  CHECK(browser.value("new URL(document.querySelector('nav a').href).pathname") ==
        (out / "index.html").string());
  CHECK(browser.problems() == std::vector<std::string>{});
}

TEST_CASE("site: the command writes it, and names what it cannot read") {
  const TwoRuns runs;
  const TemporaryDirectory folder;
  const std::string out = (folder.path() / "site").string();
  const ProcessResult good = run_moebench(fmt::format(
      "publish {} {} -o {}", runs.before.path().string(), runs.after.path().string(), out));
  CHECK(good.err == "");
  CHECK(good.exit_code == 0);  // publishing is no gate
  CHECK_THAT(good.out, Catch::Contains("2 runs") && Catch::Contains("1 of 1 comparisons"));
  CHECK(std::filesystem::exists(out + "/index.html"));
  const std::string db = (folder.path() / "history.db").string();
  const std::string with_history =
      fmt::format("publish {} -o {} --history {}", runs.before.path().string(), out, db);
  CHECK(run_moebench(with_history).exit_code == 2);  // there is none
  CHECK(run_moebench(fmt::format("history add {} --db {}", runs.before.path().string(), db))
            .exit_code == 0);
  CHECK(run_moebench(with_history).exit_code == 0);
  CHECK(read_json(out + "/index.json").at("trends").size() >= 2);
  const ProcessResult nobody = run_moebench(with_history + " --history-name nobody");
  CHECK(nobody.exit_code == 2);
  CHECK_THAT(nobody.err, Catch::Contains("'nobody'"));
  const ProcessResult missing = run_moebench("publish /nowhere -o " + out);
  CHECK(missing.exit_code == 2);
  CHECK_THAT(missing.err, Catch::StartsWith("error: ") && Catch::Contains("/nowhere"));
  const ProcessResult url = run_moebench(
      fmt::format("publish {} -o {} --url javascript:x", runs.before.path().string(), out));
  CHECK(url.exit_code == 2);
  CHECK_THAT(url.err, Catch::Contains("javascript:x"));
}

}  // namespace moebench::test
