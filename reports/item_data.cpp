// Packing items for the page.
#include "reports/item_data.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "evals/ledger.h"
#include "reports/embedded_data.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

constexpr std::size_t kChunkItems = 100;
constexpr std::size_t kQuestionBytes = 160;  // of the index: what a row of the list can show

// Names by the number under which they were first seen.
class Names {
 public:
  std::size_t number(const std::string& name) {
    const auto [it, is_new] = numbers_.emplace(name, list_.size());
    if (is_new) list_.push_back(name);
    return it->second;
  }
  const OrderedJson& list() const { return list_; }

 private:
  std::map<std::string, std::size_t> numbers_;
  OrderedJson list_ = OrderedJson::array();
};

struct Tables {
  Names plans;
  Names efforts;
  Names tasks;
  Names categories;
  std::map<std::pair<std::string, std::string>, std::string> labels;  // of (model, plan)
};

std::string text_of(const OrderedJson& object, const char* name) {
  return visible_text(object.value(name, std::string()));
}

int verdict_number(const OrderedJson& answer) {
  return static_cast<int>(parse_verdict(answer.at("verdict").get<std::string>(), "items"));
}

// How long the page's scripts find a text, of which the page has the visible form: in UTF-16.
std::size_t script_length(const std::string& text) {
  std::size_t units = 0;
  for (const char c : visible_text(text)) {
    const auto byte = static_cast<unsigned char>(c);
    units += (byte & 0xC0) == 0x80 ? 0 : byte >= 0xF0 ? 2 : 1;
  }
  return units;
}

// As the last element of an answer; null if it is not known.
OrderedJson divergence_row(const OrderedJson& answer) {
  const auto known = answer.find("first_divergence");
  if (known == answer.end()) return OrderedJson();
  const auto text = answer.at(known->at("text").get<std::string>()).get<std::string>();
  const std::size_t begin = std::min(known->at("byte").get<std::size_t>(), text.size());
  const std::size_t bytes = std::min(known->at("bytes").get<std::size_t>(), text.size() - begin);
  return OrderedJson::array({known->at("token"), known->at("text") == "final" ? 1 : 0,
                             script_length(text.substr(0, begin)),
                             script_length(text.substr(begin, bytes))});
}

// What the list shows before anything is opened.
OrderedJson index_row(Tables& tables, const OrderedJson& item) {
  // Those that stand beside each other when the item is opened: one effort and repeat.
  std::map<std::pair<std::size_t, std::int64_t>, std::string> groups;
  for (const OrderedJson& answer : item.at("answers")) {
    const char first = answer.at("flipped").get<bool>() ? 'A' : 'a';
    groups[{tables.efforts.number(text_of(answer, "effort")),
            answer.at("repeat").get<std::int64_t>()}] +=
        static_cast<char>(first + verdict_number(answer));
  }
  std::string verdicts;
  for (const auto& [group, letters] : groups) verdicts += (verdicts.empty() ? "" : " ") + letters;
  std::string question = text_of(item, "question").substr(0, kQuestionBytes);
  std::replace(question.begin(), question.end(), '\n', ' ');
  return OrderedJson::array({tables.tasks.number(text_of(item, "task")), text_of(item, "id"),
                             tables.categories.number(text_of(item, "category")), item.at("flips"),
                             question, verdicts});
}

