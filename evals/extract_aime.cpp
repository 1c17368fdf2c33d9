// Rule `aime`: the integer in the last box.
//
// Kept for comparability although odd: content ends at the first `}`, so `\boxed{\frac{1}{2}}` and
// `\boxed{\text{204}}` are not integers; of `\boxed{1,234}` only 234 counts; a number outside a box
// loses its sign; `\boxed{70.}` is wrong.
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "evals/extract_rules.h"
#include "evals/extract_unicode.h"

namespace moebench::rules {
namespace {

// The content of the last non-empty `boxed{...}` or `framebox{...}` (no backslash needed), taking
// boxes from left to right without overlap. nullopt if there is none.
std::optional<std::u32string_view> last_box(std::u32string_view text) {
  std::optional<std::u32string_view> content;
  std::size_t at = text.find(U"box");
  while (at != kNone) {
    const std::u32string_view rest = text.substr(at);
    const bool boxed = rest.starts_with(U"boxed{");
    const bool framebox = rest.starts_with(U"box{") && text.substr(0, at).ends_with(U"frame");
    std::size_t next = at + 1;
    if (boxed || framebox) {
      const std::size_t begin = at + (boxed ? 6 : 4);
      const std::size_t close = text.find(U'}', begin);
      if (close == kNone) break;  // no later box can close either
      if (close > begin) content = text.substr(begin, close - begin);
      next = close + 1;
    }
    at = text.find(U"box", next);
  }
  return content;
}

// The last maximal run of decimal digits; empty if there is none.
std::u32string_view last_digits(std::u32string_view text) {
  std::size_t end = text.size();
  while (end > 0 && unicode::decimal_digit(text[end - 1]) < 0) --end;
  std::size_t begin = end;
  while (begin > 0 && unicode::decimal_digit(text[begin - 1]) >= 0) --begin;
  return text.substr(begin, end - begin);
}

// What Python's int() accepts: a sign, then decimal digits of any script with single underscores
// between them. Canonical decimal, or nullopt. `text` has no white space around it.
// CPython 3.11 also refuses more than 4300 digits. That is not copied: it depends on the
// interpreter, and could only change a score for an answer with thousands of leading zeros.
std::optional<std::string> parse_integer(std::u32string_view text) {
  const bool negative = text.starts_with(U'-');
  if (negative || text.starts_with(U'+')) text.remove_prefix(1);
  std::string digits;
  bool after_digit = false;
  for (const char32_t c : text) {
    const int digit = unicode::decimal_digit(c);
    if (digit < 0 && !(c == '_' && after_digit)) return std::nullopt;
    after_digit = digit >= 0;
    const bool leading_zero = digit == 0 && digits.empty();
    if (digit >= 0 && !leading_zero) digits.push_back(static_cast<char>('0' + digit));
  }
  if (!after_digit) return std::nullopt;
  if (digits.empty()) return "0";
  return negative ? "-" + digits : digits;
}

}  // namespace

Extraction aime(std::u32string_view text, std::string_view /*language*/) {
  std::u32string_view answer;
  if (const auto content = last_box(text)) {
    const std::size_t comma = content->rfind(U',');
    answer = unicode::strip(comma == kNone ? *content : content->substr(comma + 1));
  } else {
    answer = last_digits(text);
  }
  return {.answer = unicode::encode_utf8(answer), .value = parse_integer(answer)};
}

}  // namespace moebench::rules
