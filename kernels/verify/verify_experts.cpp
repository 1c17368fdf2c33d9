// Checks of router and moe_experts.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numeric>

#include "kernels/core/device.h"
#include "kernels/fused/router_sums.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/router/router.h"
#include "kernels/verify/compare.h"

namespace moebench::verify {
namespace {

enum class Routing { kRandom, kAllOnOne, kOneUnused, kOneBusy };

struct ExpertShape {
  std::string_view name;
  std::int64_t num_tokens, hidden_size, intermediate_size, num_experts, top_k;
  Routing routing;
};
constexpr std::array<ExpertShape, 11> kExpertShapes = {{
    {"one_token", 1, 64, 96, 8, 2, Routing::kRandom},
    {"odd_counts", 7, 96, 32, 5, 3, Routing::kRandom},
    {"all_on_one_expert", 9, 64, 64, 4, 1, Routing::kAllOnOne},
    {"an_expert_without_tokens", 6, 32, 64, 3, 2, Routing::kOneUnused},
    {"every_expert", 3, 32, 32, 4, 4, Routing::kRandom},
    {"a_chunk", 70, 64, 96, 2, 1, Routing::kRandom},
    {"one_busy_expert", 17, 64, 96, 8, 2, Routing::kOneBusy},
    {"more_than_a_tile", 129, 32, 32, 3, 1, Routing::kAllOnOne},
    {"long_rows", 2, 2080, 32, 2, 1, Routing::kRandom},
    {"nano", 5, 128, 192, 16, 2, Routing::kRandom},
    {"many_experts", 48, 64, 96, 128, 4, Routing::kRandom},
}};

// Different experts per token, as a router would choose.
std::vector<std::int32_t> route(RandomStream& random, const ExpertShape& s) {
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < s.num_tokens; ++t) {
    std::vector<std::int32_t> experts(static_cast<std::size_t>(s.num_experts));
    std::iota(experts.begin(), experts.end(), 0);
    if (s.routing == Routing::kOneUnused) experts.pop_back();
    for (std::int64_t k = 0; k < s.top_k; ++k) {
      if (s.routing == Routing::kAllOnOne) {
        ids.push_back(2);
        continue;
      }
      const bool first = s.routing == Routing::kOneBusy && k == 0;
      const auto pick = first ? 0 : random.below(static_cast<std::int64_t>(experts.size()));
      ids.push_back(experts[static_cast<std::size_t>(pick)]);
      experts.erase(experts.begin() + pick);
    }
  }
  return ids;
}

struct RoutedShape {
  std::string_view name;
  Format format;
  std::int64_t tokens, experts, top_k, hidden_size;
  bool adds;  // there is something to add to x, and a bias
};
// A norm, a product and the choice of a token each, in float64: the normalised rows and the weights
// of the chosen into `want`, the sum of x and addend and the chosen into places of their own.
void route_in_float64(const RoutedShape& s, const std::vector<double>& x,
                      const std::vector<double>& addend, const std::vector<double>& norm,
                      double epsilon, const std::vector<double>& weight,
                      const std::vector<double>& bias, std::vector<double>& want,
                      std::vector<float>& sums, std::vector<std::int32_t>& ids) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  std::vector<double> normed;
  std::vector<double> weights;
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    std::vector<double> row;
    double squares = 0;
    for (std::int64_t i = 0; i < s.hidden_size; ++i) {
      row.push_back(x[at(t * s.hidden_size + i)] + addend[at(t * s.hidden_size + i)]);
      squares += row.back() * row.back();
    }
    sums.insert(sums.end(), row.begin(), row.end());
    const double root = std::sqrt(squares / static_cast<double>(s.hidden_size) + epsilon);
    for (std::int64_t i = 0; i < s.hidden_size; ++i) {
      normed.push_back(norm[at(i)] * row[at(i)] / root);
    }
    std::vector<double> logits = bias;
    for (std::int64_t e = 0; e < s.experts; ++e) {
      for (std::int64_t i = 0; i < s.hidden_size; ++i) {
        logits[at(e)] += weight[at(e * s.hidden_size + i)] * normed[at(t * s.hidden_size + i)];
      }
    }
    std::vector<std::int32_t> order(at(s.experts));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int32_t a, std::int32_t b) { return logits[at(a)] > logits[at(b)]; });
    double total = 0;
    for (std::int64_t k = 0; k < s.top_k; ++k) total += std::exp(logits[at(order[at(k)])]);
    for (std::int64_t k = 0; k < s.top_k; ++k) {
      ids.push_back(order[at(k)]);
      weights.push_back(std::exp(logits[at(order[at(k)])]) / total);
    }
  }
  want.insert(want.end(), normed.begin(), normed.end());
  want.insert(want.end(), weights.begin(), weights.end());
}

