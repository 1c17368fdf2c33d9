// Counting.
#include "engine/step_cost.h"

#include <algorithm>
#include <numeric>

#include "engine/op_choice.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

double as_double(std::int64_t n) { return static_cast<double>(n); }

// 1 + 2 + ... + n
double triangle(std::int64_t n) { return as_double(n) * as_double(n + 1) / 2; }

// Pairs of a token of the part and a position that it sees. `window` 0: all before it and itself.
double visible_pairs(const StepWork::Part& part, std::int64_t window) {
  const std::int64_t end = part.first + part.count;
  if (window == 0) return triangle(end) - triangle(part.first);
  // Up to position `window` - 1 a token sees all, after that as many as the window holds.
  const std::int64_t growing_end = std::clamp(window, part.first, end);
  return triangle(growing_end) - triangle(part.first) + as_double((end - growing_end) * window);
}

// Positions that at least one token of the part sees.
std::int64_t visible_positions(const StepWork::Part& part, std::int64_t window) {
  const std::int64_t end = part.first + part.count;
  return window == 0 ? end : end - std::max<std::int64_t>(0, part.first - window + 1);
}

void check(const ModelConfig& c, const StepWork& work) {
  require(!work.parts.empty(), "count the cost of a step: it has no tokens");
  for (const StepWork::Part& part : work.parts) {
    require(part.first >= 0 && part.count > 0,
            "count the cost of a step: {} tokens from position {}", part.count, part.first);
  }
  require(static_cast<std::int64_t>(work.touched_experts.size()) == c.num_layers,
          "count the cost of a step: experts of {} layers, the model has {}",
          work.touched_experts.size(), c.num_layers);
  for (const double touched : work.touched_experts) {
    require(touched >= 0 && touched <= as_double(c.num_experts),
            "count the cost of a step: {} experts of a layer of {}", touched, c.num_experts);
  }
  require(work.logit_rows >= 0 && work.logit_rows <= work.num_tokens(),
          "count the cost of a step: {} rows of logits of {} tokens", work.logit_rows,
          work.num_tokens());
}

}  // namespace

std::int64_t StepWork::num_tokens() const {
  return std::accumulate(parts.begin(), parts.end(), std::int64_t{0},
                         [](std::int64_t sum, const Part& part) { return sum + part.count; });
}

Precision multiplies_in(std::string_view variant, Format format) {
  const auto says = [&](std::string_view word) {
    return variant.find(word) != std::string_view::npos;
  };
  const bool four_bits =
      format == Format::kInt4 || format == Format::kMxfp4 || format == Format::kNvfp4;
  const bool codes = four_bits || format == Format::kInt8;
  if (says("int8")) {
    return four_bits ? Precision::kInt8 : codes ? Precision::kInt16 : Precision::kF32;
  }
  if (says("int15")) return codes ? Precision::kInt16 : Precision::kF32;
  if (says("cublaslt") && !says("dequantise") && format == Format::kFp8E4m3) return Precision::kFp8;
  // Experts named fp8 multiply inputs of two float8 digits, which are a bf16's bits, as positive
  // and as negative weights: at half of bf16's rate where it is arithmetic that counts, and where
  // it does they hand over to bf16.
  if (says("bf16") || says("fp8") || says("mma") || says("cublaslt")) return Precision::kBf16;
  return Precision::kF32;
}

