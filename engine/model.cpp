// gpt-oss, top to bottom.
// Source: openai/gpt-oss, gpt_oss/torch/model.py, Transformer.forward.
#include "engine/model.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace moebench {
namespace {

// The largest scratch of any op of the model at its limits. Throws Error(kUnsupported) if an op's
// variant cannot run what the model asks of it.
std::size_t workspace_needed(const ModelConfig& c, const WeightLayout& layout, const Plan& plan,
                             const ModelLimits& limits, int num_threads, const OpTable& ops) {
  std::size_t most = 0;
  visit_problems(c, layout, plan, limits,
                 [&](std::string_view op, auto member, const auto& problem) {
                   const auto& variant = *(ops.*member);
                   const std::string reason = variant.unsupported(problem);
                   require_or(ErrorCode::kUnsupported, reason.empty(), "use variant '{}' of {}: {}",
                              variant.name, op, reason);
                   most = std::max(most, variant.workspace_bytes(problem, num_threads));
                 });
  return most;
}

// Throws Error(kUnsupported) if a variant wants weights in another order of bytes than they have.
void check_layouts(const WeightLayout& layout, const OpTable& ops) {
  const auto check = [](std::string_view op, const auto& variant, const WeightPlacement& weight) {
    require_or(
        ErrorCode::kUnsupported, !variant.weight_layout || *variant.weight_layout == weight.layout,
        "use variant '{}' of {}: '{}' was not laid out for it", variant.name, op, weight.name);
  };
  check("linear", *ops.linear, layout.unembedding);
  for (const LayerPlacements& l : layout.layers) {
    for (const WeightPlacement* p : {&l.query, &l.key, &l.value, &l.attention_out, &l.router}) {
      check("linear", *ops.linear, *p);
    }
    check("moe_experts", *ops.moe_experts, l.gate_up);
    check("moe_experts", *ops.moe_experts, l.down);
  }
}

void add_to(View<float, 2> residual, View<const float, 2> branch, ThreadPool& pool) {
  pool.parallel_for(residual.shape[0], 32, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin * residual.shape[1]; i < end * residual.shape[1]; ++i) {
      residual.data[i] += branch.data[i];
    }
  });
}

View<const float, 1> view_of(const std::vector<float>& values) {
  return {values.data(), {static_cast<std::int64_t>(values.size())}};
}

}  // namespace

Model::Activations::Activations(Workspace& workspace, const ModelConfig& c, std::int64_t tokens) {
  const auto rows = [&](std::int64_t width) { return workspace.take<float>(tokens * width); };
  residual = rows(c.hidden_size);
  normed = rows(c.hidden_size);
  query = rows(c.num_heads * c.head_dim);
  key = rows(c.num_kv_heads * c.head_dim);
  value = rows(c.num_kv_heads * c.head_dim);
  heads = rows(c.num_heads * c.head_dim);
  branch = rows(c.hidden_size);
  router_logits = rows(c.num_experts);
  expert_weights = rows(c.top_k);
  expert_ids = workspace.take<std::int32_t>(tokens * c.top_k);
  cos = rows(c.head_dim / 2);
  sin = rows(c.head_dim / 2);
}

Model::Memory Model::memory_needed(const ModelConfig& config, const WeightLayout& layout,
                                   const Plan& plan, const ModelLimits& limits, int num_threads,
                                   const OpTable& ops) {
  Workspace measure;
  Activations(measure, config, limits.max_step_tokens);
  return {measure.used(), workspace_needed(config, layout, plan, limits, num_threads, ops),
          static_cast<std::size_t>(limits.max_logit_rows * config.vocab_size) * sizeof(float)};
}

Model::Model(std::shared_ptr<const Weights> weights, const ModelLimits& limits, ThreadPool& pool,
             const OpTable* ops)
    : weights_(std::move(weights)),
      limits_(limits),
      pool_(pool),
      ops_(ops != nullptr ? *ops : weights_->layout.ops),
      rope_(make_rope_table(weights_->config.rope, weights_->config.head_dim)),
      context_{pool, {}} {
  require(limits.max_step_tokens > 0 && limits.max_logit_rows > 0 && limits.max_context > 0,
          "set up the model: limits must be positive (step {}, logit rows {}, context {})",
          limits.max_step_tokens, limits.max_logit_rows, limits.max_context);
  check_layouts(weights_->layout, ops_);
  const Memory needed =
      memory_needed(config(), weights_->layout, weights_->plan, limits_, pool.num_threads(), ops_);
  activation_memory_ = Buffer(needed.activations, "activations");
  workspace_memory_ = Buffer(needed.workspace, "the workspace of ops");
  logit_memory_ = Buffer(needed.logits, "logits");
  context_.workspace = workspace_memory_.span();
  Workspace workspace(activation_memory_.span());
  act_ = Activations(workspace, weights_->config, limits_.max_step_tokens);
}

