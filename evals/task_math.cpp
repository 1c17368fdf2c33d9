// Problems whose answer is a number or an expression: AIME, GSM8K, MATH-500.
#include "datasets/store.h"
#include "evals/extract.h"
#include "evals/task_list.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// The items of a dataset, one per row, made by `fill` and numbered.
template <class Fill>
TaskData items_of(const std::string& dataset, const Fill& fill) {
  DataRows read = load_dataset(find_dataset(dataset));
  TaskData data;
  data.hash = read.hash;
  for (const DataRow& row : read.rows) {
    TaskItem item;
    item.id = fmt::format("{}-{:04d}", dataset, data.items.size() + 1);
    fill(row, item);
    require(!item.expected.empty(), "{}: no answer can be read from it", row.where);
    data.items.push_back(std::move(item));
  }
  return data;
}

// Digits at the front, in canonical decimal, as the published code reads targets ("336^\circ").
std::string leading_integer(const std::string& answer) {
  const std::string digits = answer.substr(0, answer.find_first_not_of("0123456789"));
  return extract("aime", "\\boxed{" + digits + "}").value.value_or("");
}

TaskData load_aime(const std::string& dataset, const std::string& question_column) {
  return items_of(dataset, [&](const DataRow& row, TaskItem& item) {
    item.question = text_field(row, question_column);
    item.expected = leading_integer(text_field(row, "answer"));
    item.user_message = fmt::format(
        "\n{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.\n",
        item.question);
  });
}

Task aime_task(const std::string& year, const std::string& question_column,
               const std::string& remark) {
  const std::string name = "aime_" + year;
  return {
      .name = name,
      .summary = fmt::format("the 30 problems of AIME {}, I and II; answers are integers", year),
      .protocols = {{.name = "openai",
                     .source = "openai/gpt-oss v0.0.8, gpt_oss/evals/aime_eval.py" + remark,
                     .extraction_rule = "aime"}},
      .max_tokens = kMaxTaskTokens,
      .load_items = [name, question_column](const Protocol&) {
        return load_aime(name, question_column);
      }};
}

// "... #### 1,234" -> "1234"
std::string gsm8k_target(const DataRow& row) {
  const std::string answer = text_field(row, "answer");
  const std::size_t mark = answer.rfind("#### ");
  require(mark != std::string::npos, "{}: the answer has no line '#### NUMBER'", row.where);
  std::string target = answer.substr(mark + 5);
  std::erase_if(target, [](char c) { return c == ',' || c == '$' || c == ' ' || c == '\n'; });
  return target;
}

TaskData load_gsm8k(const Protocol& protocol) {
  const bool as_mgsm = protocol.name == "simple-evals";
  return items_of("gsm8k", [&](const DataRow& row, TaskItem& item) {
    item.question = text_field(row, "question");
    item.expected = gsm8k_target(row);
    item.user_message =
        as_mgsm ? fmt::format(
                      "Solve this math problem. Give the reasoning steps before giving the final "
                      "answer on the last line by itself in the format of \"Answer:\". Do not add "
                      "anything other than the integer answer after \"Answer:\".\n\n{}",
                      item.question)
                : fmt::format("Question: {}\nAnswer:", item.question);
  });
}

TaskData load_math_500(const Protocol&) {
  return items_of("math_500", [&](const DataRow& row, TaskItem& item) {
    item.question = text_field(row, "Question");
    item.expected = text_field(row, "Answer");
    item.user_message = fmt::format(
        "Solve the following math problem step by step. The last line of your response should be "
        "of "
        "the form ANSWER: $ANSWER (without quotes) where $ANSWER is the answer to the problem.\n\n"
        "{}\n\nRemember to put your answer on its own line after \"ANSWER:\", and you do not need "
        "to "
        "use a \\boxed command.",
        item.question);
  });
}

}  // namespace

std::vector<Task> math_tasks() {
  return {
      aime_task("2024", "problem", " (which has AIME 2025 only; put in the same way)"),
      aime_task("2025", "question", ""),
      {.name = "gsm8k",
       .summary = "1319 grade-school word problems; answers are integers",
       .protocols = {{.name = "simple-evals",
                      .source =
                          "openai/simple-evals, mgsm_eval.py, English, whose 250 questions are "
                          "GSM8K's first; here all of GSM8K",
                      .extraction_rule = "mgsm"},
                     {.name = "lm-eval",
                      .source = "EleutherAI/lm-evaluation-harness, gsm8k, filter flexible-extract, "
                                "as a chat message and without its five examples",
                      .extraction_rule = "gsm8k_flexible"}},
       .max_tokens = kMaxTaskTokens,
       .load_items = load_gsm8k},
      {.name = "math_500",
       .summary = "500 competition problems; answers are expressions",
       .protocols = {{.name = "simple-evals",
                      .source = "openai/simple-evals, math_eval.py; equality by the normal form of "
                                "Hendrycks et al. instead of by a language model, so scores are "
                                "lower where only such a judge sees that two spellings are equal",
                      .extraction_rule = "simple_math",
                      .scorer = Scorer::kMath}},
       .max_tokens = kMaxTaskTokens,
       .load_items = load_math_500},
  };
}

}  // namespace moebench
