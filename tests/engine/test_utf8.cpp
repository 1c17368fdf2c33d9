// Replacement of invalid UTF-8, whole and in a stream.
#include <catch2/catch.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/utf8.h"

using namespace moebench;
using namespace std::string_literals;

namespace {

struct Case {
  std::string bytes;
  std::string text;
};

// R is U+FFFD. The first are the examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
#define R "\uFFFD"
const std::vector<Case> kCases = {
    {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "A"},
    {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "A"},
    {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "A" R R "B"},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A"},
    {"", ""},
    {"plain\0text"s, "plain\0text"s},
    {"\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
     "\u0080\u07FF\u0800\uFFFF\U00010000\U0010FFFF"},
    {" \xF0\x9FX", " " R "X"},
    {"\xF0\x9F\x98", R},
    {"\xF0\x9F\x98\x80\xF0\x9F\x98", "\U0001F600" R},
    {"\xC3(", R "("},
    {"\xE2\x82", R},
    {"\xF5\x80\x80\x80", R R R R},
    {"\xFE\xFF", R R},
};

std::string streamed(const std::vector<std::string_view>& pieces) {
  Utf8Stream stream;
  std::string text;
  for (const std::string_view piece : pieces) {
    const std::string ready = stream.push(piece);
    CHECK(ready == to_valid_utf8(ready));
    text += ready;
  }
  return text + stream.flush();
}

}  // namespace

TEST_CASE("utf8: each maximal invalid subsequence becomes one U+FFFD") {
  for (const Case& c : kCases) CHECK(to_valid_utf8(c.bytes) == c.text);
}

TEST_CASE("utf8: a stream gives the same text however the bytes are cut") {
  for (const Case& c : kCases) {
    const std::string_view bytes = c.bytes;
    std::vector<std::string_view> single;
    for (std::size_t i = 0; i < bytes.size(); ++i) single.push_back(bytes.substr(i, 1));
    CHECK(streamed(single) == c.text);
    for (std::size_t i = 0; i <= bytes.size(); ++i) {
      for (std::size_t j = i; j <= bytes.size(); ++j) {
        CHECK(streamed({bytes.substr(0, i), bytes.substr(i, j - i), bytes.substr(j)}) == c.text);
      }
    }
  }
}

TEST_CASE("utf8: text is shown as soon as it is certain") {
  Utf8Stream stream;
  CHECK(stream.push("a\xF0\x9F") == "a");
  CHECK(stream.push("\x98").empty());
  CHECK(stream.push("\x80") == "\U0001F600");
  CHECK(stream.push("\xF0\x9F") == "");
  CHECK(stream.push("X") == R "X");
  CHECK(stream.flush().empty());
}

TEST_CASE("utf8: nothing is carried over a flush") {
  Utf8Stream stream;
  CHECK(stream.push("\xF0\x9F").empty());
  CHECK(stream.flush() == R);
  CHECK(stream.flush().empty());
  CHECK(stream.push("\x98\x80") == R R);
}

TEST_CASE("utf8: every character survives, every surrogate does not") {
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(text, c);
    const Utf8Prefix prefix = utf8_prefix(text);
    const bool is_surrogate = c >= 0xD800 && c < 0xE000;
    const bool is_right = is_surrogate ? prefix.kind == Utf8Kind::kInvalid
                                       : prefix.kind == Utf8Kind::kCharacter &&
                                             prefix.length == text.size() && prefix.code_point == c;
    if (!is_right) FAIL("code point " << static_cast<unsigned>(c));
  }
}

TEST_CASE("utf8: white space is the Unicode property") {
  const std::vector<char32_t> white = {0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x20,   0x85,
                                       0xA0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                       0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A, 0x2028,
                                       0x2029, 0x202F, 0x205F, 0x3000};
  std::vector<char32_t> found;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (is_white_space(c)) found.push_back(c);
  }
  CHECK(found == white);
}
