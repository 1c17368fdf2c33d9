// The forward pass: tokens of several sequences in, logits of chosen tokens out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/op_choice.h"
#include "engine/rope_table.h"
#include "engine/weights.h"
#include "kernels/core/buffer.h"
#include "kernels/core/view.h"

namespace moebench {

// One step: any mix of prompt chunks and single decoded tokens. Tokens of one sequence stand in
// ascending order of position, and all earlier positions of it are in the cache.
struct Step {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> positions;   // same length
  std::vector<std::int32_t> sequences;   // same length; handles of the cache
  std::vector<std::int32_t> logit_rows;  // indices of the tokens whose logits are wanted

  void clear() {
    tokens.clear();
    positions.clear();
    sequences.clear();
    logit_rows.clear();
  }
};

// What a probe or a test may look at while a step runs. Views are valid during the call only.
struct Observer {
  // "embed", "attn_norm", "q", "k", "v", "attn_heads", "resid_attn", "router_logits", "resid_mlp",
  // "final_norm"; `layer` is -1 outside layers; rows are the step's tokens.
  std::function<void(std::string_view name, std::int64_t layer, View<const float, 2>)> tensor;
  std::function<void(std::int64_t layer, View<const std::int32_t, 2> expert_ids,
                     View<const float, 2> expert_weights)>
      routing;
};

class Model {
 public:
  // Takes all memory a step needs with the variants that the weights were laid out for, or with
  // `ops` if given: those must be able to run this model's shapes and to read the weights as they
  // lie. Throws Error(kUnsupported) otherwise.
  Model(std::shared_ptr<const Weights> weights, const ModelLimits& limits, ThreadPool& pool,
        const OpTable* ops = nullptr);

  // Runs one step. The cache must have room for every position (KvCache::grow). Returns the logits,
  // [logit_rows, vocab_size], valid until the next call. Throws Error for tokens outside the
  // vocabulary and steps beyond the limits.
  View<const float, 2> forward(const Step& step, KvCache& cache,
                               const Observer* observer = nullptr);

  const ModelConfig& config() const { return weights_->config; }
  const Weights& weights() const { return *weights_; }
  const std::shared_ptr<const Weights>& shared_weights() const { return weights_; }
  const ModelLimits& limits() const { return limits_; }
  ThreadPool& pool() const { return pool_; }

  // Bytes taken for activations, workspace and logits.
  struct Memory {
    std::size_t activations = 0;
    std::size_t workspace = 0;
    std::size_t logits = 0;
  };
  Memory memory() const;
  static Memory memory_needed(const ModelConfig& config, const WeightLayout& layout,
                              const Plan& plan, const ModelLimits& limits, int num_threads,
                              const OpTable& ops);

 private:
  // Intermediate results, each with room for max_step_tokens rows of the given width.
  struct Activations {
    float* residual = nullptr;           // hidden_size
    float* normed = nullptr;             // hidden_size
    float* query = nullptr;              // num_heads * head_dim
    float* key = nullptr;                // num_kv_heads * head_dim
    float* value = nullptr;              // num_kv_heads * head_dim
    float* heads = nullptr;              // num_heads * head_dim
    float* branch = nullptr;             // hidden_size: what is added to the residual
    float* router_logits = nullptr;      // num_experts
    float* expert_weights = nullptr;     // top_k
    std::int32_t* expert_ids = nullptr;  // top_k
    float* cos = nullptr;                // head_dim / 2
    float* sin = nullptr;                // head_dim / 2

    Activations() = default;
    Activations(Workspace& workspace, const ModelConfig& config, std::int64_t tokens);
  };

  void check(const Step& step) const;
  void run_layer(std::int64_t layer, const Step& step, KvCache& cache, const TokenPlaces& places,
                 const Observer* observer);
  void linear(View<const float, 2> x, const MatrixView& weight, const std::vector<float>& bias,
              View<float, 2> out);

  std::shared_ptr<const Weights> weights_;
  ModelLimits limits_;
  ThreadPool& pool_;
  OpTable ops_;
  RopeTable rope_;
  Buffer activation_memory_;
  Buffer workspace_memory_;
  Buffer logit_memory_;
  Context context_;
  Activations act_;
};

}  // namespace moebench