// The contract's formula, pair by pair.
std::vector<double> experts_in_float64(
    const ExpertShape& s, const RandomMatrices& gate_up, const std::vector<double>& gate_up_bias,
    const RandomMatrices& down, const std::vector<double>& down_bias, const std::vector<double>& x,
    const std::vector<std::int32_t>& ids, const std::vector<double>& weights, double alpha,
    double limit) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  std::vector<double> out(at(s.num_tokens * s.hidden_size), 0.0);
  for (std::int64_t t = 0; t < s.num_tokens; ++t) {
    for (std::int64_t k = 0; k < s.top_k; ++k) {
      const std::int64_t e = ids[at(t * s.top_k + k)];
      std::vector<double> activated;
      const auto feature = [&](std::int64_t row) {
        const std::int64_t w = (e * 2 * s.intermediate_size + row) * s.hidden_size;
        double sum = gate_up_bias[at(e * 2 * s.intermediate_size + row)];
        for (std::int64_t c = 0; c < s.hidden_size; ++c) {
          sum += gate_up.decoded[at(w + c)] * x[at(t * s.hidden_size + c)];
        }
        return sum;
      };
      for (std::int64_t i = 0; i < s.intermediate_size; ++i) {
        const double gate = std::min(feature(2 * i), limit);
        const double up = std::clamp(feature(2 * i + 1), -limit, limit);
        activated.push_back(gate / (1 + std::exp(-alpha * gate)) * (up + 1));
      }
      for (std::int64_t r = 0; r < s.hidden_size; ++r) {
        const std::int64_t w = (e * s.hidden_size + r) * s.intermediate_size;
        double sum = down_bias[at(e * s.hidden_size + r)];
        for (std::int64_t i = 0; i < s.intermediate_size; ++i) {
          sum += down.decoded[at(w + i)] * activated[at(i)];
        }
        out[at(t * s.hidden_size + r)] += weights[at(t * s.top_k + k)] * sum;
      }
    }
  }
  return out;
}

