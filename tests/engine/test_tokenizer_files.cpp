// Tokenizer files: which are read, and why the others are refused.
#include <catch2/catch.hpp>
#include <functional>
#include <string>
#include <vector>

#include "engine/tokenizer.h"
#include "kernels/core/error.h"
#include "tests/engine/tokenizer_support.h"

using namespace moebench;
using namespace moebench::test;
using Catch::Matchers::Contains;
using Ids = std::vector<TokenId>;

TEST_CASE("tokenizer: merges as pairs and as strings give the same ids") {
  Json pairs = tiny_json();
  for (Json& merge : pairs["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const auto space = text.find(' ');
    merge = {text.substr(0, space), text.substr(space + 1)};
  }
  for (const char* text : {"abc", "cab bca", "aabbcc"}) {
    CHECK(tokenizer_of(pairs).encode(text) == tokenizer_of(tiny_json()).encode(text));
  }
}

TEST_CASE("tokenizer: added tokens may stand in the vocabulary as well") {
  Json file = tiny_json();
  file["model"]["vocab"]["<|x|>"] = 7;
  file["model"]["ignore_merges"] = true;
  const Tokenizer tokenizer = tokenizer_of(file);
  CHECK(tokenizer.vocab_size() == 9);
  CHECK_THROWS_AS(tokenizer.encode("<|x|>"), Error);  // still no way to it from plain text
}

TEST_CASE("tokenizer: a bad tokenizer.json is refused with the reason") {
  struct Case {
    const char* claim;
    std::function<void(Json&)> spoil;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"a hole in the ids", [](Json& j) { j["model"]["vocab"]["abc"] = 9; },
       "t.json: model.vocab: 'abc' has the id 9: expected one of 0 to 8, without holes"},
      {"one id for two tokens", [](Json& j) { j["model"]["vocab"]["abc"] = 5; },
       "model.vocab: 'bc' has the id 5, as another token has"},
      {"an added token on an ordinary id", [](Json& j) { j["added_tokens"][0]["id"] = 0; },
       "model.vocab: '<|x|>' has the id 0, as another token has"},
      {"an added token twice", [](Json& j) { j["added_tokens"][1]["content"] = "<|x|>"; },
       "the added token '<|x|>' stands twice"},
      {"an added token with two ids", [](Json& j) { j["model"]["vocab"]["<|x|>"] = 9; },
       "model.vocab: '<|x|>' has the id 9, but 7 in added_tokens"},
      {"a negative id", [](Json& j) { j["model"]["vocab"]["a"] = -1; },
       "model.vocab: 'a' has the id -1: expected one of 0 to 8"},
      {"an absurd id", [](Json& j) { j["model"]["vocab"]["a"] = 18446744073709551615U; },
       "model.vocab: 'a' has the id 18446744073709551615: expected one of 0 to 8"},
      {"an absurd added id", [](Json& j) { j["added_tokens"][0]["id"] = 10000000; },
       "added_tokens[0].id: 10000000 is out of range"},
      {"an id that is no number", [](Json& j) { j["model"]["vocab"]["a"] = "0"; },
       "model.vocab: 'a' has the id \"0\": expected one of 0 to 8"},
      {"an id with a fraction", [](Json& j) { j["model"]["vocab"]["a"] = 0.5; },
       "model.vocab: 'a' has the id 0.5: expected one of 0 to 8"},
      {"an empty token", [](Json& j) { j["model"]["vocab"][""] = 9; },
       "model.vocab: '' is no token: empty"},
      {"an empty added token", [](Json& j) { j["added_tokens"][0]["content"] = ""; },
       "added_tokens[0].content: an empty token"},
      {"a character outside the alphabet", [](Json& j) { j["model"]["vocab"]["a b"] = 9; },
       "model.vocab: 'a b' is no token: empty, or with a character not of the byte-level"},
      {"another outside the alphabet", [](Json& j) { j["model"]["vocab"]["\u0144"] = 9; },
       "model.vocab: '\u0144' is no token"},
      {"a merge of an unknown token", [](Json& j) { j["model"]["merges"][1] = "b d"; },
       "model.merges[1]: 'bd' is not in the vocabulary"},
      {"a merge of unknown parts",
       [](Json& j) {
         j["model"]["merges"][1] = {"", "bc"};
       },
       "model.merges[1]: '' is not in the vocabulary"},
      {"a merge of three", [](Json& j) { j["model"]["merges"][0] = "a b c"; },
       "model.merges[0]: expected \"a b\" or [\"a\", \"b\"], got \"a b c\""},
      {"a merge that is a number", [](Json& j) { j["model"]["merges"][0] = 5; },
       "model.merges[0]: expected \"a b\" or [\"a\", \"b\"], got 5"},
      {"a merge to a special token",
       [](Json& j) {
         j["added_tokens"][0]["content"] = "cc";
         j["model"]["vocab"]["cc"] = 7;
         j["model"]["merges"].push_back("c c");
       },
       "model.merges[4]: makes the special token 7"},
      {"merges that are no list", [](Json& j) { j["model"]["merges"] = "a b"; },
       "model.merges: expected a list, got \"a b\""},
      {"no merges", [](Json& j) { j["model"].erase("merges"); },
       "model.merges: expected a list, got nothing"},
      {"no vocabulary", [](Json& j) { j["model"].erase("vocab"); },
       "model.vocab: the field is missing"},
      {"a list as vocabulary", [](Json& j) { j["model"]["vocab"] = Json::array(); },
       "model.vocab: expected an object, got an array"},
      {"no model", [](Json& j) { j.erase("model"); }, "t.json: field 'model' is missing"},
      {"another model", [](Json& j) { j["model"]["type"] = "Unigram"; },
       "model.type: 'Unigram' is not supported (known: BPE)"},
      {"byte_fallback", [](Json& j) { j["model"]["byte_fallback"] = true; },
       "model.byte_fallback: true is not supported"},
      {"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; },
       "model.dropout: 0.1 is not supported"},
      {"a word suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
       "model.end_of_word_suffix: \"</w>\" is not supported"},
      {"an unknown token", [](Json& j) { j["model"]["unk_token"] = "a"; },
       "model.unk_token: not supported where the vocabulary lacks single bytes"},
      {"an unknown field of the model", [](Json& j) { j["model"]["ignore_merge"] = true; },
       "unknown field 'ignore_merge'; did you mean 'ignore_merges'"},
      {"a normalizer",
       [](Json& j) {
         j["normalizer"] = {{"type", "NFC"}};
       },
       "t.json: normalizer.type: 'NFC' is not supported"},
      {"no pre_tokenizer", [](Json& j) { j["pre_tokenizer"] = nullptr; },
       "pre_tokenizer: a tokenizer without one is not byte-level"},
      {"another pre_tokenizer", [](Json& j) { j["pre_tokenizer"]["type"] = "Metaspace"; },
       "pre_tokenizer.type: 'Metaspace' is not supported (known: ByteLevel)"},
      {"a prefix space", [](Json& j) { j["pre_tokenizer"]["add_prefix_space"] = true; },
       "pre_tokenizer.add_prefix_space: true is not supported"},
      {"another decoder", [](Json& j) { j["decoder"]["type"] = "WordPiece"; },
       "decoder.type: 'WordPiece' is not supported"},
      {"an added token that strips", [](Json& j) { j["added_tokens"][0]["lstrip"] = true; },
       "added_tokens[0].lstrip: true is not supported"},
  };
  for (const Case& c : cases) {
    DYNAMIC_SECTION(c.claim) {
      Json file = tiny_json();
      c.spoil(file);
      CHECK_THAT(error_of([&] { tokenizer_of(file); }).what(), Contains(c.message));
    }
  }
}

