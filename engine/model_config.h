// What a checkpoint's config says, in our words: the description the engine runs on.
//
// One reader maps the spellings of Hugging Face (`num_local_experts`) and of the `original/` layout
// (`num_experts`) to ours. A new family is a new reader that fills the same struct.
// Source: openai/gpt-oss config.json of both layouts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench {

// YaRN (Peng et al., 2023). factor <= 1 means plain RoPE.
struct RopeConfig {
  double theta = 150000;
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
  double original_context = 4096;
  bool truncate = false;  // round the ends of the ramp to whole dimensions
};

struct ModelConfig {
  std::string family;  // "gpt_oss"
  std::int64_t num_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;  // of one expert
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t vocab_size = 0;
  std::int64_t sliding_window = 0;
  std::int64_t max_context = 0;  // positions
  double rms_norm_epsilon = 1e-5;
  double swiglu_alpha = 1.702;
  double swiglu_limit = 7.0;
  bool tied_embeddings = false;
  RopeConfig rope;
  std::vector<bool> layer_is_sliding;        // [num_layers]
  std::vector<std::int64_t> stop_token_ids;  // eos ids of config.json and generation_config.json

  std::int64_t num_sliding_layers() const;
};

// Reads a parsed config of either spelling. Throws Error naming `where`, the field and its value.
ModelConfig parse_model_config(const Json& json, std::string_view where);

// Reads config.json, and generation_config.json if there is one, of a checkpoint directory.
ModelConfig load_model_config(const std::filesystem::path& directory);

}  // namespace moebench
