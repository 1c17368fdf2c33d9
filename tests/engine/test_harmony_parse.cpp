// Parsing sampled tokens: against the published parser's output, and what a model may do wrong.
#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "engine/harmony.h"
#include "tests/engine/tokenizer_support.h"

using namespace moebench;
using Catch::Matchers::Contains;
using Ids = std::vector<TokenId>;

namespace {

OrderedJson json_of(const std::vector<Message>& messages) {
  OrderedJson list = OrderedJson::array();
  for (const Message& message : messages) {
    OrderedJson json = {{"role", role_name(message.role)}};
    if (!message.name.empty()) json["name"] = message.name;
    if (!message.recipient.empty()) json["recipient"] = message.recipient;
    if (!message.channel.empty()) json["channel"] = message.channel;
    if (!message.content_type.empty()) json["content_type"] = message.content_type;
    json["content"] = message_text(message);
    list.push_back(json);
  }
  return list;
}

// Feeds a parser, and checks on the way that the deltas add up to the contents.
HarmonyParser parsed(const Tokenizer& tokenizer, const Ids& ids, std::optional<Role> role,
                     ParseMode mode) {
  HarmonyParser parser(tokenizer, role, mode);
  std::string shown;
  for (const TokenId id : ids) {
    parser.push(id);
    shown += parser.delta();
    if (parser.current() != nullptr) {
      CHECK(shown.ends_with(message_text(*parser.current())));
    }
  }
  parser.finish();
  shown += parser.delta();
  std::string contents;
  for (const Message& message : parser.messages()) contents += message_text(message);
  CHECK(shown == contents);
  return parser;
}

// What a model with the small tokenizer says after <|start|>assistant.
HarmonyParser answer(const std::string& text, ParseMode mode = ParseMode::kLenient) {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  return parsed(tokenizer, tokenizer.encode_with_special(text), Role::kAssistant, mode);
}

void check_golden(const OrderedJson& c, const Tokenizer& tokenizer, const Ids& ids) {
  std::optional<Role> role;
  if (!c["role"].is_null()) role = role_from_name(c["role"].get<std::string>());
  const ParseMode mode = c["strict"].get<bool>() ? ParseMode::kStrict : ParseMode::kLenient;
  const HarmonyParser parser = parsed(tokenizer, ids, role, mode);
  CHECK(parser.error().empty() == !c.contains("error"));
  // Without regard to the order of fields.
  if (c.contains("messages")) CHECK(Json(json_of(parser.messages())) == Json(c["messages"]));
}

}  // namespace

TEST_CASE("harmony: answers parse as the published parser parses them") {
  const auto tokenizer = test::o200k();
  if (!tokenizer) return;
  for (const auto& c : test::golden_cases("harmony_cases.json", "parse")) {
    DYNAMIC_SECTION(c["name"].get<std::string>()) {
      check_golden(c, *tokenizer, c["ids"].get<Ids>());
    }
  }
}

TEST_CASE("harmony: answers parse the same with another tokenizer") {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  for (const auto& c : test::golden_cases("harmony_cases.json", "parse")) {
    if (c["text"].is_null()) continue;
    INFO(c["name"].get<std::string>());
    check_golden(c, tokenizer, tokenizer.encode_with_special(c["text"].get<std::string>()));
  }
}

TEST_CASE("harmony: the stop tokens are the published ones") {
  const auto tokenizer = test::o200k();
  if (!tokenizer) return;
  const auto actions =
      test::golden_cases("harmony_cases.json", "stop_tokens_for_assistant_actions").get<Ids>();
  const auto ends = test::golden_cases("harmony_cases.json", "stop_tokens").get<Ids>();
  const HarmonyTokens tokens = HarmonyTokens::of(*tokenizer);
  CHECK(tokens.stop_tokens() == actions);
  for (TokenId id = 199990; id < 201088; ++id) {
    CHECK(tokens.ends_message(id) == (std::find(ends.begin(), ends.end(), id) != ends.end()));
  }
}