OrderedJson item_row(Tables& tables, const OrderedJson& item, bool with_text) {
  OrderedJson texts = OrderedJson::array();
  OrderedJson answers = OrderedJson::array();
  std::map<std::pair<std::string, std::string>, std::size_t> known;  // plans often agree
  for (const OrderedJson& answer : item.at("answers")) {
    OrderedJson number;
    if (with_text) {
      const std::pair text{text_of(answer, "analysis"), text_of(answer, "final")};
      const auto [it, is_new] = known.emplace(text, texts.size());
      if (is_new) texts.push_back({text.first, text.second});
      number = it->second;
    }
    const auto label = tables.labels.find(
        {answer.at("model").get<std::string>(), answer.at("plan").get<std::string>()});
    const std::string plan =
        label == tables.labels.end() ? text_of(answer, "plan") : visible_text(label->second);
    answers.push_back(OrderedJson::array(
        {tables.plans.number(plan), tables.efforts.number(text_of(answer, "effort")),
         answer.at("repeat"), verdict_number(answer), answer.at("flipped").get<bool>() ? 1 : 0,
         number, answer.at("output_tokens"), std::round(answer.at("e2e_ms").get<double>()),
         text_of(answer, "answer"), text_of(answer, "hidden_text_hash")}));
    OrderedJson divergence = with_text ? divergence_row(answer) : OrderedJson();
    if (!divergence.is_null()) answers.back().push_back(std::move(divergence));
  }
  OrderedJson choices = OrderedJson::array();
  for (const OrderedJson& choice : item.value("choices", OrderedJson::array())) {
    choices.push_back(visible_text(choice.get<std::string>()));
  }
  return OrderedJson::array({text_of(item, "expected"), with_text ? text_of(item, "question") : "",
                             with_text ? choices : OrderedJson::array(), texts, answers});
}

// A question cut inside a character must not stop the page.
std::string pack(const OrderedJson& json) {
  return deflate_base64(json.dump(-1, ' ', false, OrderedJson::error_handler_t::ignore));
}

}  // namespace

PackedItems pack_items(const Report& report, std::size_t most_bytes) {
  const OrderedJson& items = report.json.at("items");
  Tables tables;
  for (const Row& row : report.rows) {
    tables.labels[{row.model, row.plan}] = row.label;
    tables.plans.number(visible_text(row.label));
  }
  OrderedJson index = OrderedJson::array();
  std::vector<std::string> chunks;
  std::size_t bytes = 0;
  std::size_t without_text = 0;
  for (std::size_t first = 0; first < items.size(); first += kChunkItems) {
    const std::size_t end = std::min(items.size(), first + kChunkItems);
    const auto packed = [&](bool with_text) {
      OrderedJson rows = OrderedJson::array();
      for (std::size_t i = first; i < end; ++i) {
        rows.push_back(item_row(tables, items[i], with_text));
      }
      return pack(rows);
    };
    // Room is kept for the verdicts of the items that come after, and for the index.
    std::string chunk = without_text == 0 ? packed(true) : "";
    if (chunk.empty() || bytes + chunk.size() > most_bytes / 4 * 3) {
      chunk = packed(false);
      if (bytes + chunk.size() > most_bytes / 8 * 7) break;
      without_text += end - first;
    }
    bytes += chunk.size();
    chunks.push_back(std::move(chunk));
    for (std::size_t i = first; i < end; ++i) index.push_back(index_row(tables, items[i]));
  }
  OrderedJson reference_of = OrderedJson::array();
  for (const Row& row : report.rows) {
    const Row* reference = report.reference_of(row);
    reference_of.push_back(reference == nullptr ? -1 : reference - report.rows.data());
  }
  OrderedJson verdicts = OrderedJson::array();
  for (int v = 0; v < kNumVerdicts; ++v) verdicts.push_back(verdict_name(static_cast<Verdict>(v)));
  OrderedJson data = {{"plans", tables.plans.list()},
                      {"efforts", tables.efforts.list()},
                      {"tasks", tables.tasks.list()},
                      {"categories", tables.categories.list()},
                      {"verdicts", verdicts},
                      {"reference_of", reference_of},
                      {"count", index.size()},
                      {"without_text", without_text},
                      {"left_out", items.size() - index.size()},
                      {"chunk_items", kChunkItems},
                      {"index", pack(index)}};
  return {std::move(data), std::move(chunks)};
}

std::string item_chunks(const PackedItems& items) {
  std::string html;
  for (const std::string& chunk : items.chunks) {
    html += fmt::format("<script type=\"text/plain\" class=item-chunk>{}</script>\n", chunk);
  }
  return html;
}

}  // namespace moebench::page
