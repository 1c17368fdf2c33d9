// Tasks: where the items come from, how they are put to the model, how answers are read and scored.
//
// A task is a plain struct with a function that loads its items; adding one is one file and one
// line in task.cpp, or a JSON file of the user's (task_file.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/harmony.h"

namespace moebench {

// What a model's likelihood is asked for: how probable is `continuation` after `context`?
struct ScoredOption {
  std::string context;
  std::string continuation;
};

// One question, ready to ask.
struct TaskItem {
  std::string id;
  std::string category;
  std::string question;               // the stem, for display
  std::vector<std::string> choices;   // for display; empty if it is not multiple choice
  std::string user_message;           // what the model reads, exactly; "" with `options`
  std::string expected;               // the right answer, in the form the rule extracts
  std::vector<ScoredOption> options;  // of a log-likelihood task: one per choice
};

struct TaskData {
  std::vector<TaskItem> items;
  std::string hash;  // of the dataset's content

  // The item as repeat `repeat` asks it, where repeats differ (GPQA shuffles its options anew);
  // empty: as in `items`, which is repeat 0.
  std::function<TaskItem(std::size_t index, std::int64_t repeat)> asked;

  TaskItem item(std::size_t index, std::int64_t repeat) const;
};

enum class Scorer {
  kEqual,  // the extracted value is the expected one
  kMath,   // or another spelling of it: see math_equivalence.h
};

// One published way to put a task and to read its answers.
struct Protocol {
  std::string name;             // "openai", "simple-evals", "lm-eval", ...
  std::string source;           // where it is published, and what we do otherwise
  std::string extraction_rule;  // see extract.h; "" for log-likelihood tasks
  Scorer scorer = Scorer::kEqual;
};

struct Task {
  std::string name;
  std::string summary;
  std::vector<Protocol> protocols;  // the first is the default
  std::int64_t max_tokens = 0;      // of one answer, unless the caller says otherwise
  bool public_text = true;          // false: item texts do not go into ledgers and reports
  std::function<TaskData(const Protocol&)> load_items;

  // "" is the default. Throws Error(kInvalidArgument) with `where` and the nearest name.
  const Protocol& protocol(std::string_view wanted = "",
                           std::string_view where = "choose a protocol") const;
  // Throws Error(kIo) that says how to get the dataset if it is not on this machine.
  TaskData load(std::string_view protocol_name = "") const;
};

// The tasks that come with moebench.
std::span<const Task* const> tasks();
// By name, or a user's task by the path of its file, which ends in .json. Throws
// Error(kInvalidArgument) with `where` and the nearest name, and Error for what is wrong in the
// file.
Task find_task(std::string_view name, std::string_view where = "choose a task");

// The multiple-choice prompt of the gpt-oss evals (one user message).
// Source: openai/gpt-oss, gpt_oss/evals/gpqa_eval.py.
std::string multiple_choice_prompt(std::string_view question, std::span<const std::string> choices);

// The one of simple-evals, for four choices: QUERY_TEMPLATE_MULTICHOICE of its common.py.
std::string simple_choice_prompt(std::string_view question, std::span<const std::string> choices);

// "A" for 0 ... "Z" for 25.
std::string choice_letter(std::size_t index);

// The conversation of one item: the default system message with the effort, and the user's message.
Conversation item_conversation(const TaskItem& item, ReasoningEffort effort);

}  // namespace moebench
