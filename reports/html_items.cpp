// The items with their transcripts, side by side across plans, flipped answers first. Plans that
// wrote the same text share a column, so that what differs stands out. Here are the first few for
// readers without JavaScript; page_items.js puts the whole list, from item_data.h, in their place.
#include <algorithm>
#include <optional>

#include "evals/ledger.h"
#include "reports/html_definitions.h"
#include "reports/html_page.h"
#include "reports/html_text.h"
#include "reports/item_data.h"

namespace moebench::page {
namespace {

constexpr std::size_t kStaticItems = 30;  // read without JavaScript

struct Transcript {
  const OrderedJson* answer;       // the first with this text
  std::vector<std::string> plans;  // labels
  bool has_reference = false;
};

std::string label_of(const Report& report, const OrderedJson& answer) {
  const auto it = std::find_if(report.rows.begin(), report.rows.end(), [&](const Row& row) {
    return answer.at("model") == row.model && answer.at("plan") == row.plan;
  });
  return it == report.rows.end() ? answer.at("plan").get<std::string>() : it->label;
}

bool same_text(const OrderedJson& a, const OrderedJson& b) {
  return a.at("model") == b.at("model") && a.at("verdict") == b.at("verdict") &&
         a.at("analysis") == b.at("analysis") && a.at("final") == b.at("final");
}

std::vector<Transcript> transcripts_of(const Report& report,
                                       const std::vector<const OrderedJson*>& answers) {
  std::vector<Transcript> columns;
  for (const OrderedJson* answer : answers) {
    auto it = std::find_if(columns.begin(), columns.end(),
                           [&](const Transcript& c) { return same_text(*c.answer, *answer); });
    if (it == columns.end()) it = columns.insert(columns.end(), Transcript{answer, {}});
    it->plans.push_back(label_of(report, *answer));
    it->has_reference = it->has_reference || answer->at("plan") == "reference";
  }
  std::stable_sort(columns.begin(), columns.end(), [](const Transcript& a, const Transcript& b) {
    return a.has_reference > b.has_reference;
  });
  return columns;
}

// Where a text leaves the reference's: from `begin` on, and what differs first ends at `end`.
struct Marked {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// The first word that `base` does not have there; nothing if the texts are the same.
std::optional<Marked> first_word(const std::string& text, const std::string& base) {
  if (base == text) return std::nullopt;
  auto at = static_cast<std::size_t>(
      std::mismatch(text.begin(), text.end(), base.begin(), base.end()).first - text.begin());
  while (at > 0 && text[at - 1] != ' ' && text[at - 1] != '\n') --at;
  return Marked{at, std::min(text.find_first_of(" \n", at), text.size())};
}

// The first token that is not the reference's, if it is known and seen in this field; else by text.
std::optional<Marked> first_difference(const OrderedJson& answer, const OrderedJson& reference,
                                       const char* field) {
  const auto text = answer.at(field).get<std::string>();
  const auto known = answer.find("first_divergence");
  if (known == answer.end() || known->at("text") != field) {
    return first_word(text, reference.at(field).get<std::string>());
  }
  const std::size_t begin = std::min(known->at("byte").get<std::size_t>(), text.size());
  return Marked{begin,
                begin + std::min(known->at("bytes").get<std::size_t>(), text.size() - begin)};
}

std::string marked_html(const std::string& text, const std::optional<Marked>& marked) {
  if (!marked) return escape_html(text);
  const auto [at, end] = *marked;
  std::string html = escape_html(text.substr(0, at));
  if (end > at) html += "<mark class=first>" + escape_html(text.substr(at, end - at)) + "</mark>";
  if (text.size() > end) html += "<mark>" + escape_html(text.substr(end)) + "</mark>";
  return html;
}

std::string transcript_html(const Transcript& column, const OrderedJson* reference) {
  const OrderedJson& answer = *column.answer;
  const bool is_base = reference == nullptr || column.has_reference;
  const auto text = [&](const char* field) { return answer.at(field).get<std::string>(); };
  const auto body = [&](const char* field) {
    return marked_html(text(field),
                       is_base ? std::nullopt : first_difference(answer, *reference, field));
  };
  std::string plans;
  for (const std::string& plan : column.plans) {
    plans += fmt::format("<span class=plan>{}</span>", escape_html(plan));
  }
  const auto verdict = text("verdict");
  return fmt::format(
      "<article class=v-edge-{0}><header>{1}<span class=\"verdict v-text-{0}\">{0}{2}</span>"
      "<small>{3} tokens</small></header>{4}<pre class=final>{5}</pre></article>",
      verdict, plans, answer.at("flipped").get<bool>() ? ", flipped" : "",
      answer.at("output_tokens").get<std::int64_t>(),
      text("analysis").empty() ? "" : "<pre>" + body("analysis") + "</pre>",
      answer.contains("hidden_text_hash")
          ? "<span class=none>text kept back, as the dataset's authors ask</span>"
      : text("final").empty() ? "<span class=none>no final message</span>"
                              : body("final"));
}

std::string item_html(const Report& report, const OrderedJson& item, bool is_open) {
  // Groups of answers that stand beside each other: one effort and repeat.
  std::vector<std::pair<std::string, std::vector<const OrderedJson*>>> groups;
  for (const OrderedJson& answer : item.at("answers")) {
    std::string name = answer.at("effort").get<std::string>();
    if (const auto repeat = answer.at("repeat").get<std::int64_t>(); repeat > 0) {
      name += fmt::format(", repeat {}", repeat + 1);
    }
    auto it =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == name; });
    if (it == groups.end()) it = groups.insert(groups.end(), {name, {}});
    it->second.push_back(&answer);
  }
  std::string chips;
  std::string bodies;
  for (const auto& [name, answers] : groups) {
    chips += fmt::format("<span class=chips><em>{}</em>", escape_html(name));
    for (const OrderedJson* answer : answers) {
      const auto verdict = answer->at("verdict").get<std::string>();
      chips += fmt::format("<i class=\"v-{}{}\" title=\"{}: {}\"></i>", verdict,
                           answer->at("flipped").get<bool>() ? " flip" : "",
                           escape_html(label_of(report, *answer)), verdict);
    }
    chips += "</span>";
    const auto columns = transcripts_of(report, answers);
    const OrderedJson* reference = columns.front().has_reference ? columns.front().answer : nullptr;
    bodies += fmt::format("<h4>effort {}</h4><div class=side>", escape_html(name));
    for (const Transcript& column : columns) bodies += transcript_html(column, reference);
    bodies += "</div>";
  }
  const auto question = item.value("question", std::string());
  std::string choices;
  char letter = 'A';
  const auto expected = item.at("expected").get<std::string>();
  for (const OrderedJson& choice : item.value("choices", OrderedJson::array())) {
    choices +=
        fmt::format("<li{}>{}</li>", expected == std::string(1, letter) ? " class=right" : "",
                    escape_html(choice.get<std::string>()));
    ++letter;
  }
  return fmt::format(
      "<details class=item{}><summary>"
      "<span class=id>{}</span><span class=category>{}</span><span class=question>{}</span>{}"
      "</summary><p class=full>{}</p>{}<p class=expected>expected: <b>{}</b></p>{}</details>\n",
      is_open ? " open" : "", escape_html(item.at("id").get<std::string>()),
      escape_html(item.at("category").get<std::string>()), escape_html(question), chips,
      escape_html(question), choices.empty() ? "" : "<ol type=A>" + choices + "</ol>",
      escape_html(expected), bodies);
}

}  // namespace

