// The harmony chat format of gpt-oss: from a conversation to the tokens of a prompt, and from
// sampled tokens back to messages.
//
//   <|start|>HEADER<|message|>CONTENT<|end|>     HEADER: author, recipient, channel, content type
//
// Special tokens are looked up by their text, so any tokenizer that has them will do. Content never
// becomes a special token, whatever it says.
// Source: openai/harmony (the published renderer and parser), which the golden cases come from.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/tokenizer.h"
#include "engine/utf8.h"
#include "kernels/core/json_fields.h"

namespace moebench {

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };
std::string_view role_name(Role role);
std::optional<Role> role_from_name(std::string_view name);

enum class ReasoningEffort { kLow, kMedium, kHigh };
std::string_view effort_name(ReasoningEffort effort);
// "low", "medium" or "high"; throws Error(kInvalidArgument) naming `where` for anything else.
ReasoningEffort effort_from_name(std::string_view name, std::string_view where);

// --- What a conversation holds -------------------------------------------------------------------

struct ToolDescription {
  std::string name;
  std::string description;
  std::optional<OrderedJson> parameters;  // JSON schema; its properties keep their order
};

struct ToolNamespace {
  std::optional<std::string> description;
  std::vector<ToolDescription> tools;  // none: the description is printed as plain text
};

using ToolNamespaces = std::map<std::string, ToolNamespace>;  // by name, printed in this order

// The tools gpt-oss knows from its training; they belong in the system message.
ToolNamespace browser_tools();  // as "browser"
ToolNamespace python_tool();    // as "python"

struct ChannelConfig {
  std::vector<std::string> valid_channels = {"analysis", "commentary", "final"};
  bool channel_required = true;
};

// The system message. Whatever is set is written, in this order; the defaults are the renderer's.
struct SystemContent {
  std::optional<std::string> model_identity =
      "You are ChatGPT, a large language model trained by OpenAI.";
  std::optional<std::string> knowledge_cutoff = "2024-06";
  std::optional<std::string> conversation_start_date;  // YYYY-MM-DD
  std::optional<ReasoningEffort> reasoning_effort = ReasoningEffort::kMedium;
  ToolNamespaces tools;
  std::optional<ChannelConfig> channel_config = ChannelConfig{};
};

// The developer message: what APIs call the system prompt, and the caller's tools.
struct DeveloperContent {
  std::optional<std::string> instructions;
  ToolNamespaces tools;
};

using Content = std::variant<std::string, SystemContent, DeveloperContent>;

// Empty strings mean: none.
struct Message {
  Role role = Role::kUser;
  std::string name;       // of the author; a tool message must have one, such as "functions.f"
  std::string recipient;  // of a tool call, such as "functions.f"; of a tool's answer: "assistant"
  std::string channel;
  std::string content_type;  // "json", "<|constrain|>json", "code"
  std::vector<Content> content;
};

Message text_message(Role role, std::string text, std::string channel = "");
// The default system message at this effort.
Message system_message(ReasoningEffort effort);

// The text parts of the content, joined. Parsed messages have no other parts.
std::string message_text(const Message& message);

using Conversation = std::vector<Message>;

// Reads a list of messages: {"role", "content", "name", "recipient", "channel", "content_type"},
// content being a string or a list of parts {"type": "text", "text"}, {"type": "system", ...} and
// {"type": "developer", ...}, whose other fields are those of the structs above. An absent field
// has its default, null leaves it out. Throws Error(kInvalidArgument) naming `where` and the field.
// For text from outside use parse_conversation, which bounds how deep the JSON is nested.
Conversation conversation_from_json(const OrderedJson& messages, std::string_view where);

// The same from untrusted text: the list, or an object with the one field "messages".
// Throws Error(kParse) too.
Conversation parse_conversation(std::string_view text, std::string_view where);

// --- From a conversation to tokens ---------------------------------------------------------------

// The ids of the special tokens that bound messages.
struct HarmonyTokens {
  TokenId start, message, end, call, return_;

  // Throws Error(kUnsupported) naming a special token of the format that the tokenizer lacks.
  static HarmonyTokens of(const Tokenizer& tokenizer);

  // Whether the token ends a message, in a prompt or in an answer.
  bool ends_message(TokenId id) const { return id == end || id == call || id == return_; }

