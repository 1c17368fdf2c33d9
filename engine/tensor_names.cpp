// The table of layouts.
#include "engine/tensor_names.h"

#include <array>

#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::array<TensorNames, 2> kLayouts = {{
    {
        .layout = "hugging_face",
        .embedding = "model.embed_tokens.weight",
        .final_norm = "model.norm.weight",
        .unembedding = "lm_head.weight",
        .attention_norm = "model.layers.{}.input_layernorm.weight",
        .query = "model.layers.{}.self_attn.q_proj",
        .key = "model.layers.{}.self_attn.k_proj",
        .value = "model.layers.{}.self_attn.v_proj",
        .query_key_value = "",
        .attention_out = "model.layers.{}.self_attn.o_proj",
        .sinks = "model.layers.{}.self_attn.sinks",
        .ffn_norm = "model.layers.{}.post_attention_layernorm.weight",
        .router = "model.layers.{}.mlp.router",
        .gate_up = "model.layers.{}.mlp.experts.gate_up_proj",
        .gate_up_blocks = "model.layers.{}.mlp.experts.gate_up_proj_blocks",
        .gate_up_scales = "model.layers.{}.mlp.experts.gate_up_proj_scales",
        .gate_up_bias = "model.layers.{}.mlp.experts.gate_up_proj_bias",
        .down = "model.layers.{}.mlp.experts.down_proj",
        .down_blocks = "model.layers.{}.mlp.experts.down_proj_blocks",
        .down_scales = "model.layers.{}.mlp.experts.down_proj_scales",
        .down_bias = "model.layers.{}.mlp.experts.down_proj_bias",
    },
    {
        .layout = "original",
        .embedding = "embedding.weight",
        .final_norm = "norm.scale",
        .unembedding = "unembedding.weight",
        .attention_norm = "block.{}.attn.norm.scale",
        .query = "",
        .key = "",
        .value = "",
        .query_key_value = "block.{}.attn.qkv",
        .attention_out = "block.{}.attn.out",
        .sinks = "block.{}.attn.sinks",
        .ffn_norm = "block.{}.mlp.norm.scale",
        .router = "block.{}.mlp.gate",
        .gate_up = "",
        .gate_up_blocks = "block.{}.mlp.mlp1_weight.blocks",
        .gate_up_scales = "block.{}.mlp.mlp1_weight.scales",
        .gate_up_bias = "block.{}.mlp.mlp1_bias",
        .down = "",
        .down_blocks = "block.{}.mlp.mlp2_weight.blocks",
        .down_scales = "block.{}.mlp.mlp2_weight.scales",
        .down_bias = "block.{}.mlp.mlp2_bias",
    },
}};

}  // namespace

const TensorNames& detect_tensor_names(const Checkpoint& checkpoint) {
  for (const TensorNames& names : kLayouts) {
    if (checkpoint.find(names.embedding) != nullptr) return names;
  }
  fail(ErrorCode::kParse, "read {}: neither '{}' nor '{}' is among its {} tensors",
       checkpoint.directory().string(), kLayouts[0].embedding, kLayouts[1].embedding,
       checkpoint.num_tensors());
}

std::string layer_tensor(std::string_view pattern, std::int64_t layer) {
  return fmt::format(fmt::runtime(pattern), layer);
}

}  // namespace moebench
