// Reads a tiktoken rank file: one line per token, base64 of its bytes, a space, its rank.
#include <array>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "engine/tokenizer_tables.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// Every way to cut a token in two becomes a merge, which costs the square of its length; the
// longest token of o200k_base has 128 bytes.
constexpr std::size_t kMaxTokenBytes = 1024;

// The special tokens with names, by how many ids they are above the last rank; the others are
// "<|reserved_N|>", N being the id. Source: harmony's renderer; shared/spec/harmony.md, 1.1.
struct NamedSpecial {
  int offset;
  std::string_view text;
};
constexpr std::array<NamedSpecial, 9> kNamedSpecials = {{{0, "<|startoftext|>"},
                                                         {1, "<|endoftext|>"},
                                                         {4, "<|return|>"},
                                                         {5, "<|constrain|>"},
                                                         {7, "<|channel|>"},
                                                         {8, "<|start|>"},
                                                         {9, "<|end|>"},
                                                         {10, "<|message|>"},
                                                         {14, "<|call|>"}}};
constexpr int kNumSpecials = 1090;

int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

// Nothing if the text is not base64 with its padding, or has stray bits at the end.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;  // of the last group: "xxx=" or "xx=="
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  std::string bytes;
  unsigned bits = 0;  // read but not yet written: the lowest `num_bits`
  int num_bits = 0;
  for (const char c : text) {
    const int digit = base64_digit(c);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<unsigned>(digit);
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes += static_cast<char>(bits >> num_bits);
    bits &= (1U << num_bits) - 1;
  }
  if (bits != 0) return std::nullopt;
  return bytes;
}

struct RankLine {
  std::string bytes;
  std::int64_t rank;
};

RankLine read_line(std::string_view line, std::string_view where, std::size_t number) {
  const std::string_view shown = line.substr(0, 100);
  const std::size_t space = line.find(' ');
  require_or(ErrorCode::kParse, space != std::string_view::npos,
             "parse {}: line {}: expected 'base64 rank', got '{}'", where, number, shown);
  const auto bytes = decode_base64(line.substr(0, space));
  require_or(ErrorCode::kParse, bytes.has_value() && !bytes->empty(),
             "parse {}: line {}: '{}' is not the base64 of a token", where, number,
             line.substr(0, space).substr(0, 100));
  require_or(ErrorCode::kParse, bytes->size() <= kMaxTokenBytes,
             "parse {}: line {}: a token of {} bytes, more than {}", where, number, bytes->size(),
             kMaxTokenBytes);
  const std::string_view digits = line.substr(space + 1);
  std::int64_t rank = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  require_or(ErrorCode::kParse,
             error == std::errc() && end == digits.data() + digits.size() && rank >= 0 &&
                 rank < kMaxTokens,
             "parse {}: line {}: expected a rank in [0, {}), got '{}'", where, number, kMaxTokens,
             digits.substr(0, 100));
  return {*bytes, rank};
}

// The tokens by rank. Checks that ranks have no holes and no token or rank stands twice.
std::vector<std::string> read_tokens(std::string_view text, std::string_view where) {
  std::vector<RankLine> lines;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) lines.push_back(read_line(line, where, number));
  }
  require_or(ErrorCode::kParse, !lines.empty(), "parse {}: no tokens", where);
  std::vector<std::string> tokens(lines.size());
  for (RankLine& line : lines) {
    const auto rank = static_cast<std::size_t>(line.rank);
    require_or(ErrorCode::kParse, rank < tokens.size(),
               "parse {}: rank {} in a file of {} tokens: ranks must have no holes", where, rank,
               tokens.size());
    require_or(ErrorCode::kParse, tokens[rank].empty(), "parse {}: rank {} stands twice", where,
               rank);
    tokens[rank] = std::move(line.bytes);
  }
  return tokens;
}

// tiktoken merges the two neighbours whose joint bytes have the lowest rank. The same, as merges of
// pairs: every way to cut a token into two tokens, with the token's rank.
BpeMerges merges_of(const std::vector<std::string>& tokens, std::string_view where) {
  std::unordered_map<std::string_view, TokenId> ids;
  ids.reserve(tokens.size());
  for (const std::string& token : tokens) {
    const auto [it, is_new] = ids.emplace(token, static_cast<TokenId>(ids.size()));
    require_or(ErrorCode::kParse, is_new, "parse {}: the token of rank {} is that of rank {}",
               where, ids.size(), it->second);
  }
  BpeMerges merges;
  for (const std::string& token : tokens) {
    const TokenId id = ids.at(token);
    const std::string_view bytes = token;
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = ids.find(bytes.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(bytes.substr(cut));
      if (right == ids.end()) continue;
      merges.add(left->second, right->second, {static_cast<std::uint32_t>(id), id});
    }
  }
  return merges;
}

}  // namespace

TokenizerParts read_tiktoken(std::string_view text, std::string_view where) {
  TokenizerParts parts;
  parts.tokens = read_tokens(text, where);
  parts.merges = merges_of(parts.tokens, where);
  parts.splitters.emplace_back(kO200kPattern, PieceSplitter::Gaps::kKeep, "the o200k pattern");
  parts.whole_pieces = true;
  const auto first_special = static_cast<TokenId>(parts.tokens.size());
  for (int offset = 0; offset < kNumSpecials; ++offset) {
    const TokenId id = first_special + offset;
    std::string name = fmt::format("<|reserved_{}|>", id);
    for (const NamedSpecial& special : kNamedSpecials) {
      if (special.offset == offset) name = special.text;
    }
    parts.added.push_back({name, id, true});
    parts.tokens.push_back(std::move(name));
  }
  return parts;
}

}  // namespace moebench
