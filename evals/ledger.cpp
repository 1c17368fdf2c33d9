// Ledger lines to JSON and back.
#include "evals/ledger.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "engine/mapped_file.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::array<std::string_view, kNumVerdicts> kVerdictNames = {
    "correct", "wrong", "unparsed", "truncated", "looping", "channel_error", "refused", "failed"};

std::vector<OptionScore> options_from_json(const Json& json, const std::string& where) {
  require(json.is_array(), "{}: expected a list, got {}", where, json_excerpt(json));
  std::vector<OptionScore> options;
  for (const Json& element : json) {
    JsonFields fields(element, fmt::format("{}[{}]", where, options.size()));
    options.push_back(
        {fields.required<double>("log_probability"), fields.required<std::int64_t>("tokens"),
         fields.required<std::int64_t>("bytes"), fields.required<std::int64_t>("characters")});
  }
  return options;
}

// Token ids or lengths.
std::vector<std::int32_t> counts_from_json(JsonFields& fields, std::string_view name) {
  std::vector<std::int32_t> counts;
  for (const std::int64_t value : fields.optional<std::vector<std::int64_t>>(name, {})) {
    counts.push_back(static_cast<std::int32_t>(in_range<std::int64_t>(
        value, 0, std::numeric_limits<std::int32_t>::max(), fields.path(name))));
  }
  return counts;
}

}  // namespace

std::size_t best_option(const std::vector<OptionScore>& options, std::string_view normalisation) {
  constexpr std::array<std::string_view, 4> kNames = {"none", "tokens", "bytes", "characters"};
  const std::size_t by = index_of_name(kNames, normalisation, "choose an option", "normalisation");
  require(!options.empty(), "choose an option: there are none");
  const auto score = [&](const OptionScore& option) {
    const std::array<std::int64_t, 4> lengths = {1, option.tokens, option.bytes, option.characters};
    return option.log_probability / static_cast<double>(std::max<std::int64_t>(lengths[by], 1));
  };
  std::size_t best = 0;
  for (std::size_t i = 1; i < options.size(); ++i) {
    if (score(options[i]) > score(options[best])) best = i;
  }
  return best;
}

std::string_view verdict_name(Verdict verdict) {
  return kVerdictNames[static_cast<std::size_t>(verdict)];
}

Verdict parse_verdict(std::string_view name, std::string_view where) {
  return static_cast<Verdict>(index_of_name(kVerdictNames, name, where, "verdict"));
}

std::optional<TokenDivergence> first_divergence(const LedgerLine& reference,
                                                const LedgerLine& answer) {
  if (reference.tokens.empty() || answer.token_bytes.empty()) return std::nullopt;
  const auto [differs, unused] = std::mismatch(answer.tokens.begin(), answer.tokens.end(),
                                               reference.tokens.begin(), reference.tokens.end());
  if (differs == answer.tokens.end() && answer.tokens.size() == reference.tokens.size()) {
    return std::nullopt;
  }
  TokenDivergence divergence;
  divergence.token = differs - answer.tokens.begin();
  // A marker is not seen, nor is part of a character: what follows is.
  const auto first = answer.token_bytes.begin() + divergence.token;
  const auto seen = std::find_if(first, answer.token_bytes.end(), [](auto n) { return n > 0; });
  divergence.byte = std::accumulate(answer.token_bytes.begin(), first, std::int64_t{0});
  if (seen != answer.token_bytes.end()) divergence.bytes = *seen;
  const auto thinking = static_cast<std::int64_t>(answer.analysis.size());
  divergence.in_final =
      divergence.byte > thinking || (divergence.byte == thinking && divergence.bytes > 0);
  if (divergence.in_final) divergence.byte -= thinking;
  return divergence;
}

void drop_texts(LedgerLine& line) {
  line.analysis.clear();
  line.final_text.clear();
  line.tokens.clear();
  line.token_bytes.clear();
}

