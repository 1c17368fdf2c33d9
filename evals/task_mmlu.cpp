// MMLU and MMLU-Pro: multiple-choice questions of many subjects.
#include <algorithm>
#include <array>
#include <map>

#include "datasets/store.h"
#include "evals/task_list.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::size_t kProExamples = 5;

// MMLU's groups of subjects, as simple-evals reports them; what is in none of these is "other".
constexpr std::array<std::string_view, 18> kStem = {
    "abstract_algebra",         "astronomy",
    "college_biology",          "college_chemistry",
    "college_computer_science", "college_mathematics",
    "college_physics",          "computer_security",
    "conceptual_physics",       "electrical_engineering",
    "elementary_mathematics",   "high_school_biology",
    "high_school_chemistry",    "high_school_computer_science",
    "high_school_mathematics",  "high_school_physics",
    "high_school_statistics",   "machine_learning"};
constexpr std::array<std::string_view, 13> kHumanities = {"formal_logic",
                                                          "high_school_european_history",
                                                          "high_school_us_history",
                                                          "high_school_world_history",
                                                          "international_law",
                                                          "jurisprudence",
                                                          "logical_fallacies",
                                                          "moral_disputes",
                                                          "moral_scenarios",
                                                          "philosophy",
                                                          "prehistory",
                                                          "professional_law",
                                                          "world_religions"};
constexpr std::array<std::string_view, 12> kSocialSciences = {"econometrics",
                                                              "high_school_geography",
                                                              "high_school_government_and_politics",
                                                              "high_school_macroeconomics",
                                                              "high_school_microeconomics",
                                                              "high_school_psychology",
                                                              "human_sexuality",
                                                              "professional_psychology",
                                                              "public_relations",
                                                              "security_studies",
                                                              "sociology",
                                                              "us_foreign_policy"};

template <class List>
bool holds(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::string group_of(std::string_view subject) {
  if (holds(kStem, subject)) return "stem";
  if (holds(kHumanities, subject)) return "humanities";
  return holds(kSocialSciences, subject) ? "social_sciences" : "other";
}

std::string letter_answer(const DataRow& row, std::string_view column, std::size_t num_choices) {
  std::string answer = text_field(row, column);
  const bool is_letter = answer.size() == 1 && answer[0] >= 'A' &&
                         static_cast<std::size_t>(answer[0] - 'A') < num_choices;
  require(is_letter, "{}: the answer '{}' is none of the {} letters", row.where,
          answer.substr(0, 20), num_choices);
  return answer;
}

TaskData load_mmlu(const Protocol&) {
  DataRows read = load_dataset(find_dataset("mmlu"));
  TaskData data;
  data.hash = read.hash;
  for (const DataRow& row : read.rows) {
    TaskItem item;
    item.id = fmt::format("mmlu-{:05d}", data.items.size() + 1);
    item.category = group_of(text_field(row, "Subject"));
    item.question = text_field(row, "Question");
    for (const char* letter : {"A", "B", "C", "D"}) item.choices.push_back(text_field(row, letter));
    item.expected = letter_answer(row, "Answer", item.choices.size());
    item.user_message = simple_choice_prompt(item.question, item.choices);
    data.items.push_back(std::move(item));
  }
  return data;
}

std::string pro_question(std::string_view question, const std::vector<std::string>& options) {
  std::string text = fmt::format("Question:\n{}\nOptions:\n", question);
  for (std::size_t i = 0; i < options.size(); ++i) {
    text += fmt::format("{}. {}\n", choice_letter(i), options[i]);
  }
  return text;
}

// The worked examples of each subject, ready to stand before its questions.
std::map<std::string, std::string> pro_examples(const DatasetInfo& info) {
  std::map<std::string, std::string> examples;
  std::map<std::string, std::size_t> counts;
  for (const DataRow& row : load_dataset(info, "few_shot").rows) {
    const std::string subject = text_field(row, "category");
    if (counts[subject]++ >= kProExamples) continue;
    std::string worked = text_field(row, "cot_content");
    constexpr std::string_view kOpening = "A: Let's think step by step.";
    if (const std::size_t at = worked.find(kOpening); at != std::string::npos) {
      worked.replace(at, 1, "Answer");
    }
    examples[subject] +=
        pro_question(text_field(row, "question"), list_field(row, "options")) + worked + "\n\n";
  }
  return examples;
}

TaskData load_mmlu_pro(const Protocol&) {
  const DatasetInfo& info = find_dataset("mmlu_pro");
  DataRows read = load_dataset(info);
  const std::map<std::string, std::string> examples = pro_examples(info);
  TaskData data;
  data.hash = read.hash;
  for (const DataRow& row : read.rows) {
    TaskItem item;
    item.id = "mmlu_pro-" + text_field(row, "question_id");
    item.category = text_field(row, "category");
    item.question = text_field(row, "question");
    item.choices = list_field(row, "options");
    item.expected = letter_answer(row, "answer", item.choices.size());
    const auto shots = examples.find(item.category);
    item.user_message = fmt::format(
        "The following are multiple choice questions (with answers) about {}. Think step by step "
        "and "
        "then finish your answer with \"the answer is (X)\" where X is the correct letter choice.\n"
        "{}{}Answer: Let's think step by step.",
        item.category, shots == examples.end() ? "" : shots->second,
        pro_question(item.question, item.choices));
    data.items.push_back(std::move(item));
  }
  return data;
}

}  // namespace

std::vector<Task> mmlu_tasks() {
  return {{.name = "mmlu",
           .summary = "14042 four-choice questions of 57 subjects",
           .protocols = {{.name = "simple-evals",
                          .source = "openai/simple-evals, mmlu_eval.py (zero-shot)",
                          .extraction_rule = "simple_mmlu"}},
           .max_tokens = kMaxTaskTokens,
           .load_items = load_mmlu},
          {.name = "mmlu_pro",
           .summary = "12032 questions with up to ten options",
           .protocols = {{.name = "lm-eval",
                          .source = "EleutherAI/lm-evaluation-harness, mmlu_pro 2.1, as a chat "
                                    "message; the white space between its five worked examples has "
                                    "not been compared with a run of it",
                          .extraction_rule = "mmlu_pro"}},
           .max_tokens = kMaxTaskTokens,
           .load_items = load_mmlu_pro}};
}

}  // namespace moebench
