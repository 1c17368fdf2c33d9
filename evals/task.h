// Tasks: where the items come from, how they are put to the model, how answers are read and scored.
//
// A task is a plain struct of functions in a table; adding one is one file and one line in
// task.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/harmony.h"

namespace moebench {

// One question, ready to ask.
struct TaskItem {
  std::string id;
  std::string category;
  std::string question;              // the stem, for display
  std::vector<std::string> choices;  // for display; empty if it is not multiple choice
  std::string user_message;          // what the model reads, exactly
  std::string expected;              // the right answer, in the form the rule extracts
};

struct TaskData {
  std::vector<TaskItem> items;
  std::string hash;  // of the dataset's content
};

struct Task {
  std::string_view name;
  std::string_view summary;
  std::string_view source;           // of the protocol
  std::string_view extraction_rule;  // see extract.h
  std::int64_t max_tokens;           // of one answer, unless the caller says otherwise
  TaskData (*load)();
};

std::span<const Task* const> tasks();
// Throws Error(kInvalidArgument) with `where` and the nearest name.
const Task& find_task(std::string_view name, std::string_view where = "choose a task");

// The multiple-choice prompt of the gpt-oss evals (one user message).
// Source: openai/gpt-oss, gpt_oss/evals/gpqa_eval.py.
std::string multiple_choice_prompt(std::string_view question, std::span<const std::string> choices);

// The conversation of one item: the default system message with the effort, and the user's message.
Conversation item_conversation(const TaskItem& item, ReasoningEffort effort);

}  // namespace moebench