Model::Memory Model::memory() const {
  return {activation_memory_.size(), workspace_memory_.size(), logit_memory_.size()};
}

void Model::check(const Step& step) const {
  const auto count = static_cast<std::int64_t>(step.tokens.size());
  require(count > 0 && count <= limits_.max_step_tokens, "run a step of {} tokens (limit {})",
          count, limits_.max_step_tokens);
  require(
      step.positions.size() == step.tokens.size() && step.sequences.size() == step.tokens.size(),
      "run a step: {} tokens, {} positions, {} sequences", count, step.positions.size(),
      step.sequences.size());
  require(
      static_cast<std::int64_t>(step.logit_rows.size()) <= std::min(count, limits_.max_logit_rows),
      "run a step of {} tokens: {} rows of logits wanted (limit {})", count, step.logit_rows.size(),
      limits_.max_logit_rows);
  for (const std::int32_t row : step.logit_rows) {
    require(row >= 0 && row < count, "run a step: logits of token {} of {}", row, count);
  }
  for (std::size_t t = 0; t < step.tokens.size(); ++t) {
    require(step.tokens[t] >= 0 && step.tokens[t] < config().vocab_size,
            "run a step: token {} is outside the vocabulary of {}", step.tokens[t],
            config().vocab_size);
    require(step.positions[t] >= 0 && step.positions[t] < limits_.max_context,
            "run a step: position {} is outside the context of {}", step.positions[t],
            limits_.max_context);
  }
}

void Model::linear(View<const float, 2> x, const MatrixView& weight, const std::vector<float>& bias,
                   View<float, 2> out) {
  ops_.linear->run({x, weight, view_of(bias), out}, context_);
}

View<const float, 2> Model::forward(const Step& step, KvCache& cache, const Observer* observer) {
  check(step);
  const ModelConfig& c = config();
  const auto num_tokens = static_cast<std::int64_t>(step.tokens.size());
  const View<float, 2> residual{act_.residual, {num_tokens, c.hidden_size}};
  const auto observe = [&](std::string_view name, View<const float, 2> values) {
    if (observer != nullptr && observer->tensor) observer->tensor(name, -1, values);
  };

  ops_.embedding->run({{step.tokens.data(), {num_tokens}}, weights_->embedding, residual},
                      context_);
  observe("embed", residual);

  for (std::int64_t t = 0; t < num_tokens; ++t) {
    const std::int64_t half = c.head_dim / 2;
    rope_.fill(step.positions[static_cast<std::size_t>(t)], act_.cos + t * half,
               act_.sin + t * half);
  }

  // Page tables of the sequences in this step, by kind; tokens then name them by small numbers.
  std::vector<std::int32_t> handles;
  std::vector<std::int32_t> local(step.tokens.size());
  for (std::size_t t = 0; t < step.tokens.size(); ++t) {
    // Tokens of one sequence usually stand together: look at the last handle first.
    auto found = handles.empty() || handles.back() != step.sequences[t]
                     ? std::find(handles.begin(), handles.end(), step.sequences[t])
                     : handles.end() - 1;
    if (found == handles.end()) found = handles.insert(handles.end(), step.sequences[t]);
    local[t] = static_cast<std::int32_t>(found - handles.begin());
  }
  std::array<std::vector<std::span<const std::int32_t>>, 2> tables;
  for (const std::int32_t handle : handles) {
    for (const auto kind : {KvCache::kFull, KvCache::kSliding}) {
      tables[kind].push_back(cache.page_table(handle, kind));
    }
  }
  for (std::size_t t = 0; t < step.tokens.size(); ++t) {
    require(step.positions[t] < cache.length(step.sequences[t]),
            "run a step: position {} has no room in the KV cache", step.positions[t]);
  }

  for (std::int64_t l = 0; l < c.num_layers; ++l) {
    const TokenPlaces places{step.positions, local, tables[cache.kind_of(l)]};
    run_layer(l, step, cache, places, observer);
  }

  const View<float, 2> normed{act_.normed, {num_tokens, c.hidden_size}};
  ops_.rms_norm->run(
      {residual, view_of(weights_->final_norm), static_cast<float>(c.rms_norm_epsilon), normed},
      context_);
  observe("final_norm", normed);

  // Gather the wanted rows (the branch buffer is free by now), then one product with the
  // unembedding.
  const auto num_rows = static_cast<std::int64_t>(step.logit_rows.size());
  const View<float, 2> logits{logit_memory_.as<float>(), {num_rows, c.vocab_size}};
  if (num_rows == 0) return logits;
  for (std::int64_t r = 0; r < num_rows; ++r) {
    const float* from = normed[step.logit_rows[static_cast<std::size_t>(r)]].data;
    std::copy(from, from + c.hidden_size, act_.branch + r * c.hidden_size);
  }
  ops_.linear->run({{act_.branch, {num_rows, c.hidden_size}}, weights_->unembedding, {}, logits},
                   context_);
  return logits;
}

