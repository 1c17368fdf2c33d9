// The header of a sampled message: who speaks, to whom, on which channel. Internal to the parser.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/harmony.h"

namespace moebench {

// A header, or what is wrong with it.
struct ParsedHeader {
  Message message;    // without content
  std::string error;  // empty if there is none
};

// `text` is all between <|start|> and <|message|>, special tokens as their text. `known_role` is
// that of a message whose author the prompt has already written.
ParsedHeader parse_header(std::string_view text, std::optional<Role> known_role);

// A header that its message ended with: whatever is not the channel is content, with runs of white
// space as single spaces.
ParsedHeader header_as_message(std::string_view text, Role role);

}  // namespace moebench