void check_normalising_router(Check& check) {
  std::vector<const router::Variant*> variants;
  for (const router::Variant* v : router::variants()) {
    if (v->normalises != nullptr) variants.push_back(v);
  }
  for (const RoutedShape& s :
       {RoutedShape{"normed_one_token", Format::kBf16, 1, 32, 4, 2880, true},
        RoutedShape{"normed_odd_counts", Format::kBf16, 7, 19, 3, 160, true},
        RoutedShape{"normed_128_experts", Format::kBf16, 2, 128, 4, 416, true},
        RoutedShape{"normed_one_expert", Format::kF32, 3, 1, 1, 32, false},
        RoutedShape{"normed_f32", Format::kF32, 16, 33, 2, 1568, false}}) {
    if (!check.wants(s.name)) continue;
    RandomStream random(check.seed, 9);
    RandomMatrices weight(random, s.format, 1, s.experts, s.hidden_size, check.pool);
    const std::int64_t size = s.tokens * s.hidden_size;
    const std::vector<float> x = random_floats(random, size, 3.0F);
    const std::vector<float> addend = random_floats(random, size, s.adds ? 1.0F : 0.0F);
    const std::vector<float> norm = random_floats(random, s.hidden_size, 2.0F);
    const std::vector<float> bias = random_floats(random, s.experts, s.adds ? 1.0F : 0.0F);
    constexpr float kEpsilon = 1e-5F;
    std::vector<double> want;
    std::vector<float> want_sums;
    std::vector<std::int32_t> want_ids;
    route_in_float64(s, doubles(x), doubles(addend), doubles(norm), static_cast<double>(kEpsilon),
                     weight.decoded, doubles(bias), want, want_sums, want_ids);
    want.push_back(0);
    const router::Problem problem{s.tokens, s.experts, s.top_k, s.format, s.hidden_size};
    check.each<router::Variant>(
        variants, "router", s.name, codec(s.format).name, problem,
        [&](const router::Variant& variant, VerifyResult& r) {
          std::vector<float> sums(static_cast<std::size_t>(size), std::nanf(""));
          std::vector<float> got = sums;  // normed
          std::vector<std::int32_t> ids(want_ids.size(), -1);
          std::vector<float> weights(ids.size(), std::nanf(""));
          Operands o(variant.backend);
          router::Args args;
          args.expert_ids = {o.out(ids), {s.tokens, s.top_k}};
          args.expert_weights = {o.out(weights), {s.tokens, s.top_k}};
          const std::array<std::int64_t, 2> rows = {s.tokens, s.hidden_size};
          args.product = {{{o.in(x), rows},
                           {s.adds ? o.in(addend) : nullptr, rows},
                           {o.in(norm), {s.hidden_size}},
                           kEpsilon,
                           {o.out(sums), rows}},
                          {o.out(got), rows},
                          o.in(weight.view[0]),
                          {s.adds ? o.in(bias) : nullptr, {s.experts}}};
          o.run(variant, problem, args, check.pool);
          got.insert(got.end(), weights.begin(), weights.end());
          // What is exact is, and another expert is an error, however near its number.
          got.push_back(sums == want_sums && ids == want_ids ? 0.0F : std::nanf(""));
          compare(got, want, r);
        });
  }
}

