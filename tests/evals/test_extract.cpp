// The extraction rules against the golden cases (from the published extraction functions), and at
// the edges that those leave open.
#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "evals/extract.h"
#include "kernels/core/error.h"

using namespace moebench;
using Json = nlohmann::json;
using Answer = std::optional<std::string>;

namespace {

Json golden_cases() {
  const auto path =
      std::filesystem::path(__FILE__).parent_path().parent_path() / "golden" / "answer_cases.json";
  std::ifstream file(path);
  INFO("reading " << path);
  REQUIRE(file.good());
  return Json::parse(file);
}

Answer string_or_null(const Json& value) {
  return value.is_null() ? std::nullopt : Answer(value.get<std::string>());
}

Answer answer(std::string_view rule, std::string_view text, std::string_view language = "en") {
  return extract(rule, text, language).answer;
}

Answer value(std::string_view rule, std::string_view text, std::string_view language = "en") {
  return extract(rule, text, language).value;
}

struct Case {
  std::string_view text;
  Answer expected;
};

void check_answers(std::string_view rule, const std::vector<Case>& cases) {
  for (const Case& each : cases) {
    CAPTURE(rule, each.text);
    CHECK(answer(rule, each.text) == each.expected);
  }
}

std::string repeated(std::string_view text, std::size_t num_bytes) {
  std::string out;
  out.reserve(num_bytes + text.size());
  while (out.size() < num_bytes) out += text;
  return out;
}

}  // namespace

TEST_CASE("extract: every golden case of every rule") {
  const Json golden = golden_cases();
  std::size_t num_cases = 0;
  for (const ExtractionRule& rule : extraction_rules()) {
    // lm-eval's rules have cases of their own: see test_published_tasks.cpp.
    if (!golden.contains(std::string(rule.name))) continue;
    for (const Json& each : golden.at(std::string(rule.name))) {
      CAPTURE(rule.name, each.dump());
      const auto text = each.at("text").get<std::string>();
      const Extraction got = extract(rule.name, text, each.value("lang", "en"));
      const Json& expected = each.at("expected");
      if (rule.name == "aime") {
        CHECK(got.answer == string_or_null(expected.at("extracted")));
        const Json& integer = expected.at("value");
        CHECK(got.value ==
              (integer.is_null() ? Answer() : Answer(std::to_string(integer.get<int>()))));
      } else {
        CHECK(got.answer == string_or_null(expected));
      }
      ++num_cases;
    }
  }
  CHECK(num_cases == 170);
}

TEST_CASE("extract: the table lists the described rules, and an unknown name gets the nearest") {
  std::set<std::string_view> names;
  for (const ExtractionRule& rule : extraction_rules()) {
    CHECK_FALSE(rule.summary.empty());
    CHECK_FALSE(rule.source.empty());
    names.insert(rule.name);
  }
  CHECK(names == std::set<std::string_view>{"abcd", "aime", "gsm8k_flexible", "mgsm", "mmlu_pro",
                                            "simple_gpqa", "simple_math", "simple_mmlu"});
  CHECK_THROWS_WITH(extract("abdc", "A"), Catch::Contains("unknown extraction rule 'abdc'") &&
                                              Catch::Contains("did you mean 'abcd'?"));
  CHECK_THROWS_AS(extract("", "A"), Error);
  CHECK_THROWS_WITH(extract("mgsm", "Answer: 3", "eng"), Catch::Contains("did you mean 'en'?"));
}

TEST_CASE("abcd: value is empty exactly where only the fallback applied") {
  CHECK(value("abcd", "Answer: b") == "B");
  CHECK(value("abcd", "Because") == "B");
  CHECK(value("abcd", "The answer is C.") == std::nullopt);
  CHECK(answer("abcd", "The answer is C.") == "T");
  CHECK(value("abcd", "") == std::nullopt);
  CHECK(answer("abcd", "") == "");
  CHECK(answer("abcd", "**") == "");
  CHECK(answer("abcd", "****x") == "*");
}

TEST_CASE("abcd: the order of the forms decides, not the order in the text") {
  check_answers("abcd", {
                            {"**C** (A) \\boxed{B} Option D, the answer: a", "A"},
                            {"**C** (A) \\boxed{B} Option D", "D"},
                            {"**C** (A) \\boxed{B}", "B"},
                            {"**C** (A)", "A"},
                            {"x **D) 12 eV** \\textbf{A}", "A"},
                            {"x **D) 12 eV**\nA", "D"},
                            {"Answer: A\n**Answer:** B", "B"},
                            {"So answer: A\nAnswer: B", "B"},
                        });
}

TEST_CASE("abcd: wrappers are one or two equal characters") {
  check_answers("abcd", {
                            {"***Answer*** B", "*"},     // the closing wrapper has three
                            {"**Answer:_ b", "B"},       // the two sides are independent
                            {"x ***B***", "B"},          // **B** inside, and `*` may surround it
                            {"x a*B*", "x"},             // a letter before the only wrapper
                            {"x a**B**", "B"},           // but between the two `*` it is fine
                            {"x **B*1", "x"},            // a digit behind
                            {"x \u00e9*B*\u00e9", "B"},  // only ASCII letters forbid
                            {"*** A", "*"},
                            {"*_A", "*"},
                        });
}

