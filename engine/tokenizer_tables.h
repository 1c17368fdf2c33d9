// What a tokenizer file says, in our terms, and the indexes that encode and decode need.
// Internal to the tokenizer: the readers of the two file formats fill it, Tokenizer uses it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/bpe.h"
#include "engine/tokenizer_split.h"

namespace moebench {

// A token that merging never makes: it stands for its text as a whole.
struct AddedToken {
  std::string text;
  TokenId id;
  bool special;  // a marker of the chat format rather than a frequent word
};

// The contents of a file, checked by its reader: ids without holes, no token twice or empty.
struct TokenizerParts {
  std::vector<std::string> tokens;  // bytes by id, added tokens included
  std::vector<AddedToken> added;
  BpeMerges merges;
  std::vector<PieceSplitter> splitters;  // each splits the pieces of the one before
  bool whole_pieces = false;             // a piece that is a token is not merged from its bytes
};

struct TokenizerTables {
  // `text` is the file's, for the hash.
  TokenizerTables(TokenizerParts file, std::string_view text);
  TokenizerTables(const TokenizerTables&) = delete;  // the views below point into `parts`
  TokenizerTables& operator=(const TokenizerTables&) = delete;

  void encode_plain(std::string_view valid_utf8, std::vector<TokenId>& ids) const;
  // The longest added token at the start of `text`, or nullptr.
  const AddedToken* added_at(std::string_view text) const;

  const TokenizerParts parts;
  std::unordered_map<std::string_view, TokenId> ordinary;  // bytes to id, without added tokens
  std::unordered_map<std::string_view, const AddedToken*> added_by_text;
  std::vector<bool> special;               // by id
  std::vector<TokenId> byte_ids;           // the token of each single byte; kNoToken if missing
  std::vector<std::size_t> added_lengths;  // distinct, longest first
  std::vector<bool> starts_added;          // whether an added token begins with this byte
  std::uint64_t hash;

  static constexpr TokenId kNoToken = -1;
};

TokenizerParts read_tokenizer_json(std::string_view text, std::string_view where);
TokenizerParts read_tiktoken(std::string_view text, std::string_view where);

// The most ids a file may have: far above any published vocabulary, far below what hurts.
inline constexpr std::int64_t kMaxTokens = 10'000'000;

// The pattern of o200k_base and o200k_harmony. Source: openai/tiktoken, openai_public.py.
inline constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)"
    R"(|\s*[\r\n]+)"
    R"(|\s+(?!\S))"
    R"(|\s+)";

// What ByteLevel with use_regex splits by. Source: openai/gpt-2, encoder.py.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace moebench
