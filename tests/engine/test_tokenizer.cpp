// Encoding and decoding, against the ids of published tokenizers and by hand.
#include <catch2/catch.hpp>
#include <string>
#include <thread>
#include <vector>

#include "engine/tokenizer.h"
#include "kernels/core/error.h"
#include "tests/engine/tokenizer_support.h"

using namespace moebench;
using namespace moebench::test;
using Catch::Matchers::Contains;
using Ids = std::vector<TokenId>;

TEST_CASE("tokenizer: o200k_harmony gives the published ids") {
  const auto tokenizer = o200k();
  if (!tokenizer) return;
  for (const auto& c : golden_cases("o200k_cases.json", "ordinary")) {
    const auto text = c["text"].get<std::string>();
    INFO(text);
    CHECK(tokenizer->encode(text) == c["ids"].get<Ids>());
    CHECK(tokenizer->decode(c["ids"].get<Ids>()) == text);
  }
  for (const auto& c : golden_cases("o200k_cases.json", "with_special")) {
    const auto text = c["text"].get<std::string>();
    INFO(text);
    CHECK(tokenizer->encode_with_special(text) == c["ids"].get<Ids>());
    CHECK(tokenizer->decode(c["ids"].get<Ids>()) == text);
    CHECK(tokenizer->decode(tokenizer->encode(text)) == text);
  }
}

TEST_CASE("tokenizer: o200k_harmony has its special tokens at their published ids") {
  const auto tokenizer = o200k();
  if (!tokenizer) return;
  CHECK(tokenizer->vocab_size() == 201088);
  CHECK(tokenizer->special_id("<|startoftext|>") == 199998);
  CHECK(tokenizer->special_id("<|return|>") == 200002);
  CHECK(tokenizer->special_id("<|call|>") == 200012);
  CHECK(tokenizer->special_id("<|reserved_201087|>") == 201087);
  CHECK_FALSE(tokenizer->special_id("<|reserved_201088|>"));
  CHECK(tokenizer->token_bytes(9552) == " \xF0\x9F");
  CHECK_FALSE(tokenizer->is_special(199997));
  CHECK(tokenizer->is_special(199998));
}

TEST_CASE("tokenizer: case folding and white space of the pattern are Unicode's") {
  // Whether 's ends a piece and whether two spaces are one shows in which tokens can merge.
  const Tokenizer folding = Tokenizer::from_tiktoken(
      tiktoken_file({"Jw== 0", "aQ== 1", "dA== 2", "xQ== 3", "vw== 4", "xb8= 5", "xb90 6"}),
      "folding.tiktoken");
  CHECK(folding.encode("\u017Ft") == Ids{6});
  CHECK(folding.encode("it'\u017Ft") == Ids{1, 2, 0, 5, 2});  // it'\u017F, t
  CHECK(folding.encode("'\u017Ft") == Ids{0, 6});             // no letter before it: one word

  const Tokenizer space =
      Tokenizer::from_tiktoken(tiktoken_file({"IA== 0", "4Q== 1", "oA== 2", "jg== 3", "4oCD 4",
                                              "gw== 5", "4g== 6", "gA== 7", "4oA= 8", "ICA= 9"}),
                               "space.tiktoken");
  CHECK(space.encode("  ") == Ids{9});
  CHECK(space.encode("  \u2003") == Ids{9, 4});           // all white space: one piece
  CHECK(space.encode("  \u180E") == Ids{0, 0, 1, 2, 3});  // a symbol takes the space before it
}

TEST_CASE("tokenizer: merges go by rank, then from the left") {
  const Tokenizer tokenizer = tokenizer_of(tiny_json());
  CHECK(tokenizer.encode("abc") == Ids{6});
  CHECK(tokenizer.encode("bbcab abc") == Ids{1, 5, 4, 3, 6});
  Json right_first = tiny_json();
  right_first["model"]["merges"] = {"b c", "a b"};
  CHECK(tokenizer_of(right_first).encode("abcab") == Ids{0, 5, 4});
  Json repeated = tiny_json();
  repeated["model"]["vocab"] = {{"a", 0}, {"aa", 1}};
  repeated["model"]["merges"] = {"a a"};
  repeated["added_tokens"] = Json::array();
  CHECK(tokenizer_of(repeated).encode("aaaaa") == Ids{1, 1, 0});
  CHECK(tokenizer.encode("").empty());
}

TEST_CASE("tokenizer: ignore_merges takes a piece that is a token as a whole") {
  Json file = tiny_json();
  file["model"]["merges"] = {"a b"};
  CHECK(tokenizer_of(file).encode("abc ab") == Ids{4, 2, 3, 4});
  file["model"]["ignore_merges"] = true;
  CHECK(tokenizer_of(file).encode("abc ab") == Ids{6, 3, 4});
}

TEST_CASE("tokenizer: special tokens are plain text unless asked for") {
  const Tokenizer tokenizer = tokenizer_of(tiny_json());
  CHECK(tokenizer.encode_with_special("a<|x|>b") == Ids{0, 7, 1});
  CHECK(tokenizer.encode_with_special("<|x|>ab<|x|>") == Ids{8, 1, 7});  // the longer one
  CHECK(tokenizer.encode_with_special("abc") == Ids{6});
  CHECK_THROWS_WITH(tokenizer.encode("<|x|>"), Contains("no token for the byte 0x3C"));
  CHECK(tokenizer.decode(Ids{0, 7, 3, 8}) == "a<|x|> <|x|>a");
  CHECK(tokenizer.special_id("<|x|>") == 7);
  CHECK_FALSE(tokenizer.special_id("ab"));
  CHECK(tokenizer.is_special(8));
  CHECK_FALSE(tokenizer.is_special(6));
  CHECK_FALSE(tokenizer.is_special(9));
  CHECK(tokenizer.vocab_size() == 9);
}

