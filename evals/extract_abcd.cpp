// Rule `abcd`: the letter a multiple-choice answer settles on.
//
// Eleven forms are tried in a fixed order; the first that occurs anywhere decides, with its
// leftmost occurrence, so a later line can win only through the order. Kept for comparability
// although odd: "The answer is C." yields "T" (no form fits), any line that starts with a capital A
// to D counts as a choice ("Because ..." -> B), and "First (A), but (B)" yields A.
//
// Where the published expression can match in several ways, they all capture the same letter, so
// each form below walks forward without backtracking. The published list has two more forms, for
// `\textbf` and `\text` inside `\boxed`, which never decide: in_boxed matches whenever they do.
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "evals/extract_rules.h"
#include "evals/extract_unicode.h"

namespace moebench::rules {
namespace {

using unicode::char_at;
using unicode::char_before;
using unicode::is_ascii_alnum;
using unicode::is_word;
using unicode::skip_space;

constexpr std::u32string_view kCapitals = U"ABCD";

struct Subject {
  std::u32string_view text;
  std::u32string_view folded;  // the same in lower case; positions agree
};

using Letter = std::optional<char32_t>;  // 'A' to 'D'

Letter capital_at(const Subject& s, std::size_t at) {
  const char32_t c = char_at(s.text, at);
  return c >= 'A' && c <= 'D' ? Letter(c) : std::nullopt;
}

Letter any_case_at(const Subject& s, std::size_t at) {
  const char32_t c = char_at(s.folded, at);
  return c >= 'a' && c <= 'd' ? Letter(c - 'a' + 'A') : std::nullopt;
}

// A letter that ends a word: "B" and "B." but neither "Be" nor "B_".
Letter any_case_word_at(const Subject& s, std::size_t at) {
  return is_word(char_at(s.text, at + 1)) ? std::nullopt : any_case_at(s, at);
}

bool is_wrapper(char32_t c) { return c == '*' || c == '_'; }

// A wrapper is one or two `*`, or one or two `_`. Returns `at` where there is none.
std::size_t skip_wrapper(const Subject& s, std::size_t at) {
  const char32_t c = char_at(s.text, at);
  if (!is_wrapper(c)) return at;
  return char_at(s.text, at + 1) == c ? at + 2 : at + 1;
}

// The outer condition of several forms. A wrapper of two whose outside is fine contains one of one
// whose outside is `*` or `_`, which is fine too; so it is enough to look beyond one character.
bool opens_wrapper(const Subject& s, std::size_t at) {
  return is_wrapper(char_at(s.text, at)) && !is_ascii_alnum(char_before(s.text, at));
}
bool closes_wrapper(const Subject& s, std::size_t at) {
  return is_wrapper(char_at(s.text, at)) && !is_ascii_alnum(char_at(s.text, at + 1));
}

std::size_t skip_if(const Subject& s, std::size_t at, std::u32string_view any_of) {
  return any_of.find(char_at(s.folded, at)) == kNone ? at : at + 1;
}

// White space and at most one of `:`, `-` and the en dash.
std::size_t skip_separator(const Subject& s, std::size_t at) {
  return skip_if(s, skip_space(s.text, at), U":-–");
}

// The end of the word "answer" or "answers" that starts at `at`; kNone if it is part of another.
std::size_t answer_word_end(const Subject& s, std::size_t at) {
  const std::size_t end = skip_if(s, at + kAnswer.size(), U"s");
  const bool whole = !is_word(char_before(s.text, at)) && !is_word(char_at(s.text, end));
  return whole ? end : kNone;
}

// Applies `form` to each "answer" in the text until one yields a letter.
template <class Form>
Letter first_answer(const Subject& s, Form form) {
  for (std::size_t at = s.folded.find(kAnswer); at != kNone; at = s.folded.find(kAnswer, at + 1)) {
    if (const Letter letter = form(at)) return letter;
  }
  return std::nullopt;
}

// Form 1: `**Answer:** C`, the letter outside the wrapper.
Letter after_wrapped_answer(const Subject& s) {
  return first_answer(s, [&](std::size_t at) -> Letter {
    if (!is_wrapper(char_before(s.text, at))) return std::nullopt;
    const std::size_t wrapper = skip_separator(s, skip_if(s, at + kAnswer.size(), U"s"));
    const std::size_t end = skip_wrapper(s, wrapper);
    return end == wrapper ? std::nullopt : any_case_word_at(s, skip_space(s.text, end));
  });
}

// Only white space, or nothing, between the start of a line and `at`.
bool starts_line(const Subject& s, std::size_t at) {
  while (at > 0 && s.text[at - 1] != '\n') {
    if (!unicode::is_space(s.text[at - 1])) return false;
    --at;
  }
  return true;
}

// Form 2: a line that starts with `Answer`, loosely punctuated. Anything may follow the letter:
// `Answer: Apple` yields A.
Letter answer_line(const Subject& s) {
  return first_answer(s, [&](std::size_t at) -> Letter {
    std::size_t start = at;
    if (is_wrapper(char_before(s.text, at))) {
      start -= at > 1 && s.text[at - 2] == s.text[at - 1] ? 2 : 1;
    }
    if (!starts_line(s, start)) return std::nullopt;
    std::size_t next = skip_if(s, at + kAnswer.size(), U":");
    next = skip_space(s.text, skip_wrapper(s, next));
    next = skip_space(s.text, skip_if(s, next, U":"));
    return any_case_at(s, skip_wrapper(s, next));
  });
}

// Form 3: `Answer: (C)`.
Letter answer_in_parentheses(const Subject& s) {
  return first_answer(s, [&](std::size_t at) -> Letter {
    const std::size_t end = answer_word_end(s, at);
    if (end == kNone) return std::nullopt;
    const std::size_t open = skip_space(s.text, skip_separator(s, end));
    if (char_at(s.text, open) != '(') return std::nullopt;
    const std::size_t letter = skip_space(s.text, open + 1);
    const std::size_t close = skip_space(s.text, letter + 1);
    return char_at(s.text, close) == ')' ? any_case_at(s, letter) : std::nullopt;
  });
}

// Form 4: `Answer: C`.
Letter plain_answer(const Subject& s) {
  return first_answer(s, [&](std::size_t at) -> Letter {
    const std::size_t end = answer_word_end(s, at);
    if (end == kNone) return std::nullopt;
    return any_case_word_at(s, skip_space(s.text, skip_separator(s, end)));
  });
}

// Form 5: `Option B`, `Choice: C`.
Letter option_or_choice(const Subject& s) {
  constexpr std::u32string_view kOption = U"option";
  constexpr std::u32string_view kChoice = U"choice";
  static_assert(kOption.size() == kChoice.size());
  for (std::size_t at = 0; at < s.folded.size(); ++at) {
    const std::u32string_view rest = s.folded.substr(at);
    if (!rest.starts_with(kOption) && !rest.starts_with(kChoice)) continue;
    const std::size_t end = at + kOption.size();
    if (is_word(char_before(s.text, at)) || is_word(char_at(s.text, end))) continue;
    const std::size_t letter = skip_space(s.text, skip_separator(s, end));
    if (const Letter found = any_case_word_at(s, letter)) return found;
  }
  return std::nullopt;
}

// The first capital A to D between `command` (with its `{`) and the next `}`, wherever it stands.
Letter in_braces(const Subject& s, std::u32string_view command) {
  std::size_t open = s.text.find(command);
  while (open != kNone) {
    const std::size_t begin = open + command.size();
    const std::size_t close = s.text.find(U'}', begin);
    if (close == kNone) return std::nullopt;
    const std::size_t letter = s.text.substr(begin, close - begin).find_first_of(kCapitals);
    if (letter != kNone) return s.text[begin + letter];
    // A second `command` before this `}` has no letter either, so go on behind it.
    open = s.text.find(command, close + 1);
  }
  return std::nullopt;
}

// Forms 6 and 9.
Letter in_boxed(const Subject& s) { return in_braces(s, U"\\boxed{"); }
Letter in_textbf(const Subject& s) { return in_braces(s, U"\\textbf{"); }

// Form 7: `(A)`, `[B]`, `( C ]`.
Letter in_brackets(const Subject& s) {
  for (std::size_t at = 0; at < s.text.size(); ++at) {
    if (s.text[at] != '(' && s.text[at] != '[') continue;
    if (is_ascii_alnum(char_before(s.text, at))) continue;
    const std::size_t letter = skip_space(s.text, at + 1);
    if (!capital_at(s, letter)) continue;
    const std::size_t close = skip_space(s.text, letter + 1);
    const char32_t c = char_at(s.text, close);
    if ((c == ')' || c == ']') && !is_ascii_alnum(char_at(s.text, close + 1))) {
      return capital_at(s, letter);
    }
  }
  return std::nullopt;
}

// Form 8: `**B**`, `_C_`.
Letter in_wrapper(const Subject& s) {
  for (std::size_t at = 0; at < s.text.size(); ++at) {
    if (!opens_wrapper(s, at) || !closes_wrapper(s, at + 2)) continue;
    if (const Letter letter = capital_at(s, at + 1)) return letter;
  }
  return std::nullopt;
}

// Form 10: `**D) 12 eV**`.
Letter described_in_wrapper(const Subject& s) {
  for (std::size_t at = 0; at < s.text.size(); ++at) {
    if (!opens_wrapper(s, at)) continue;
    const std::size_t letter = skip_space(s.text, at + 1);
    if (!capital_at(s, letter) || char_at(s.text, letter + 1) != ')') continue;
    const std::size_t begin = letter + 2;
    std::size_t end = begin;
    while (end < s.text.size() && s.text[end] != '\n' && !is_wrapper(s.text[end])) ++end;
    if (end > begin && closes_wrapper(s, end)) return capital_at(s, letter);
  }
  return std::nullopt;
}

// Form 11: a line whose first character, a wrapper aside, is a capital A to D.
Letter line_start(const Subject& s) {
  std::size_t line = 0;
  while (line != kNone) {
    const std::size_t first = skip_space(s.text, line);  // may pass over empty lines
    if (const Letter letter = capital_at(s, skip_wrapper(s, first))) return letter;
    const std::size_t newline = s.text.find(U'\n', first);
    line = newline == kNone ? kNone : newline + 1;
  }
  return std::nullopt;
}

constexpr std::array kForms = {after_wrapped_answer, answer_line,      answer_in_parentheses,
                               plain_answer,         option_or_choice, in_boxed,
                               in_brackets,          in_wrapper,       in_textbf,
                               described_in_wrapper, line_start};

}  // namespace

Extraction abcd(std::u32string_view text, std::string_view /*language*/) {
  const std::u32string folded = unicode::fold_case(text);
  const Subject subject = {.text = text, .folded = folded};
  for (const auto form : kForms) {
    if (const Letter letter = form(subject)) {
      const std::string answer(1, static_cast<char>(*letter));
      return {.answer = answer, .value = answer};
    }
  }
  // Form 12, the fallback. Its character is never a capital A to D (form 11 takes those), so it
  // never scores.
  if (text.starts_with(U"**")) text.remove_prefix(2);
  return {.answer = unicode::encode_utf8(text.substr(0, 1)), .value = std::nullopt};
}

}  // namespace moebench::rules
