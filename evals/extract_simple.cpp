// The rules of simple-evals: simple_gpqa, simple_mmlu, simple_math, mgsm.
//
// Kept for comparability although odd: `answer: b` yields "b", which is wrong; `Answer: Because`
// yields B; `**Answer:** B` yields nothing under simple_gpqa; the first `Answer:` decides, not the
// last.
#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "evals/extract_rules.h"
#include "evals/extract_unicode.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench::rules {
namespace {

using unicode::char_at;
using unicode::skip_space;

std::size_t skip_blanks(std::u32string_view text, std::size_t at) {
  while (char_at(text, at) == ' ' || char_at(text, at) == '\t') ++at;
  return at;
}

Extraction as_is(std::u32string_view answer) {
  const std::string bytes = unicode::encode_utf8(answer);
  return {.answer = bytes, .value = bytes};
}

// ---- simple_mmlu

// An answer word in lower case, as it is looked for in the folded text.
struct AnswerWord {
  std::u32string_view word;
  std::u32string_view colon = U":";
  bool space_before_colon = true;
};

constexpr std::u32string_view kWideColon = U"：";

// In the published order; the first that matches decides. The published list has the Bengali word
// twice, which changes nothing.
constexpr auto kAnswerWords = std::to_array<AnswerWord>({
    {kAnswer},
    {kAnswer, U":\u200B\u200B\u200B\u200B\u200B\u200B"},  // from Korean replies
    {U"উত্তর"},
    {U"उत्तर"},
    {U"উত্তরঃ", U"", false},
    {U"antwort"},
    {U"답변"},
    {U"정답"},
    {U"답"},
    {U"答案", kWideColon},
    {U"答案"},
    {U"答", kWideColon},
    {U"答"},
    {U"答复", kWideColon},
    {U"答曰", kWideColon},
    {U"الإجابة", U":", false},
    {U"الجواب", U":", false},
    {U"إجابة", U":", false},
    {U"الإجابة النهائية", U":", false},
    {U"الإجابة الصحيحة", U":", false},
    {U"الإجابة الصحيحة هي", U":", false},
    {U"الإجابة هي", U":", false},
    {U"الجواب النهائي", U":", false},
    {U"respuesta"},
    {U"risposta"},
    {U"答え"},
    {U"答え", kWideColon},
    {U"回答"},
    {U"回答", kWideColon},
    {U"解答"},
    {U"jawaban"},
    {U"réponse"},
    {U"resposta"},
    {U"jibu"},
    {U"idahun"},
    {U"ìdáhùn"},
    {U"idáhùn"},
    {U"àmọ̀nà"},
    {U"àdáhùn"},
    {U"ànúgọ"},
    {U"àṣàyàn"},
});

// Markdown and LaTeX that is deleted before the search, one after the other, in this order.
constexpr auto kDeleted = std::to_array<std::u32string_view>({
    U"**",
    U"$\\boxed{",
    U"}$",
    U"\\$",
    U"$\\text{",
    U"$",
    U"\\mathrm{",
    U"\\{",
    U"\\text",
    U"\\(",
    U"\\mathbf{",
    U"{",
    U"\\boxed",
});

std::u32string without(std::u32string_view text, std::u32string_view deleted) {
  std::u32string kept;
  kept.reserve(text.size());
  while (true) {
    const std::size_t at = text.find(deleted);
    kept += text.substr(0, at);
    if (at == kNone) return kept;
    text.remove_prefix(at + deleted.size());
  }
}

// The letters that count as an answer: Latin and full-width ones in either case, Arabic U+0623 to
// U+062F, and the Bengali four.
bool is_choice(char32_t c) {
  return (c >= 'A' && c <= 'D') || (c >= 'a' && c <= 'd') || (c >= 0xFF21 && c <= 0xFF24) ||
         (c >= 0xFF41 && c <= 0xFF44) || (c >= 0x623 && c <= 0x62F) ||
         std::u32string_view(U"অবডঢ").find(c) != kNone;
}

// A to D for the four that stand for them in Arabic, Bengali and full-width capitals. Others, such
// as Arabic letters between those, stay as they are and count as wrong.
char32_t latin_choice(char32_t c) {
  for (const std::u32string_view alphabet : {U"أبجد", U"অবডঢ", U"ＡＢＣＤ"}) {
    const std::size_t index = alphabet.find(c);
    if (index != kNone) return static_cast<char32_t>('A' + index);
  }
  return c;
}

// ---- mgsm

struct Language {
  std::string_view name;
  std::u32string_view answer_word;  // case counts
};

constexpr auto kLanguages = std::to_array<Language>({
    {"en", U"Answer"},
    {"bn", U"উত্তর"},
    {"de", U"Antwort"},
    {"es", U"Respuesta"},
    {"fr", U"Réponse"},
    {"ja", U"答え"},
    {"ru", U"Ответ"},
    {"sw", U"Jibu"},
    {"te", U"సమాధానం"},
    {"th", U"คำตอบ"},
    {"zh", U"答案"},
});

std::u32string_view answer_word_of(std::string_view language) {
  const auto found = std::ranges::find(kLanguages, language, &Language::name);
  if (found == kLanguages.end()) {
    std::vector<std::string> known;
    known.reserve(kLanguages.size());
    for (const Language& each : kLanguages) known.emplace_back(each.name);
    fail(ErrorCode::kInvalidArgument, "unknown mgsm language '{}'; {}", language,
         suggestion(language, known));
  }
  return found->answer_word;
}

bool is_digit_at(std::u32string_view text, std::size_t at) {
  return unicode::decimal_digit(char_at(text, at)) >= 0;
}

// The last of all numbers in `text`, read from left to right: digits, then perhaps a point, then
// perhaps digits ("1.2.3" is 1.2 and 3). Without a point at its end; empty if there is none.
std::u32string_view last_number(std::u32string_view text) {
  std::u32string_view number;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t begin = at;
    while (is_digit_at(text, at)) ++at;
    if (at == begin) {
      ++at;
      continue;
    }
    std::size_t end = at;
    if (char_at(text, at) == '.') {
      ++at;
      while (is_digit_at(text, at)) end = ++at;
    }
    number = text.substr(begin, end - begin);
  }
  return number;
}

}  // namespace

