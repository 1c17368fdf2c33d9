// The verdict: one sentence for those who read no further, and for each plan what became better or
// worse than the reference, by kind.
#include <algorithm>
#include <set>

#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

struct Kind {
  std::string_view title;
  std::vector<std::string_view> families;
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {{"accuracy", {"accuracy"}},
                                        {"fidelity", {"fidelity", "determinism"}},
                                        {"speed", {"speed"}},
                                        {"memory", {"memory"}},
                                        {"length of answers", {"length"}}};
  return all;
}

bool is_quality(const OrderedJson& verdict) {
  const auto family = verdict.at("family").get<std::string>();
  return family == "accuracy" || family == "fidelity" || family == "determinism";
}

const OrderedJson& verdicts_of(const Report& report) {
  static const OrderedJson kNone = OrderedJson::array();
  const auto it = report.json.find("verdicts");
  return it == report.json.end() ? kNone : *it;
}

// Outcomes with a sign of their own, so that colour is not needed.
struct Sign {
  std::string_view outcome;
  std::string_view sign;
  std::string_view word;
  std::string_view style;
};
constexpr Sign kSigns[] = {{"REGRESSED", "▼", "worse", "bad"},
                           {"IMPROVED", "▲", "better", "good"},
                           {"SAME", "=", "same", "plain"},
                           {"INCONCLUSIVE", "?", "open", "open"},
                           {"NOT COMPARABLE", "–", "not comparable", "none"}};

std::string change_text(const OrderedJson& verdict) {
  const bool relative = verdict.at("relative").get<bool>();
  const auto unit = verdict.at("unit").get<std::string>();
  if (unit == "bool") return "";
  const bool percent = relative || unit == "share";
  const auto one = [&](double value) { return format_signed((percent ? 100 : 1) * value); };
  std::string text = one(verdict.at("change").get<double>());
  text += relative ? " %" : unit == "share" ? " points" : " " + unit;
  if (verdict.at("interval").is_object()) {
    text += fmt::format(" [{}, {}]", one(verdict.at("interval").at("low").get<double>()),
                        one(verdict.at("interval").at("high").get<double>()));
  }
  return text + fmt::format(", margin {:.3g}{}",
                            (percent ? 100 : 1) * verdict.at("margin").get<double>(),
                            relative ? " %" : "");
}

// "▲ 3 better", with what they are as the hover text.
std::string matrix_cell(const Report& report, const Row& row, const Kind& kind) {
  std::string cell;
  for (const Sign& sign : kSigns) {
    int count = 0;
    std::string which;
    for (const OrderedJson& verdict : verdicts_of(report)) {
      const auto family = verdict.at("family").get<std::string>();
      if (verdict.at("model") != row.model || verdict.at("plan") != row.plan ||
          verdict.at("outcome") != sign.outcome ||
          std::find(kind.families.begin(), kind.families.end(), family) == kind.families.end()) {
        continue;
      }
      ++count;
      const auto reason = verdict.at("reason").get<std::string>();
      which += fmt::format("{}{} {}: {}{}", which.empty() ? "" : "\n",
                           verdict.at("scenario").get<std::string>(),
                           verdict.at("metric").get<std::string>(), change_text(verdict),
                           reason.empty() ? "" : "; " + reason);
    }
    if (count == 0) continue;
    cell += fmt::format("<span class=\"call {}\" title=\"{}\">{} {} {}</span>", sign.style,
                        escape_html(which), sign.sign, count, sign.word);
  }
  return fmt::format("<td class=verdict>{}</td>", cell.empty() ? std::string(kNoValue) : cell);
}

std::string banner(std::string_view style, std::string_view sign, const std::string& title,
                   const std::string& text) {
  return fmt::format(
      "<div class=\"banner is-{}\" role=status><span class=sign aria-hidden=true>{}</span><b>{}</b>"
      "<p>{}</p></div>\n",
      style, sign, escape_html(title), escape_html(text));
}

std::string join(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string label_of(const Report& report, const OrderedJson& verdict) {
  for (const Row& row : report.rows) {
    if (verdict.at("model") == row.model && verdict.at("plan") == row.plan) return row.label;
  }
  return verdict.at("plan").get<std::string>();
}

}  // namespace

std::string verdict_banner(const Report& report) {
  std::size_t failures = 0;
  for (const Row& row : report.rows) failures += row.summary->at("failures").size();
  std::set<std::string> judged;
  std::set<std::string> worse;
  std::set<std::string> open;
  std::set<std::string> faster;
  std::set<std::string> slower;
  for (const OrderedJson& verdict : verdicts_of(report)) {
    const auto outcome = verdict.at("outcome").get<std::string>();
    const std::string label = label_of(report, verdict);
    judged.insert(label);
    if (is_quality(verdict)) {
      if (outcome == "REGRESSED") worse.insert(label);
      if (outcome == "INCONCLUSIVE") open.insert(label);
    } else if (verdict.at("family") == "speed") {
      if (outcome == "IMPROVED") faster.insert(label);
      if (outcome == "REGRESSED") slower.insert(label);
    }
  }
  if (judged.empty() && failures == 0) return "";
  std::string text;
  const auto say = [&](const std::string& sentence) {
    text += (text.empty() ? "" : " ") + sentence;
  };
  if (!faster.empty()) say(fmt::format("Faster: {}.", join(faster)));
  if (!slower.empty()) say(fmt::format("Slower somewhere: {}.", join(slower)));
  for (const std::string& label : worse) open.erase(label);
  if (!worse.empty() && !open.empty()) say(fmt::format("Cannot be told: {}.", join(open)));
  if (failures > 0) {
    return banner("bad", "✕",
                  failures == 1 ? "One case failed" : fmt::format("{} cases failed", failures),
                  (worse.empty() ? "" : "Worse than the reference: " + join(worse) + ". ") + text);
  }
  const std::string of =
      fmt::format("{} of {} plan{}", worse.size(), judged.size(), judged.size() == 1 ? "" : "s");
  if (!worse.empty()) {
    return banner("bad", "▼", of + " answer worse than the reference: " + join(worse), text);
  }
  if (!open.empty()) {
    return banner("open", "?", "No plan is shown to answer worse than the reference",
                  fmt::format("For {} a loss of the margin is not ruled out either: more answers "
                              "would tell. ",
                              join(open)) +
                      text);
  }
  return banner("good", "=", "No plan answers worse than the reference, by the margins", text);
}

std::string verdict_table(const Report& report) {
  if (verdicts_of(report).empty()) return "";
  std::vector<Column> columns;
  for (const Kind& kind : kinds()) {
    Column column{std::string(kind.title), {}};
    bool any = false;
    for (const Row& row : report.rows) {
      column.cells.push_back(row.is_reference ? fmt::format("<td class=verdict>{}</td>", kNoValue)
                                              : matrix_cell(report, row, kind));
      any = any || column.cells.back().find("class=\"call") != std::string::npos;
    }
    if (any) columns.push_back(std::move(column));
  }
  return "<h3>Verdicts</h3><p class=lead>Each metric against the reference's in the same run, as "
         "<code>moebench compare</code> judges it: better or worse where the change is shown and "
         "at "
         "least the margin; the same where the whole interval lies within it; open where the data "
         "cannot tell. What they are stands at each.</p>" +
         table_of_plans(report, columns, "verdicts");
}

}  // namespace moebench::page
