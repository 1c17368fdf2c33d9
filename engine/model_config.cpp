// config.json of gpt-oss in both spellings.
#include "engine/model_config.h"

#include <algorithm>
#include <cmath>

#include "engine/mapped_file.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// Limits far above any real model; what they keep out are absurd values that would overflow sizes.
constexpr std::int64_t kMaxExtent = 1 << 20;
constexpr std::int64_t kMaxVocab = 1 << 24;
constexpr std::int64_t kMaxContext = std::int64_t{1} << 32;

class ConfigReader {
 public:
  ConfigReader(const Json& json, std::string_view where) : fields_(json, std::string(where)) {}

  JsonFields& fields() { return fields_; }

  std::int64_t extent(std::string_view name, std::int64_t low, std::int64_t high) {
    return in_range(fields_.required<std::int64_t>(name), low, high, fields_.path(name));
  }

  // The first of two spellings that is present.
  std::int64_t extent(std::string_view name, std::string_view other, std::int64_t low,
                      std::int64_t high) {
    const bool use_other = !fields_.has(name) && fields_.has(other);
    return extent(use_other ? other : name, low, high);
  }

  double real(std::string_view name, double fallback, double low, double high) {
    return in_range(fields_.optional<double>(name, fallback), low, high, fields_.path(name));
  }

 private:
  JsonFields fields_;
};

void read_rope_block(const Json& json, const std::string& where, ModelConfig& config) {
  ConfigReader reader(json, where);
  const auto type = reader.fields().optional<std::string>(
      "rope_type", reader.fields().optional<std::string>("type", "default"));
  require_or(ErrorCode::kUnsupported, type == "yarn" || type == "default",
             "{}: '{}' is not supported (yarn and default are)", reader.fields().path("rope_type"),
             type.substr(0, 40));
  config.rope.theta = reader.real("rope_theta", config.rope.theta, 1.0, 1e12);
  if (type == "default") {
    config.rope.factor = 1;
    return;
  }
  config.rope.factor = reader.real("factor", config.rope.factor, 1.0, 1e6);
  config.rope.beta_fast = reader.real("beta_fast", config.rope.beta_fast, 1e-6, 1e9);
  config.rope.beta_slow = reader.real("beta_slow", config.rope.beta_slow, 1e-6, 1e9);
  config.rope.original_context =
      reader.real("original_max_position_embeddings", config.rope.original_context, 1.0, 1e12);
  config.rope.truncate = reader.fields().optional<bool>("truncate", true);
}

void read_hugging_face_rope(ConfigReader& reader, ModelConfig& config) {
  JsonFields& fields = reader.fields();
  config.rope.theta = reader.real("rope_theta", config.rope.theta, 1.0, 1e12);
  config.rope.original_context =
      reader.real("initial_context_length", config.rope.original_context, 1.0, 1e12);
  // Newer transformers write rope_parameters (with rope_theta inside) instead of rope_scaling.
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const Json* block = fields.find(name);
    if (block != nullptr && !block->is_null()) read_rope_block(*block, fields.path(name), config);
  }
}

void read_original_rope(ConfigReader& reader, ModelConfig& config) {
  config.rope.theta = reader.real("rope_theta", config.rope.theta, 1.0, 1e12);
  config.rope.factor = reader.real("rope_scaling_factor", 1.0, 1.0, 1e6);
  config.rope.beta_fast = reader.real("rope_ntk_beta", config.rope.beta_fast, 1e-6, 1e9);
  config.rope.beta_slow = reader.real("rope_ntk_alpha", config.rope.beta_slow, 1e-6, 1e9);
  config.rope.original_context =
      reader.real("initial_context_length", config.rope.original_context, 1.0, 1e12);
}

// Sliding layers: named by layer_types, or by parity (even layers slide), as the reference does.
void read_layer_types(ConfigReader& reader, ModelConfig& config) {
  const Json* types = reader.fields().find("layer_types");
  const auto num_layers = static_cast<std::size_t>(config.num_layers);
  if (types == nullptr || types->is_null()) {
    for (std::size_t l = 0; l < num_layers; ++l) config.layer_is_sliding.push_back(l % 2 == 0);
    return;
  }
  const auto names = reader.fields().required<std::vector<std::string>>("layer_types");
  require(names.size() == num_layers, "{}: {} entries for {} layers",
          reader.fields().path("layer_types"), names.size(), num_layers);
  for (std::size_t l = 0; l < num_layers; ++l) {
    const bool sliding = names[l] == "sliding_attention";
    require(sliding || names[l] == "full_attention",
            "{}[{}]: '{}' is not supported (sliding_attention and full_attention are)",
            reader.fields().path("layer_types"), l, names[l].substr(0, 40));
    config.layer_is_sliding.push_back(sliding);
  }
}