TEST_CASE("tokenizer: a bad Split is refused with the reason") {
  struct Case {
    const char* pattern;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"(a", "pattern.Regex: invalid regular expression '(a'"},
           {"\\w+", "the escape \\w is not supported"},
           {"(a)\\1", "the escape \\1 is not supported"},
           {"[a-z&&[^b]]", "intersections of character classes (&&) are not supported"},
           {"a\\", "invalid regular expression"},
       }) {
    DYNAMIC_SECTION(c.pattern) {
      Json file = tiny_json();
      file["pre_tokenizer"] = {
          {"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"}, {"pattern", {{"Regex", c.pattern}}}, {"behavior", "Isolated"}},
            {{"type", "ByteLevel"}, {"use_regex", false}}}}};
      CHECK_THAT(error_of([&] { tokenizer_of(file); }).what(), Contains(c.message));
    }
  }
  Json file = tiny_json();
  file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array()}};
  CHECK_THAT(error_of([&] { tokenizer_of(file); }).what(), Contains("no ByteLevel at the end"));
  file["pre_tokenizer"]["pretokenizers"] = {{{"type", "Digits"}}, {{"type", "ByteLevel"}}};
  CHECK_THAT(error_of([&] { tokenizer_of(file); }).what(), Contains("'Digits' is not supported"));
}

TEST_CASE("tokenizer: text that is not JSON is refused") {
  const std::string good = tiny_json().dump();
  CHECK(error_of([&] { Tokenizer::from_json(good.substr(0, good.size() / 2), "t.json"); }).code() ==
        ErrorCode::kParse);
  CHECK(error_of([&] { Tokenizer::from_json("", "t.json"); }).code() == ErrorCode::kParse);
  CHECK(error_of([&] { Tokenizer::from_json("[]", "t.json"); }).code() ==
        ErrorCode::kInvalidArgument);
  const std::string deep(1000000, '[');
  CHECK_THAT(error_of([&] { Tokenizer::from_json(deep, "t.json"); }).what(),
             Contains("nested deeper"));
  std::string doubled = good;
  doubled.replace(doubled.find("\"b\":1"), 5, "\"a\":1");
  CHECK_THAT(error_of([&] { Tokenizer::from_json(doubled, "t.json"); }).what(),
             Contains("field 'a' stands twice"));
}

