// The first page of a site.
#include <algorithm>

#include "reports/html_definitions.h"
#include "reports/html_page.h"
#include "reports/html_text.h"
#include "reports/page_assets.h"
#include "reports/site.h"

namespace moebench {
namespace {

using page::section;
using page::table;

std::string text_of(const OrderedJson& json, const char* field) {
  return escape_html(json.at(field).get<std::string>());
}

std::string formatted(const OrderedJson& number, const char* field) {
  return format_value(number.at(field).get<double>(), number.at("unit").get<std::string>());
}

// What a column of the leaderboard holds: a metric of a scenario.
struct Column {
  std::string scenario;
  std::string metric;
  std::string unit;
  double largest = 0;

  bool holds(const OrderedJson& number) const {
    return number.at("scenario") == scenario && number.at("metric") == metric;
  }
  std::string title() const {
    if (metric == "weights_bytes") return "weights";
    if (metric == "mean_kl") return "mean KL, nats";
    if (metric == "top1_agreement") return "top-1 agreement";
    if (metric == "accuracy") return scenario + ", accuracy";
    return fmt::format("{}, {}", scenario, unit);
  }
};

std::vector<Column> columns_of(const std::vector<const OrderedJson*>& numbers) {
  std::vector<Column> columns;
  for (const OrderedJson* number : numbers) {
    auto it = std::find_if(columns.begin(), columns.end(),
                           [&](const Column& column) { return column.holds(*number); });
    if (it == columns.end()) {
      it = columns.insert(
          it, {number->at("scenario").get<std::string>(), number->at("metric").get<std::string>(),
               number->at("unit").get<std::string>()});
    }
    it->largest = std::max(it->largest, number->at("value").get<double>());
  }
  return columns;
}

std::string cell(const Column& column, const OrderedJson& number) {
  std::string content = escape_html(formatted(number, "value"));
  if (number.at("low").is_number() && number.at("high").is_number()) {
    content += fmt::format("<small>[{}, {}]</small>", escape_html(formatted(number, "low")),
                           escape_html(formatted(number, "high")));
  }
  if (column.metric == "mean_kl") return fmt::format("<td>{}</td>", content);
  const double full = column.unit == "share" ? 1 : column.largest;
  return page::bar_cell(content, full > 0 ? number.at("value").get<double>() / full : 0);
}

// A plan's name leads to the page of its newest numbers.
std::string plan_row(const std::vector<Column>& columns,
                     const std::vector<const OrderedJson*>& numbers, const std::string& model,
                     const std::string& plan) {
  std::string cells;
  const OrderedJson* newest = nullptr;
  for (const Column& column : columns) {
    const auto it = std::find_if(numbers.begin(), numbers.end(), [&](const OrderedJson* number) {
      return column.holds(*number) && number->at("model") == model && number->at("plan") == plan;
    });
    if (it == numbers.end()) {
      cells += fmt::format("<td>{}</td>", page::kNoValue);
      continue;
    }
    cells += cell(column, **it);
    if (newest == nullptr || newest->at("started") < (*it)->at("started")) newest = *it;
  }
  return fmt::format(
      "<tr><th scope=row><a href=\"runs/{}/index.html\">{}</a><small>{}</small></th>{}</tr>",
      text_of(*newest, "run"), escape_html(plan), escape_html(model), cells);
}

// What is published about a model, beside its plans and marked as not measured here.
std::string published_rows(const std::vector<Column>& columns,
                           const std::vector<const OrderedJson*>& numbers) {
  std::vector<std::string> models;
  for (const OrderedJson* number : numbers) {
    if (!number->contains("published")) continue;
    const auto model = number->at("published").at("model").get<std::string>();
    if (std::find(models.begin(), models.end(), model) == models.end()) models.push_back(model);
  }
  std::string rows;
  for (const std::string& model : models) {
    rows += fmt::format("<tr class=published><th scope=row>☆ published<small>{}</small></th>",
                        escape_html(model));
    for (const Column& column : columns) {
      const auto it = std::find_if(numbers.begin(), numbers.end(), [&](const OrderedJson* number) {
        return column.holds(*number) && number->contains("published") &&
               number->at("published").at("model") == model;
      });
      rows +=
          it == numbers.end()
              ? fmt::format("<td>{}</td>", page::kNoValue)
              : fmt::format(
                    "<td>{}<small>{}</small></td>",
                    escape_html(format_percent((*it)->at("published").at("value").get<double>())),
                    text_of((*it)->at("published"), "benchmark"));
    }
    rows += "</tr>";
  }
  return rows;
}

std::string leaderboard_section(const OrderedJson& site) {
  std::string body;
  for (const std::string& machine : machines_of(site.at("leaderboard"))) {
    std::vector<const OrderedJson*> numbers;
    std::vector<std::pair<std::string, std::string>> plans;
    for (const OrderedJson& number : site.at("leaderboard")) {
      if (number.at("machine") != machine) continue;
      numbers.push_back(&number);
      const std::pair plan{number.at("model").get<std::string>(),
                           number.at("plan").get<std::string>()};
      if (std::find(plans.begin(), plans.end(), plan) == plans.end()) plans.push_back(plan);
    }
    const std::vector<Column> columns = columns_of(numbers);
    std::string head = "<tr><th scope=col>plan</th>";
    for (const Column& column : columns) {
      head += fmt::format("<th scope=col>{}</th>", escape_html(column.title()));
    }
    std::string rows;
    for (const auto& [model, plan] : plans) rows += plan_row(columns, numbers, model, plan);
    rows += published_rows(columns, numbers);
    body +=
        fmt::format("<h3>{}</h3>", escape_html(machine)) + table(head + "</tr>", rows, "summary");
  }
  if (body.empty()) body = "<p class=none>No run has a number yet.</p>";
  return section("leaderboard", "Models and plans",
                 "The newest value of each plan, with its 95 % interval where one can be given. "
                 "Speeds belong to their machine, so each machine has its own table.",
                 body);
}

std::string change_text(const OrderedJson& r) {
  const bool relative = r.at("relative").get<bool>();
  const double scale = relative || r.at("unit") == "share" ? 100 : 1;
  const auto one = [&](double value) { return format_signed(scale * value); };
  std::string text = one(r.at("change").get<double>()) +
                     (relative                  ? " %"
                      : r.at("unit") == "share" ? " points"
                                                : " " + r.at("unit").get<std::string>());
  if (r.at("interval").is_object()) {
    text += fmt::format(" [{}, {}]", one(r.at("interval").at("low").get<double>()),
                        one(r.at("interval").at("high").get<double>()));
  }
  return text;
}

std::string regressions_section(const OrderedJson& site) {
  if (site.at("comparisons").empty()) return "";
  std::string body;
  for (const OrderedJson& comparison : site.at("comparisons")) {
    for (const OrderedJson& r : comparison.at("regressions")) {
      body += fmt::format(
          "<tr><th scope=row><a href=\"runs/{0}/index.html\">{0}</a><small>against {1}</small></th>"
          "<td>{2}</td><td>{3}</td><td>{4}</td><td>{5}</td><td>{6}</td><td><span class=bad>▼ {7}"
          "</span></td></tr>",
          text_of(comparison, "run"), text_of(comparison, "base"), text_of(r, "plan"),
          text_of(r, "scenario"), text_of(r, "metric"), escape_html(formatted(r, "base")),
          escape_html(formatted(r, "candidate")), escape_html(change_text(r)));
    }
  }
  const std::string lead =
      "Each run against the one before it of the same suite, by the gate: only what is shown to be "
      "worse by the margin or more.";
  if (body.empty()) return section("regressions", "Regressions", lead, "<p>None.</p>");
  return section("regressions", "Regressions", lead,
                 table("<tr><th scope=col>run</th><th scope=col>plan</th><th scope=col>case</th>"
                       "<th scope=col>metric</th><th scope=col>before</th><th scope=col>now</th>"
                       "<th scope=col>change [95 %]</th></tr>",
                       body, "text"));
}

std::string runs_section(const OrderedJson& site) {
  std::string body;
  for (const OrderedJson& run : site.at("runs")) {
    const auto failed = run.at("failed_cases").get<std::int64_t>();
    std::string models;
    for (const OrderedJson& model : run.at("models")) {
      models += (models.empty() ? "" : ", ") + model.get<std::string>();
    }
    body += fmt::format(
        "<tr><th scope=row><a href=\"{}\">{}</a></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{} · {}</td><td>{}</td><td>{}</td><td><a href=\"{}\">JSON</a></td></tr>",
        text_of(run, "page"), text_of(run, "name"),
        escape_html(run.at("started").get<std::string>().substr(0, 10)), text_of(run, "suite"),
        escape_html(models), run.at("plans").size(), text_of(run, "machine"),
        text_of(run, "git_commit"), run.at("cases").get<std::int64_t>(),
        failed == 0 ? "<span class=good>none</span>"
                    : fmt::format("<span class=bad>✕ {}</span>", failed),
        text_of(run, "json"));
  }
  return section(
      "runs", "Runs", "Newest first. Each has its page, and the same as JSON beside it.",
      table("<tr><th scope=col>run</th><th scope=col>day</th><th scope=col>suite</th><th "
            "scope=col>model</th><th scope=col>plans</th><th scope=col>machine and "
            "build</th><th scope=col>cases</th><th scope=col>failures</th><th "
            "scope=col>data</th></tr>",
            body, "text"));
}

std::string published_section(const OrderedJson& site) {
  const OrderedJson& published = site.at("published");
  std::string body;
  for (const OrderedJson& score : published.at("scores")) {
    const auto unit = score.at("unit").get<std::string>();
    body += fmt::format("<tr class=published><th scope=row>☆ {}</th><td>{}</td>",
                        text_of(score, "benchmark"), text_of(score, "model"));
    for (const char* effort : {"low", "medium", "high"}) {
      body += fmt::format("<td>{}</td>",
                          escape_html(format_value(score.at(effort).get<double>(), unit)));
    }
    body += fmt::format("<td>{}</td></tr>", score.at("task") == ""
                                                ? std::string(page::kNoValue)
                                                : "<code>" + text_of(score, "task") + "</code>");
  }
  return section(
      "published", "Published scores",
      fmt::format("Not measured here: <a href=\"{}\">{}</a>. {} ☆ marks them wherever they stand "
                  "beside own scores, which have the last column's task.",
                  text_of(published, "url"), text_of(published, "source"),
                  text_of(published, "note")),
      "<details><summary>All of them, by reasoning effort</summary>" +
          table("<tr><th scope=col>benchmark</th><th scope=col>of</th><th scope=col>low</th><th "
                "scope=col>medium</th><th scope=col>high</th><th scope=col>task here</th></tr>",
                body) +
          "</details>");
}

std::string banner(const OrderedJson& site) {
  if (site.at("comparisons").empty()) return "";
  const OrderedJson& newest = site.at("comparisons").front();
  const std::size_t count = newest.at("regressions").size();
  const auto verdict = newest.at("verdict").get<std::string>();
  const bool open = verdict == "INCONCLUSIVE" || verdict == "NOT COMPARABLE";
  return fmt::format(
      "<div class=\"banner is-{}\"><span class=sign aria-hidden=true>{}</span><b>{}</b><p>The "
      "newest "
      "comparison: <a href=\"runs/{}/index.html\">{}</a> against {}: {}.</p></div>\n",
      count > 0 ? "bad"
      : open    ? "open"
                : "good",
      count > 0 ? "▼"
      : open    ? "?"
                : "=",
      count > 0 ? fmt::format("{} regression{}", count, count == 1 ? "" : "s")
      : open    ? "No regression shown, and not ruled out either"
                : "No regression",
      text_of(newest, "run"), text_of(newest, "run"), text_of(newest, "base"),
      text_of(newest, "verdict"));
}

}  // namespace

std::string site_page(const OrderedJson& site) {
  std::string body = banner(site) + leaderboard_section(site) + regressions_section(site) +
                     site_trends(site) + runs_section(site) + published_section(site);
  body += page::definitions_section(body);
  const std::string title = text_of(site, "title");
  std::string links = "<a href=\"#leaderboard\">Leaderboard</a>";
  if (!site.at("comparisons").empty()) links += "<a href=\"#regressions\">Regressions</a>";
  if (site.contains("trends")) links += "<a href=\"#trends\">Trends</a>";
  links +=
      "<a href=\"#runs\">Runs</a><a href=\"#published\">Published</a><a "
      "href=\"#definitions\">Definitions</a><a href=\"leaderboard.csv\">CSV</a><a "
      "href=\"index.json\">JSON</a><a href=\"feed.xml\">RSS</a>";
  std::string html = page::page_head(title, links);
  html += fmt::format(
      "<header class=top><p class=brand>moebench</p><h1>{}</h1><p>{} run{}, the newest of {}</p>"
      "</header>\n",
      title, site.at("runs").size(), site.at("runs").size() == 1 ? "" : "s",
      site.at("runs").empty()
          ? "never"
          : escape_html(site.at("runs").front().at("started").get<std::string>().substr(0, 10)));
  html += body;
  html += fmt::format(
      "<footer>moebench {} ({}), {}. The numbers of this page are in <a "
      "href=\"index.json\">index.json</a> and <a href=\"leaderboard.csv\">leaderboard.csv</a>; "
      "badges for shields.io in badges/.</footer></main>\n<script>",
      text_of(site.at("generator"), "version"), text_of(site.at("generator"), "git_commit"),
      text_of(site, "generated"));
  html += kToolScript;
  return html + "</script></body></html>\n";
}

}  // namespace moebench
