// Unicode character classes: spaces and digits by table, letters by asking PCRE2.
#include "evals/extract_unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>

#include "engine/utf8.h"
#include "kernels/core/error.h"

namespace moebench::unicode {
namespace {

using Pattern = std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)>;
using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

// Python's \w is this class exactly (all code points compared, CPython 3.11, Unicode 14).
Pattern compile_word_class() {
  constexpr std::string_view kClass = R"([\p{L}\p{N}_])";
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pattern pattern(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kClass.data()), kClass.size(),
                    PCRE2_UTF | PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, &error, &offset, nullptr),
      pcre2_code_free);
  require_or(ErrorCode::kUnsupported, pattern != nullptr,
             "compile the class of word characters: PCRE2 error {} (a PCRE2 with Unicode works)",
             error);
  return pattern;
}

}  // namespace

std::u32string decode_utf8(std::string_view bytes) {
  constexpr char32_t kReplacement = 0xFFFD;
  std::u32string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Prefix prefix = utf8_prefix(bytes);
    text.push_back(prefix.kind == Utf8Kind::kCharacter ? prefix.code_point : kReplacement);
    bytes.remove_prefix(prefix.length);
  }
  return text;
}

std::string encode_utf8(std::u32string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (const char32_t c : text) append_utf8(bytes, c);
  return bytes;
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_ascii_alnum(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_word(char32_t c) {
  if (c < 0x80) return is_ascii_alnum(c) || c == '_';
  if (c >= kOutside) return false;
  static const Pattern pattern = compile_word_class();
  // One per thread, because a match writes into it; creating one per call doubles the cost.
  thread_local const MatchData match(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  require_or(ErrorCode::kOutOfMemory, match != nullptr, "allocate PCRE2 match data");
  std::string bytes;
  append_utf8(bytes, c);
  return pcre2_match(pattern.get(), reinterpret_cast<PCRE2_SPTR>(bytes.data()), bytes.size(), 0,
                     PCRE2_NO_UTF_CHECK, match.get(), nullptr) > 0;
}

int decimal_digit(char32_t c) {
  // The zeros of Unicode 14's category Nd; the digits 1 to 9 follow each.
  static constexpr std::array<std::uint32_t, 66> kZeros = {
      0x30,    0x660,   0x6f0,   0x7c0,   0x966,   0x9e6,   0xa66,   0xae6,   0xb66,   0xbe6,
      0xc66,   0xce6,   0xd66,   0xde6,   0xe50,   0xed0,   0xf20,   0x1040,  0x1090,  0x17e0,
      0x1810,  0x1946,  0x19d0,  0x1a80,  0x1a90,  0x1b50,  0x1bb0,  0x1c40,  0x1c50,  0xa620,
      0xa8d0,  0xa900,  0xa9d0,  0xa9f0,  0xaa50,  0xabf0,  0xff10,  0x104a0, 0x10d30, 0x11066,
      0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0,
      0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2,
      0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0};
  const auto after = std::upper_bound(kZeros.begin(), kZeros.end(), std::uint32_t{c});
  if (after == kZeros.begin()) return -1;
  const std::uint32_t value = c - *(after - 1);
  return value <= 9 ? static_cast<int>(value) : -1;
}

std::u32string fold_case(std::u32string_view text) {
  std::u32string folded(text);
  for (char32_t& c : folded) {
    if (c < 0x80) {
      if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
    } else if (c >= 0xC0 && c <= 0xDE && c != 0xD7) {  // U+00D7 is the multiplication sign
      c += 0x20;
    } else if (c == 0x130 || c == 0x131) {  // I with a dot above, i without one
      c = 'i';
    } else if (c == 0x17F) {  // long s
      c = 's';
    } else if (c == 0x1E62 || c == 0x1ECC) {  // S and O with a dot below
      c += 1;
    }
  }
  return folded;
}

std::size_t skip_space(std::u32string_view text, std::size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

std::u32string_view strip(std::u32string_view text) {
  text.remove_prefix(skip_space(text, 0));
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace moebench::unicode
