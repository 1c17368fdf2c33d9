// report.html in a real browser: what a reader sees and can do, and what a transcript cannot.
// Pictures of it, light, dark and narrow, are kept in the build's folder.
#include <catch2/catch.hpp>

#include "evals/ledger.h"
#include "reports/html.h"
#include "reports/html_text.h"
#include "reports/report.h"
#include "tests/support/browser.h"
#include "tests/support/sample_run.h"

namespace moebench::test {
namespace {

constexpr std::size_t kMostPageBytes = 8'000'000;

// Under the sanitizers the ledgers and the page of ten thousand take a minute and a half.
#ifdef MOEBENCH_SANITIZE
constexpr int kManyItems = 1000;
#else
constexpr int kManyItems = 10000;
#endif

// The item browser has taken the place of the markup for readers without JavaScript.
constexpr const char* kReady = "document.documentElement.dataset.items === 'ready'";

bool no_browser() {
  if (!browser_path().empty()) return false;
  WARN("no Chromium here: pages are not looked at in a browser");
  return true;
}

// The page of a report, in a file.
class PageFile {
 public:
  explicit PageFile(const OrderedJson& report) { write_file(path(), render_html(report)); }
  std::filesystem::path path() const { return folder_.path() / "report.html"; }
  std::size_t bytes() const { return std::filesystem::file_size(path()); }

