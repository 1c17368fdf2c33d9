// Reads a Hugging Face tokenizer.json. What decides how text is split and merged is read strictly:
// an unknown field there could change the ids in silence.
#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "engine/tokenizer_tables.h"
#include "engine/utf8.h"
#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"

namespace moebench {
namespace {

using IdsByText = std::unordered_map<std::string_view, TokenId>;

// GPT-2's alphabet: a printable character for each byte. Printable Latin-1 stands for itself, the
// other bytes in their order for U+0100 and up. Source: openai/gpt-2, encoder.py, bytes_to_unicode.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    byte_of_.fill(-1);
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      byte_of_[is_printable ? static_cast<char32_t>(byte) : next++] = byte;
    }
  }

  // Nothing if a character is not of the alphabet.
  std::optional<std::string> decode(std::string_view text) const {
    std::string bytes;
    while (!text.empty()) {
      const Utf8Prefix c = utf8_prefix(text);
      if (c.kind != Utf8Kind::kCharacter || c.code_point >= byte_of_.size()) return std::nullopt;
      if (byte_of_[c.code_point] < 0) return std::nullopt;
      bytes += static_cast<char>(byte_of_[c.code_point]);
      text.remove_prefix(c.length);
    }
    return bytes;
  }

 private:
  std::array<int, 0x100 + 68> byte_of_;  // 68 bytes are not printable
};

// A field that must be absent, null, false or an empty string or list: what else it can say is not
// supported.
void require_off(JsonFields& fields, std::string_view name) {
  const Json* value = fields.find(name);
  const bool is_off = value == nullptr || value->is_null() || *value == false || *value == "" ||
                      (value->is_array() && value->empty());
  require_or(ErrorCode::kUnsupported, is_off, "{}: {} is not supported", fields.path(name),
             is_off ? "" : json_excerpt(*value));
}

void require_type(JsonFields& fields, std::string_view type) {
  const auto given = fields.required<std::string>("type");
  require_or(ErrorCode::kUnsupported, given == type, "{}: '{}' is not supported (known: {})",
             fields.path("type"), given.substr(0, 100), type);
}

const Json& required_array(JsonFields& fields, std::string_view name) {
  const Json* value = fields.find(name);
  require(value != nullptr && value->is_array(), "{}: expected a list, got {}", fields.path(name),
          value == nullptr ? "nothing" : json_excerpt(*value));
  return *value;
}

// A normalizer would change the text before it is split; a Sequence of none does nothing.
void check_normalizer(const Json& file, const std::string& where) {
  const auto it = file.find("normalizer");
  if (it == file.end() || it->is_null()) return;
  JsonFields fields(*it, where + ": normalizer");
  require_type(fields, "Sequence");
  require_off(fields, "normalizers");
}

std::vector<AddedToken> read_added_tokens(const Json& file, const std::string& where) {
  std::vector<AddedToken> added;
  const auto list = file.find("added_tokens");
  if (list == file.end() || list->is_null()) return added;
  require(list->is_array(), "{}: added_tokens: expected a list, got {}", where,
          json_excerpt(*list));
  for (const Json& element : *list) {
    JsonFields fields(element, fmt::format("{}: added_tokens[{}]", where, added.size()));
    AddedToken token;
    token.id = static_cast<TokenId>(in_range<std::int64_t>(fields.required<std::int64_t>("id"), 0,
                                                           kMaxTokens - 1, fields.path("id")));
    token.text = fields.required<std::string>("content");
    token.special = fields.optional<bool>("special", false);
    require(!token.text.empty(), "{}: an empty token", fields.path("content"));
    for (const char* name : {"single_word", "lstrip", "rstrip"}) require_off(fields, name);
    fields.ignore("normalized");  // there is no normalizer
    fields.finish();
    added.push_back(std::move(token));
  }
  return added;
}

