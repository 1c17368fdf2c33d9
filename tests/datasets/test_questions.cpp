// The reader of question files: what it accepts, and that it names file, line and field otherwise.
#include <catch2/catch.hpp>

#include "datasets/questions.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

Json good() {
  return {{"id", "q1"},      {"category", "sums"},         {"key", "sums:1+1"},
          {"question", "?"}, {"choices", {"1", "2", "3"}}, {"answer", "B"}};
}

// The error for a file whose second line is `good` with `damage` done.
Error error_after(const std::function<void(Json&)>& damage) {
  Json second = good();
  second["id"] = "q2";
  damage(second);
  return error_of([&] { parse_questions(good().dump() + "\n" + second.dump() + "\n", "q.jsonl"); });
}

void check_damage(const std::function<void(Json&)>& damage,
                  std::initializer_list<std::string> words) {
  const std::string message = error_after(damage).what();
  INFO(message);
  CHECK(message.find("q.jsonl: line 2") != std::string::npos);
  for (const std::string& word : words) {
    INFO(word);
    CHECK(message.find(word) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("questions: a good line is read field by field") {
  const QuestionSet set = parse_questions(good().dump() + "\n", "q.jsonl");
  REQUIRE(set.questions.size() == 1);
  const Question& q = set.questions[0];
  CHECK(q.id == "q1");
  CHECK(q.category == "sums");
  CHECK(q.key == "sums:1+1");
  CHECK(q.choices == std::vector<std::string>{"1", "2", "3"});
  CHECK(q.answer == "B");
}

TEST_CASE("questions: the key may be absent, lines may end with CR LF or be blank") {
  Json no_key = good();
  no_key.erase("key");
  const QuestionSet set = parse_questions("\r\n" + no_key.dump() + "\r\n\n  \n", "q.jsonl");
  REQUIRE(set.questions.size() == 1);
  CHECK(set.questions[0].key.empty());
}

TEST_CASE("questions: the hash is of the content") {
  const std::string a = good().dump();
  CHECK(parse_questions(a, "x").hash == parse_questions(a, "y").hash);
  CHECK(parse_questions(a, "x").hash != parse_questions(a + "\n", "x").hash);
}

TEST_CASE("questions: what is missing, unknown or of the wrong type is named with its line") {
  for (const char* field : {"id", "category", "question", "choices", "answer"}) {
    check_damage([&](Json& q) { q.erase(field); }, {field, "is missing"});
    check_damage([&](Json& q) { q[field] = 7; }, {field, "got 7"});
  }
  check_damage([](Json& q) { q["anwser"] = "B"; }, {"'anwser'", "did you mean 'answer'?"});
  check_damage([](Json& q) { q["choices"][1] = 2; }, {"choices[1]", "got 2"});
  check_damage([](Json& q) { q = Json::array(); }, {"an array"});
}

TEST_CASE("questions: an answer must be the letter of a choice") {
  for (const char* answer : {"D", "b", "", "AB", "@", "\xc3\x84"}) {
    check_damage([&](Json& q) { q["answer"] = answer; }, {"from A to C"});
  }
}

TEST_CASE("questions: two to twenty-six choices") {
  check_damage([](Json& q) { q["choices"] = {"1"}; }, {"1 choices"});
  check_damage([](Json& q) { q["choices"] = std::vector<std::string>(27, "x"); }, {"27 choices"});
  Json most = good();
  most["choices"] = std::vector<std::string>(26, "x");
  most["answer"] = "Z";
  CHECK_NOTHROW(parse_questions(most.dump(), "q.jsonl"));
}

TEST_CASE("questions: two equal ids are an error at the second") {
  check_damage([](Json& q) { q["id"] = "q1"; }, {"'q1'", "stood before"});
  check_damage([](Json& q) { q["id"] = ""; }, {"the id is empty"});
}

TEST_CASE("questions: text that is no JSON, and files without questions") {
  check_error([] { parse_questions("{\"id\":", "q.jsonl"); }, ErrorCode::kParse,
              {"q.jsonl: line 1"});
  check_error([] { parse_questions("\n\n", "q.jsonl"); }, ErrorCode::kInvalidArgument,
              {"q.jsonl", "no questions"});
  check_error([] { load_questions("/no/such/file"); }, ErrorCode::kIo, {"/no/such/file"});
}

}  // namespace moebench::test
