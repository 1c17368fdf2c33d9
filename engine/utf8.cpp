// Decoding by the table of well-formed byte sequences (Unicode 15.0, table 3-7).
#include "engine/utf8.h"

#include <utility>

namespace moebench {
namespace {

// What the first byte of a character says about the rest.
struct LeadByte {
  std::size_t length;         // of the whole character; 0: cannot start one
  unsigned char low, high;    // range of the second byte; the others are 80..BF
  unsigned char first_value;  // the payload bits of the lead byte itself
};

LeadByte lead_byte(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0, byte};
  if (byte < 0xC2) return {0, 0, 0, 0};  // a continuation byte, or an overlong form of ASCII
  if (byte < 0xE0) return {2, 0x80, 0xBF, static_cast<unsigned char>(byte & 0x1F)};
  if (byte < 0xF0) {
    const unsigned char low = byte == 0xE0 ? 0xA0 : 0x80;   // below: overlong
    const unsigned char high = byte == 0xED ? 0x9F : 0xBF;  // above: surrogates
    return {3, low, high, static_cast<unsigned char>(byte & 0x0F)};
  }
  if (byte < 0xF5) {
    const unsigned char low = byte == 0xF0 ? 0x90 : 0x80;   // below: overlong
    const unsigned char high = byte == 0xF4 ? 0x8F : 0xBF;  // above: past U+10FFFF
    return {4, low, high, static_cast<unsigned char>(byte & 0x07)};
  }
  return {0, 0, 0, 0};
}

}  // namespace

Utf8Prefix utf8_prefix(std::string_view text) {
  const auto byte_at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const LeadByte lead = lead_byte(byte_at(0));
  if (lead.length == 0) return {Utf8Kind::kInvalid, 1, 0};
  char32_t code_point = lead.first_value;
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8Kind::kIncomplete, i, 0};
    const unsigned char low = i == 1 ? lead.low : 0x80;
    const unsigned char high = i == 1 ? lead.high : 0xBF;
    if (byte_at(i) < low || byte_at(i) > high) return {Utf8Kind::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte_at(i) & 0x3F);
  }
  return {Utf8Kind::kCharacter, lead.length, code_point};
}

std::string to_valid_utf8(std::string_view text) {
  Utf8Stream stream;
  std::string valid = stream.push(text);
  return valid += stream.flush();
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto append = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | (code_point >> 6));
    append(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    append(0xE0 | (code_point >> 12));
    append(0x80 | ((code_point >> 6) & 0x3F));
    append(0x80 | (code_point & 0x3F));
  } else {
    append(0xF0 | (code_point >> 18));
    append(0x80 | ((code_point >> 12) & 0x3F));
    append(0x80 | ((code_point >> 6) & 0x3F));
    append(0x80 | (code_point & 0x3F));
  }
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string Utf8Stream::push(std::string_view bytes) {
  std::string joined;
  if (!held_back_.empty()) {
    joined = std::exchange(held_back_, {}).append(bytes);
    bytes = joined;
  }
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Prefix prefix = utf8_prefix(bytes);
    if (prefix.kind == Utf8Kind::kIncomplete) {
      held_back_ = bytes;
      break;
    }
    text += prefix.kind == Utf8Kind::kCharacter ? bytes.substr(0, prefix.length)
                                                : kReplacementCharacter;
    bytes.remove_prefix(prefix.length);
  }
  return text;
}

std::string Utf8Stream::flush() {
  const bool incomplete = !std::exchange(held_back_, {}).empty();
  return std::string(incomplete ? kReplacementCharacter : "");
}

}  // namespace moebench
