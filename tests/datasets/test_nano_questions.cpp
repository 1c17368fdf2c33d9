// The held-out questions of nano: disjoint from training by construction, well formed, and right,
// recomputed here from their words.
#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <regex>
#include <set>

#include "datasets/questions.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

const QuestionSet& nano() {
  static const QuestionSet set =
      load_questions(source_dir() / "datasets" / "nano" / "questions.jsonl");
  return set;
}

// FNV-1a, written out again: the rule that parts training from held-out questions must not be
// checked by itself.
std::uint64_t fnv(const std::string& text) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  return hash;
}

std::vector<int> numbers_in(const std::string& text) {
  std::vector<int> numbers;
  const std::regex digits("[0-9]+");
  for (std::sregex_iterator it(text.begin(), text.end(), digits), end; it != end; ++it) {
    numbers.push_back(std::stoi(it->str()));
  }
  return numbers;
}

int value_of(const std::string& expression) {
  const auto numbers = numbers_in(expression);
  return expression.find('+') != std::string::npos ? numbers.at(0) + numbers.at(1)
                                                   : numbers.at(0) - numbers.at(1);
}

std::string clock_text(int minutes) {
  return fmt::format("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
}

std::string answer_to(const Question& q) {
  const auto n = numbers_in(q.question);
  const auto has = [&](const char* words) { return q.question.find(words) != std::string::npos; };
  if (q.category == "addition") return std::to_string(n.at(0) + n.at(1));
  if (q.category == "subtraction") return std::to_string(n.at(0) - n.at(1));
  if (q.category == "multiplication") return std::to_string(n.at(0) * n.at(1));
  if (q.category == "remainder") return std::to_string(n.at(0) % n.at(1));
  if (q.category == "sorting") {
    auto sorted = n;
    std::sort(sorted.begin(), sorted.end());
    if (has("largest")) std::reverse(sorted.begin(), sorted.end());
    const std::size_t rank = has("second") ? 1 : has("third") ? 2 : 3;
    return std::to_string(sorted.at(rank));
  }
  if (q.category == "comparison") {
    auto sorted = q.choices;
    std::sort(sorted.begin(), sorted.end(),
              [](const std::string& a, const std::string& b) { return value_of(a) < value_of(b); });
    return has("largest") ? sorted.back() : sorted.front();
  }
  if (q.category == "clock") return clock_text(60 * (n.at(0) + n.at(2)) + n.at(1) + n.at(3));
  if (q.category == "weekday") {
    const std::vector<std::string> days = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                           "Friday", "Saturday", "Sunday"};
    int today = 0;
    while (!has(("Today is " + days.at(static_cast<std::size_t>(today))).c_str())) ++today;
    const int shift = n.at(0) % 7;
    return days.at(static_cast<std::size_t>(has("ago") ? today + 7 - shift : today + shift) % 7);
  }
  if (q.category == "word") {
    if (has("gives away")) return std::to_string(n.at(0) + n.at(1) * n.at(2) - n.at(3));
    if (has("tickets")) return std::to_string(n.at(0) - n.at(1) * n.at(2));
    if (has("pages a day")) return std::to_string(n.at(0) * n.at(1) + n.at(2) * n.at(3));
    if (has("gave away")) return std::to_string(n.at(0) - n.at(1) + n.at(2) * n.at(3));
  }
  if (q.category == "chain") {
    // "h = 38, c = h - 19, ...": substitute until the letter asked for is known.
    std::map<std::string, int> known;
    const std::regex rule("([a-z]) = (?:([a-z]) ([+-]) )?([0-9]+)");
    const std::string asked = q.question.substr(q.question.find("What is ") + 8, 1);
    while (!known.contains(asked)) {
      for (std::sregex_iterator it(q.question.begin(), q.question.end(), rule), end; it != end;
           ++it) {
        const int number = std::stoi((*it)[4]);
        if (!(*it)[2].matched) {
          known[(*it)[1]] = number;
        } else if (known.contains((*it)[2])) {
          known[(*it)[1]] = known[(*it)[2]] + ((*it)[3] == "+" ? number : -number);
        }
      }
    }
    return std::to_string(known[asked]);
  }
  return "no rule for category " + q.category;
}

}  // namespace

TEST_CASE("nano questions: at least a thousand, in at least eight categories") {
  CHECK(nano().questions.size() >= 1000);
  std::map<std::string, int> sizes;
  for (const Question& q : nano().questions) ++sizes[q.category];
  CHECK(sizes.size() >= 8);
  for (const auto& [category, size] : sizes) {
    INFO(category);
    CHECK(size >= 50);
  }
}

TEST_CASE("nano questions: every key is held out, so training cannot have seen the problem") {
  for (const Question& q : nano().questions) {
    INFO(q.id << " " << q.key);
    CHECK(q.key.rfind(q.category + ":", 0) == 0);
    CHECK(fnv(q.key) % 16 == 0);
    CHECK(nano_key_is_held_out(q.key));
  }
  CHECK(fnv("") == 0xcbf29ce484222325U);  // the published test vectors of FNV-1a
  CHECK(fnv("foobar") == 0x85944171f73967e8U);
  CHECK_FALSE(nano_key_is_held_out("foobar") != (fnv("foobar") % 16 == 0));
}

TEST_CASE("nano questions: no problem stands twice") {
  std::set<std::string> keys;
  std::set<std::string> ids;
  for (const Question& q : nano().questions) {
    INFO(q.id);
    CHECK(keys.insert(q.key).second);
    CHECK(ids.insert(q.id).second);
  }
}

TEST_CASE("nano questions: four distinct choices each, the right one at any letter") {
  std::map<std::string, int> letters;
  for (const Question& q : nano().questions) {
    INFO(q.id);
    CHECK(q.choices.size() == 4);
    CHECK(std::set<std::string>(q.choices.begin(), q.choices.end()).size() == 4);
    ++letters[q.answer];
  }
  REQUIRE(letters.size() == 4);
  // Uniform: each letter within five standard deviations of a quarter.
  const double n = static_cast<double>(nano().questions.size());
  for (const auto& [letter, count] : letters) {
    INFO(letter << " " << count);
    CHECK(std::abs(count - n / 4) <= 5 * std::sqrt(n * 0.25 * 0.75));
  }
}

TEST_CASE("nano questions: the answer is the one recomputed from the question's words") {
  for (const Question& q : nano().questions) {
    INFO(q.id << ": " << q.question);
    const std::string want = answer_to(q);
    CHECK(q.choices.at(static_cast<std::size_t>(q.answer[0] - 'A')) == want);
    CHECK(std::count(q.choices.begin(), q.choices.end(), want) == 1);
  }
}

TEST_CASE("nano questions: the first questions hold every category, so a limit stays fair") {
  std::map<std::string, int> sizes;
  for (std::size_t i = 0; i < 200; ++i) ++sizes[nano().questions.at(i).category];
  std::set<std::string> all;
  for (const Question& q : nano().questions) all.insert(q.category);
  CHECK(sizes.size() == all.size());
}

}  // namespace moebench::test