void read_stop_ids(JsonFields& fields, ModelConfig& config) {
  const Json* ids = fields.find("eos_token_id");
  if (ids == nullptr || ids->is_null()) return;
  std::vector<std::int64_t> values;
  if (ids->is_array()) {
    values = fields.required<std::vector<std::int64_t>>("eos_token_id");
  } else {
    values.push_back(fields.required<std::int64_t>("eos_token_id"));
  }
  for (const std::int64_t id : values) {
    in_range<std::int64_t>(id, 0, config.vocab_size - 1, fields.path("eos_token_id"));
    auto& known = config.stop_token_ids;
    if (std::find(known.begin(), known.end(), id) == known.end()) known.push_back(id);
  }
}

// The assertion of the reference implementation, with a message.
void check_rope(const ModelConfig& config, std::string_view where) {
  if (config.rope.factor <= 1) return;
  require(config.rope.beta_fast > config.rope.beta_slow,
          "{}: YaRN needs beta_fast {} > beta_slow {}", where, config.rope.beta_fast,
          config.rope.beta_slow);
  // The ramp is placed by a logarithm to this base.
  require(config.rope.theta > 1, "{}: YaRN needs rope_theta {} > 1", where, config.rope.theta);
}

}  // namespace

std::int64_t ModelConfig::num_sliding_layers() const {
  return std::count(layer_is_sliding.begin(), layer_is_sliding.end(), true);
}

ModelConfig parse_model_config(const Json& json, std::string_view where) {
  ConfigReader reader(json, where);
  JsonFields& fields = reader.fields();
  ModelConfig config;
  const bool is_original = !fields.has("model_type") && fields.has("num_experts");
  config.family = is_original ? "gpt_oss" : fields.required<std::string>("model_type");
  require_or(ErrorCode::kUnsupported, config.family == "gpt_oss",
             "{}: model family '{}' is not supported (gpt_oss is)", fields.path("model_type"),
             config.family.substr(0, 40));

  config.num_layers = reader.extent("num_hidden_layers", 1, 1024);
  config.hidden_size = reader.extent("hidden_size", 1, kMaxExtent);
  config.intermediate_size = reader.extent("intermediate_size", 1, kMaxExtent);
  config.num_heads = reader.extent("num_attention_heads", 1, 4096);
  config.num_kv_heads = reader.extent("num_key_value_heads", 1, 4096);
  config.head_dim = reader.extent("head_dim", 2, 4096);
  config.num_experts = reader.extent("num_local_experts", "num_experts", 1, 65536);
  config.top_k = reader.extent("num_experts_per_tok", "experts_per_token", 1, config.num_experts);
  config.vocab_size = reader.extent("vocab_size", 1, kMaxVocab);
  config.sliding_window = reader.extent("sliding_window", 1, kMaxContext);
  config.rms_norm_epsilon = reader.real("rms_norm_eps", 1e-5, 0.0, 1.0);
  config.swiglu_limit = reader.real("swiglu_limit", 7.0, 1e-3, 1e9);
  config.swiglu_alpha = reader.real("swiglu_alpha", 1.702, 1e-3, 1e3);
  require(config.num_heads % config.num_kv_heads == 0,
          "{}: {} query heads cannot share {} key/value heads evenly",
          fields.path("num_key_value_heads"), config.num_heads, config.num_kv_heads);
  require(config.head_dim % 2 == 0, "{}: {} is odd; rotary embedding needs pairs",
          fields.path("head_dim"), config.head_dim);

  if (is_original) {
    read_original_rope(reader, config);
    config.max_context = static_cast<std::int64_t>(in_range(
        config.rope.original_context * config.rope.factor, 1.0, static_cast<double>(kMaxContext),
        fields.path("initial_context_length") + " * rope_scaling_factor"));
  } else {
    read_hugging_face_rope(reader, config);
    config.max_context = reader.extent("max_position_embeddings", 1, kMaxContext);
    config.tied_embeddings = fields.optional<bool>("tie_word_embeddings", false);
    require_or(ErrorCode::kUnsupported, fields.optional<bool>("attention_bias", true),
               "{}: false is not supported for gpt_oss", fields.path("attention_bias"));
  }
  check_rope(config, where);
  read_layer_types(reader, config);
  read_stop_ids(fields, config);
  return config;
}

ModelConfig load_model_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  require_or(ErrorCode::kIo, std::filesystem::exists(path),
             "open model {}: there is no config.json (a model is a directory in the Hugging Face "
             "layout, or the word nano)",
             directory.string());
  constexpr std::size_t kMaxConfigBytes = 16 << 20;
  ModelConfig config = parse_model_config(
      parse_json(read_text_file(path, kMaxConfigBytes), path.string()), path.string());
  const std::filesystem::path generation = directory / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const Json json = parse_json(read_text_file(generation, kMaxConfigBytes), generation.string());
    JsonFields fields(json, generation.string());
    read_stop_ids(fields, config);
  }
  return config;
}

}  // namespace moebench