// Fills `parts.tokens`; returns the ids by the text they have in the file, which merges refer to.
IdsByText read_vocab(const Json& vocab, const std::string& path, TokenizerParts& parts) {
  require(vocab.is_object(), "{}: expected an object, got {}", path, json_excerpt(vocab));
  IdsByText added_ids;
  for (const AddedToken& token : parts.added) {
    require(added_ids.emplace(token.text, token.id).second, "{}: the added token '{}' stands twice",
            path, token.text.substr(0, 100));
  }
  std::size_t num_tokens = vocab.size();
  for (const AddedToken& token : parts.added) num_tokens += vocab.contains(token.text) ? 0 : 1;
  parts.tokens.resize(num_tokens);
  // Messages are made only where one is needed: there are hundreds of thousands of tokens.
  const auto put = [&](const Json& id, std::string_view text, std::string bytes) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= num_tokens) {
      fail(ErrorCode::kInvalidArgument,
           "{}: '{}' has the id {}: expected one of 0 to {}, without holes", path,
           text.substr(0, 100), json_excerpt(id), num_tokens - 1);
    }
    std::string& slot = parts.tokens[id.get<std::size_t>()];
    if (!slot.empty()) {
      fail(ErrorCode::kInvalidArgument, "{}: '{}' has the id {}, as another token has", path,
           text.substr(0, 100), json_excerpt(id));
    }
    slot = std::move(bytes);
  };

  const ByteAlphabet alphabet;
  IdsByText ids;
  ids.reserve(vocab.size());
  for (auto it = vocab.begin(); it != vocab.end(); ++it) {
    const std::string& text = it.key();
    std::optional<std::string> bytes;
    if (const auto added = added_ids.find(text); added == added_ids.end()) {
      bytes = alphabet.decode(text);
    } else {
      bytes = text;  // an added token is not written in the alphabet
      require(*it == added->second, "{}: '{}' has the id {}, but {} in added_tokens", path,
              text.substr(0, 100), json_excerpt(*it), added->second);
    }
    require(bytes.has_value() && !text.empty(),
            "{}: '{}' is no token: empty, or with a character not of the byte-level alphabet", path,
            text);
    put(*it, text, std::move(*bytes));
    ids.emplace(text, it->get<TokenId>());
  }
  for (const AddedToken& token : parts.added) {
    if (!vocab.contains(token.text))
      put(static_cast<std::uint64_t>(token.id), token.text, token.text);
  }
  return ids;
}

// The two texts of a merge, written ["a", "b"] or, by older versions, "a b".
std::optional<std::pair<std::string_view, std::string_view>> merge_texts(const Json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair<std::string_view, std::string_view>(merge[0].get_ref<const std::string&>(),
                                                         merge[1].get_ref<const std::string&>());
  }
  if (!merge.is_string()) return std::nullopt;
  const std::string_view text = merge.get_ref<const std::string&>();
  const std::size_t space = text.find(' ');
  if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
    return std::nullopt;
  }
  return std::pair(text.substr(0, space), text.substr(space + 1));
}

void read_merges(const Json& list, const std::string& path, const IdsByText& ids,
                 TokenizerParts& parts) {
  std::vector<bool> special(parts.tokens.size());
  for (const AddedToken& token : parts.added) {
    special[static_cast<std::size_t>(token.id)] = token.special;
  }
  for (std::size_t rank = 0; rank < list.size(); ++rank) {
    const auto texts = merge_texts(list[rank]);
    require(texts.has_value(), "{}[{}]: expected \"a b\" or [\"a\", \"b\"], got {}", path, rank,
            texts ? "" : json_excerpt(list[rank]));
    const auto id_of = [&](std::string_view text) {
      const auto it = ids.find(text);
      require(it != ids.end(), "{}[{}]: '{}' is not in the vocabulary", path, rank,
              text.substr(0, 100));
      return it->second;
    };
    const TokenId merged = id_of(std::string(texts->first).append(texts->second));
    require(!special[static_cast<std::size_t>(merged)],
            "{}[{}]: makes the special token {}, which text must never become", path, rank, merged);
    parts.merges.add(id_of(texts->first), id_of(texts->second),
                     {static_cast<std::uint32_t>(rank), merged});
  }
}