// One token's norm, router and experts, by variants that do all of them, or all but the router's
// product.
void check_normalising_experts(Check& check) {
  std::vector<const moe_experts::Variant*> variants;
  for (const moe_experts::Variant* v : moe_experts::variants()) {
    if (v->normalises != nullptr) variants.push_back(v);
  }
  std::vector<const moe_experts::Variant*> ahead;
  std::copy_if(variants.begin(), variants.end(), std::back_inserter(ahead),
               [](const moe_experts::Variant* v) { return v->routes_ahead; });
  // The last has gpt-oss's columns; small devices have too few multiprocessors for it.
  for (const ExpertShape& s :
       {ExpertShape{"routed_odd_counts", 1, 96, 64, 5, 3, Routing::kRandom},
        ExpertShape{"routed_128_experts", 1, 64, 32, 128, 4, Routing::kRandom},
        ExpertShape{"routed_long_rows", 1, 2880, 96, 8, 4, Routing::kRandom}}) {
    if (!check.wants(s.name)) continue;
    RandomStream random(check.seed, 10);
    RandomMatrices gate_up(random, Format::kMxfp4, s.num_experts, 2 * s.intermediate_size,
                           s.hidden_size, check.pool);
    RandomMatrices down(random, Format::kMxfp4, s.num_experts, s.hidden_size, s.intermediate_size,
                        check.pool);
    const RoutedShape routed{s.name, Format::kBf16, 1, s.num_experts, s.top_k, s.hidden_size, true};
    RandomMatrices router(random, routed.format, 1, s.num_experts, s.hidden_size, check.pool);
    const auto gate_up_bias = random_floats(random, s.num_experts * 2 * s.intermediate_size, 1);
    const auto down_bias = random_floats(random, s.num_experts * s.hidden_size, 1);
    const auto router_bias = random_floats(random, s.num_experts, 1);
    const auto x = random_floats(random, s.hidden_size, 3);
    const auto addend = random_floats(random, s.hidden_size, 1);
    const auto norm = random_floats(random, s.hidden_size, 12);
    constexpr float kEpsilon = 1e-5F;
    std::vector<double> normed;  // and the weights of the chosen
    std::vector<float> want_sums;
    std::vector<std::int32_t> want_ids;
    route_in_float64(routed, doubles(x), doubles(addend), doubles(norm),
                     static_cast<double>(kEpsilon), router.decoded, doubles(router_bias), normed,
                     want_sums, want_ids);
    moe_experts::Args args;
    const std::vector<double> want_weights(normed.begin() + s.hidden_size, normed.end());
    const std::vector<double> want = experts_in_float64(
        s, gate_up, doubles(gate_up_bias), down, doubles(down_bias), normed, want_ids, want_weights,
        static_cast<double>(args.swiglu_alpha), static_cast<double>(args.swiglu_limit));
    const moe_experts::Problem problem{Format::kMxfp4, 1,       s.hidden_size, s.intermediate_size,
                                       s.num_experts,  s.top_k, routed.format};
    for (const bool is_ahead : {false, true}) {
      check.each<moe_experts::Variant>(
          is_ahead ? ahead : variants, "moe_experts",
          fmt::format("{}{}", s.name, is_ahead ? "_ahead" : ""), format_name(Format::kMxfp4),
          problem, [&](const moe_experts::Variant& variant, VerifyResult& r) {
            if (!variant.normalises(problem)) {
              r.outcome = VerifyResult::Outcome::kSkipped;
              r.reason = "it does not do the router's part of this on this device";
              return;
            }
            std::vector<float> out(want.size(), std::nanf(""));
            std::vector<float> sums(x.size(), std::nanf(""));
            std::vector<std::int32_t> ids(static_cast<std::size_t>(s.top_k), -1);
            Operands o(variant.backend);
            const std::array<std::int64_t, 2> rows = {1, s.hidden_size};
            args.x = {nullptr, rows};
            args.expert_ids = {o.in(ids), {1, s.top_k}};
            args.expert_weights = {nullptr, {1, s.top_k}};
            args.gate_up = o.in(gate_up.in_layout(variant.weight_layout, check.pool));
            args.gate_up_bias = {o.in(gate_up_bias), {s.num_experts, 2 * s.intermediate_size}};
            args.down = o.in(down.in_layout(variant.weight_layout, check.pool));
            args.down_bias = {o.in(down_bias), {s.num_experts, s.hidden_size}};
            args.out = {o.out(out), rows};
            args.route = {{{o.in(x), rows},
                           {o.in(addend), rows},
                           {o.in(norm), {s.hidden_size}},
                           kEpsilon,
                           {o.out(sums), rows}},
                          o.in(router.view[0]),
                          {o.in(router_bias), {s.num_experts}},
                          is_ahead};
            Context context = o.context(variant, problem, check.pool);
            if (is_ahead) leave_router_sums(context, router.decoded, norm, want_sums);
            variant.run(args, context);
            o.fetch();
            if (sums != want_sums) out[0] = std::nanf("");  // what is exact is
            compare(out, want, r);
          });
    }
  }
}

}  // namespace