TEST_CASE("tokenizer: a rank file may be small; the special tokens follow its ranks") {
  const Tokenizer tokenizer = Tokenizer::from_tiktoken(tiktoken_file(kRankLines), "t.tiktoken");
  CHECK(tokenizer.vocab_size() == 4 + 1090);
  CHECK(tokenizer.encode("ababa") == Ids{2, 3});
  CHECK(tokenizer.encode("aba") == Ids{3});
  CHECK(tokenizer.special_id("<|start|>") == 12);
  CHECK(tokenizer.special_id("<|reserved_1093|>") == 1093);
  CHECK(tokenizer.encode_with_special("ab<|end|>b") == Ids{2, 13, 1});
  const std::string dos = "YQ== 0\r\n\r\nYg== 1";  // other line ends, an empty line, no end
  CHECK(Tokenizer::from_tiktoken(dos, "t.tiktoken").encode("ab") == Ids{0, 1});
}

TEST_CASE("tokenizer: a bad rank file is refused with the reason") {
  struct Case {
    const char* claim;
    const char* line;  // replaces line 3
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"a hole", "YWI= 7", "rank 7 in a file of 4 tokens: ranks must have no holes"},
           {"a rank twice", "YWI= 1", "t.tiktoken: rank 1 stands twice"},
           {"a token twice", "YQ== 2", "the token of rank 2 is that of rank 0"},
           {"no rank", "YWI=", "line 3: expected 'base64 rank', got 'YWI='"},
           {"an empty rank", "YWI= ", "line 3: expected a rank in [0, 10000000), got ''"},
           {"a rank that is no number", "YWI= 2x", "line 3: expected a rank"},
           {"a negative rank", "YWI= -2", "line 3: expected a rank"},
           {"an absurd rank", "YWI= 10000000", "line 3: expected a rank"},
           {"a rank of many digits", "YWI= 99999999999999999999", "line 3: expected a rank"},
           {"an empty token", " 2", "line 3: '' is not the base64 of a token"},
           {"base64 without padding", "YWI 2", "line 3: 'YWI' is not the base64 of a token"},
           {"base64 with a strange letter", "YW!= 2", "is not the base64 of a token"},
           {"base64 with padding inside", "Y=I= 2", "is not the base64 of a token"},
           {"base64 with stray bits", "YWJ= 2", "is not the base64 of a token"},
           {"padding alone", "==== 2", "is not the base64 of a token"},
       }) {
    DYNAMIC_SECTION(c.claim) {
      std::vector<std::string> lines = kRankLines;
      lines[2] = c.line;
      const Error error =
          error_of([&] { Tokenizer::from_tiktoken(tiktoken_file(lines), "t.tiktoken"); });
      CHECK_THAT(error.what(), Contains(c.message));
      CHECK(error.code() == ErrorCode::kParse);
    }
  }
  CHECK_THAT(error_of([] { Tokenizer::from_tiktoken("\n\n", "t.tiktoken"); }).what(),
             Contains("no tokens"));
  const std::string long_token = std::string(2000, 'A') + " 0\n";
  CHECK_THAT(error_of([&] { Tokenizer::from_tiktoken(long_token, "t.tiktoken"); }).what(),
             Contains("a token of 1500 bytes, more than 1024"));
}

TEST_CASE("tokenizer: the content hash tells tokenizers apart") {
  Json other = tiny_json();
  other["model"]["merges"] = {"b c", "a b"};
  CHECK(tokenizer_of(tiny_json()).content_hash() == tokenizer_of(tiny_json()).content_hash());
  CHECK(tokenizer_of(tiny_json()).content_hash() != tokenizer_of(other).content_hash());
}

TEST_CASE("tokenizer: is found in a directory, tokenizer.json first") {
  const TemporaryDirectory directory;
  CHECK_THAT(error_of([&] { Tokenizer::load(directory.path()); }).what(),
             Contains("no tokenizer.json, and 0 *.tiktoken files instead of one"));
  write_file(directory.path() / "a.tiktoken", tiktoken_file(kRankLines));
  CHECK(Tokenizer::load(directory.path()).vocab_size() == 1094);
  CHECK(Tokenizer::load(directory.path() / "a.tiktoken").vocab_size() == 1094);
  write_file(directory.path() / "b.tiktoken", tiktoken_file(kRankLines));
  CHECK_THAT(error_of([&] { Tokenizer::load(directory.path()); }).what(),
             Contains("2 *.tiktoken files"));
  write_file(directory.path() / "tokenizer.json", tiny_json().dump());
  CHECK(Tokenizer::load(directory.path()).vocab_size() == 9);
  CHECK(error_of([&] { Tokenizer::load(directory.path() / "none.json"); }).code() ==
        ErrorCode::kIo);
}
