// nano: the held-out questions of the model that ships, put as the gpt-oss evals put GPQA.
#include "datasets/questions.h"
#include "evals/task_list.h"
#include "kernels/core/resources.h"

namespace moebench {
namespace {

TaskData load_nano(const Protocol&) {
  const QuestionSet set = load_questions(find_resource("datasets/nano/questions.jsonl"));
  TaskData data;
  data.hash = set.hash;
  for (const Question& q : set.questions) {
    data.items.push_back({q.id,
                          q.category,
                          q.question,
                          q.choices,
                          multiple_choice_prompt(q.question, q.choices),
                          q.answer,
                          {}});
  }
  return data;
}

}  // namespace

std::vector<Task> nano_tasks() {
  return {
      {.name = "nano",
       .summary = "four-choice problems that need several steps, held out from nano's training",
       .protocols = {{.name = "openai",
                      .source = "datasets/nano; prompt and extraction of openai/gpt-oss v0.0.8, "
                                "gpt_oss/evals/gpqa_eval.py",
                      .extraction_rule = "abcd"}},
       .max_tokens = 256,
       .load_items = load_nano}};
}

}  // namespace moebench