void Model::run_layer(std::int64_t l, const Step& step, KvCache& cache, const TokenPlaces& places,
                      const Observer* observer) {
  const ModelConfig& c = config();
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(l)];
  const auto n = static_cast<std::int64_t>(step.tokens.size());
  const std::int64_t q_size = c.num_heads * c.head_dim;
  const std::int64_t kv_size = c.num_kv_heads * c.head_dim;
  const auto epsilon = static_cast<float>(c.rms_norm_epsilon);
  const View<float, 2> residual{act_.residual, {n, c.hidden_size}};
  const View<float, 2> normed{act_.normed, {n, c.hidden_size}};
  const View<float, 2> branch{act_.branch, {n, c.hidden_size}};
  const auto observe = [&](std::string_view name, View<const float, 2> values) {
    if (observer != nullptr && observer->tensor) observer->tensor(name, l, values);
  };

  // Attention.
  ops_.rms_norm->run({residual, view_of(w.attention_norm), epsilon, normed}, context_);
  observe("attn_norm", normed);
  linear(normed, w.query, w.query_bias, {act_.query, {n, q_size}});
  linear(normed, w.key, w.key_bias, {act_.key, {n, kv_size}});
  linear(normed, w.value, w.value_bias, {act_.value, {n, kv_size}});
  const View<const float, 2> cos{act_.cos, {n, c.head_dim / 2}};
  const View<const float, 2> sin{act_.sin, {n, c.head_dim / 2}};
  const View<float, 3> queries{act_.query, {n, c.num_heads, c.head_dim}};
  const View<float, 3> keys{act_.key, {n, c.num_kv_heads, c.head_dim}};
  const View<float, 3> values{act_.value, {n, c.num_kv_heads, c.head_dim}};
  ops_.rope->run({queries, cos, sin}, context_);
  ops_.rope->run({keys, cos, sin}, context_);
  observe("q", {act_.query, {n, q_size}});
  observe("k", {act_.key, {n, kv_size}});
  observe("v", {act_.value, {n, kv_size}});
  const KvLayerView kv = cache.layer(l);
  ops_.kv_write->run({keys, values, kv, places}, context_);
  const View<float, 3> heads{act_.heads, {n, c.num_heads, c.head_dim}};
  const bool sliding = cache.kind_of(l) == KvCache::kSliding;
  ops_.attention->run({queries, kv, places, view_of(w.sinks),
                       static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim))),
                       sliding ? c.sliding_window : 0, limits_.max_context, heads},
                      context_);
  observe("attn_heads", {act_.heads, {n, q_size}});
  linear({act_.heads, {n, q_size}}, w.attention_out, w.attention_out_bias, branch);
  add_to(residual, branch, pool_);
  observe("resid_attn", residual);

  // Mixture of experts.
  ops_.rms_norm->run({residual, view_of(w.ffn_norm), epsilon, normed}, context_);
  const View<float, 2> router_logits{act_.router_logits, {n, c.num_experts}};
  linear(normed, w.router, w.router_bias, router_logits);
  observe("router_logits", router_logits);
  const View<std::int32_t, 2> expert_ids{act_.expert_ids, {n, c.top_k}};
  const View<float, 2> expert_weights{act_.expert_weights, {n, c.top_k}};
  ops_.router->run({router_logits, expert_ids, expert_weights}, context_);
  if (observer != nullptr && observer->routing) observer->routing(l, expert_ids, expert_weights);
  moe_experts::Args experts{normed,
                            expert_ids,
                            expert_weights,
                            w.gate_up,
                            {w.gate_up_bias.data(), {c.num_experts, 2 * c.intermediate_size}},
                            w.down,
                            {w.down_bias.data(), {c.num_experts, c.hidden_size}},
                            static_cast<float>(c.swiglu_alpha),
                            static_cast<float>(c.swiglu_limit),
                            branch};
  ops_.moe_experts->run(experts, context_);
  add_to(residual, branch, pool_);
  observe("resid_mlp", residual);
}

}  // namespace moebench
