// Text to token ids and back: byte-level BPE, as gpt-oss and its relatives use it.
//
//   const Tokenizer tokenizer = Tokenizer::load("model_dir");
//   const std::vector<TokenId> ids = tokenizer.encode("hello world");
//
// Text is split into pieces by regular expressions, then the bytes of each piece are merged into
// tokens. A tokenizer is immutable: copies share one set of tables, and threads may use it at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/bpe.h"  // TokenId

namespace moebench {

struct TokenizerTables;

class Tokenizer {
 public:
  // Loads a `tokenizer.json`, a `*.tiktoken` rank file, or a directory that holds the former or
  // else exactly one of the latter. Throws Error(kIo) if there is none, else as the two below.
  static Tokenizer load(const std::filesystem::path& path);

  // Whether a directory holds a file that load() would look at. Throws Error(kIo) if it cannot be
  // listed.
  static bool exists_in(const std::filesystem::path& directory);

  // Reads the text of a Hugging Face tokenizer.json: byte-level BPE without normalizer, split by
  // ByteLevel or by a Sequence of Split and ByteLevel. What HF adds around a text (post_processor,
  // truncation, padding) is not read. Missing single bytes are allowed; encoding one is an error.
  // Throws Error(kParse), (kInvalidArgument) or (kUnsupported) naming `where`, field and value.
  static Tokenizer from_json(std::string_view text, std::string_view where);

  // Reads a tiktoken rank file: lines of base64, a space and the rank, which is the token's id.
  // Such a file holds neither pattern nor special tokens; both are taken to be those of
  // o200k_harmony. The 1,090 special tokens follow the ranks, so that o200k_base.tiktoken gives the
  // 201,088 tokens of gpt-oss at their published ids.
  // Throws Error(kParse) naming `where`, the line and the value.
  static Tokenizer from_tiktoken(std::string_view text, std::string_view where);

  // The ids of `text`. Text that looks like a special token is plain text: nothing a user writes
  // can become a marker. Bytes that are not valid UTF-8 become U+FFFD first (see utf8.h).
  // Takes O(n log n) for n bytes, whatever the text.
  // Throws Error(kInvalidArgument) if the vocabulary lacks a byte of the text, and
  // Error(kUnsupported) if the file's pattern takes too many steps on it.
  std::vector<TokenId> encode(std::string_view text) const;

  // As encode, but the text of each added token (special or not) becomes its id, leftmost first
  // and the longest of those that start at the same place.
  std::vector<TokenId> encode_with_special(std::string_view text) const;

  // The bytes of the tokens, special tokens as their text. May be invalid UTF-8 where tokens do
  // not end at character boundaries. Throws Error(kInvalidArgument) naming an id out of range.
  std::string decode(std::span<const TokenId> ids) const;

  // The bytes of one token; valid while any copy of the tokenizer lives. Throws as decode.
  std::string_view token_bytes(TokenId id) const;

  // Whether `id` is in [0, vocab_size()). A model may have more rows than its tokenizer has tokens.
  bool contains(TokenId id) const;

  // Ids run from 0 to vocab_size() - 1 without holes.
  std::size_t vocab_size() const;

  // The id of the special token with this text, such as "<|start|>".
  std::optional<TokenId> special_id(std::string_view text) const;
  bool is_special(TokenId id) const;

  // Hash of the text the tokenizer was read from: which tokenizer a result belongs to.
  std::uint64_t content_hash() const;

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerTables> tables) : tables_(std::move(tables)) {}

  std::shared_ptr<const TokenizerTables> tables_;
};

}  // namespace moebench
