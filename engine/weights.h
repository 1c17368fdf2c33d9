// Weights of a model under a plan: views into the mapped checkpoint where the plan keeps a tensor
// as stored, re-encoded copies where it does not; all on the GPU if the plan runs there. Nothing is
// held twice.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/model_config.h"
#include "engine/op_table.h"
#include "engine/plan.h"
#include "kernels/core/buffer.h"
#include "kernels/formats/encode_matrix.h"
#include "kernels/formats/format.h"

namespace moebench {

enum class WeightGroup { kEmbedding, kAttention, kRouter, kExperts, kUnembedding, kSmall };
std::string_view weight_group_name(WeightGroup group);
inline constexpr int kNumWeightGroups = 6;

// One matrix, or one stack of matrices, of the model: where it comes from and what it becomes.
struct WeightPlacement {
  std::string name;  // the checkpoint's name for it
  WeightGroup group = WeightGroup::kSmall;
  std::int64_t count = 1;  // matrices in the stack: the experts of a layer
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Format stored = Format::kF32;
  Format format = Format::kF32;             // what the plan holds it in
  RowLayout layout = RowLayout::kRowMajor;  // what the variant of its op reads
  bool mapped = true;                       // used where it lies in the file

  const SafetensorsEntry* data = nullptr;
  const SafetensorsEntry* scales = nullptr;  // of a stored MXFP4 tensor
  std::int64_t first_row = 0;                // of a part of a fused tensor
  bool transposed = false;                   // stored as [count, cols, rows]

  std::size_t bytes() const {
    return static_cast<std::size_t>(count) * matrix_bytes(format, rows, cols, layout);
  }
  std::int64_t parameters() const { return count * rows * cols; }
};

// What re-encoding a tensor did to its numbers.
struct TensorError {
  std::string name;
  WeightGroup group = WeightGroup::kSmall;
  Format from = Format::kF32;
  Format to = Format::kF32;
  EncodingError error;
};

struct LayerPlacements {
  WeightPlacement query, key, value, attention_out, router, gate_up, down;
};

// Every tensor found, checked and placed, and the variant of every op chosen, before a byte is
// read: the dry run of a load.
struct WeightLayout {
  WeightPlacement embedding;
  WeightPlacement unembedding;  // equals `embedding` when they are tied
  std::vector<LayerPlacements> layers;
  std::int64_t small_parameters = 0;  // norms, biases, sinks: held as f32
  OpTable ops;                        // the variants that will read all this
  OpTable many_ops;                   // in steps of more than kFewTokens

  // Calls visit(placement) for every matrix; tied embeddings once.
  template <class Visitor>
  void for_each(Visitor&& visit) const {
    visit(embedding);
    for (const LayerPlacements& l : layers) {
      for (const WeightPlacement* p :
           {&l.query, &l.key, &l.value, &l.attention_out, &l.router, &l.gate_up, &l.down}) {
        visit(*p);
      }
    }
    if (unembedding.name != embedding.name) visit(unembedding);
  }

  std::size_t bytes(WeightGroup group) const;
  std::int64_t parameters() const;
};

// Throws Error naming the file and tensor for anything missing, of a wrong dtype or shape, or that
// the plan's formats cannot hold.
WeightLayout plan_weights(const Checkpoint& checkpoint, const ModelConfig& config,
                          const Plan& plan);

struct LayerWeights {
  // Small tensors are f32.
  View<const float, 1> attention_norm;  // [hidden_size]
  MatrixView query;                     // [num_heads * head_dim, hidden_size]
  MatrixView key, value;                // [num_kv_heads * head_dim, hidden_size]
  MatrixView attention_out;             // [hidden_size, num_heads * head_dim]
  View<const float, 1> query_bias, key_bias, value_bias, attention_out_bias;
  // Query, key and value as one matrix; data == nullptr if they are not one in memory.
  MatrixView query_key_value;
  View<const float, 1> query_key_value_bias;
  View<const float, 1> sinks;         // [num_heads]
  View<const float, 1> ffn_norm;      // [hidden_size]
  MatrixView router;                  // [num_experts, hidden_size]
  View<const float, 1> router_bias;   // [num_experts]
  MatrixStackView gate_up;            // [num_experts] of [2 * intermediate_size, hidden_size]
  MatrixStackView down;               // [num_experts] of [hidden_size, intermediate_size]
  View<const float, 2> gate_up_bias;  // [num_experts, 2 * intermediate_size]
  View<const float, 2> down_bias;     // [num_experts, hidden_size]
};

class Weights {
 public:
  // Opens `directory` and brings its tensors into the plan's formats. Peak memory is that of the
  // result: a tensor's mapped pages are released as soon as it is re-encoded.
  static std::shared_ptr<const Weights> load(const std::filesystem::path& directory,
                                             const Plan& plan, ThreadPool& pool);

  ModelConfig config;
  Plan plan;
  std::string checkpoint_layout;  // "hugging_face" or "original"
  WeightLayout layout;
  MatrixView embedding;    // [vocab_size, hidden_size]
  MatrixView unembedding;  // [vocab_size, hidden_size]
  View<const float, 1> final_norm;
  std::vector<LayerWeights> layers;
  std::vector<TensorError> errors;  // one per re-encoded tensor

  // Host memory that the weights lie in, what is used in the mapped file too; none on the GPU.
  struct Range {
    WeightGroup group;
    std::span<const std::byte> bytes;
    bool mapped;
  };
  std::vector<Range> ranges;

 private:
  Weights() = default;
  friend class WeightLoader;

  Checkpoint checkpoint_;
  std::vector<Buffer> buffers_;
};

// Identifies a checkpoint's content without reading all of a large one: config.json, then for every
// tensor its name, dtype, shape and, of its bytes, all up to 192 KiB or else the first, middle and
// last 64 KiB.
std::string checkpoint_hash(const std::filesystem::path& directory);

// The same for each tensor by itself, in the order of names: which one differs.
struct TensorHash {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string hash;
};
std::vector<TensorHash> tensor_hashes(const std::filesystem::path& directory);

}  // namespace moebench
