// The table of tasks and what they share.
#include "evals/task.h"

#include <fmt/format.h>

#include "evals/task_file.h"
#include "evals/task_list.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

const std::vector<Task>& all_tasks() {
  static const std::vector<Task> all = [] {
    std::vector<Task> list;
    for (const auto make : {nano_tasks, gpqa_tasks, math_tasks, mmlu_tasks, choice_tasks}) {
      for (Task& task : make()) list.push_back(std::move(task));
    }
    return list;
  }();
  return all;
}

}  // namespace

TaskItem TaskData::item(std::size_t index, std::int64_t repeat) const {
  return asked ? asked(index, repeat) : items.at(index);
}

const Protocol& Task::protocol(std::string_view wanted, std::string_view where) const {
  if (wanted.empty()) return protocols.front();
  std::vector<std::string_view> known;
  for (const Protocol& each : protocols) known.emplace_back(each.name);
  return protocols[index_of_name(known, wanted, where, fmt::format("protocol of {}", name))];
}

TaskData Task::load(std::string_view protocol_name) const {
  return load_items(protocol(protocol_name));
}

std::span<const Task* const> tasks() {
  static const std::vector<const Task*> pointers = [] {
    std::vector<const Task*> list;
    for (const Task& task : all_tasks()) list.push_back(&task);
    return list;
  }();
  return pointers;
}

Task find_task(std::string_view name, std::string_view where) {
  if (name.ends_with(".json")) return load_task_file(std::filesystem::path(name));
  std::vector<std::string_view> known;
  for (const Task* task : tasks()) known.emplace_back(task->name);
  return *tasks()[index_of_name(known, name, where, "task")];
}

std::string choice_letter(std::size_t index) {
  require(index < 26, "name choice {}: there are 26 letters", index);
  return std::string(1, static_cast<char>('A' + index));
}

std::string multiple_choice_prompt(std::string_view question,
                                   std::span<const std::string> choices) {
  std::string text(question);
  text += "\n\n";
  std::string letters;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const std::string letter = choice_letter(i);
    text += fmt::format("({}) {}\n", letter, choices[i]);
    letters += fmt::format("{}{}'{}'", i == 0 ? "" : ", ",
                           i > 0 && i + 1 == choices.size() ? "or " : "", letter);
  }
  text += fmt::format("\nExpress your final answer as the corresponding option {}.", letters);
  return text;
}

std::string simple_choice_prompt(std::string_view question, std::span<const std::string> choices) {
  std::string text = fmt::format(
      "Answer the following multiple choice question. The last line of your response should be of "
      "the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think "
      "step by step before answering.\n\n{}\n",
      question);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    text += fmt::format("\n{}) {}", choice_letter(i), choices[i]);
  }
  return text;
}

Conversation item_conversation(const TaskItem& item, ReasoningEffort effort) {
  return {system_message(effort), text_message(Role::kUser, item.user_message)};
}

}  // namespace moebench
