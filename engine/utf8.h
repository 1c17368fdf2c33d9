// UTF-8 that may be broken: tokens are not aligned to characters and a model may emit any bytes.
//
// Invalid bytes become U+FFFD by the Unicode standard's "substitution of maximal subparts": each
// longest prefix of a valid sequence, or else each single byte, gives one U+FFFD. Python's
// `errors="replace"` and Rust's `from_utf8_lossy` do the same. Source: Unicode 15.0, section 3.9.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace moebench {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8Kind {
  kCharacter,   // a whole, valid character
  kInvalid,     // a maximal invalid subsequence
  kIncomplete,  // valid so far, but the text ends inside the character
};

// What `text` starts with, and how many bytes of it that is (1 to 4).
struct Utf8Prefix {
  Utf8Kind kind;
  std::size_t length;
  char32_t code_point;  // of a kCharacter, else 0
};

// Requires that `text` is not empty.
Utf8Prefix utf8_prefix(std::string_view text);

// The text with each maximal invalid subsequence replaced by U+FFFD; valid text comes back as is.
std::string to_valid_utf8(std::string_view text);

void append_utf8(std::string& text, char32_t code_point);

// The Unicode White_Space property; `\s` of the tokenizer's pattern, and what separates the words
// of a message header. Not the same as PCRE2's `\s`, which also has U+180E.
bool is_white_space(char32_t code_point);

// Decodes bytes that arrive in pieces. Whatever the pieces, the texts returned add up to
// to_valid_utf8 of all bytes; each is valid UTF-8 by itself and is returned as early as possible.
class Utf8Stream {
 public:
  // The text that is certain after `bytes`: an incomplete last character is held back.
  std::string push(std::string_view bytes);

  // Ends the text: a character still held back comes out as one U+FFFD.
  std::string flush();

 private:
  std::string held_back_;  // at most 3 bytes
};

}  // namespace moebench