Extraction simple_gpqa(std::u32string_view text, std::string_view /*language*/) {
  const std::u32string folded = unicode::fold_case(text);
  for (std::size_t at = folded.find(kAnswer); at != kNone; at = folded.find(kAnswer, at + 1)) {
    std::size_t next = skip_blanks(text, at + kAnswer.size());
    if (char_at(text, next) != ':') continue;
    next = skip_blanks(text, next + 1);
    if (char_at(text, next) == '$') ++next;
    const char32_t letter = char_at(folded, next);
    if (letter >= 'a' && letter <= 'd') return as_is(text.substr(next, 1));
  }
  return {};
}

Extraction simple_mmlu(std::u32string_view text, std::string_view /*language*/) {
  std::u32string cleaned(text);
  for (const std::u32string_view deleted : kDeleted) cleaned = without(cleaned, deleted);
  const std::u32string folded = unicode::fold_case(cleaned);
  const std::u32string_view view = folded;
  for (const AnswerWord& each : kAnswerWords) {
    for (std::size_t at = view.find(each.word); at != kNone; at = view.find(each.word, at + 1)) {
      std::size_t next = at + each.word.size();
      if (each.space_before_colon) next = skip_space(view, next);
      if (!view.substr(next).starts_with(each.colon)) continue;
      next = skip_blanks(view, next + each.colon.size());
      const char32_t letter = char_at(cleaned, next);
      if (is_choice(letter)) return as_is(std::u32string(1, latin_choice(letter)));
    }
  }
  return {};
}

Extraction simple_math(std::u32string_view text, std::string_view /*language*/) {
  const std::u32string folded = unicode::fold_case(text);
  for (std::size_t at = folded.find(kAnswer); at != kNone; at = folded.find(kAnswer, at + 1)) {
    const std::size_t colon = skip_space(text, at + kAnswer.size());
    if (char_at(text, colon) != ':') continue;
    const std::size_t begin = skip_space(text, colon + 1);
    if (begin < text.size()) return as_is(text.substr(begin, text.find(U'\n', begin) - begin));
    // White space up to the end of the text: the published expression backs up until it has one
    // character that is not a line break, so `Answer:   ` yields a single space.
    const std::size_t last = text.find_last_not_of(U'\n');
    if (last > colon) return as_is(text.substr(last, 1));
  }
  return {};
}

Extraction mgsm(std::u32string_view text, std::string_view language) {
  const std::u32string_view word = answer_word_of(language);
  const std::size_t at = text.rfind(word);
  if (at == kNone) return {.answer = "", .value = std::nullopt};
  const std::u32string tail = without(text.substr(at + word.size()), U",");
  const std::u32string_view number = last_number(tail);
  if (number.empty()) return {.answer = "", .value = std::nullopt};
  std::u32string_view value = number;
  if (value.find(U'.') != kNone) {
    while (value.ends_with(U'0')) value.remove_suffix(1);
    if (value.ends_with(U'.')) value.remove_suffix(1);
  }
  return {.answer = unicode::encode_utf8(number), .value = unicode::encode_utf8(value)};
}

}  // namespace moebench::rules
