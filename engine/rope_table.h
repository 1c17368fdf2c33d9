// Rotary frequencies of a model, with YaRN's blend and concentration factor.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model_config.h"

namespace moebench {

struct RopeTable {
  std::vector<double> frequencies;  // [head_dim / 2], radians per position
  double concentration = 1;         // multiplies cos and sin, so scores grow by its square

  // out_cos, out_sin: [head_dim / 2]
  void fill(std::int64_t position, float* out_cos, float* out_sin) const;
};

// Source: Peng et al., "YaRN", 2023, section 3; openai/gpt-oss, gpt_oss/torch/model.py,
// RotaryEmbedding._compute_concentration_and_inv_freq. As in huggingface/transformers, the ends of
// the ramp are clamped to [0, head_dim - 1], and rounded outwards if `truncate` is set.
RopeTable make_rope_table(const RopeConfig& rope, std::int64_t head_dim);

}  // namespace moebench
