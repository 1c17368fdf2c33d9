// Rules of lm-evaluation-harness: gsm8k_flexible, mmlu_pro.
#include <algorithm>

#include "evals/extract_rules.h"
#include "evals/extract_unicode.h"

namespace moebench::rules {
namespace {

using unicode::char_at;

bool is_ascii_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_number_part(char32_t c) { return is_ascii_digit(c) || c == '$' || c == '.' || c == ','; }

// The length of (-?[$0-9.,]{2,})|(-?[0-9]+) at `at`; 0 if neither matches.
std::size_t number_length(std::u32string_view text, std::size_t at) {
  const std::size_t begin = at + (char_at(text, at) == '-' ? 1 : 0);
  std::size_t end = begin;
  while (is_number_part(char_at(text, end))) ++end;
  const bool is_number = end - begin >= 2 || (end - begin == 1 && is_ascii_digit(text[begin]));
  return is_number ? end - at : 0;
}

}  // namespace

// The last number in the text; dollar signs, commas and one final point do not count.
Extraction gsm8k_flexible(std::u32string_view text, std::string_view) {
  std::u32string_view last;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = number_length(text, at);
    if (length > 0) last = text.substr(at, length);
    at += std::max<std::size_t>(length, 1);
  }
  if (last.empty()) return {};
  std::string value = unicode::encode_utf8(last);
  const std::string answer = value;
  std::erase_if(value, [](char c) { return c == ',' || c == '$'; });
  if (value.ends_with('.')) value.pop_back();
  return {.answer = answer, .value = value};
}

// The letter after the first "answer is" that one of A to J follows, in brackets or not.
Extraction mmlu_pro(std::u32string_view text, std::string_view) {
  constexpr std::u32string_view kPhrase = U"answer is ";
  for (std::size_t found = text.find(kPhrase); found != std::u32string_view::npos;
       found = text.find(kPhrase, found + 1)) {
    std::size_t at = found + kPhrase.size();
    if (char_at(text, at) == '(') ++at;
    const char32_t letter = char_at(text, at);
    if (letter < 'A' || letter > 'J') continue;
    const std::string answer(1, static_cast<char>(letter));
    return {.answer = answer, .value = answer};
  }
  return {};
}

}  // namespace moebench::rules
