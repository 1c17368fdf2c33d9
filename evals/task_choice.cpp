// Tasks that are scored by likelihood: which of a few continuations does the model find most
// probable? Contexts and continuations are those of lm-evaluation-harness.
#include <algorithm>

#include "datasets/store.h"
#include "evals/task_list.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// One option per choice, all after the same context; lm-eval puts a space before each.
void set_options(TaskItem& item, const std::string& context, std::size_t right) {
  for (const std::string& choice : item.choices) item.options.push_back({context, " " + choice});
  item.expected = choice_letter(right);
}

std::size_t index_field(const DataRow& row, std::string_view column, std::size_t count) {
  const std::string text = text_field(row, column);
  const bool is_index =
      text.size() == 1 && text[0] >= '0' && static_cast<std::size_t>(text[0] - '0') < count;
  require(is_index, "{}: '{}' is '{}', not a number below {}", row.where, column,
          text.substr(0, 20), count);
  return static_cast<std::size_t>(text[0] - '0');
}

void fill_arc(const DataRow& row, TaskItem& item) {
  item.question = text_field(row, "question.stem");
  const std::string key = text_field(row, "answerKey");
  const Json& choices = raw_field(row, "question.choices");
  require(choices.is_array() && choices.size() >= 2 && choices.size() <= 26,
          "{}: question.choices is no list of 2 to 26", row.where);
  std::size_t right = choices.size();
  for (const Json& choice : choices) {
    const DataRow inner{choice, row.where + ", a choice"};
    require(choice.is_object(), "{}: expected an object", inner.where);
    if (text_field(inner, "label") == key) right = item.choices.size();
    item.choices.push_back(text_field(inner, "text"));
  }
  require(right < choices.size(), "{}: no choice has the label '{}'", row.where, key.substr(0, 20));
  set_options(item, fmt::format("Question: {}\nAnswer:", item.question), right);
}

std::string stripped(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
    text.replace(at, from.size(), to);
    at += to.size();
  }
}

// lm-eval's `preprocess`: what is in brackets comes from WikiHow's markup.
std::string without_markup(const std::string& original) {
  std::string text = stripped(original);
  replace_all(text, " [title]", ". ");
  std::string kept;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t close = text[at] == '[' ? text.find(']', at) : std::string::npos;
    const bool is_mark = close != std::string::npos && text.find('\n', at) > close;
    if (!is_mark) kept += text[at];
    at = is_mark ? close + 1 : at + 1;
  }
  replace_all(kept, "  ", " ");
  return kept;
}

// Python's str.capitalize, for ASCII letters.
std::string capitalized(std::string text) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  std::transform(text.begin(), text.end(), text.begin(), lower);
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 32);
  return text;
}

void fill_hellaswag(const DataRow& row, TaskItem& item) {
  item.category = text_field(row, "activity_label");
  item.question = without_markup(fmt::format("{}: {} {}", item.category, text_field(row, "ctx_a"),
                                             capitalized(text_field(row, "ctx_b"))));
  for (const std::string& ending : list_field(row, "endings")) {
    item.choices.push_back(without_markup(ending));
  }
  set_options(item, item.question, index_field(row, "label", item.choices.size()));
}

// The options differ in what comes before: the sentence up to the blank, filled in.
void fill_winogrande(const DataRow& row, TaskItem& item) {
  item.question = text_field(row, "sentence");
  item.choices = {text_field(row, "option1"), text_field(row, "option2")};
  const std::size_t blank = item.question.find('_');
  require(blank != std::string::npos, "{}: the sentence has no blank '_'", row.where);
  const std::string rest = " " + stripped(item.question.substr(blank + 1));
  for (const std::string& choice : item.choices) {
    item.options.push_back({item.question.substr(0, blank) + choice, rest});
  }
  const std::string answer = text_field(row, "answer");
  require(answer == "1" || answer == "2", "{}: the answer '{}' is neither 1 nor 2", row.where,
          answer.substr(0, 20));
  item.expected = answer == "1" ? "A" : "B";
}

void fill_boolq(const DataRow& row, TaskItem& item) {
  item.question = text_field(row, "question");
  item.choices = {"no", "yes"};
  const std::string label = text_field(row, "label");
  const bool yes = label == "true" || label == "1";
  require(yes || label == "false" || label == "0", "{}: the label '{}' is no truth value",
          row.where, label.substr(0, 20));
  set_options(item,
              fmt::format("{}\nQuestion: {}?\nAnswer:", text_field(row, "passage"), item.question),
              yes ? 1 : 0);
}

Task choice_task(const std::string& name, std::string summary,
                 void (*fill)(const DataRow&, TaskItem&)) {
  return {
      .name = name,
      .summary = std::move(summary),
      .protocols = {{.name = "lm-eval",
                     .source = fmt::format("EleutherAI/lm-evaluation-harness, {}, zero-shot", name),
                     .extraction_rule = ""}},
      .max_tokens = 1,
      .load_items = [name, fill](const Protocol&) {
        DataRows read = load_dataset(find_dataset(name));
        TaskData data;
        data.hash = read.hash;
        for (const DataRow& row : read.rows) {
          TaskItem item;
          item.id = fmt::format("{}-{:05d}", name, data.items.size() + 1);
          fill(row, item);
          data.items.push_back(std::move(item));
        }
        return data;
      }};
}

}  // namespace

std::vector<Task> choice_tasks() {
  return {choice_task("arc_easy", "grade-school science, by log-likelihood", fill_arc),
          choice_task("arc_challenge", "harder grade-school science, by log-likelihood", fill_arc),
          choice_task("hellaswag", "which sentence goes on, by log-likelihood", fill_hellaswag),
          choice_task("winogrande", "which word a blank stands for, by log-likelihood",
                      fill_winogrande),
          choice_task("boolq", "yes/no questions on a passage, by log-likelihood", fill_boolq)};
}

}  // namespace moebench
