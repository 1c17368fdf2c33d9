// The rules of the published parser, quirks included: shared/spec/harmony.md, section 7.
#include "engine/harmony_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/utf8.h"

namespace moebench {
namespace {

constexpr std::string_view kChannel = "<|channel|>";
constexpr std::string_view kConstrain = "<|constrain|>";
constexpr std::string_view kTo = "to=";

// Without Unicode white space at both ends. `text` is valid UTF-8.
std::string_view trimmed(std::string_view text) {
  std::size_t begin = text.size();
  std::size_t end = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Prefix c = utf8_prefix(text.substr(i));
    if (!is_white_space(c.code_point)) {
      begin = std::min(begin, i);
      end = i + c.length;
    }
    i += c.length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

// The words of a header. The published parser ends a channel name at any Unicode white space but
// splits the rest at ASCII's alone, so that a no-break space is part of a word.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  bool in_word = false;
  for (const char c : trimmed(text)) {
    const bool is_space = c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r';
    if (!is_space && !in_word) words.emplace_back();
    if (!is_space) words.back() += c;
    in_word = !is_space;
  }
  return words;
}

// A header's channel, and what else it says.
struct SplitHeader {
  bool is_valid = true;  // false: a channel marker without a name
  std::string channel;
  std::vector<std::string> words;
};

SplitHeader split_header(std::string_view text) {
  SplitHeader header;
  std::string rest = to_valid_utf8(text);
  if (const std::size_t marker = rest.find(kChannel); marker != std::string::npos) {
    const std::size_t begin = marker + kChannel.size();
    std::size_t end = begin;
    while (end < rest.size() && rest[end] != '<') {
      const Utf8Prefix c = utf8_prefix(std::string_view(rest).substr(end));
      if (is_white_space(c.code_point)) break;
      end += c.length;
    }
    header.channel = rest.substr(begin, end - begin);
    header.is_valid = begin < end;
    rest.erase(marker, end - marker);
  }
  // The marker starts a word even where the model left out the space before it.
  for (std::size_t at = rest.find(kConstrain); at != std::string::npos;
       at = rest.find(kConstrain, at + 1 + kConstrain.size())) {
    rest.insert(at, 1, ' ');
  }
  header.words = words_of(rest);
  return header;
}

std::string without_to(const std::string& word) {
  return word.starts_with(kTo) ? word.substr(kTo.size()) : word;
}

// Finds the role at the front of `words` and takes it away; false if there is none.
bool take_role(std::vector<std::string>& words, Message& message) {
  if (words.empty()) return false;
  const std::string& first = words.front();
  if (const auto role = role_from_name(first)) {
    message.role = *role;
    if (message.role == Role::kTool) message.name = first;
  } else if (words.size() > 1 || first.starts_with(kTo)) {
    message.role = Role::kTool;
    message.name = first;
  } else {
    return false;
  }
  words.erase(words.begin());
  return true;
}

constexpr const char* kNoChannelName = "a channel marker without a channel name";

}  // namespace

ParsedHeader parse_header(std::string_view text, std::optional<Role> known_role) {
  ParsedHeader header;
  Message& message = header.message;
  const auto broken = [&](std::string error) {
    header.error = std::move(error);
    return header;
  };

  SplitHeader split = split_header(text);
  if (!split.is_valid) return broken(kNoChannelName);
  message.channel = std::move(split.channel);
  std::vector<std::string>& words = split.words;
  if (known_role) {
    message.role = *known_role;
    if (!words.empty() && words.front() == role_name(*known_role)) words.erase(words.begin());
  } else {
    const std::string first = words.empty() ? "" : words.front();
    if (!take_role(words, message)) {
      return broken(words.empty() ? "a header without a role"
                                  : fmt::format("unknown role '{}'", first.substr(0, 100)));
    }
  }

  if (!words.empty()) {
    // "to=X" and a lone word are the recipient; else the last word is the content type.
    if (words.size() > 1 && !words.back().starts_with(kTo)) {
      message.content_type = std::move(words.back());
      words.pop_back();
    }
    message.recipient = without_to(words.back());
    words.pop_back();
  }
  if (words.empty()) return header;
  return broken(
      fmt::format("more words in a header than it can have: '{}'", words.back().substr(0, 100)));
}

ParsedHeader header_as_message(std::string_view text, Role role) {
  SplitHeader split = split_header(text);
  ParsedHeader header;
  if (!split.is_valid) header.error = kNoChannelName;
  header.message =
      text_message(role, fmt::format("{}", fmt::join(split.words, " ")), std::move(split.channel));
  return header;
}

}  // namespace moebench
