// Encoding and decoding over the tables; loading by kind of file.
#include "engine/tokenizer.h"

#include <functional>
#include <set>
#include <system_error>
#include <utility>

#include "engine/mapped_file.h"
#include "engine/tokenizer_tables.h"
#include "engine/utf8.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;  // positions in a piece have 32 bits

// The text with U+FFFD for invalid bytes, ready to be split.
std::string prepared(std::string_view text) {
  require(text.size() <= kMaxTextBytes, "encode a text of {} bytes: more than {}", text.size(),
          kMaxTextBytes);
  return to_valid_utf8(text);
}

// `tokenizer.json` alone, or else all rank files.
std::vector<std::filesystem::path> tokenizer_files_in(const std::filesystem::path& directory) {
  std::error_code error;
  auto json = directory / "tokenizer.json";
  if (std::filesystem::exists(json, error)) return {json};
  std::vector<std::filesystem::path> rank_files;
  std::filesystem::directory_iterator entry(directory, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() == ".tiktoken") rank_files.push_back(entry->path());
  }
  require_or(ErrorCode::kIo, !error, "list {}: {}", directory.string(), error.message());
  return rank_files;
}

std::filesystem::path tokenizer_file_in(const std::filesystem::path& directory) {
  const auto files = tokenizer_files_in(directory);
  require_or(ErrorCode::kIo, files.size() == 1,
             "load a tokenizer from {}: no tokenizer.json, and {} *.tiktoken files instead of one",
             directory.string(), files.size());
  return files.front();
}

}  // namespace

TokenizerTables::TokenizerTables(TokenizerParts file, std::string_view text)
    : parts(std::move(file)), hash(moebench::content_hash(text)) {
  special.resize(parts.tokens.size());
  starts_added.resize(256);
  std::vector<bool> is_added(parts.tokens.size());
  std::set<std::size_t, std::greater<>> lengths;
  for (const AddedToken& token : parts.added) {
    const auto index = static_cast<std::size_t>(token.id);
    special[index] = token.special;
    is_added[index] = true;
    added_by_text.emplace(token.text, &token);
    lengths.insert(token.text.size());
    starts_added[static_cast<unsigned char>(token.text.front())] = true;
  }
  added_lengths.assign(lengths.begin(), lengths.end());

  ordinary.reserve(parts.tokens.size());
  byte_ids.assign(256, kNoToken);
  for (std::size_t i = 0; i < parts.tokens.size(); ++i) {
    if (is_added[i]) continue;
    const std::string& bytes = parts.tokens[i];
    ordinary.emplace(bytes, static_cast<TokenId>(i));
    if (bytes.size() == 1) {
      byte_ids[static_cast<unsigned char>(bytes.front())] = static_cast<TokenId>(i);
    }
  }
}

void TokenizerTables::encode_plain(std::string_view valid_utf8, std::vector<TokenId>& ids) const {
  if (valid_utf8.empty()) return;
  Pieces pieces = {valid_utf8};
  for (const PieceSplitter& splitter : parts.splitters) pieces = splitter.split(pieces);

  BpeMerger merger(parts.merges);
  std::vector<TokenId> bytes;
  for (const std::string_view piece : pieces) {
    if (parts.whole_pieces) {
      if (const auto whole = ordinary.find(piece); whole != ordinary.end()) {
        ids.push_back(whole->second);
        continue;
      }
    }
    bytes.clear();
    for (const char c : piece) {
      const TokenId id = byte_ids[static_cast<unsigned char>(c)];
      require(id != kNoToken, "encode text: the vocabulary has no token for the byte 0x{:02X}",
              static_cast<unsigned char>(c));
      bytes.push_back(id);
    }
    merger.merge(bytes, ids);
  }
}

const AddedToken* TokenizerTables::added_at(std::string_view text) const {
  if (!starts_added[static_cast<unsigned char>(text.front())]) return nullptr;
  for (const std::size_t length : added_lengths) {
    if (length > text.size()) continue;
    const auto it = added_by_text.find(text.substr(0, length));
    if (it != added_by_text.end()) return it->second;
  }
  return nullptr;
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  std::error_code error;  // of a missing file; reading it reports that with a reason
  const auto file = std::filesystem::is_directory(path, error) ? tokenizer_file_in(path) : path;
  const std::string text = read_text_file(file);
  return file.extension() == ".tiktoken" ? from_tiktoken(text, file.string())
                                         : from_json(text, file.string());
}

bool Tokenizer::exists_in(const std::filesystem::path& directory) {
  return !tokenizer_files_in(directory).empty();
}

Tokenizer Tokenizer::from_json(std::string_view text, std::string_view where) {
  return Tokenizer(std::make_shared<const TokenizerTables>(read_tokenizer_json(text, where), text));
}

Tokenizer Tokenizer::from_tiktoken(std::string_view text, std::string_view where) {
  return Tokenizer(std::make_shared<const TokenizerTables>(read_tiktoken(text, where), text));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text) const {
  std::vector<TokenId> ids;
  tables_->encode_plain(prepared(text), ids);
  return ids;
}

std::vector<TokenId> Tokenizer::encode_with_special(std::string_view text) const {
  const std::string valid = prepared(text);
  const std::string_view rest = valid;
  std::vector<TokenId> ids;
  std::size_t plain = 0;  // start of the text not yet encoded
  for (std::size_t i = 0; i < rest.size();) {
    const AddedToken* token = tables_->added_at(rest.substr(i));
    if (token == nullptr) {
      ++i;
      continue;
    }
    tables_->encode_plain(rest.substr(plain, i - plain), ids);
    ids.push_back(token->id);
    plain = i += token->text.size();
  }
  tables_->encode_plain(rest.substr(plain), ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += token_bytes(id);
  return bytes;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  require(contains(id), "decode token {}: the vocabulary has {} tokens", id, vocab_size());
  return tables_->parts.tokens[static_cast<std::size_t>(id)];
}

bool Tokenizer::contains(TokenId id) const {
  return id >= 0 && static_cast<std::size_t>(id) < vocab_size();
}

std::size_t Tokenizer::vocab_size() const { return tables_->parts.tokens.size(); }

std::optional<TokenId> Tokenizer::special_id(std::string_view text) const {
  const auto it = tables_->added_by_text.find(text);
  if (it == tables_->added_by_text.end() || !it->second->special) return std::nullopt;
  return it->second->id;
}

bool Tokenizer::is_special(TokenId id) const {
  return contains(id) && tables_->special[static_cast<std::size_t>(id)];
}

std::uint64_t Tokenizer::content_hash() const { return tables_->hash; }

}  // namespace moebench