TEST_CASE("harmony: what was rendered parses back") {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  for (const auto& c : test::golden_cases("harmony_cases.json", "render")) {
    const auto name = c["name"].get<std::string>();
    // The parser has no notation for the name of a user, for a tool that answers nobody, for the
    // recipient "all" and for a content type of two words.
    if (name == "user_name" || name == "commentary_preamble_kept_when_dropping" ||
        name == "recipient_all_not_printed_but_call" || name == "content_type_constrain_space") {
      continue;
    }
    INFO(name);
    const Conversation conversation = conversation_from_json(c["messages"], name);
    const RenderOptions options = {RenderMode::kPlain, false};
    HarmonyParser parser(tokenizer, {}, ParseMode::kStrict);
    for (const TokenId id : render(conversation, options, tokenizer)) parser.push(id);
    parser.finish();
    CHECK(parser.error().empty());
    CHECK(render_text(parser.messages(), options) == render_text(conversation, options));
  }
}

TEST_CASE("harmony: the current message can be shown while it arrives") {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  HarmonyParser parser(tokenizer, Role::kAssistant);
  const auto push = [&](const std::string& text) {
    std::string shown;
    for (const TokenId id : tokenizer.encode_with_special(text)) {
      parser.push(id);
      shown += parser.delta();
    }
    return shown;
  };
  CHECK(push("<|channel|>analysis").empty());
  CHECK(parser.current() == nullptr);
  CHECK(push("<|message|>Hm").ends_with("Hm"));
  REQUIRE(parser.current() != nullptr);
  CHECK(parser.current()->channel == "analysis");
  parser.push(tokenizer.encode("\U0001F600").front());  // one byte of four
  CHECK(parser.delta().empty());
  CHECK(message_text(*parser.current()) == "Hm");
  CHECK(push("<|end|>") == "\uFFFD");
  CHECK(parser.current() == nullptr);
  CHECK(message_text(parser.messages().front()) == "Hm\uFFFD");
  CHECK(push("<|start|>assistant<|channel|>final<|message|>4") == "4");
  CHECK(parser.current()->channel == "final");
}

TEST_CASE("harmony: the form of an answer says how it broke the format") {
  struct Case {
    const char* text;
    AnswerForm form;
    const char* final_text;
    const char* reasoning_text;
  };
  for (const Case& c : std::vector<Case>{
           {"<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>A"
            "<|return|>",
            AnswerForm::kWellFormed, "A", "t"},
           {"<|channel|>final<|message|>cut", AnswerForm::kWellFormed, "cut", ""},
           {"<|message|>bare<|return|>", AnswerForm::kWellFormed, "bare", ""},
           {"<|channel|>final<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b",
            AnswerForm::kWellFormed, "a\nb", ""},
           {"<|channel|>analysis<|message|>only thoughts", AnswerForm::kNoFinal, "",
            "only thoughts"},
           {"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
            AnswerForm::kNoFinal, "", ""},
           {" to=functions.f<|message|>{}<|call|>", AnswerForm::kNoFinal, "", ""},
           {"<|channel|>answer<|message|>A<|return|>", AnswerForm::kUnknownChannel, "", ""},
           {"<|channel|>thought<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>A",
            AnswerForm::kUnknownChannel, "A", ""},
           {"<|channel|>final<|message|>A<|end|><|start|>user<|message|>More?<|end|>",
            AnswerForm::kForeignRole, "A", ""},
           {"", AnswerForm::kBrokenHeader, "", ""},
           {"<|channel|>final", AnswerForm::kBrokenHeader, "", ""},
           {"<|channel|>final<|message|>A<|end|><|start|>assistant", AnswerForm::kBrokenHeader, "A",
            ""},
           {"<|channel|>final The answer<|return|>", AnswerForm::kBrokenHeader, "The answer", ""},
           {"<|channel|><|message|>A<|return|>", AnswerForm::kBrokenHeader, "", ""},
           {"<|channel|>final<|message|>A<|return|>B", AnswerForm::kBrokenHeader, "A", ""},
       }) {
    INFO(c.text);
    const HarmonyParser parser = answer(c.text);
    CHECK(parser.answer_form() == c.form);
    CHECK(final_text(parser.messages()) == c.final_text);
    CHECK(reasoning_text(parser.messages()) == c.reasoning_text);
  }
}

