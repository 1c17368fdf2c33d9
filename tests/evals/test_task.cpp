// Tasks: the prompt is the published one, and the items are those of the file.
#include <catch2/catch.hpp>
#include <set>

#include "evals/extract.h"
#include "evals/task.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {

TEST_CASE("task: the multiple-choice prompt is the one of gpt-oss's gpqa_eval, byte for byte") {
  // QUERY_TEMPLATE_MULTICHOICE of gpt_oss/evals/gpqa_eval.py, filled in by hand.
  const std::vector<std::string> choices = {"3", "four", "5.0", "a|b"};
  CHECK(multiple_choice_prompt("What is 2 + 2?", choices) ==
        "What is 2 + 2?\n"
        "\n"
        "(A) 3\n"
        "(B) four\n"
        "(C) 5.0\n"
        "(D) a|b\n"
        "\n"
        "Express your final answer as the corresponding option 'A', 'B', 'C', or 'D'.");
}

TEST_CASE("task: fewer choices name fewer letters") {
  const std::vector<std::string> two = {"yes", "no"};
  CHECK_THAT(multiple_choice_prompt("Is it?", two), Catch::EndsWith("option 'A', or 'B'."));
}

TEST_CASE("task: every task can be loaded, extracted and told apart") {
  std::set<std::string> names;
  for (const Task* task : tasks()) {
    INFO(task->name);
    CHECK(names.insert(task->name).second);
    CHECK(task->max_tokens > 0);
    for (const Protocol& protocol : task->protocols) {
      CHECK_FALSE(protocol.source.empty());
      if (!protocol.extraction_rule.empty()) {
        CHECK_NOTHROW(extract(protocol.extraction_rule, "Answer: A"));
      }
    }
    CHECK(find_task(task->name).name == task->name);
    if (task->name != "nano") continue;  // others need a dataset: see test_published_tasks.cpp
    const TaskData data = task->load();
    CHECK_FALSE(data.items.empty());
    CHECK(data.hash.size() == 16);
    std::set<std::string> ids;
    for (const TaskItem& item : data.items) CHECK(ids.insert(item.id).second);
  }
}

TEST_CASE("task: nano's items are the lines of its file, in order") {
  const TaskData data = find_task("nano").load();
  std::istringstream lines(read_file(source_dir() / "datasets" / "nano" / "questions.jsonl"));
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line); ++number) {
    const Json question = Json::parse(line);
    REQUIRE(number < data.items.size());
    const TaskItem& item = data.items[number];
    CHECK(item.id == question.at("id"));
    CHECK(item.category == question.at("category"));
    CHECK(item.expected == question.at("answer"));
    CHECK(item.user_message.rfind(question.at("question").get<std::string>() + "\n\n(A) ", 0) == 0);
  }
  CHECK(number == data.items.size());
}

TEST_CASE("task: an unknown name suggests the nearest") {
  check_error([] { find_task("nanoo"); }, ErrorCode::kInvalidArgument,
              {"'nanoo'", "did you mean 'nano'?"});
}

TEST_CASE("task: the conversation is a system message with the effort, and the question") {
  TaskItem item;
  item.user_message = "What?";
  const std::string low = render_text(item_conversation(item, ReasoningEffort::kLow), {});
  const std::string high = render_text(item_conversation(item, ReasoningEffort::kHigh), {});
  CHECK_THAT(low, Catch::StartsWith("<|start|>system<|message|>") &&
                      Catch::Contains("\nReasoning: low\n") &&
                      Catch::EndsWith("<|start|>user<|message|>What?<|end|><|start|>assistant"));
  CHECK_THAT(high, Catch::Contains("\nReasoning: high\n"));
}

}  // namespace moebench::test