void leave_router_sums(const Context& context, const std::vector<double>& router,
                       const std::vector<float>& norm, const std::vector<float>& row) {
  fused::RouterSignals signals;
  require(context.signals.size() >= sizeof(signals), "leave a router's sums: {} bytes of signals",
          context.signals.size());
  gpu::device().copy(&signals, context.signals.data(), sizeof(signals), gpu::Copy::kToHost,
                     nullptr);
  gpu::device().synchronize(nullptr);
  fused::RouterSums& sums = signals.next();
  const std::size_t num_experts = router.size() / row.size();
  for (std::size_t c = 0; c < row.size(); ++c) {
    const double value = static_cast<double>(norm[c]) * static_cast<double>(row[c]);
    for (std::size_t e = 0; e < num_experts; ++e) {
      sums.products[e] +=
          static_cast<std::uint64_t>(std::llround(router[e * row.size() + c] * value * 0x1p32));
    }
    sums.squares[c % fused::kMostRoutingBlocks] += row[c] * row[c];  // as if by so many blocks
  }
  gpu::device().copy(context.signals.data(), &signals, sizeof(signals), gpu::Copy::kToDevice,
                     nullptr);
  gpu::device().synchronize(nullptr);
}

void check_router(Check& check) {
  check_normalising_router(check);
  struct Shape {
    std::string_view name;
    std::int64_t tokens, experts, top_k;
    enum Logits { kDistinct, kTies, kNan } logits;
  };
  for (const Shape& s :
       {Shape{"one_expert", 3, 1, 1, Shape::kDistinct},
        Shape{"top2_of_8", 5, 8, 2, Shape::kDistinct}, Shape{"ties", 4, 8, 3, Shape::kTies},
        Shape{"top4_of_128", 9, 128, 4, Shape::kDistinct}, Shape{"all", 2, 6, 6, Shape::kDistinct},
        Shape{"nan", 3, 32, 4, Shape::kNan}, Shape{"ties_of_200", 5, 200, 40, Shape::kTies},
        Shape{"all_of_1000", 2, 1000, 1000, Shape::kTies}}) {
    if (!check.wants(s.name)) continue;
    RandomStream random(check.seed, 7);
    std::vector<float> logits = random_floats(random, s.tokens * s.experts, 4.0F);
    if (s.logits != Shape::kDistinct) {  // few distinct values, zeros of both signs among them: the
      for (float& v : logits) {          // lower id must win
        v = std::copysign(std::floor(std::fabs(v) / 2), v);
      }
    }
    if (s.logits == Shape::kNan) {  // the largest; and the weights must show it
      for (std::size_t i = 0; i < logits.size(); i += 14) logits[i] = std::nanf("");
    }
    // Expected output: ids, then weights.
    std::vector<double> want;
    std::vector<double> want_weights;
    for (std::int64_t t = 0; t < s.tokens; ++t) {
      const float* row = &logits[static_cast<std::size_t>(t * s.experts)];
      std::vector<std::int32_t> order(static_cast<std::size_t>(s.experts));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        return row[a] > row[b] || (std::isnan(row[a]) && !std::isnan(row[b]));
      });
      double sum = 0;
      for (std::int64_t k = 0; k < s.top_k; ++k) {
        const std::int32_t id = order[static_cast<std::size_t>(k)];
        want.push_back(id);
        want_weights.push_back(std::exp(static_cast<double>(row[id])));
        sum += want_weights.back();
      }
      for (std::int64_t k = 0; k < s.top_k; ++k) {
        want_weights[want_weights.size() - static_cast<std::size_t>(s.top_k - k)] /= sum;
      }
    }
    if (s.logits == Shape::kNan) want_weights.assign(want_weights.size(), 1.0);
    want.insert(want.end(), want_weights.begin(), want_weights.end());
    const router::Problem problem{s.tokens, s.experts, s.top_k};
    check.each<router::Variant>(router::variants(), "router", s.name, "", problem,
                                [&](const router::Variant& variant, VerifyResult& r) {
                                  const auto n = static_cast<std::size_t>(s.tokens * s.top_k);
                                  std::vector<std::int32_t> ids(n, -1);
                                  std::vector<float> weights(n, std::nanf(""));
                                  Operands o(variant.backend);
                                  o.run(variant, problem,
                                        {{o.in(logits), {s.tokens, s.experts}},
                                         {o.out(ids), {s.tokens, s.top_k}},
                                         {o.out(weights), {s.tokens, s.top_k}}},
                                        check.pool);
                                  if (s.logits == Shape::kNan) {
                                    for (float& w : weights) w = std::isnan(w) ? 1.0F : 0.0F;
                                  }
                                  std::vector<float> got;
                                  for (const std::int32_t id : ids)
                                    got.push_back(static_cast<float>(id));
                                  got.insert(got.end(), weights.begin(), weights.end());
                                  compare(got, want, r);
                                });
  }
}

