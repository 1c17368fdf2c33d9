// What the checkpoint layouts call each tensor: one row per layout.
//
// Source: openai/gpt-oss-20b (repository root and original/), as in their safetensors headers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/checkpoint.h"

namespace moebench {

// "{}" stands for the layer number. An empty name: the layout has no such tensor.
struct TensorNames {
  std::string_view layout;
  std::string_view embedding;
  std::string_view final_norm;
  std::string_view unembedding;
  std::string_view attention_norm;
  std::string_view query;  // ".weight" and ".bias" are appended
  std::string_view key;
  std::string_view value;
  std::string_view query_key_value;  // fused: query rows, then key rows, then value rows
  std::string_view attention_out;
  std::string_view sinks;
  std::string_view ffn_norm;
  std::string_view router;
  std::string_view gate_up;  // `gate_up_blocks` etc. follow from these stems
  std::string_view gate_up_blocks;
  std::string_view gate_up_scales;
  std::string_view gate_up_bias;
  std::string_view down;
  std::string_view down_blocks;
  std::string_view down_scales;
  std::string_view down_bias;
};

// The layout whose embedding tensor the checkpoint holds. Throws Error(kParse) if none fits.
const TensorNames& detect_tensor_names(const Checkpoint& checkpoint);

// `pattern` with the layer number filled in.
std::string layer_tensor(std::string_view pattern, std::int64_t layer);

}  // namespace moebench
