// Bytes as a conversation to render, and as the tokens a model sampled. The first byte chooses.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/harmony.h"
#include "kernels/core/error.h"

using namespace moebench;

namespace {

void check(bool ok) {
  if (!ok) __builtin_trap();
}

// Ids 0 to 8 are harmony's special tokens, then come a few words and the 128 characters of ASCII
// that are printable, and two halves of "e" with an acute accent.
Tokenizer make_tokenizer() {
  Json file = Json::parse(R"({
    "added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"type": "BPE", "vocab": {}, "merges": []}})");
  TokenId id = 0;
  for (const char* special : {"<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>",
                              "<|call|>", "<|constrain|>", "<|startoftext|>", "<|endoftext|>"}) {
    file["added_tokens"].push_back({{"id", id++}, {"content", special}, {"special", true}});
  }
  for (const char* word : {"assistant", "user", "tool", "Ġto=", "functions.f", "analysis", "final",
                           "commentary", "Ġjson", "Ġ", "Ċ", "Ã", "©"}) {
    file["model"]["vocab"][word] = id++;
  }
  for (char c = '!'; c <= '~'; ++c) file["model"]["vocab"][std::string(1, c)] = id++;
  return Tokenizer::from_json(file.dump(), "fuzz tokenizer");
}

void render_all(std::string_view text, const Tokenizer& tokenizer) {
  try {
    const Conversation conversation = parse_conversation(text, "fuzz");
    for (const RenderMode mode :
         {RenderMode::kCompletion, RenderMode::kPlain, RenderMode::kTraining}) {
      const RenderOptions options = {mode, text.size() % 2 == 0};
      const std::string rendered = render_text(conversation, options);
      check(rendered == tokenizer.decode(render(conversation, options, tokenizer)));
    }
  } catch (const Error&) {
  }
}

// Nothing may be thrown here.
void parse_all(std::string_view bytes, const Tokenizer& tokenizer) {
  for (const ParseMode mode : {ParseMode::kStrict, ParseMode::kLenient}) {
    for (const std::optional<Role> role :
         {std::optional<Role>(), std::optional(Role::kAssistant)}) {
      HarmonyParser parser(tokenizer, role, mode);
      std::string shown;
      for (const char byte : bytes) {
        parser.push(static_cast<unsigned char>(byte));
        shown += parser.delta();
      }
      parser.finish();
      shown += parser.delta();
      std::string contents;
      for (const Message& message : parser.messages()) contents += message_text(message);
      check(contents == shown && to_valid_utf8(contents) == contents);
      parser.answer_form();
      check(final_text(parser.messages()).size() <= contents.size() + parser.messages().size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Tokenizer tokenizer = make_tokenizer();
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  data[0] % 2 == 0 ? render_all(rest, tokenizer) : parse_all(rest, tokenizer);
  return 0;
}