std::string items_section(const Report& report, const PackedItems& packed) {
  const OrderedJson& items = report.json.at("items");
  if (items.empty()) return "";
  const std::size_t shown = std::min(kStaticItems, items.size());
  std::int64_t num_flipped = 0;
  std::string body;
  for (std::size_t i = 0; i < items.size(); ++i) {
    num_flipped += items[i].at("flips").get<std::int64_t>() > 0 ? 1 : 0;
    if (i < shown) body += item_html(report, items[i], i == 0);
  }
  const auto select = [](std::string_view name, std::string_view all) {
    return fmt::format("<select name={0} aria-label={0}><option value=\"\">{1}</option></select>",
                       name, all);
  };
  const std::string controls =
      "<form id=filter hidden><input type=search placeholder=\"search questions and answers ( / "
      ")\" "
      "aria-label=search>" +
      select("task", "all tasks") + select("category", "all categories") +
      select("plan", "any plan") + select("verdict", "any verdict") +
      "<label><input type=checkbox> flipped only</label><output role=status></output></form>";
  std::string legend = "<p class=legend>";
  for (int v = 0; v < kNumVerdicts; ++v) {
    const auto verdict = static_cast<Verdict>(v);
    legend += fmt::format("<span title=\"{}\"><i class=v-{}></i>{}</span>",
                          definition_of(verdict_name(verdict)), verdict_name(verdict),
                          verdict_name(verdict));
  }
  legend += "<span><i class=\"v-wrong flip\"></i>ringed: differs from the reference</span></p>";
  const OrderedJson& data = packed.index;
  std::string left_out =
      shown < items.size()
          ? fmt::format(
                "<noscript><p class=none>{} more items are seen with JavaScript, and in "
                "report.json.</p></noscript>",
                items.size() - shown)
          : "";
  const auto without_text = data.at("without_text").get<std::size_t>();
  const auto absent = data.at("left_out").get<std::size_t>();
  if (without_text > 0) {
    left_out += fmt::format(
        "<p class=none>To keep the page small, the transcripts of the last {} items are only in "
        "report.json.</p>",
        without_text);
  }
  if (absent > 0) {
    left_out += fmt::format("<p class=none>{} more items are only in report.json.</p>", absent);
  }
  return section(
      "items", "Every answer",
      fmt::format("{} questions; the {} whose answer is right under one plan and wrong under the "
                  "reference come first. Squares are plans in the order of the tables. The first "
                  "token that differs from the reference, or the first word where a run kept no "
                  "tokens, is marked, and what follows tinted.",
                  items.size(), num_flipped),
      controls + legend + "<div id=item-list>" + body + "</div>" + left_out +
          "<script type=\"application/json\" id=item-data>" + script_json(data) + "</script>");
}

}  // namespace moebench::page