TEST_CASE("abcd: word boundaries and letters are Unicode") {
  check_answers("abcd", {
                            {"the answer: B\u00e9", "t"},  // é continues the word
                            {"the answer: B\u0301", "B"},  // a combining accent does not
                            {"the answer: B\u00b2", "t"},  // superscript two is a number
                            {"the answer: B_", "t"},
                            {"the \u00e9answer: B", "t"},
                            {"the an\u017fwer: B", "B"},  // long s
                            {"an opt\u0131on d", "D"},    // i without a dot
                            {"the answer\u00a0:\u3000b", "B"},
                            {"the answer \u2014 b", "t"},  // em dash is no separator
                        });
}

TEST_CASE("abcd: words and brackets stand alone, and a description is not empty") {
  check_answers("abcd", {
                            {"x answerB", "x"},
                            {"x answersB", "x"},
                            {"x optionB", "x"},
                            {"x adoption b", "x"},
                            {"x f(A)", "x"},
                            {"x (A)2", "x"},
                            {"x \u00e9[A)\u00e9", "A"},  // only ASCII counts; kinds may differ
                            {"x **D)**", "x"},
                            {"x **D) y\nz**", "x"},  // a description stays on its line
                            {"x ** D) y_", "D"},
                        });
}

TEST_CASE("abcd: lines start at the text and after line feeds, white space may span lines") {
  check_answers("abcd", {
                            {"x\n \t\n**answer**:\n\n_b", "B"},
                            {"x\r\nanswer a", "A"},
                            {"x\ranswer ax", "x"},  // a carriage return starts no line
                            {"x\n\n\u2003 _C", "C"},
                            {"x\vC", "x"},  // nor does a vertical tab
                            {"x\nE\nD", "D"},
                        });
}

TEST_CASE("abcd: braces count up to the first closing one") {
  check_answers("abcd", {
                            {"x \\boxed{1} A} \\boxed{x\\boxed{ B}", "B"},
                            {"x \\boxed{A", "x"},
                            {"x \\boxed{\n\n{C}", "C"},
                            {"x \\textbf{1}\\textbf{note D}", "D"},
                            {"x boxed{C}", "x"},
                        });
}

TEST_CASE("aime: the value is any integer that Python's int() takes, however long") {
  CHECK(value("aime", "boxed{" + std::string(5000, '9') + "}") == std::string(5000, '9'));
  CHECK(value("aime", "\\boxed{000" + std::string(30, '7') + "}") == std::string(30, '7'));
  CHECK(value("aime", "\\boxed{-0}") == "0");
  CHECK(value("aime", "\\boxed{-007}") == "-7");
  CHECK(value("aime", "\\boxed{\u00a0+1_2_3\u2003}") == "123");
  CHECK(value("aime", "\\boxed{\uff14\u0662}") == "42");  // full-width 4, Arabic 2
  for (const std::string_view bad : {"+", "-", "_1", "1_", "1__2", "+-1", "+ 8", "\u22125", "0x10",
                                     "1e3", "\u00b2", "1 2", ","}) {
    CAPTURE(bad);
    CHECK(value("aime", "\\boxed{" + std::string(bad) + "}") == std::nullopt);
  }
}

TEST_CASE("aime: boxes are taken from left to right and do not overlap") {
  check_answers("aime", {
                            {"boxed{a boxed{1} boxed{2", "a boxed{1"},  // the last never closes
                            {"boxed{3} boxed{ }", ""},                  // white space is content
                            {"boxed{3} boxed{4,}", ""},  // so is what ends in a comma
                            {"boxed{} framebox{}", ""},
                            {"framebox{8} ramebox{9}", "8"},
                            {"unboxed{8}", "8"},
                            {"12 and boxed{", "12"},
                            {"12\u0663 x", "12\u0663"},  // digits of any script
                        });
}

TEST_CASE("simple_gpqa: first match, letter as written") {
  check_answers("simple_gpqa", {
                                   {"Answer: E\nanswer \t:\t $b", "b"},
                                   {"An\u017fwer: C", "C"},
                                   {"Answer:\u00a0A", std::nullopt},  // spaces and tabs only
                                   {"Answer: $$A", std::nullopt},
                                   {"unanswer:Dx", "D"},
                               });
}

TEST_CASE("simple_mmlu: letters of four scripts are mapped, others stay as they are") {
  check_answers("simple_mmlu", {
                                   {"Answer: \u0623", "A"},
                                   {"Answer: \u062f", "D"},
                                   {"Answer: \u062a", "\u062a"},  // an Arabic letter in between
                                   {"Answer: \u09a1", "C"},
                                   {"Answer: \uff22", "B"},
                                   {"Answer: \uff42", "\uff42"},  // full-width lower case
                                   {"Answer: \u0915", std::nullopt},
                                   {"ANSWER\n:\tc", "c"},
                                   {"R\u00c9PONSE: C", "C"},
                                   {"\u00e0m\u1ecc\u0300N\u00c0: D", "D"},
                               });
}