TEST_CASE("tokenizer: an added token that is not special is not a marker") {
  Json file = tiny_json();
  file["added_tokens"][1]["special"] = false;
  const Tokenizer tokenizer = tokenizer_of(file);
  CHECK(tokenizer.encode_with_special("<|x|>a") == Ids{8});
  CHECK_FALSE(tokenizer.special_id("<|x|>a"));
  CHECK_FALSE(tokenizer.is_special(8));
}

TEST_CASE("tokenizer: Split decides what becomes of the text between matches") {
  Json file = tiny_json();
  const auto with_split = [&](const Json& split) {
    file["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {split, {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    return tokenizer_of(file);
  };
  Json split = {{"type", "Split"}, {"pattern", {{"Regex", "b"}}}, {"behavior", "Isolated"}};
  CHECK(with_split(split).encode("abca") == Ids{0, 1, 2, 0});
  split["behavior"] = "Removed";
  split["invert"] = true;
  CHECK(with_split(split).encode("abca") == Ids{1});
  split["pattern"]["Regex"] = "x*";  // empty matches cut at every character
  split["behavior"] = "Isolated";
  CHECK(with_split(split).encode("abc") == Ids{0, 1, 2});
}

TEST_CASE("tokenizer: ByteLevel without regex does not split") {
  Json file = tiny_json();
  file["model"]["vocab"]["Ġa"] = 9;
  file["model"]["vocab"]["bĠa"] = 10;
  file["model"]["merges"] = {"Ġ a", "b Ġa"};
  CHECK(tokenizer_of(file).encode("b a") == Ids{1, 9});
  file["pre_tokenizer"]["use_regex"] = false;
  CHECK(tokenizer_of(file).encode("b a") == Ids{10});
}

TEST_CASE("tokenizer: decoding an id outside the vocabulary names it") {
  const Tokenizer tokenizer = tokenizer_of(tiny_json());
  for (const TokenId id : {-1, 9, 2147483647}) {
    const Error error = error_of([&] { tokenizer.decode(Ids{0, id}); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK_THAT(error.what(), Contains(std::to_string(id)));
    CHECK_FALSE(tokenizer.contains(id));
  }
}

TEST_CASE("tokenizer: invalid UTF-8 is encoded as U+FFFD") {
  const Tokenizer tokenizer =
      Tokenizer::from_json(byte_tokenizer_json({"<|x|>"}).dump(), "bytes.json");
  CHECK(tokenizer.encode("a\xF0\x9Fz\xFF") == tokenizer.encode("a\uFFFDz\uFFFD"));
  CHECK(tokenizer.encode_with_special("\x80<|x|>\xC3") ==
        tokenizer.encode_with_special("\uFFFD<|x|>\uFFFD"));
  std::string all;  // every byte has its token
  for (char32_t c = 1; c < 0x800; ++c) append_utf8(all, c);
  CHECK(tokenizer.decode(tokenizer.encode(all)) == all);
}

TEST_CASE("tokenizer: a megabyte without a break is encoded without quadratic work") {
  // Quadratic work would take hours here; there is nothing to measure but that it ends.
  const Tokenizer tokenizer = Tokenizer::from_tiktoken(
      tiktoken_file({"YQ== 0", "Yg== 1", "IA== 2", "YWE= 3", "YWFhYQ== 4", "YWI= 5", "ICA= 6"}),
      "t.tiktoken");
  constexpr std::size_t kSize = 1 << 20;
  CHECK(tokenizer.encode(std::string(kSize, 'a')) == Ids(kSize / 4, 4));
  CHECK(tokenizer.encode(std::string(kSize, ' ')) == Ids(kSize / 2, 6));
  std::string random;
  for (std::uint32_t i = 0, state = 1; i < kSize; ++i) {
    state = state * 1664525 + 1013904223;
    random += (state >> 30) == 0 ? 'b' : 'a';
  }
  CHECK(tokenizer.decode(tokenizer.encode(random)) == random);
}

TEST_CASE("tokenizer: a pattern that backtracks without end is stopped") {
  Json file = tiny_json();
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "(?:a+)+c"}}}, {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"use_regex", false}}}}};
  const Tokenizer tokenizer = tokenizer_of(file);
  CHECK(tokenizer.encode("aac") == Ids{0, 0, 2});
  const Error error = error_of([&] { tokenizer.encode(std::string(60, 'a') + "bc"); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK_THAT(error.what(), Contains("cannot split a text of 62 bytes: match limit exceeded"));
}

TEST_CASE("tokenizer: a match that needs much memory is found all the same") {
  Json file = tiny_json();
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "(?:ab|c)*a"}}}, {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"use_regex", false}}}}};
  std::string text;
  for (int i = 0; i < 300000; ++i) text += "ab";
  CHECK(tokenizer_of(file).decode(tokenizer_of(file).encode(text)) == text);
}

TEST_CASE("tokenizer: threads may share one") {
  const Tokenizer tokenizer = tokenizer_of(tiny_json());
  std::string text;
  for (int i = 0; i < 20000; ++i) text += i % 7 == 0 ? "abc " : "cab";
  const Ids expected = tokenizer.encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&result, &text, copy = tokenizer] { result = copy.encode(text); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) CHECK(result == expected);
}
