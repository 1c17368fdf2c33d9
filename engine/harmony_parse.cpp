// The parser's state machine, and what an answer is made of.
#include <algorithm>
#include <array>
#include <utility>

#include "engine/harmony.h"
#include "engine/harmony_header.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

template <class Predicate>
std::string joined_text(const std::vector<Message>& messages, Predicate is_wanted) {
  std::string text;
  bool is_first = true;
  for (const Message& message : messages) {
    if (message.role != Role::kAssistant || !is_wanted(message)) continue;
    if (!std::exchange(is_first, false)) text += '\n';
    text += message_text(message);
  }
  return text;
}

// A message without a channel is best taken for an answer, unless it calls somebody.
bool is_final(const Message& message) {
  return message.channel == "final" || (message.channel.empty() && message.recipient.empty());
}

}  // namespace

HarmonyTokens HarmonyTokens::of(const Tokenizer& tokenizer) {
  const auto id = [&](std::string_view text) {
    const auto found = tokenizer.special_id(text);
    require_or(ErrorCode::kUnsupported, found.has_value(),
               "use the harmony chat format: the tokenizer has no special token {}", text);
    return *found;
  };
  id("<|channel|>");
  id("<|constrain|>");
  return {id("<|start|>"), id("<|message|>"), id("<|end|>"), id("<|call|>"), id("<|return|>")};
}

HarmonyParser::HarmonyParser(const Tokenizer& tokenizer, std::optional<Role> role, ParseMode mode)
    : tokenizer_(tokenizer),
      tokens_(HarmonyTokens::of(tokenizer)),
      mode_(mode),
      state_(role ? State::kHeader : State::kStart),
      known_role_(role) {}

void HarmonyParser::push(TokenId id) {
  delta_.clear();
  if (state_ == State::kEnded) return;
  if (mode_ == ParseMode::kStrict && !tokenizer_.contains(id)) {
    return fail_with(fmt::format("token {} is not in the vocabulary", id));
  }
  switch (state_) {
    case State::kStart:
      if (id != tokens_.start) {
        return fail_with(fmt::format("expected <|start|>, got token {}", id));
      }
      state_ = State::kHeader;
      break;
    case State::kHeader:
      if (id == tokens_.message) {
        open_content();
      } else if (mode_ == ParseMode::kLenient && tokens_.ends_message(id)) {
        end_header_early();
      } else {
        header_ += bytes_of(id);
      }
      break;
    case State::kContent:
      if (tokens_.ends_message(id)) {
        end_message();
      } else {
        add_content(decoder_.push(bytes_of(id)));
      }
      break;
    case State::kEnded:
      break;
  }
}

void HarmonyParser::finish() {
  delta_.clear();
  if (state_ == State::kContent) end_message();
  if (state_ == State::kHeader) {
    broken_header_ = true;
    if (mode_ == ParseMode::kStrict) return fail_with("the input ends inside a header");
  }
  state_ = State::kEnded;
}

void HarmonyParser::open_content() {
  ParsedHeader header = parse_header(header_, known_role_);
  if (mode_ == ParseMode::kStrict && to_valid_utf8(header_) != header_) {
    header.error = "a header that is not valid UTF-8";
  }
  if (!header.error.empty()) return fail_with(std::move(header.error));
  current_ = std::move(header.message);
  current_.content.emplace_back(std::string());
  state_ = State::kContent;
}

// Lenient only: a stop token before <|message|>.
void HarmonyParser::end_header_early() {
  broken_header_ = true;
  if (known_role_ && !header_.empty()) {
    ParsedHeader header = header_as_message(header_, *known_role_);
    if (!header.error.empty()) return fail_with(std::move(header.error));
    delta_ = message_text(header.message);
    messages_.push_back(std::move(header.message));
  }
  start_next();
}

void HarmonyParser::add_content(std::string text) {
  std::get<std::string>(current_.content.front()) += text;
  delta_ = std::move(text);
}

void HarmonyParser::end_message() {
  add_content(decoder_.flush());
  messages_.push_back(std::move(current_));
  start_next();
}

void HarmonyParser::start_next() {
  header_.clear();
  known_role_.reset();
  current_ = Message{};
  state_ = State::kStart;
}

void HarmonyParser::fail_with(std::string error) {
  if (state_ == State::kContent) end_message();
  error_ = std::move(error);
  state_ = State::kEnded;
}

// Only a model with more rows than its tokenizer has tokens can emit an id that is not contained.
std::string_view HarmonyParser::bytes_of(TokenId id) const {
  return tokenizer_.contains(id) ? tokenizer_.token_bytes(id) : kReplacementCharacter;
}

AnswerForm HarmonyParser::answer_form() const {
  constexpr std::array<std::string_view, 4> kChannels = {"", "analysis", "commentary", "final"};
  if (!error_.empty() || broken_header_) return AnswerForm::kBrokenHeader;
  bool has_final = false;
  bool has_unknown_channel = false;
  for (const Message& message : messages_) {
    if (message.role != Role::kAssistant) return AnswerForm::kForeignRole;
    has_final |= is_final(message);
    has_unknown_channel |=
        std::find(kChannels.begin(), kChannels.end(), message.channel) == kChannels.end();
  }
  if (has_unknown_channel) return AnswerForm::kUnknownChannel;
  return has_final ? AnswerForm::kWellFormed : AnswerForm::kNoFinal;
}

std::string final_text(const std::vector<Message>& messages) {
  return joined_text(messages, is_final);
}

std::string reasoning_text(const std::vector<Message>& messages) {
  return joined_text(messages, [](const Message& m) { return m.channel == "analysis"; });
}

}  // namespace moebench