void read_model(const Json& file, const std::string& where, TokenizerParts& parts) {
  const auto model = file.find("model");
  require(model != file.end(), "{}: field 'model' is missing", where);
  JsonFields fields(*model, where + ": model");
  require_type(fields, "BPE");
  for (const char* name : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                           "byte_fallback"}) {
    require_off(fields, name);
  }
  parts.whole_pieces = fields.optional<bool>("ignore_merges", false);
  const Json* vocab = fields.find("vocab");
  require(vocab != nullptr, "{}: the field is missing", fields.path("vocab"));
  const Json& merges = required_array(fields, "merges");
  const bool has_unknown_token = !fields.optional<std::string>("unk_token", "").empty();
  fields.finish();

  const IdsByText ids = read_vocab(*vocab, fields.path("vocab"), parts);
  read_merges(merges, fields.path("merges"), ids, parts);
  // With all bytes in the vocabulary nothing is unknown.
  std::size_t num_bytes = 0;
  for (const std::string& token : parts.tokens) num_bytes += token.size() == 1 ? 1 : 0;
  require_or(ErrorCode::kUnsupported, !has_unknown_token || num_bytes == 256,
             "{}: not supported where the vocabulary lacks single bytes", fields.path("unk_token"));
}

void read_split(JsonFields& fields, TokenizerParts& parts) {
  const Json* pattern = fields.find("pattern");
  require(pattern != nullptr, "{}: the field is missing", fields.path("pattern"));
  JsonFields pattern_fields(*pattern, fields.path("pattern"));
  require_or(ErrorCode::kUnsupported, pattern_fields.has("Regex"),
             "{}: only {{\"Regex\": ...}} is supported", fields.path("pattern"));
  const auto regex = pattern_fields.required<std::string>("Regex");
  pattern_fields.finish();

  // Isolated: matches and what is between them are pieces. Removed, inverted: only the matches.
  const auto behavior = fields.required<std::string>("behavior");
  const bool inverted = fields.optional<bool>("invert", false);
  require_or(ErrorCode::kUnsupported, behavior == "Isolated" || (behavior == "Removed" && inverted),
             "{}: '{}' with invert {} is not supported (known: Isolated; Removed with invert true)",
             fields.path("behavior"), behavior.substr(0, 100), inverted);
  parts.splitters.emplace_back(
      regex, behavior == "Isolated" ? PieceSplitter::Gaps::kKeep : PieceSplitter::Gaps::kDrop,
      pattern_fields.path("Regex"));
}

void read_byte_level(JsonFields& fields, TokenizerParts& parts) {
  require_off(fields, "add_prefix_space");
  fields.ignore("trim_offsets");  // concerns positions in the text only
  if (fields.optional<bool>("use_regex", true)) {
    parts.splitters.emplace_back(kGpt2Pattern, PieceSplitter::Gaps::kKeep, "the GPT-2 pattern");
  }
}

void read_pre_tokenizer(const Json& file, const std::string& where, TokenizerParts& parts) {
  const std::string path = where + ": pre_tokenizer";
  const auto it = file.find("pre_tokenizer");
  require_or(ErrorCode::kUnsupported, it != file.end() && !it->is_null(),
             "{}: a tokenizer without one is not byte-level", path);
  JsonFields fields(*it, path);
  if (fields.required<std::string>("type") != "Sequence") {
    require_type(fields, "ByteLevel");
    read_byte_level(fields, parts);
    fields.finish();
    return;
  }
  const Json& steps = required_array(fields, "pretokenizers");
  fields.finish();
  require_or(ErrorCode::kUnsupported, !steps.empty(), "{}: no ByteLevel at the end", path);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    JsonFields step(steps[i], fmt::format("{}.pretokenizers[{}]", path, i));
    const bool is_last = i + 1 == steps.size();
    require_type(step, is_last ? "ByteLevel" : "Split");
    is_last ? read_byte_level(step, parts) : read_split(step, parts);
    step.finish();
  }
}

void check_decoder(const Json& file, const std::string& where) {
  const auto it = file.find("decoder");
  if (it == file.end() || it->is_null()) return;
  JsonFields fields(*it, where + ": decoder");
  require_type(fields, "ByteLevel");
}

}  // namespace

TokenizerParts read_tokenizer_json(std::string_view text, std::string_view where_view) {
  const Json file = parse_json(text, where_view);
  const std::string where(where_view);
  require(file.is_object(), "{}: expected an object, got {}", where, json_excerpt(file));
  TokenizerParts parts;
  check_normalizer(file, where);
  parts.added = read_added_tokens(file, where);
  read_pre_tokenizer(file, where, parts);
  read_model(file, where, parts);
  check_decoder(file, where);
  return parts;
}

}  // namespace moebench
