// Code points and the character classes of Python's `re`, in which the published rules are written:
// `\s`, `\w` and `\d` are Unicode there, and case-insensitive `s` also matches U+017F.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace moebench::unicode {

// What char_at returns outside the text: not a code point, and in no character class.
inline constexpr char32_t kOutside = 0x110000;

inline char32_t char_at(std::u32string_view text, std::size_t at) {
  return at < text.size() ? text[at] : kOutside;
}
inline char32_t char_before(std::u32string_view text, std::size_t at) {
  return at > 0 ? text[at - 1] : kOutside;
}

// Ill-formed sequences become one U+FFFD each, as in engine/utf8.h.
std::u32string decode_utf8(std::string_view bytes);
std::string encode_utf8(std::u32string_view text);  // `text` holds Unicode scalar values only

// \s, and what str.strip() removes: Unicode's White_Space and U+001C to U+001F.
bool is_space(char32_t c);
bool is_word(char32_t c);         // \w: letters and numbers of any script, and `_`
bool is_ascii_alnum(char32_t c);  // [A-Za-z0-9]
int decimal_digit(char32_t c);    // \d: its value, 0 to 9; -1 if it is not a decimal digit

// `text` in lower case, code point by code point, as case-insensitive matching sees it. Complete
// for the letters that occur in the rules (ASCII, Latin-1, o and s with a dot below), no further.
std::u32string fold_case(std::u32string_view text);

// The first position at or after `at` that holds no white space.
std::size_t skip_space(std::u32string_view text, std::size_t at);
std::u32string_view strip(std::u32string_view text);

}  // namespace moebench::unicode
