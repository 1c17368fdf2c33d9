// The table of tasks and what they share.
#include "evals/task.h"

#include <fmt/format.h>

#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {

extern const Task task_nano;

std::span<const Task* const> tasks() {
  static constexpr const Task* kAll[] = {&task_nano};
  return kAll;
}

const Task& find_task(std::string_view name, std::string_view where) {
  std::vector<std::string_view> known;
  for (const Task* task : tasks()) known.emplace_back(task->name);
  return *tasks()[index_of_name(known, name, where, "task")];
}

std::string multiple_choice_prompt(std::string_view question,
                                   std::span<const std::string> choices) {
  std::string text(question);
  text += "\n\n";
  std::string letters;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const char letter = static_cast<char>('A' + i);
    text += fmt::format("({}) {}\n", letter, choices[i]);
    letters += fmt::format("{}{}'{}'", i == 0 ? "" : ", ",
                           i > 0 && i + 1 == choices.size() ? "or " : "", letter);
  }
  text += fmt::format("\nExpress your final answer as the corresponding option {}.", letters);
  return text;
}

Conversation item_conversation(const TaskItem& item, ReasoningEffort effort) {
  return {system_message(effort), text_message(Role::kUser, item.user_message)};
}

}  // namespace moebench