 private:
  TemporaryDirectory folder_;
};

struct Look {
  const char* name;
  int width;
  bool dark;
};
constexpr Look kLooks[] = {{"light", 1280, false}, {"dark", 1280, true}, {"narrow", 360, false}};

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', true); }

LedgerLine said(const std::string& item, bool correct, const std::string& analysis) {
  LedgerLine line = answer(item, correct);
  line.analysis = analysis;
  return line;
}

OrderedJson small_report() {
  RunFolder run;
  run.add_task("reference", {said("x", true, "two and two is four"), said("y", false, "seven"),
                             said("z", true, "all agree")});
  run.add_task("int4", {said("x", false, "two and two may be five"), said("y", true, "eight"),
                        said("z", true, "all agree")});
  Record decode;
  decode.case_id = "00000000000000d1";
  decode.label = "int4 / decode batch 1, context 8";
  decode.model = "m";
  decode.plan = "int4";
  decode.kind = "decode";
  decode.scenario = {{"kind", "decode"}, {"batch", 1}, {"context", 8}, {"tokens", 8}};
  decode.metrics["decode_tokens_per_second"].value = 50;
  decode.metrics["decode_tokens_per_second"].unit = "tokens/s";
  run.add(decode);
  return build_report({run.path()}, {});
}

// What a model might write to get out of the place it is put into.
const std::vector<std::string> kHostile = {
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!-- <script> alert(3)",
    "--></script></style></title></textarea><h1 id=owned>owned</h1>",
    "<img src=x onerror=alert(4)><svg/onload=alert(5)>",
    "\"'><iframe src=\"https://example.org/\"></iframe>",
    "<a href=\"javascript:alert(6)\">x</a><base href=\"https://example.org/\">",
    "</pre></details></section></main></body></html>",
    "<b <i <<<>>> unclosed \" ' ` =",
    "line\xE2\x80\xA8separator\xE2\x80\xA9paragraph",
    std::string("nul\0inside", 10),
    "turned \xE2\x80\xAE txet \xE2\x81\xA6 isolated",
    "broken \xFF\xC0\x80 bytes \xED\xA0\x80",
    "<link rel=stylesheet href=https://example.org/x.css><style>*{display:none}</style>",
    "{{constructor.constructor('alert(7)')()}} ${alert(8)} \\u003cscript\\u003e",
    "]]><![CDATA[ <?xml ?> &lt;script&gt; &#60;script&#62;",
};

}  // namespace

TEST_CASE("browser: the page opens without errors or requests, in light, dark and narrow") {
  if (no_browser()) return;
  const PageFile page(build_report({SampleRun().path()}, {}));
  Browser browser;
  for (const Look& look : kLooks) {
    INFO(look.name);
    browser.set_size(look.width, 1600);
    browser.set_dark(look.dark);
    browser.open(page.path());
    CHECK(browser.wait_for(kReady));
    // Nothing is wider than the window; wide tables scroll inside their frames.
    CHECK(browser.value("document.documentElement.scrollWidth") == look.width);
    // The charts; then all of them, however far down.
    CHECK(browser.wait_for("Chart.getChart(document.querySelector('canvas'))"));
    const Json background = browser.value("getComputedStyle(document.body).backgroundColor");
    CHECK((background == "rgb(20, 22, 26)") == look.dark);
    browser.screenshot(screenshot_folder() / fmt::format("report-{}.png", look.name));
    CHECK(browser.value("[...document.querySelectorAll('figure[data-chart] canvas')].filter("
                        "c => !Chart.getChart(c)).length") == 0);
    CHECK(browser.problems() == std::vector<std::string>{});
  }
}

TEST_CASE("browser: answers are found by search, filters and links") {
  if (no_browser()) return;
  const PageFile page(small_report());
  Browser browser;
  browser.open(page.path());
  REQUIRE(browser.wait_for(kReady));
  const auto ids = [&] {
    return browser.value("[...document.querySelectorAll('.item .id')].map(e => e.textContent)");
  };
  const auto set = [&](const std::string& control, const std::string& property, const Json& value) {
    browser.value(
        fmt::format("(() => {{ const c = document.querySelector({}); c.{} = {}; "
                    "c.dispatchEvent(new Event('input', {{bubbles: true}})); }})()",
                    quoted("#filter " + control), property, value.dump()));
  };
  CHECK(ids() == Json({"x", "y", "z"}));  // flipped ones first
  set("input[type=checkbox]", "checked", true);
  CHECK(browser.wait_for("document.querySelectorAll('.item').length === 2"));
  CHECK(ids() == Json({"x", "y"}));
  set("input[type=checkbox]", "checked", false);
  set("input[type=search]", "value", "MAY BE five");
  CHECK(browser.wait_for("document.querySelector('#filter output').textContent === '1 of 3'"));
  CHECK(ids() == Json({"x"}));
  set("input[type=search]", "value", "");
  // Wrong under the reference: y alone.
  const auto number = [&](const char* select, const char* text) {
    return browser.value(
        fmt::format("[...document.querySelectorAll('select[name={}] option')]"
                    ".find(o => o.textContent === '{}').value",
                    select, text));
  };
  set("select[name=plan]", "value", number("plan", "reference"));
  set("select[name=verdict]", "value", number("verdict", "wrong"));
  CHECK(browser.wait_for("document.querySelector('#filter output').textContent === '1 of 3'"));
  CHECK(ids() == Json({"y"}));

  browser.open(page.path(), "#item=nano/z");
  REQUIRE(browser.wait_for(kReady));
  CHECK(browser.wait_for("document.querySelector('.item[open] article')"));
  CHECK(ids() == Json({"z", "x", "y"}));
  CHECK(browser.value("document.querySelectorAll('.item[open] article').length") == 1);
  CHECK(browser.problems() == std::vector<std::string>{});
}

TEST_CASE("browser: the first word that leaves the reference is marked") {
  if (no_browser()) return;
  const PageFile page(small_report());
  Browser browser;
  browser.open(page.path(), "#item=nano/x");
  REQUIRE(browser.wait_for(kReady));
  REQUIRE(browser.wait_for("document.querySelector('.item[open] mark.first')"));
  CHECK(browser.value(
            "[...document.querySelectorAll('.item[open] .plan')].map(e => e.textContent)") ==
        Json({"reference", "int4"}));
  CHECK(browser.value("document.querySelector('.item[open] mark.first').textContent") == "may");
  CHECK(browser.value("document.querySelectorAll('.item[open] article')[0].querySelectorAll('mark')"
                      ".length") == 0);
  CHECK_THAT(browser.value("document.querySelectorAll('.item[open] article small')[1].textContent")
                 .get<std::string>(),
             Catch::Contains("word 4 of its thinking"));
}

TEST_CASE("browser: the first token that leaves the reference is marked where tokens are known") {
  if (no_browser()) return;
  RunFolder run;
  LedgerLine base = said("x", true, "a \u00e9\U0001F600\x01 two");
  base.final_text = "four";
  base.tokens = {9, 1, 2, 3, 8, 4};
  base.token_bytes = {0, 2, 7, 4, 0, 4};  // a control character and one of four bytes
  LedgerLine other = base;
  other.analysis = "a \u00e9\U0001F600\x01 twofold";
  other.tokens = {9, 1, 2, 3, 7, 8, 4};
  other.token_bytes = {0, 2, 7, 4, 4, 0, 4};
  LedgerLine short_one = base;  // stops thinking early: the marker differs, then the final message
  short_one.analysis = "a ";
  short_one.tokens = {9, 1, 8, 4};
  short_one.token_bytes = {0, 2, 0, 4};
  run.add_task("reference", {base});
  run.add_task("int4", {other});
  run.add_task("int3", {short_one});
  const PageFile page(build_report({run.path()}, {}));
  Browser browser;
  browser.open(page.path(), "#item=nano/x");
  REQUIRE(browser.wait_for(kReady));
  REQUIRE(browser.wait_for("document.querySelectorAll('.item[open] article').length === 3"));
  const auto of = [&](int article, const std::string& what) {
    return browser.value(
        fmt::format("(() => {{ const a = document.querySelectorAll('.item[open] article')[{}]; "
                    "return {}; }})()",
                    article, what));
  };
  CHECK(of(1, "a.querySelector('mark.first').textContent") == "fold");
  CHECK(of(1, "a.querySelector('mark.first').title") ==
        "the first token that differs from the reference");
  CHECK(of(1, "a.querySelectorAll('mark').length") == 1);
  CHECK_THAT(of(1, "a.querySelector('small').textContent").get<std::string>(),
             Catch::EndsWith("leaves the reference at token 5"));
  CHECK(of(2, "a.querySelector('mark.first').textContent") == "four");
  CHECK_THAT(of(2, "a.querySelector('small').textContent").get<std::string>(),
             Catch::EndsWith("leaves the reference at token 3"));
  CHECK(browser.problems() == std::vector<std::string>{});
}

TEST_CASE("browser: keys search, walk and help; a table copies as Markdown") {
  if (no_browser()) return;
  const PageFile page(small_report());
  Browser browser;
  browser.open(page.path());
  REQUIRE(browser.wait_for(kReady));
  browser.press("j");
  browser.press("j");
  CHECK(browser.value("document.activeElement.querySelector('.id').textContent") == "y");
  browser.press("Enter");
  CHECK(browser.wait_for("document.activeElement.parentElement.open"));
  browser.press("/");
  CHECK(browser.value("document.activeElement.type") == "search");
  browser.value("document.activeElement.blur()");
  browser.press("?");
  CHECK(browser.value("document.querySelector('dialog').open") == true);
  const auto markdown = browser.value("moebenchMarkdown(document.querySelector('#accuracy table'))")
                            .get<std::string>();
  CHECK_THAT(markdown, Catch::StartsWith("| plan | accuracy |"));
  CHECK_THAT(markdown, Catch::Contains("\n| --- | ---: |"));
  CHECK_THAT(markdown, Catch::Contains("\n| int4 | 50.0 %"));
  // A definition shows where the focus rests on a column.
  browser.value(
      "document.querySelector('dialog').close();"
      "[...document.querySelectorAll('#accuracy th')].find(e => e.textContent === "
      "'accuracy').focus()");
  CHECK_THAT(browser.value("document.getElementById('tip').textContent").get<std::string>(),
             Catch::Contains("Share of answers that are right"));
  CHECK(browser.problems() == std::vector<std::string>{});
}

TEST_CASE("browser: what a model writes is text, whatever it writes") {
  if (no_browser()) return;
  RunFolder run("</title><script>alert(0)</script>");
  std::vector<LedgerLine> right;
  std::vector<LedgerLine> hostile;
  for (const std::string& text : kHostile) {
    right.push_back(answer("item " + text, true));
    LedgerLine line = answer("item " + text, false);
    line.analysis = line.final_text = line.answer = line.category = text;
    hostile.push_back(line);
  }
  run.add_task("reference", right);
  run.add_task("<script>alert(9)</script>", hostile);
  const PageFile page(build_report({run.path()}, {}));
  Browser browser;
  browser.open(page.path());
  REQUIRE(browser.wait_for(kReady));
  CHECK(browser.value("document.querySelectorAll('.item').length") == kHostile.size());
  // Everything is opened, and each text stands there as itself.
  browser.value("document.querySelectorAll('.item').forEach(item => { item.open = true; })");
  REQUIRE(browser.wait_for(
      fmt::format("document.querySelectorAll('.item .expected').length === {}", kHostile.size())));
  const Json texts =
      browser.value("[...document.querySelectorAll('.item pre')].map(e => e.textContent)");
  for (const std::string& text : kHostile) {
    INFO(text);
    const auto count = std::count(texts.begin(), texts.end(), Json(visible_text(text)));
    CHECK(count == 2);  // as thinking and as final message
  }
  CHECK(browser.value("document.querySelectorAll('#owned, main img, svg, iframe, base, link, "
                      "a[href^=javascript]').length") == 0);
  CHECK(browser.value("[...document.scripts].length") == 7);  // three of data, four of ours
  CHECK(browser.value("document.querySelectorAll('h1, footer').length") == 2);
  CHECK(browser.problems() == std::vector<std::string>{});

  // The markup for readers without JavaScript is as safe.
  std::string markup = read_file(page.path());
  const std::size_t scripts = markup.find("<script>");
  markup.resize(scripts);
  write_file(page.path(), markup + "</body></html>");
  browser.open(page.path());
  CHECK(browser.value("document.querySelectorAll('.item pre').length") ==
        2 * kHostile.size() + kHostile.size());
  CHECK(browser.value("document.querySelectorAll('#owned, img, svg, iframe, base, link').length") ==
        0);
  CHECK(browser.problems() == std::vector<std::string>{});
}

TEST_CASE("browser: ten thousand items open at once, in a file of less than 8 MB") {
  if (no_browser()) return;
  // Three plans; most answers agree, as they do. Words are drawn from 3,000.
  std::uint64_t state = 1;
  const auto draw = [&state](std::uint64_t n) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 33) % n;
  };
  std::vector<std::string> words(3000);
  for (std::string& word : words) {
    for (std::uint64_t n = 2 + draw(7); n > 0; --n) word += static_cast<char>('a' + draw(26));
  }
  const auto text = [&](int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += words[draw(1 + draw(words.size()))] + ' ';
    return out;
  };
  RunFolder run;
  std::vector<LedgerLine> reference;
  std::vector<LedgerLine> fast;
  std::vector<LedgerLine> int4;
  for (int i = 0; i < kManyItems; ++i) {
    LedgerLine line = said(fmt::format("question-{:05}", i), draw(10) < 7, text(90));
    line.category = words[draw(12)];
    reference.push_back(line);
    fast.push_back(line);
    if (draw(10) < 3) {
      line.analysis = line.analysis.substr(0, line.analysis.size() / 2) + text(45);
      line.verdict = draw(2) == 0 ? Verdict::kCorrect : Verdict::kWrong;
    }
    int4.push_back(line);
  }
  run.add_task("reference", reference);
  run.add_task("fast", fast);
  run.add_task("int4", int4);
  const PageFile page(build_report({run.path()}, {}));
  CHECK(page.bytes() <= kMostPageBytes);
  Browser browser;
  browser.open(page.path());
  REQUIRE(browser.wait_for(kReady));
  const auto milliseconds =
      browser.value("performance.getEntriesByName('items')[0].startTime").get<double>();
  const auto first_paint = browser
                               .value(
                                   "(performance.getEntriesByName('first-contentful-paint')[0] ?? "
                                   "{startTime: -1}).startTime")
                               .get<double>();
  WARN(fmt::format(
      "{} items: {:.2f} MB, first paint after {:.0f} ms, first interactive after {:.0f} ms",
      kManyItems, static_cast<double>(page.bytes()) / 1e6, first_paint, milliseconds));
  const std::string all = kManyItems == 10000 ? "10,000" : "1,000";
  CHECK(browser.value("document.querySelector('#filter output').textContent") ==
        all + " of " + all);
  // The last ones are there too, though few are drawn.
  CHECK(browser.value("document.querySelectorAll('.item').length").get<int>() <= 200);
  browser.open(page.path(), "#item=nano/" + reference.back().item);
  REQUIRE(browser.wait_for(kReady));
  REQUIRE(browser.wait_for("document.querySelector('.item[open] pre')"));
  CHECK(browser.value("document.querySelector('.item[open] pre').textContent") ==
        reference.back().analysis);
  CHECK(browser.problems() == std::vector<std::string>{});
}

}  // namespace moebench::test
