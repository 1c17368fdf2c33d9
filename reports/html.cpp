// The page, put together: head, sections, data of the charts, scripts.
#include "reports/html.h"

#include "reports/html_definitions.h"
#include "reports/html_page.h"
#include "reports/html_text.h"
#include "reports/page_assets.h"

namespace moebench {
namespace {

using namespace page;

std::string subtitle(const Report& report) {
  std::string models;
  std::string machine;
  std::string started;
  for (const OrderedJson& run : report.json.at("runs")) {
    for (const OrderedJson& model : run.at("models")) {
      const std::string text = fmt::format("{} ({} parameters)", model.value("name", ""),
                                           format_number(model.value("parameters", 0.0)));
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
std::string navigation(const std::string& body) {
  static constexpr std::pair<const char*, const char*> kLinks[] = {{"failures", "Failures"},
                                                                   {"summary", "Summary"},
                                                                   {"accuracy", "Accuracy"},
                                                                   {"trade-off", "Trade-off"},
                                                                   {"speed", "Speed"},
                                                                   {"serving", "Serving"},
                                                                   {"fidelity", "Fidelity"},
                                                                   {"memory", "Memory"},
                                                                   {"items", "Every answer"},
                                                                   {"environment", "Measured on"},
                                                                   {"definitions", "Definitions"}};
  std::string links;
  for (const auto& [id, text] : kLinks) {
    if (body.find(fmt::format("<section id={}>", id)) != std::string::npos) {
      links += fmt::format("<a href=\"#{}\">{}</a>", id, text);
    }
  }
  return "<a class=skip href=\"#summary\">Skip to the numbers</a><nav>" + links +
         "<span class=buttons><button id=help type=button hidden aria-label=keys>?</button>"
         "<button id=theme type=button hidden aria-label=\"light or dark\">◐</button></span></nav>";
}

}  // namespace

std::string render_html(const OrderedJson& json) {
  const Report report(json);
  std::string body = headline_section(report) + failures_section(report) + summary_section(report) +
                     accuracy_section(report) + trade_off_section(report) + speed_section(report) +
                     serve_section(report) + fidelity_section(report) + memory_section(report) +
                     items_section(report) + environment_section(report);
  body += definitions_section(body);
  const std::string title = escape_html(json.value("title", std::string("run")));
  const OrderedJson& generator = json.at("generator");
  std::string html =
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
      "<meta name=viewport content=\"width=device-width, initial-scale=1\">"
      "<meta name=color-scheme content=\"light dark\">"
      // No request may leave the page, whatever a transcript holds.
      "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
      "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">";
  html += fmt::format("<title>{} · moebench</title><style>{}</style></head>\n<body>{}<main>", title,
                      kPageStyle, navigation(body));
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
          "</script>\n<script>";
  html += kChartJs;
  for (const std::string_view script : {kPageScript, kItemScript, kToolScript}) {
    html += "</script>\n<script>";
    html += script;
  }
  html += "</script></body></html>\n";
  return html;
}

}  // namespace moebench
