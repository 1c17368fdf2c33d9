// Recording, writing and reading routings.
#include "engine/routing_trace.h"

#include <algorithm>
#include <set>

#include "engine/mapped_file.h"
#include "engine/scoring.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"

namespace moebench {
namespace {

// More than any model has, so that a product of them stays small.
constexpr std::int64_t kMostExperts = 1 << 16;
constexpr std::int64_t kMostTokens = 1 << 24;
constexpr std::int64_t kMostLayers = 1 << 12;

void read_header(const Json& json, const std::string& place, RoutingTrace& trace) {
  JsonFields fields(json, place);
  const auto schema = fields.required<std::string>("schema");
  require(schema == kRoutingSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kRoutingSchema);
  trace.model = fields.optional<std::string>("model", "");
  trace.text = fields.optional<std::string>("text", "");
  const auto count = [&](const char* name, std::int64_t most) {
    return in_range(fields.required<std::int64_t>(name), std::int64_t{1}, most, fields.path(name));
  };
  trace.num_experts = count("num_experts", kMostExperts);
  trace.top_k = count("top_k", trace.num_experts);
  trace.num_tokens = count("num_tokens", kMostTokens);
  fields.finish();
}

std::vector<std::int32_t> read_layer(const Json& json, const std::string& place,
                                     const RoutingTrace& trace) {
  JsonFields fields(json, place);
  const auto layer = fields.required<std::int64_t>("layer");
  const auto expected = static_cast<std::int64_t>(trace.layers.size());
  require(layer == expected, "{}: {} where {} comes next", fields.path("layer"), layer, expected);
  const auto given = fields.required<std::vector<std::int64_t>>("expert_ids");
  fields.finish();
  const std::string path = fields.path("expert_ids");
  require(static_cast<std::int64_t>(given.size()) == trace.num_tokens * trace.top_k,
          "{}: {} ids, where {} tokens choose {} each", path, given.size(), trace.num_tokens,
          trace.top_k);
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : given) {
    require(id >= 0 && id < trace.num_experts, "{}: expert {} of {}", path, id, trace.num_experts);
    ids.push_back(static_cast<std::int32_t>(id));
  }
  for (std::size_t at = 0; at < ids.size(); at += static_cast<std::size_t>(trace.top_k)) {
    const auto token = std::span(ids).subspan(at, static_cast<std::size_t>(trace.top_k));
    require(distinct_experts(token) == trace.top_k, "{}: token {} chose an expert twice", path,
            static_cast<std::int64_t>(at) / trace.top_k);
  }
  return ids;
}

}  // namespace

std::vector<std::int32_t> RoutingTrace::window(std::int64_t layer, std::int64_t first,
                                               std::int64_t count) const {
  const auto& ids = layers.at(static_cast<std::size_t>(layer));
  std::vector<std::int32_t> out;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t token = (first + i) % num_tokens;
    const auto begin = ids.begin() + token * top_k;
    out.insert(out.end(), begin, begin + top_k);
  }
  return out;
}

RoutingTrace record_routing(Engine& engine, std::span<const std::int32_t> tokens,
                            std::int64_t sequence_length) {
  require(sequence_length > 0 && !tokens.empty(), "record a routing: {} tokens in sequences of {}",
          tokens.size(), sequence_length);
  const ModelConfig& config = engine.model->config();
  RoutingTrace trace;
  trace.num_experts = config.num_experts;
  trace.top_k = config.top_k;
  trace.num_tokens = static_cast<std::int64_t>(tokens.size());
  trace.layers.resize(static_cast<std::size_t>(config.num_layers));
  Observer observer;
  observer.routing = [&](std::int64_t layer, View<const std::int32_t, 2> ids,
                         View<const float, 2>) {
    auto& all = trace.layers[static_cast<std::size_t>(layer)];
    for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
      all.insert(all.end(), ids[t].data, ids[t].data + ids.shape[1]);
    }
  };
  // Logits are not wanted; the last position's must be asked for.
  for (auto left = tokens; !left.empty();) {
    const auto sequence =
        left.first(std::min(left.size(), static_cast<std::size_t>(sequence_length)));
    score_sequence(
        *engine.model, *engine.cache, sequence, static_cast<std::int64_t>(sequence.size()) - 1,
        [](std::int64_t, std::span<const float>) {}, &observer);
    left = left.subspan(sequence.size());
  }
  return trace;
}

std::string routing_text(const RoutingTrace& trace) {
  std::string text = json_line({{"schema", kRoutingSchema},
                                {"model", trace.model},
                                {"text", trace.text},
                                {"num_experts", trace.num_experts},
                                {"top_k", trace.top_k},
                                {"num_tokens", trace.num_tokens}}) +
                     "\n";
  for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
    text += json_line({{"layer", layer}, {"expert_ids", trace.layers[layer]}}) + "\n";
  }
  return text;
}

RoutingTrace parse_routing(std::string_view text, const std::string& where) {
  RoutingTrace trace;
  bool header = true;
  for_each_json_line(text, where, 4, [&](const Json& json, const std::string& place) {
    if (header) {
      read_header(json, place, trace);
      header = false;
      return;
    }
    require(static_cast<std::int64_t>(trace.layers.size()) < kMostLayers, "{}: more than {} layers",
            place, kMostLayers);
    trace.layers.push_back(read_layer(json, place, trace));
  });
  require(!trace.layers.empty(),
          "{}: it holds no layer's choices (a header, then one line per "
          "layer; moebench model routing writes it)",
          where);
  return trace;
}

RoutingTrace load_routing(const std::filesystem::path& path) {
  return parse_routing(read_text_file(path), path.string());
}

std::int64_t distinct_experts(std::span<const std::int32_t> ids) {
  return static_cast<std::int64_t>(std::set<std::int32_t>(ids.begin(), ids.end()).size());
}

}  // namespace moebench