  // Sampling stops after any of these: the answer is complete, or a tool is to be called. The
  // <|end|> of a message is none: the next message follows. HF's generation_config.json adds
  // <|endoftext|>; a caller who stops there must not give that token to the parser.
  std::vector<TokenId> stop_tokens() const { return {return_, call}; }
};

enum class RenderMode {
  kCompletion,  // ends with <|start|>assistant: ready to sample
  kPlain,       // the messages alone
  kTraining,    // as kPlain, but a last assistant message on channel final ends with <|return|>
};

struct RenderOptions {
  RenderMode mode = RenderMode::kCompletion;
  // If the last assistant message is on channel final: leave out the messages on channel analysis
  // that stand before the first final one. Answers that are stored without them need no dropping.
  bool auto_drop_analysis = true;
};

// Both throw Error(kInvalidArgument) for a conversation that has no rendering: a tool message
// without a name, a tool schema that is nested too deep.
std::vector<TokenId> render(const Conversation& conversation, const RenderOptions& options,
                            const Tokenizer& tokenizer);
// The text of the same, special tokens included: for people, not to be encoded.
std::string render_text(const Conversation& conversation, const RenderOptions& options);

// --- From tokens to messages ---------------------------------------------------------------------

enum class ParseMode {
  kStrict,   // as the published parser in strict mode: a model that misses <|message|> is an error
  kLenient,  // keeps what it can: see HarmonyParser
};

// How far an answer kept to the format.
enum class AnswerForm {
  kWellFormed,      // text for the user, perhaps cut short, and nothing odd
  kNoFinal,         // only thoughts, preambles or tool calls
  kUnknownChannel,  // a message on a channel other than analysis, commentary and final
  kForeignRole,     // the model spoke as somebody else
  kBrokenHeader,    // a message that cannot be read, or that ended before its content began;
                    // also anything else that stopped the parser
};

// A streaming parser of sampled tokens. It never throws for what a model says: what breaks the
// grammar ends the parse with error() set and the messages so far kept.
//
// In lenient mode a message that ends without <|message|> is kept as text if it was the first one
// and its role known, and dropped otherwise; so is an unfinished header at the end of the input,
// and a token id that the tokenizer lacks becomes U+FFFD. answer_form() tells of all of these.
class HarmonyParser {
 public:
  // `role` is that of the message the prompt has opened: assistant after a prompt for completion,
  // nothing if the tokens start with <|start|>. Keeps a copy of the tokenizer.
  // Throws Error(kUnsupported) if the tokenizer lacks harmony's special tokens.
  HarmonyParser(const Tokenizer& tokenizer, std::optional<Role> role,
                ParseMode mode = ParseMode::kLenient);

  // Tokens after an error, or after finish(), are ignored.
  void push(TokenId id);

  // The end of the input: an unfinished message is kept.
  void finish();

  // Finished messages, in order.
  const std::vector<Message>& messages() const { return messages_; }

  // The message whose content is arriving, nullptr between contents. Its text is valid UTF-8;
  // bytes of an unfinished character are held back.
  const Message* current() const { return state_ == State::kContent ? &current_ : nullptr; }

  // What the last push() or finish() added to the content of a message: for display.
  std::string_view delta() const { return delta_; }

  // Empty if all is well.
  const std::string& error() const { return error_; }

  AnswerForm answer_form() const;

 private:
  enum class State { kStart, kHeader, kContent, kEnded };

  void open_content();
  void end_header_early();
  void add_content(std::string text);
  void end_message();
  void start_next();
  void fail_with(std::string error);
  std::string_view bytes_of(TokenId id) const;

  Tokenizer tokenizer_;
  HarmonyTokens tokens_;
  ParseMode mode_;
  State state_;
  std::optional<Role> known_role_;  // of the message in progress, if the prompt has opened it
  std::string header_;              // bytes so far, special tokens as their text
  Message current_;
  Utf8Stream decoder_;
  std::vector<Message> messages_;
  std::string delta_;
  std::string error_;
  bool broken_header_ = false;  // a message ended, or the input did, before its content
};

// What the user is shown: the assistant's messages on channel final, or without channel and
// recipient, joined by line breaks. Empty if there are none: thoughts are never an answer.
std::string final_text(const std::vector<Message>& messages);

// The chain of thought: the assistant's messages on channel analysis, joined by line breaks.
std::string reasoning_text(const std::vector<Message>& messages);

}  // namespace moebench