std::vector<OpCost> step_cost(const ModelConfig& c, const WeightLayout& layout, Format kv,
                              const StepWork& work) {
  check(c, work);
  constexpr double kFloat = sizeof(float);  // of norms, biases and sinks
  const std::int64_t n = work.num_tokens();
  const auto table = [&](std::int64_t rows) -> const OpTable& {
    return rows > kFewTokens ? layout.many_ops : layout.ops;
  };
  const bool decodes = std::all_of(work.parts.begin(), work.parts.end(),
                                   [](const StepWork::Part& part) { return part.count == 1; });
  std::vector<OpCost> costs;
  // Of an op that may run several times.
  const auto of = [&](std::string_view op, Precision precision) -> OpCost& {
    const auto known =
        std::find_if(costs.begin(), costs.end(), [&](const OpCost& cost) { return cost.op == op; });
    if (known != costs.end()) return *known;
    costs.push_back({op, precision});
    return costs.back();
  };
  const auto add_linear = [&](std::string_view op, const linear::Variant& variant,
                              const WeightPlacement& w, std::int64_t tokens, bool has_bias) {
    OpCost& cost = of(op, multiplies_in(variant.name, w.format));
    cost.weight_bytes +=
        static_cast<double>(w.bytes()) + (has_bias ? kFloat : 0) * as_double(w.rows);
    cost.operations += 2 * as_double(tokens) * as_double(w.rows) * as_double(w.cols);
  };
  const double position_bytes =
      2 * as_double(c.num_kv_heads) * static_cast<double>(row_bytes(kv, c.head_dim));

  const double norm_bytes = kFloat * as_double(c.hidden_size);
  // The norm before a layer or behind the last, if the experts before may do it.
  const auto norm_behind = [&](std::size_t layer) {
    bool experts_do = false;
    if (layer > 0) {
      const LayerPlacements& before = layout.layers.at(layer - 1);
      experts_do =
          ends_with_norm(table(n), *table(n).moe_experts,
                         experts_problem(c, before.gate_up.format, before.router.format, n));
    }
    of(experts_do ? "moe_experts" : "rms_norm", Precision::kF32).weight_bytes += norm_bytes;
  };

  of("embedding", Precision::kF32).weight_bytes =
      as_double(n) * static_cast<double>(row_bytes(layout.embedding.format, layout.embedding.cols));
  for (std::int64_t l = 0; l < c.num_layers; ++l) {
    const auto layer = static_cast<std::size_t>(l);
    const LayerPlacements& w = layout.layers.at(layer);
    const std::int64_t window = c.layer_is_sliding.at(layer) ? c.sliding_window : 0;
    // What runs within another op counts there.
    const moe_experts::Problem to_experts =
        experts_problem(c, w.gate_up.format, w.router.format, n);
    const bool experts_normalise = normalises(table(n), *table(n).moe_experts, to_experts);
    const bool router_normalises =
        normalises(table(n), *table(n).router, router_problem(c, w.router.format, n));
    const auto around_attention = {w.query.format, w.key.format, w.value.format,
                                   w.attention_out.format};
    const bool attends = attends_at_once(c, table(n), around_attention, kv, n);
    const std::string_view product = attends ? "attention" : "linear: query, key, value";
    if (attends) of("attention", multiplies_in(table(n).attention->name, kv));
    const bool is_one_product = w.key.format == w.query.format && w.value.format == w.query.format;
    linear::Problem query{w.query.format, n, w.query.rows, w.query.cols};
    const bool query_normalises = is_one_product && normalises(table(n), *table(n).linear, query);
    query.head_dim = c.head_dim;
    query.kv_format = kv;
    const bool query_caches = is_one_product && normalises(table(n), *table(n).linear, query);
    for (const WeightPlacement* p : {&w.query, &w.key, &w.value}) {
      add_linear(product, *table(n).linear, *p, n, true);
    }
    if (attends || query_normalises) {
      of(product, Precision::kF32).weight_bytes += norm_bytes;
    } else {
      norm_behind(layer);
    }
    of(attends || query_caches ? product : "kv_write", Precision::kF32).written_bytes +=
        as_double(n) * position_bytes;
    OpCost& attention =
        of("attention", multiplies_in((decodes ? layout.ops : table(n)).attention->name, kv));
    for (const StepWork::Part& part : work.parts) {
      attention.cache_bytes += as_double(visible_positions(part, window)) * position_bytes;
      attention.operations += 4 * visible_pairs(part, window) * as_double(c.num_heads * c.head_dim);
    }
    add_linear(attends ? "attention" : "linear: attention out", *table(n).linear, w.attention_out,
               n, true);
    const Precision experts_precision = multiplies_in(table(n).moe_experts->name, w.gate_up.format);
    std::string_view route = router_normalises ? "router" : "linear: router";
    if (experts_normalise) {
      route = "moe_experts";
      of(route, experts_precision);  // or it would be the product's
    }
    const bool is_ahead = routes_ahead(c, table(n), around_attention, kv, n, to_experts);
    add_linear(is_ahead ? "attention" : route, *table(n).router_linear, w.router, n, true);
    of(experts_normalise || router_normalises ? route : "rms_norm", Precision::kF32).weight_bytes +=
        norm_bytes;
    OpCost& experts = of("moe_experts", experts_precision);
    const double one_expert =
        static_cast<double>(w.gate_up.bytes() + w.down.bytes()) / as_double(w.gate_up.count) +
        kFloat * as_double(w.gate_up.rows + w.down.rows);
    experts.weight_bytes += work.touched_experts[layer] * one_expert;
    experts.operations +=
        2 * as_double(n * c.top_k) *
        (as_double(w.gate_up.rows * w.gate_up.cols) + as_double(w.down.rows * w.down.cols));
  }
  norm_behind(layout.layers.size());
  if (work.logit_rows > 0) {
    add_linear("linear: unembedding", *table(work.logit_rows).linear, layout.unembedding,
               work.logit_rows, false);
  }
  return costs;
}

}  // namespace moebench
