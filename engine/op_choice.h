// Which variant runs each op of a model under a plan.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "engine/model_config.h"
#include "engine/op_table.h"
#include "engine/plan.h"
#include "engine/weights.h"

namespace moebench {

struct ModelLimits {
  std::int64_t max_step_tokens = 256;
  std::int64_t max_logit_rows = 32;
  std::int64_t max_context = 4096;  // longest sequence, in positions
};

// Steps (and products with the unembedding) of more rows than this take the variants for many
// tokens: a weight is then read more than once anyway.
inline constexpr std::int64_t kFewTokens = 64;

// The router's, with weights of `format`.
inline router::Problem router_problem(const ModelConfig& c, Format format, std::int64_t tokens) {
  return {tokens, c.num_experts, c.top_k, format, c.hidden_size};
}

// The experts', with weights of `format` behind a router with weights of `router_format`.
inline moe_experts::Problem experts_problem(const ModelConfig& c, Format format,
                                            Format router_format, std::int64_t tokens) {
  return {format,        tokens,  c.hidden_size, c.intermediate_size,
          c.num_experts, c.top_k, router_format};
}

// Attention's, of the layers with a window or without, with a cache of `kv`; the last three to be
// asked whether it does all around it (attention::Args::Around), and the product of the router.
inline attention::Problem attention_problem(const ModelConfig& c, Format kv, std::int64_t tokens,
                                            std::int64_t window, std::int64_t max_context,
                                            std::int64_t hidden_size = 0,
                                            Format weight_format = Format::kF32,
                                            std::int64_t num_experts = 0) {
  return {kv,     tokens,      c.num_heads, c.num_kv_heads, c.head_dim,
          window, max_context, hidden_size, weight_format,  num_experts};
}

// Whether an op with this variant, one of those in `ops`, begins with the norm before it
// (Variant::normalises).
template <class V>
bool normalises(const OpTable& ops, const V& variant, const typename V::Problem& problem) {
  const bool may = std::is_same_v<V, linear::Variant> ? ops.fuses : ops.fuses_experts;
  return may && variant.normalises != nullptr && variant.normalises(problem);
}

// Whether an op does the norm that follows it (Variant::ends_with_norm).
template <class V>
bool ends_with_norm(const OpTable& ops, const V& variant, const typename V::Problem& problem) {
  return ops.fuses_experts && variant.ends_with_norm != nullptr && variant.ends_with_norm(problem);
}

// Whether attention does all of its half of a layer, whose weights have these formats, with a cache
// of `kv`, for steps of so many tokens; and the product of the router for so many experts.
inline bool attends_at_once(const ModelConfig& c, const OpTable& ops,
                            std::initializer_list<Format> weights, Format kv, std::int64_t tokens,
                            std::int64_t num_experts = 0) {
  const bool is_one_format =
      std::all_of(weights.begin(), weights.end(), [&](Format f) { return f == *weights.begin(); });
  return is_one_format && normalises(ops, *ops.attention,
                                     attention_problem(c, kv, tokens, 0, 0, c.hidden_size,
                                                       *weights.begin(), num_experts));
}

// Whether it does that product of a layer, because the experts behind it take the sums.
inline bool routes_ahead(const ModelConfig& c, const OpTable& ops,
                         std::initializer_list<Format> weights, Format kv, std::int64_t tokens,
                         const moe_experts::Problem& experts) {
  return ops.attention->routes_ahead && ops.moe_experts->routes_ahead &&
         normalises(ops, *ops.moe_experts, experts) &&
         attends_at_once(c, ops, weights, kv, tokens, c.num_experts);
}

// Calls visit(op_name, member of OpTable, problem) for everything the ops of a model must be able
// to run: each op, with each format and shape it meets.
template <class Visitor>
void visit_problems(const ModelConfig& c, const WeightLayout& layout, const Plan& plan,
                    const ModelLimits& limits, Visitor&& visit) {
  const std::int64_t tokens = limits.max_step_tokens;
  visit("embedding", &OpTable::embedding,
        embedding::Problem{layout.embedding.format, tokens, c.vocab_size, c.hidden_size});
  // Which also gathers the rows of a step whose logits are wanted.
  visit("embedding", &OpTable::embedding,
        embedding::Problem{Format::kF32, limits.max_logit_rows, tokens, c.hidden_size});
  visit("rms_norm", &OpTable::rms_norm, rms_norm::Problem{tokens, c.hidden_size});
  visit("rope", &OpTable::rope, rope::Problem{tokens, c.num_heads, c.head_dim});
  visit("kv_write", &OpTable::kv_write,
        kv_write::Problem{plan.kv, tokens, c.num_kv_heads, c.head_dim});
  for (const std::int64_t window : {std::int64_t{0}, c.sliding_window}) {
    visit("attention", &OpTable::attention,
          attention_problem(c, plan.kv, tokens, window, limits.max_context));
  }
  visit("sample", &OpTable::sample, sample::Problem{limits.max_logit_rows, c.vocab_size});
  const auto linear = [&](const WeightPlacement& w, std::int64_t rows_of_x) {
    visit("linear", &OpTable::linear, linear::Problem{w.format, rows_of_x, w.rows, w.cols});
  };
  linear(layout.unembedding, limits.max_logit_rows);
  for (const LayerPlacements& layer : layout.layers) {
    for (const WeightPlacement* w :
         {&layer.query, &layer.key, &layer.value, &layer.attention_out}) {
      linear(*w, tokens);
    }
    if (plan.backend == PlanBackend::kCuda) {  // and the first three as one
      WeightPlacement joined = layer.query;
      joined.rows += layer.key.rows + layer.value.rows;
      linear(joined, tokens);
    }
    visit("linear", &OpTable::router_linear,
          linear::Problem{layer.router.format, tokens, layer.router.rows, layer.router.cols});
    visit("router", &OpTable::router, router_problem(c, layer.router.format, tokens));
    visit("moe_experts", &OpTable::moe_experts,
          experts_problem(c, layer.gate_up.format, layer.router.format, tokens));
  }
}

// The variant that the plan names for an op, or else the first of the plan's family that can run
// all of the model's problems on this machine; for steps of few tokens, or of many. Throws
// Error(kInvalidArgument) for names that do not exist, Error(kUnsupported) for a named variant that
// cannot run.
OpTable choose_ops(const Plan& plan, const ModelConfig& config, const WeightLayout& layout,
                   bool many_tokens);

// The plainest variants of the plan's backend: what the others are checked against on the same
// weights.
OpTable reference_ops(const Plan& plan, const ModelConfig& config, const WeightLayout& layout);

// Names of variants, by op.
using OpCandidates = std::map<std::string, std::vector<std::string>>;

// What choose_ops chooses from, for each op: the variant that the plan names, or those of its
// family that can run, in order of preference.
OpCandidates variants_to_choose_from(const Plan& plan, const ModelConfig& config,
                                     const WeightLayout& layout, bool many_tokens);

// `ops` with `variant` in the place of `op`. On the GPU the router keeps its own product.
OpTable with_variant(OpTable ops, std::string_view op, std::string_view variant);

// "linear avx2_int8, attention avx2_f32, ...": what a table holds, for records.
std::map<std::string, std::string> op_variant_names(const OpTable& ops);

}  // namespace moebench