OrderedJson to_json(const LedgerLine& line) {
  OrderedJson json;
  json["item"] = line.item;
  if (!line.item_hash.empty()) json["item_hash"] = line.item_hash;
  json["category"] = line.category;
  json["repeat"] = line.repeat;
  json["seed"] = line.seed;
  json["verdict"] = verdict_name(line.verdict);
  json["expected"] = line.expected;
  json["answer"] = line.answer;
  json["finish"] = line.finish;
  json["prompt_tokens"] = line.prompt_tokens;
  json["cached_tokens"] = line.cached_tokens;
  json["output_tokens"] = line.output_tokens;
  json["reasoning_tokens"] = line.reasoning_tokens;
  json["log_probability"] = line.log_probability;
  json["token_digest"] = line.token_digest;
  json["analysis"] = line.analysis;
  json["final"] = line.final_text;
  if (!line.tokens.empty()) json["tokens"] = line.tokens;
  if (!line.token_bytes.empty()) json["token_bytes"] = line.token_bytes;
  if (!line.hidden_text_hash.empty()) json["hidden_text_hash"] = line.hidden_text_hash;
  for (const OptionScore& option : line.options) {
    json["options"].push_back({{"log_probability", option.log_probability},
                               {"tokens", option.tokens},
                               {"bytes", option.bytes},
                               {"characters", option.characters}});
  }
  if (!line.error.empty()) json["error"] = line.error;
  json["timing"]["ttft_ms"] = line.timing.ttft_ms;
  json["timing"]["tpot_ms"] = line.timing.tpot_ms;
  json["timing"]["e2e_ms"] = line.timing.e2e_ms;
  return json;
}

LedgerLine ledger_line_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  LedgerLine line;
  line.item = fields.required<std::string>("item");
  line.item_hash = fields.optional<std::string>("item_hash", "");
  line.category = fields.optional<std::string>("category", "");
  line.repeat = fields.required<std::int64_t>("repeat");
  const Json* seed = fields.find("seed");
  if (seed != nullptr && seed->is_number_unsigned()) line.seed = seed->get<std::uint64_t>();
  line.verdict = parse_verdict(fields.required<std::string>("verdict"), fields.path("verdict"));
  line.expected = fields.optional<std::string>("expected", "");
  line.answer = fields.optional<std::string>("answer", "");
  line.finish = fields.optional<std::string>("finish", "");
  line.prompt_tokens = fields.optional<std::int64_t>("prompt_tokens", 0);
  line.cached_tokens = fields.optional<std::int64_t>("cached_tokens", 0);
  line.output_tokens = fields.optional<std::int64_t>("output_tokens", 0);
  line.reasoning_tokens = fields.optional<std::int64_t>("reasoning_tokens", 0);
  line.log_probability = fields.optional<double>("log_probability", 0.0);
  line.token_digest = fields.optional<std::string>("token_digest", "");
  line.analysis = fields.optional<std::string>("analysis", "");
  line.final_text = fields.optional<std::string>("final", "");
  line.tokens = counts_from_json(fields, "tokens");
  line.token_bytes = counts_from_json(fields, "token_bytes");
  require(line.token_bytes.empty() || line.token_bytes.size() == line.tokens.size(),
          "{}: {} lengths for {} tokens (one for each, or none)", fields.path("token_bytes"),
          line.token_bytes.size(), line.tokens.size());
  line.hidden_text_hash = fields.optional<std::string>("hidden_text_hash", "");
  if (const Json* options = fields.find("options"))
    line.options = options_from_json(*options, fields.path("options"));
  line.error = fields.optional<std::string>("error", "");
  if (const Json* timing = fields.find("timing")) {
    JsonFields times(*timing, fields.path("timing"));
    line.timing.ttft_ms = times.optional<double>("ttft_ms", 0.0);
    line.timing.tpot_ms = times.optional<double>("tpot_ms", 0.0);
    line.timing.e2e_ms = times.optional<double>("e2e_ms", 0.0);
  }
  return line;
}

std::vector<LedgerLine> read_ledger(const std::filesystem::path& path) {
  std::vector<LedgerLine> lines;
  for_each_whole_json_line(path, [&](const Json& json, const std::string& place) {
    lines.push_back(ledger_line_from_json(json, place));
  });
  return lines;
}

}  // namespace moebench
