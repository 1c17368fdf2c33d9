// The page, put together: head, sections, data of the charts, scripts.
#include "reports/html.h"

#include "reports/html_definitions.h"
#include "reports/html_page.h"
#include "reports/html_text.h"
#include "reports/item_data.h"
#include "reports/page_assets.h"

namespace moebench {
namespace {

using namespace page;

constexpr std::size_t kMostItemBytes = 6'400'000;  // of a page that shall stay below 8 MB

// "20.9 billion"
std::string count_in_words(double count) {
  if (count >= 1e9) return format_number(count / 1e9) + " billion";
  if (count >= 1e6) return format_number(count / 1e6) + " million";
  return format_number(count);
}

std::string subtitle(const Report& report) {
  std::string models;
  std::string machine;
  std::string started;
  for (const OrderedJson& run : report.json.at("runs")) {
    for (const OrderedJson& model : run.at("models")) {
      const std::string text = fmt::format("{} ({} parameters)", model.value("name", ""),
                                           count_in_words(model.value("parameters", 0.0)));
      if (models.find(text) == std::string::npos) models += (models.empty() ? "" : ", ") + text;
    }
    const OrderedJson& e = run.at("environment");
    machine = fmt::format("{}, {} of {} logical processors", e.value("cpu", ""),
                          e.value("usable_cpus", 0), e.value("logical_cpus", 0));
    if (e.contains("gpu")) machine += ", " + e.at("gpu").value("name", "");
    started = run.value("started", "").substr(0, 10);
  }
  return escape_html(
      fmt::format("{} · {} plans · {} · {}", models, report.rows.size(), machine, started));
}

// Links only to sections that are there.
std::string navigation(const std::string& body, std::string_view home) {
  static constexpr std::pair<const char*, const char*> kLinks[] = {
      {"failures", "Failures"},     {"summary", "Summary"},         {"accuracy", "Accuracy"},
      {"perplexity", "Perplexity"}, {"trade-off", "Trade-off"},     {"speed", "Speed"},
      {"serving", "Serving"},       {"fidelity", "Fidelity"},       {"memory", "Memory"},
      {"items", "Every answer"},    {"environment", "Measured on"}, {"definitions", "Definitions"}};
  std::string links;
  if (!home.empty()) links = fmt::format("<a href=\"{}\">‹ All runs</a>", escape_html(home));
  for (const auto& [id, text] : kLinks) {
    if (body.find(fmt::format("<section id={}>", id)) != std::string::npos) {
      links += fmt::format("<a href=\"#{}\">{}</a>", id, text);
    }
  }
  return links;
}

}  // namespace

std::string render_html(const OrderedJson& json, std::string_view home) {
  const Report report(json);
  const PackedItems items = pack_items(report, kMostItemBytes);
  std::string body = headline_section(report) + failures_section(report) + summary_section(report) +
                     accuracy_section(report) + perplexity_section(report) +
                     trade_off_section(report) + speed_section(report) + serve_section(report) +
                     fidelity_section(report) + memory_section(report) +
                     items_section(report, items) + environment_section(report);
  body += definitions_section(body);
  const std::string title = escape_html(json.value("title", std::string("run")));
  const OrderedJson& generator = json.at("generator");
  std::string html = page_head(title + " · moebench", navigation(body, home));
  html +=
      fmt::format("<header class=top><p class=brand>moebench</p><h1>{}</h1><p>{}</p></header>\n",
                  title, subtitle(report));
  html += body;
  html += fmt::format(
      "<footer>moebench {} ({}), {}. The numbers of this page are in report.json; charts by "
      "Chart.js, MIT licence.</footer></main>\n",
      escape_html(generator.value("version", "")), escape_html(generator.value("git_commit", "")),
      escape_html(json.value("generated", "")));
  html += "<script type=\"application/json\" id=data>" + script_json(chart_specifications(report)) +
          "</script>\n";
  // In the order in which a reader misses them: the list of answers, charts, and last what somebody
  // must open.
  for (const std::string_view script : {kItemScript, kChartJs, kPageScript, kToolScript}) {
    html += "<script>";
    html += script;
    html += "</script>\n";
  }
  return html + item_chunks(items) + "</body></html>\n";
}

}  // namespace moebench
