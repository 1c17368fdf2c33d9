// Checkpoints with seeded random weights, of any gpt-oss shape: what speed can be measured on where
// no real one is at hand (time does not depend on the numbers, routing does), and what tests load.
//
// A checkpoint is a list of TensorSpec. A tensor's bytes are produced while its file is written, so
// that a model of many gigabytes needs no more memory than a tiny one.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench {

struct TensorSpec {
  std::string name;
  std::string dtype;  // "BF16", "F16", "F32", "U8"
  std::vector<std::int64_t> shape;
  std::function<void(std::ostream&)> write;  // writes bytes() bytes

  std::int64_t size() const {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape) count *= extent;
    return count;
  }
  std::int64_t bytes() const {
    return size() * (dtype == "U8" ? 1 : (dtype == "F32" ? 4 : 2));  // the dtypes used here
  }
};
using TensorSpecs = std::vector<TensorSpec>;

// The defaults make a tiny model with every feature on: a window shorter than a page or two, YaRN,
// grouped heads, heads wider together than the hidden size.
struct SyntheticShape {
  std::int64_t num_layers = 2;
  std::int64_t hidden_size = 64;
  std::int64_t intermediate_size = 64;
  std::int64_t num_heads = 4;
  std::int64_t num_kv_heads = 2;
  std::int64_t head_dim = 32;
  std::int64_t num_experts = 4;
  std::int64_t top_k = 2;
  std::int64_t vocab_size = 128;
  std::int64_t sliding_window = 8;
  std::int64_t max_context = 256;
  std::int64_t original_context = 32;
};

// gpt-oss-20b cut down to `num_layers`: 0.48 GB a layer, and 2.3 GB for a full vocabulary.
SyntheticShape gpt_oss_20b_shape(std::int64_t num_layers = 24, std::int64_t vocab_size = 201088);
// gpt-oss-120b, likewise: 1.7 GB a layer.
SyntheticShape gpt_oss_120b_shape(std::int64_t num_layers = 36, std::int64_t vocab_size = 201088);
// The shape of the model that ships.
SyntheticShape nano_shape(std::int64_t num_layers = 4, std::int64_t vocab_size = 768);
// Those three by name. Throws Error(kInvalidArgument) for another.
inline constexpr std::array<std::string_view, 3> kShapeNames = {"20b", "120b", "nano"};
SyntheticShape shape_named(std::string_view name);

// Normally distributed bf16 numbers, chosen by `seed` and the tensor's name.
TensorSpec random_tensor(std::string name, std::vector<std::int64_t> shape, std::uint64_t seed,
                         double mean, double deviation);
// MXFP4 blocks with every code equally likely, or their scales: bytes `base` - 1, `base`, `base`
// + 1.
TensorSpec random_bytes(std::string name, std::vector<std::int64_t> shape, std::uint64_t seed,
                        int base = -1);

// Its config.json.
Json synthetic_config(const SyntheticShape& shape);

// The tensors of a gpt-oss checkpoint in the Hugging Face layout. Activations stay near size 1:
// weights have a deviation of about 1 / sqrt(columns). Throws Error(kInvalidArgument) if a row of
// an expert is not whole blocks of 32.
TensorSpecs synthetic_tensors(const SyntheticShape& shape, std::uint64_t seed);

// A safetensors file of these tensors. Throws Error(kIo) naming the file.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorSpec> tensors);

// config.json, and the tensors in one file; or, for `num_shards` > 1, dealt out over shards that
// are numbered from 0 as OpenAI's are ("of" names the last), with an index.
void write_checkpoint(const std::filesystem::path& directory, const Json& config,
                      const TensorSpecs& tensors, std::size_t num_shards = 1);

}  // namespace moebench