void check_moe_experts(Check& check) {
  check_normalising_experts(check);
  for (const ExpertShape& s : kExpertShapes) {
    if (!check.wants(s.name)) continue;
    for (const Codec* c : codecs()) {
      if (!check.wants(c->format)) continue;
      // Of a small run's two shapes the larger one is for how tokens are grouped: by two formats.
      if (check.filter.small && s.routing == Routing::kOneBusy && c->format != Format::kBf16 &&
          c->format != Format::kMxfp4) {
        continue;
      }
      RandomStream random(check.seed, 8);
      RandomMatrices gate_up(random, c->format, s.num_experts, 2 * s.intermediate_size,
                             s.hidden_size, check.pool);
      RandomMatrices down(random, c->format, s.num_experts, s.hidden_size, s.intermediate_size,
                          check.pool);
      const auto gate_up_bias = random_floats(random, s.num_experts * 2 * s.intermediate_size, 1);
      const auto down_bias = random_floats(random, s.num_experts * s.hidden_size, 1);
      // Large inputs, so that both clamps are met.
      const auto x = random_floats(random, s.num_tokens * s.hidden_size, 12.0F);
      const auto weights = random_floats(random, s.num_tokens * s.top_k, 1);
      const std::vector<std::int32_t> ids = route(random, s);
      moe_experts::Args args;
      args.x = {x.data(), {s.num_tokens, s.hidden_size}};
      args.expert_ids = {ids.data(), {s.num_tokens, s.top_k}};
      args.expert_weights = {weights.data(), {s.num_tokens, s.top_k}};
      args.gate_up = gate_up.view;
      args.gate_up_bias = {gate_up_bias.data(), {s.num_experts, 2 * s.intermediate_size}};
      args.down = down.view;
      args.down_bias = {down_bias.data(), {s.num_experts, s.hidden_size}};
      const std::vector<double> want = experts_in_float64(
          s, gate_up, doubles(gate_up_bias), down, doubles(down_bias), doubles(x), ids,
          doubles(weights), static_cast<double>(args.swiglu_alpha),
          static_cast<double>(args.swiglu_limit));
      const moe_experts::Problem problem{c->format,           s.num_tokens,  s.hidden_size,
                                         s.intermediate_size, s.num_experts, s.top_k};
      check.each<moe_experts::Variant>(
          moe_experts::variants(), "moe_experts", s.name, c->name, problem,
          [&](const moe_experts::Variant& variant, VerifyResult& r) {
            std::vector<float> out(want.size(), std::nanf(""));
            moe_experts::Args run_args = args;
            Operands o(variant.backend);
            run_args.x.data = o.in(x);
            run_args.expert_ids.data = o.in(ids);
            run_args.expert_weights.data = o.in(weights);
            run_args.gate_up = o.in(gate_up.in_layout(variant.weight_layout, check.pool));
            run_args.gate_up_bias.data = o.in(gate_up_bias);
            run_args.down = o.in(down.in_layout(variant.weight_layout, check.pool));
            run_args.down_bias.data = o.in(down_bias);
            run_args.out = {o.out(out), {s.num_tokens, s.hidden_size}};
            o.run(variant, problem, run_args, check.pool);
            compare(out, want, r);
          });
    }
  }
}

}  // namespace moebench::verify
