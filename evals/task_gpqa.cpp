// GPQA: graduate-level science questions. Each repeat of a question shuffles its options anew, as
// published: one generator for the whole run, one draw per (repeat, question), all questions of a
// repeat in file order before the next repeat. So the published scores' 8 x 198 questions come out
// letter for letter, and a run with --limit asks the first of the same questions.
#include <memory>

#include "datasets/store.h"
#include "evals/python_random.h"
#include "evals/task_list.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

struct Source {
  std::vector<DataRow> rows;
  bool simple_prompt = false;

  // Orders drawn so far, repeat after repeat, and the generator that draws the next ones.
  PythonRandom random{0};
  std::vector<std::vector<int>> orders;

  const std::vector<int>& order(std::size_t index, std::int64_t repeat) {
    const std::size_t number = static_cast<std::size_t>(repeat) * rows.size() + index;
    while (orders.size() <= number) orders.push_back(random.permutation(4));
    return orders[number];
  }
};

TaskItem make_item(Source& source, std::size_t index, std::int64_t repeat) {
  const DataRow& row = source.rows[index];
  const std::vector<std::string> base = {
      text_field(row, "Correct Answer"), text_field(row, "Incorrect Answer 1"),
      text_field(row, "Incorrect Answer 2"), text_field(row, "Incorrect Answer 3")};
  TaskItem item;
  item.id = fmt::format("gpqa-{:04d}", index + 1);
  item.category = row.fields.contains("High-level domain") ? text_field(row, "High-level domain")
                                                           : std::string();
  item.question = text_field(row, "Question");
  for (const int from : source.order(index, repeat)) {
    item.choices.push_back(base[static_cast<std::size_t>(from)]);
  }
  // By its text, as published: of two equal options the first counts.
  const auto right = std::find(item.choices.begin(), item.choices.end(), base[0]);
  item.expected = choice_letter(static_cast<std::size_t>(right - item.choices.begin()));
  item.user_message = source.simple_prompt ? simple_choice_prompt(item.question, item.choices)
                                           : multiple_choice_prompt(item.question, item.choices);
  return item;
}

TaskData load(const std::string& name, const Protocol& protocol) {
  DataRows read = load_dataset(find_dataset(name));
  auto source = std::make_shared<Source>();
  source->rows = std::move(read.rows);
  source->simple_prompt = protocol.name == "simple-evals";
  TaskData data;
  data.hash = read.hash;
  for (std::size_t i = 0; i < source->rows.size(); ++i) {
    data.items.push_back(make_item(*source, i, 0));
  }
  data.asked = [source](std::size_t index, std::int64_t repeat) {
    return make_item(*source, index, repeat);
  };
  return data;
}

Task gpqa_task(const std::string& name, std::string summary) {
  return {.name = name,
          .summary = std::move(summary),
          .protocols = {{.name = "openai",
                         .source = "openai/gpt-oss v0.0.8, gpt_oss/evals/gpqa_eval.py",
                         .extraction_rule = "abcd"},
                        {.name = "simple-evals",
                         .source = "openai/simple-evals, gpqa_eval.py",
                         .extraction_rule = "simple_gpqa"}},
          .max_tokens = kMaxTaskTokens,
          .public_text = false,
          .load_items = [name](const Protocol& protocol) { return load(name, protocol); }};
}

}  // namespace

std::vector<Task> gpqa_tasks() {
  return {
      gpqa_task("gpqa_diamond", "198 graduate-level science questions that experts agree on"),
      gpqa_task("gpqa_main", "448 graduate-level science questions"),
      gpqa_task("gpqa_extended", "546 graduate-level science questions, all that were written")};
}

}  // namespace moebench