TEST_CASE("harmony: an unfinished header is an error in strict mode and dropped in lenient mode") {
  for (const char* text : {"", "<|channel|>final", "no header at all"}) {
    INFO(text);
    CHECK_THAT(answer(text, ParseMode::kStrict).error(), Contains("ends inside a header"));
    CHECK(answer(text).error().empty());
    CHECK(answer(text).messages().empty());
  }
}

TEST_CASE("harmony: an error keeps the messages before it and ends the parse") {
  const std::string text =
      "<|channel|>analysis<|message|>a<|end|>junk<|start|>assistant<|channel|>final<|message|>r";
  for (const ParseMode mode : {ParseMode::kStrict, ParseMode::kLenient}) {
    const HarmonyParser parser = answer(text, mode);
    CHECK_THAT(parser.error(), Contains("expected <|start|>, got token"));
    CHECK(parser.messages().size() == 1);
  }
}

TEST_CASE("harmony: Unicode white space ends a channel, only ASCII's ends other words") {
  const HarmonyParser parser = answer(
      "<|channel|>final\u2003to=functions.f\u00A0g\fjson\u3000<|message|>{}", ParseMode::kStrict);
  REQUIRE(parser.messages().size() == 1);
  CHECK(parser.messages()[0].channel == "final");
  CHECK(parser.messages()[0].recipient == "functions.f\u00A0g");
  CHECK(parser.messages()[0].content_type == "json");
  CHECK(answer("<|channel|>final\u180Ex<|message|>").messages()[0].channel == "final\u180Ex");
}

TEST_CASE("harmony: a header that is not UTF-8 is an error in strict mode") {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  Ids ids = tokenizer.encode_with_special("<|channel|>final<|message|>A");
  ids.insert(ids.begin() + 1, tokenizer.encode("\u00E9").front());  // one byte of two
  CHECK_THAT(parsed(tokenizer, ids, Role::kAssistant, ParseMode::kStrict).error(),
             Contains("not valid UTF-8"));
  const HarmonyParser lenient = parsed(tokenizer, ids, Role::kAssistant, ParseMode::kLenient);
  CHECK(lenient.messages().front().channel == "\uFFFDfinal");
}

TEST_CASE("harmony: a token id past the tokenizer's is U+FFFD, or an error in strict mode") {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  Ids ids = tokenizer.encode_with_special("<|channel|>final<|message|>a");
  ids.push_back(static_cast<TokenId>(tokenizer.vocab_size()));
  ids.push_back(-1);
  HarmonyParser lenient(tokenizer, Role::kAssistant, ParseMode::kLenient);
  HarmonyParser strict(tokenizer, Role::kAssistant, ParseMode::kStrict);
  for (const TokenId id : ids) {
    lenient.push(id);
    strict.push(id);
  }
  lenient.finish();
  CHECK(final_text(lenient.messages()) == "a\uFFFD\uFFFD");
  CHECK_THAT(strict.error(), Contains("is not in the vocabulary"));
}

TEST_CASE("harmony: random tokens never throw and every text is valid UTF-8") {
  const Tokenizer tokenizer = test::small_harmony_tokenizer();
  const std::vector<std::string> words = {"<|start|>",  "<|message|>", "<|channel|>",  "<|end|>",
                                          "assistant",  " to=",        "final",        " json",
                                          "\U0001F600", "<|call|>",    "<|constrain|>"};
  std::uint32_t state = 12345;
  const auto random = [&](std::uint32_t bound) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % bound;
  };
  for (int round = 0; round < 2000; ++round) {
    Ids ids;
    for (std::uint32_t i = random(30); i > 0; --i) {
      if (random(4) == 0) {
        ids.push_back(static_cast<TokenId>(random(300)));
        continue;
      }
      const Ids word = tokenizer.encode_with_special(words[random(11)]);
      ids.insert(ids.end(), word.begin(), word.end());
    }
    const ParseMode mode = round % 2 == 0 ? ParseMode::kLenient : ParseMode::kStrict;
    std::optional<Role> role;
    if (random(2) == 0) role = Role::kAssistant;
    const HarmonyParser parser = parsed(tokenizer, ids, role, mode);
    for (const Message& message : parser.messages()) {
      for (const std::string& text :
           {message_text(message), message.channel, message.recipient, message.content_type}) {
        CHECK(text == to_valid_utf8(text));
      }
    }
  }
}
