// Tokenizers for the tests of the tokenizer and of the chat format.
#pragma once

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer.h"
#include "engine/utf8.h"
#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {

// A list of a file of golden cases.
inline OrderedJson golden_cases(std::string_view file, std::string_view list) {
  return OrderedJson::parse(read_file(golden(file))).at(std::string(list));
}

// The tokenizer of gpt-oss, or nothing (and a warning) where its rank file is not at hand: it is
// not part of the repository.
inline std::optional<Tokenizer> o200k() {
  const char* given = std::getenv("MOEBENCH_O200K");
  const std::filesystem::path path = given != nullptr
                                         ? std::filesystem::path(given)
                                         : source_dir() / ".." / "shared/data/o200k_base.tiktoken";
  if (!std::filesystem::exists(path)) {
    WARN("SKIPPED: no rank file at " << path << "; set MOEBENCH_O200K to o200k_base.tiktoken");
    return std::nullopt;
  }
  static const Tokenizer tokenizer = Tokenizer::load(path);
  return tokenizer;
}

// The character that stands for a byte in tokenizer.json.
inline std::string byte_character(int byte) {
  const auto is_printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int code_point = byte;
  if (!is_printable(byte)) {
    code_point = 0x100;
    for (int b = 0; b < byte; ++b) code_point += is_printable(b) ? 0 : 1;
  }
  std::string text;
  append_utf8(text, static_cast<char32_t>(code_point));
  return text;
}

// A tokenizer.json of the special tokens (ids from 0) and the 256 bytes, split by GPT-2's pattern.
inline Json byte_tokenizer_json(const std::vector<std::string>& special) {
  Json json = Json::parse(R"({
    "added_tokens": [],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"type": "BPE", "vocab": {}, "merges": []}})");
  int id = 0;
  for (const std::string& text : special) {
    json["added_tokens"].push_back({{"id", id++}, {"content", text}, {"special", true}});
  }
  for (int byte = 0; byte < 256; ++byte) json["model"]["vocab"][byte_character(byte)] = id++;
  return json;
}

// The markers of harmony in no particular order: nothing may depend on their ids.
inline Tokenizer small_harmony_tokenizer() {
  const auto json =
      byte_tokenizer_json({"<|message|>", "<|end|>", "<|startoftext|>", "<|call|>", "<|constrain|>",
                           "<|start|>", "<|return|>", "<|channel|>", "<|endoftext|>"});
  return Tokenizer::from_json(json.dump(), "small.json");
}

// a, b, c, space; "ab" merges before "bc" before "abc"; the special <|x|> and the longer <|x|>a.
inline Json tiny_json() {
  return Json::parse(R"({
    "version": "1.0",
    "added_tokens": [
      {"id": 7, "content": "<|x|>", "special": true, "normalized": false,
       "single_word": false, "lstrip": false, "rstrip": false},
      {"id": 8, "content": "<|x|>a", "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "bc": 5, "abc": 6},
              "merges": ["a b", "b c", "a bc", "ab c"]}})");
}

inline Tokenizer tokenizer_of(const Json& file) {
  return Tokenizer::from_json(file.dump(), "t.json");
}

inline std::string tiktoken_file(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

// "a", "b", "ab" and "aba".
inline const std::vector<std::string> kRankLines = {"YQ== 0", "Yg== 1", "YWI= 2", "YWJh 3"};

}  // namespace moebench::test