TEST_CASE("simple_mmlu: words are tried in their order, each with its own colon") {
  check_answers("simple_mmlu",
                {
                    {"Jibu: A\nAntwort: B", "B"},
                    {"\u7b54\u6848 \uff1aA", "A"},
                    {"Answer\uff1aA", std::nullopt},
                    {"Answer:\u200b\u200b\u200b\u200b\u200b\u200bB", "B"},
                    {"Answer:\u200bB", std::nullopt},
                    {"\u0989\u09a4\u09cd\u09a4\u09b0\u0983 B", "B"},             // no colon
                    {"\u0627\u0644\u062c\u0648\u0627\u0628 : B", std::nullopt},  // no space allowed
                    {"\u0627\u0644\u062c\u0648\u0627\u0628: B", "B"},
                    {"Answer is Answer: $\\text{D}$", "D"},
                });
}

TEST_CASE("simple_math: the rest of the line, backing up over white space at the end") {
  check_answers("simple_math", {
                                   {"Answer:\t \n\n", " "},
                                   {"Answer:\n\n", std::nullopt},
                                   {"Answer:\r\n", "\r"},
                                   {"Answer: 1 \r\nx", "1 \r"},
                                   {"Answer\n:\nx y ", "x y "},
                                   {"Answer Answer: z", "z"},
                               });
}

TEST_CASE("mgsm: the last number after the last word, in its two forms") {
  const auto both = [](std::string_view text, std::string_view language = "en") {
    const Extraction got = extract("mgsm", text, language);
    return std::pair(got.answer, got.value);
  };
  CHECK(both("Answer: 18.00") == std::pair(Answer("18.00"), Answer("18")));
  CHECK(both("Answer: 100") == std::pair(Answer("100"), Answer("100")));
  CHECK(both("Answer: 0.0") == std::pair(Answer("0.0"), Answer("0")));
  CHECK(both("Answer: 2.50") == std::pair(Answer("2.50"), Answer("2.5")));
  CHECK(both("Answer: -7") == std::pair(Answer("7"), Answer("7")));
  CHECK(both("Answer: 1.2.3") == std::pair(Answer("3"), Answer("3")));
  CHECK(both("Answer: 1.2.") == std::pair(Answer("1.2"), Answer("1.2")));
  CHECK(both("Answer: 3 Answer: none") == std::pair(Answer(""), Answer()));
  CHECK(both("3") == std::pair(Answer(""), Answer()));
  CHECK(both("\u0e04\u0e33\u0e15\u0e2d\u0e1a: 1,0,0", "th") ==
        std::pair(Answer("100"), Answer("100")));
}

TEST_CASE("extract: NUL bytes are text and ill-formed UTF-8 reads as U+FFFD") {
  using namespace std::string_view_literals;
  CHECK(answer("abcd", "\0\nB"sv) == "B");
  CHECK(answer("abcd", "\0x"sv) == std::string(1, '\0'));
  CHECK(answer("aime", "\\boxed{4\0}"sv) == "4\0"sv);
  CHECK(value("aime", "\\boxed{4\0}"sv) == std::nullopt);
  CHECK(answer("abcd", "\xff\xfe") == "\ufffd");
  CHECK(answer("simple_math",
               "Answer: \xe2\x82|\xf0\x9f\x98|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe0\x80") ==
        "\ufffd|\ufffd|\ufffd\ufffd|\ufffd\ufffd\ufffd|\ufffd\ufffd\ufffd\ufffd|\ufffd\ufffd");
  CHECK(answer("simple_math", "Answer: \u00e9\u20ac\U0001f600\xf0\x9f") ==
        "\u00e9\u20ac\U0001f600\ufffd");
}

TEST_CASE("extract: time stays near linear on repetitive text") {
  // One quadratic step over 300,000 characters takes tens of seconds; the linear scanners take
  // milliseconds each, and some tenths of a second with sanitizers.
  for (const std::string_view piece : {"\n",        " ",
                                       "*",         "_",
                                       "**Answer",  "answer ",
                                       "Answer:",   "option",
                                       "(",         "(A ",
                                       "boxed{",    "\\boxed{",
                                       "\\textbf{", "framebox{",
                                       "**A) ",     "9",
                                       "Answer\n",  "$\\boxed{",
                                       "1.",        "{",
                                       "\u7b54",    "\u00e9answer\u00e9"}) {
    const std::string text = "x" + repeated(piece, 300'000);
    const auto start = std::chrono::steady_clock::now();
    for (const ExtractionRule& rule : extraction_rules()) extract(rule.name, text);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    CAPTURE(piece);
    CHECK(seconds.count() < 10);
  }
}
