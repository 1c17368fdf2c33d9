// Ops that one launch does: with the bits of the ops one after the other, in any order of threads.
// Under ThreadSanitizer only the latter.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <deque>

#include "kernels/attention/attention.h"
#include "kernels/core/described_device.h"
#include "kernels/core/thread_pool.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/router/router.h"
#include "kernels/verify/compare.h"
#include "tests/simt/support.h"

namespace moebench::test {
namespace {

using verify::Operands;

// Rows x + addend, and three layers of them normalised.
struct Multiplied {
  std::vector<float> sums;
  std::array<std::vector<float>, 3> out;
};

// By cuda_stream_bf16 alone, or after cuda_block.
Multiplied normalise_and_multiply(Format format, std::int64_t tokens, std::int64_t cols, bool adds,
                                  bool at_once, ThreadPool& pool) {
  RandomStream random(31);
  verify::RandomMatrices weight(random, format, 3, 21, cols, pool);
  const std::vector<float> x = verify::random_floats(random, tokens * cols, 3.0F);
  const std::vector<float> addend = verify::random_floats(random, tokens * cols, 1.0F);
  const std::vector<float> norm = verify::random_floats(random, cols, 2.0F);
  const std::vector<float> bias = verify::random_floats(random, 21, 1.0F);
  Multiplied result;
  result.sums = x;
  std::vector<float> normed(x.size(), std::nanf(""));
  Operands o("cuda");
  const View<float, 2> sums{o.out(result.sums), {tokens, cols}};
  const View<float, 2> normed_view{o.out(normed), {tokens, cols}};
  const View<const float, 2> added{adds ? o.in(addend) : nullptr, {tokens, cols}};
  const View<const float, 1> norm_view{o.in(norm), {cols}};
  const View<const float, 1> bias_view{o.in(bias), {21}};
  const auto out = [&](std::size_t i) {
    result.out[i].assign(static_cast<std::size_t>(tokens * 21), std::nanf(""));
    return View<float, 2>{o.out(result.out[i]), {tokens, 21}};
  };
  linear::Args args{normed_view, o.in(weight.view[0]), bias_view, out(0), {}};
  args.also = {{{o.in(weight.view[1]), {}, out(1)}, {o.in(weight.view[2]), bias_view, out(2)}}};
  Context context{pool, {}};
  if (at_once) {
    args.norm = {{o.in(x), {tokens, cols}}, added, norm_view, 1e-5F, sums};
  } else {
    cuda_variant(rms_norm::variants(), "cuda_block")
        .run({sums, added, norm_view, 1e-5F, normed_view}, context);
  }
  o.run(cuda_variant(linear::variants(), "cuda_stream_bf16"),
        linear::Problem{format, tokens, 21, cols}, args, pool);
  return result;
}

void check_same(const Multiplied& got, const Multiplied& want) {
  CHECK(same_bits(got.sums, want.sums));
  for (std::size_t i = 0; i < 3; ++i) CHECK(same_bits(got.out[i], want.out[i]));
}

// Three layers of x, of different heights, in one launch.
std::array<std::vector<float>, 3> multiply_three(std::string_view variant, std::int64_t tokens,
                                                 std::array<std::int64_t, 3> rows,
                                                 std::int64_t cols, ThreadPool& pool) {
  RandomStream random(37);
  const std::vector<float> x = verify::random_floats(random, tokens * cols, 2.0F);
  std::deque<verify::RandomMatrices> weights;
  std::vector<std::vector<float>> biases;
  std::array<std::vector<float>, 3> out;
  Operands o("cuda");
  std::array<linear::Args::Output, 3> layers;
  for (const std::int64_t r : rows) {
    weights.emplace_back(random, Format::kBf16, 1, r, cols, pool);
    biases.push_back(verify::random_floats(random, r, 1.0F));
  }
  for (std::size_t i = 0; i < 3; ++i) {
    out[i].assign(static_cast<std::size_t>(tokens * rows[i]), std::nanf(""));
    // The second without a bias.
    const View<const float, 1> bias{i == 1 ? nullptr : o.in(biases[i]), {rows[i]}};
    layers[i] = {o.in(weights[i].view[0]), bias, {o.out(out[i]), {tokens, rows[i]}}};
  }
  linear::Args args{{o.in(x), {tokens, cols}}, layers[0].weight, layers[0].bias, layers[0].out, {}};
  args.also = {layers[1], layers[2]};
  o.run(cuda_variant(linear::variants(), variant),
        linear::Problem{Format::kBf16, tokens, rows[0], cols}, args, pool);
  return out;
}

struct CachedShape {
  std::int64_t tokens, heads, kv_heads, head_dim, cols;
};
struct Cached {
  std::vector<float> sums, query;
  std::vector<std::byte> cache;

  bool operator==(const Cached& other) const {
    return same_bits(sums, other.sums) && same_bits(query, other.query) && cache == other.cache;
  }
};

// Norm, query, key and value, rotation and cache: by cuda_stream_bf16 alone, or followed by
// kv_write.
Cached multiply_and_cache(const CachedShape& s, Format format, Format kv_format, bool at_once,
                          ThreadPool& pool) {
  constexpr std::int64_t kPageSize = 4;
  RandomStream random(32);
  const std::int64_t q_rows = s.heads * s.head_dim;
  const std::int64_t kv_rows = s.kv_heads * s.head_dim;
  verify::RandomMatrices query(random, format, 1, q_rows, s.cols, pool);
  verify::RandomMatrices key_value(random, format, 2, kv_rows, s.cols, pool);
  const std::vector<float> x = verify::random_floats(random, s.tokens * s.cols, 3.0F);
  const std::vector<float> norm = verify::random_floats(random, s.cols, 2.0F);
  const std::vector<float> bias = verify::random_floats(random, q_rows + kv_rows, 1.0F);
  const std::int64_t half = s.head_dim / 2;
  const std::vector<float> cos = verify::random_floats(random, s.tokens * half, 1.3F);
  const std::vector<float> sin = verify::random_floats(random, s.tokens * half, 1.3F);
  // Two sequences whose tokens stand together, over pages in no order.
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> sequences;
  for (std::int32_t t = 0; t < s.tokens; ++t) {
    sequences.push_back(2 * t / static_cast<std::int32_t>(s.tokens));
    positions.push_back(3 + t);
  }
  const std::vector<std::int32_t> tables = {5, 1, 3, 0, 2, 4};
  KvLayerView kv;
  kv.format = kv_format;
  kv.page_size = kPageSize;
  kv.num_kv_heads = s.kv_heads;
  kv.head_dim = s.head_dim;
  kv.row_bytes = (row_bytes(kv_format, s.head_dim) + 3) / 4 * 4;
  const std::size_t values_begin = static_cast<std::size_t>(kPageSize * s.kv_heads) * kv.row_bytes;
  kv.page_stride = 2 * values_begin;
  Cached result{x, {}, std::vector<std::byte>(6 * kv.page_stride)};
  result.query.assign(static_cast<std::size_t>(s.tokens * q_rows), std::nanf(""));
  std::vector<float> keys(static_cast<std::size_t>(s.tokens * kv_rows), std::nanf(""));
  std::vector<float> values = keys;
  Operands o("cuda");
  const std::array<std::int64_t, 2> rows = {s.tokens, s.cols};
  float* const q = o.out(result.query);
  float* const k = o.out(keys);
  float* const v = o.out(values);
  const float* const biases = o.in(bias);
  linear::Args args{
      {nullptr, rows}, o.in(query.view[0]), {biases, {q_rows}}, {q, {s.tokens, q_rows}}, {}};
  args.also = {{{o.in(key_value.view[0]), {biases + q_rows, {kv_rows}}, {k, {s.tokens, kv_rows}}},
                {o.in(key_value.view[1]), {}, {v, {s.tokens, kv_rows}}}}};
  args.norm = {
      {o.in(x), rows}, {nullptr, rows}, {o.in(norm), {s.cols}}, 1e-5F, {o.out(result.sums), rows}};
  const View<const float, 2> cosines{o.in(cos), {s.tokens, half}};
  const View<const float, 2> sines{o.in(sin), {s.tokens, half}};
  kv.keys = o.out(result.cache);
  kv.values = kv.keys + values_begin;
  const TokenPlaces places{
      {o.in(positions), {s.tokens}}, {o.in(sequences), {s.tokens}}, {o.in(tables), {2, 3}}};
  if (at_once) args.cached = {cosines, sines, kv, places};
  const linear::Variant& linear = cuda_variant(linear::variants(), "cuda_stream_bf16");
  const linear::Problem problem{format, s.tokens, q_rows, s.cols};
  if (at_once) {
    o.run(linear, problem, args, pool);
    return result;
  }
  Context context = o.context(linear, problem, pool);
  linear.run(args, context);
  kv_write::Args to_cache{
      {k, {s.tokens, s.kv_heads, s.head_dim}}, {v, {s.tokens, s.kv_heads, s.head_dim}}, kv, places};
  to_cache.rotation = {{q, {s.tokens, s.heads, s.head_dim}},
                       {k, {s.tokens, s.kv_heads, s.head_dim}},
                       cosines,
                       sines};
  o.run(cuda_variant(kv_write::variants(), "cuda_rows"),
        kv_write::Problem{kv_format, s.tokens, s.kv_heads, s.head_dim}, to_cache, pool);
  return result;
}

// What a layer has to say up to its experts.
struct Routed {
  std::vector<float> sums, normed, weights;
  std::vector<std::int32_t> ids;
};

struct RoutedShape {
  std::int64_t tokens, experts, top_k, size;
  bool adds;
};

// By cuda_cluster, or by the ops one after the other.
Routed route(const RoutedShape& s, verify::RandomMatrices& weight, bool at_once, ThreadPool& pool) {
  RandomStream random(21);
  const std::vector<float> x = verify::random_floats(random, s.tokens * s.size, 3.0F);
  const std::vector<float> addend = verify::random_floats(random, s.tokens * s.size, 1.0F);
  const std::vector<float> norm = verify::random_floats(random, s.size, 2.0F);
  // A few values only: experts with the same weights have the same logits.
  std::vector<float> bias = verify::random_floats(random, s.experts, 1.0F);
  for (std::size_t e = 0; e < bias.size(); ++e) bias[e] = bias[e / 8 * 8];
  Routed out{x, std::vector<float>(x.size(), std::nanf("")), {}, {}};
  out.weights.assign(static_cast<std::size_t>(s.tokens * s.top_k), std::nanf(""));
  out.ids.assign(out.weights.size(), -1);
  std::vector<float> logits(static_cast<std::size_t>(s.tokens * s.experts), std::nanf(""));
  Operands o("cuda");
  const View<float, 2> sums{o.out(out.sums), {s.tokens, s.size}};
  const View<float, 2> normed{o.out(out.normed), {s.tokens, s.size}};
  const View<const float, 2> added{s.adds ? o.in(addend) : nullptr, {s.tokens, s.size}};
  const View<const float, 1> norm_view{o.in(norm), {s.size}};
  const View<const float, 1> bias_view{s.adds ? o.in(bias) : nullptr, {s.experts}};
  const MatrixView matrix = o.in(weight.view[0]);
  router::Args args;
  args.expert_ids = {o.out(out.ids), {s.tokens, s.top_k}};
  args.expert_weights = {o.out(out.weights), {s.tokens, s.top_k}};
  const router::Problem problem{s.tokens, s.experts, s.top_k, matrix.format, s.size};
  if (at_once) {
    const router::Variant& variant = cuda_variant(router::variants(), "cuda_cluster");
    REQUIRE(variant.normalises(problem));
    args.product = {
        {{o.in(x), {s.tokens, s.size}}, added, norm_view, 1e-5F, sums}, normed, matrix, bias_view};
    o.run(variant, problem, args, pool);
    return out;
  }
  Context context{pool, {}};
  const View<float, 2> logit_view{o.out(logits), {s.tokens, s.experts}};
  args.logits = logit_view;
  cuda_variant(rms_norm::variants(), "cuda_block")
      .run({sums, added, norm_view, 1e-5F, normed}, context);
  cuda_variant(linear::variants(), "cuda_rows_f32")
      .run({normed, matrix, bias_view, logit_view}, context);
  o.run(cuda_variant(router::variants(), "cuda_warp"), problem, args, pool);
  return out;
}

void check_same(const Routed& got, const Routed& want) {
  CHECK(same_bits(got.sums, want.sums));
  CHECK(same_bits(got.normed, want.normed));
  CHECK(same_bits(got.weights, want.weights));
  CHECK(got.ids == want.ids);
}

// Every row of some stands twice: ties.
void repeat_rows(verify::RandomMatrices& weight) {
  const std::size_t bytes = row_bytes(weight.view.format, weight.view.cols);
  for (std::int64_t row = 1; row < weight.view.rows; row += 2) {
    std::memcpy(weight.data.data() + static_cast<std::size_t>(row) * bytes,
                weight.data.data() + static_cast<std::size_t>(row - 1) * bytes, bytes);
  }
}

struct ExpertsShape {
  std::int64_t hidden, intermediate, experts, top_k;
  bool adds;
  float limit = 7;  // of SwiGLU
};
// The weights of a layer's experts and router.
struct ExpertsWeights {
  verify::RandomMatrices gate_up, down, router;

  ExpertsWeights(const ExpertsShape& s, RandomStream random, ThreadPool& pool)
      : gate_up(random, Format::kMxfp4, s.experts, 2 * s.intermediate, s.hidden, pool),
        down(random, Format::kMxfp4, s.experts, s.hidden, s.intermediate, pool),
        router(random, Format::kBf16, 1, s.experts, s.hidden, pool) {
    repeat_rows(router);
  }
};
// The residual stream, and what the experts have to add to it.
struct AfterExperts {
  std::vector<float> sums, out;
  std::vector<float> reference;  // `out` by the reference, for experts by themselves
};
enum class Launches { kByOp, kExperts, kAll };

// A token's norm, router and experts: by `by_op` after the ops before it one by one, or in one
// launch by `name`, after them or with them.
AfterExperts run_experts(const ExpertsShape& s, ExpertsWeights& weights, Launches by,
                         DeviceArray<std::byte>& signals, ThreadPool& pool,
                         std::string_view name = "cuda_one_launch_fp8",
                         std::string_view by_op = "cuda_digits_fp8") {
  RandomStream random(52);
  const std::vector<float> x = verify::random_floats(random, s.hidden, 3.0F);
  const std::vector<float> addend = verify::random_floats(random, s.hidden, 1.0F);
  const std::vector<float> norm = verify::random_floats(random, s.hidden, 2.0F);
  const auto gate_up_bias = verify::random_floats(random, s.experts * 2 * s.intermediate, 1.0F);
  const auto down_bias = verify::random_floats(random, s.experts * s.hidden, 1.0F);
  std::vector<float> router_bias = verify::random_floats(random, s.experts, 1.0F);
  for (std::size_t e = 0; e < router_bias.size(); ++e) router_bias[e] = router_bias[e / 8 * 8];
  AfterExperts result{x, std::vector<float>(x.size(), std::nanf("")), {}};
  std::vector<float> normed(x.size(), std::nanf(""));
  std::vector<float> logits(static_cast<std::size_t>(s.experts), std::nanf(""));
  std::vector<float> chosen(static_cast<std::size_t>(s.top_k), std::nanf(""));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(s.top_k), -1);
  Operands o("cuda");
  const View<float, 2> sums{o.out(result.sums), {1, s.hidden}};
  const View<float, 2> out{o.out(result.out), {1, s.hidden}};
  const View<const float, 2> added{s.adds ? o.in(addend) : nullptr, {1, s.hidden}};
  const View<const float, 1> norm_view{o.in(norm), {s.hidden}};
  const View<const float, 1> bias_view{s.adds ? o.in(router_bias) : nullptr, {s.experts}};
  const View<float, 2> normed_view{o.out(normed), {1, s.hidden}};
  const View<std::int32_t, 2> id_view{o.out(ids), {1, s.top_k}};
  const View<float, 2> chosen_view{o.out(chosen), {1, s.top_k}};
  const MatrixView router = o.in(weights.router.view[0]);
  moe_experts::Args args;
  args.x = normed_view;
  args.expert_ids = id_view;
  args.expert_weights = chosen_view;
  args.gate_up = o.in(weights.gate_up.view);
  args.gate_up_bias = {o.in(gate_up_bias), {s.experts, 2 * s.intermediate}};
  args.down = o.in(weights.down.view);
  args.down_bias = {o.in(down_bias), {s.experts, s.hidden}};
  args.out = out;
  args.swiglu_limit = s.limit;
  const moe_experts::Problem problem{Format::kMxfp4, 1,       s.hidden,     s.intermediate,
                                     s.experts,      s.top_k, Format::kBf16};
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), by == Launches::kByOp ? by_op : name);
  Context context = o.context(variant, problem, pool);
  context.signals = {signals.data(), signals.size()};
  if (by == Launches::kAll) {
    REQUIRE(variant.normalises(problem));
    args.x = {nullptr, {1, s.hidden}};
    args.route = {{{o.in(x), {1, s.hidden}}, added, norm_view, 1e-5F, sums}, router, bias_view};
  } else {
    const View<float, 2> logit_view{o.out(logits), {1, s.experts}};
    cuda_variant(rms_norm::variants(), "cuda_block")
        .run({sums, added, norm_view, 1e-5F, normed_view}, context);
    cuda_variant(linear::variants(), "cuda_rows_f32")
        .run({normed_view, router, bias_view, logit_view}, context);
    cuda_variant(router::variants(), "cuda_warp").run({logit_view, id_view, chosen_view}, context);
  }
  const std::size_t begin = simt::launches().size();
  variant.run(args, context);
  // Grouped: sorting, digits, gate and up, digits, down, adding up.
  const std::size_t apart = by_op == "cuda_digits_fp8" ? 2 : 6;
  CHECK(simt::launches().size() - begin == (by == Launches::kByOp ? apart : 1));
  o.fetch();
  if (by == Launches::kExperts) {
    result.reference.assign(result.out.size(), std::nanf(""));
    args.out.data = result.reference.data();
    moe_experts::reference.run(args, context);
  }
  return result;
}

void check_same(const AfterExperts& got, const AfterExperts& want) {
  CHECK(same_bits(got.sums, want.sums));
  CHECK(same_bits(got.out, want.out));
  CHECK(std::none_of(got.out.begin(), got.out.end(), [](float v) { return std::isnan(v); }));
}

// The attention half of a layer, for one token.
struct HalfShape {
  std::int64_t heads, kv_heads, head_dim, hidden, window;
  std::int32_t position;
  bool full;  // with addend, sinks and all biases
};
struct HalfFormats {
  Format weights, cache;
};
constexpr HalfFormats kHalfFormats[] = {{Format::kBf16, Format::kBf16},
                                        {Format::kFp8E4m3, Format::kFp8E4m3},
                                        {Format::kFp8E4m3, Format::kBf16},
                                        {Format::kBf16, Format::kFp8E4m3}};
// The shape, or as float8 wants it: whole groups of 64 columns.
HalfShape half_shape(HalfShape s, Format weights) {
  if (weights == Format::kBf16) return s;
  s.hidden = (s.hidden + 63) / 64 * 64;
  if (s.heads * s.head_dim % 64 != 0) {
    s.heads *= 2;
    s.kv_heads *= 2;
  }
  return s;
}
struct HalfWeights {
  verify::RandomMatrices query, key_value, output;

  HalfWeights(const HalfShape& s, Format format, ThreadPool& pool)
      : HalfWeights(s, format, RandomStream(61), pool) {}

 private:
  HalfWeights(const HalfShape& s, Format format, RandomStream random, ThreadPool& pool)
      : query(random, format, 1, s.heads * s.head_dim, s.hidden, pool),
        key_value(random, format, 2, s.kv_heads * s.head_dim, s.hidden, pool),
        output(random, format, 1, s.hidden, s.heads * s.head_dim, pool) {}
};
std::string half_text(const HalfShape& s, const HalfFormats& f) {
  return fmt::format("{} and {} heads of {}, {} columns, window {}, position {}, {} and {}",
                     s.heads, s.kv_heads, s.head_dim, s.hidden, s.window, s.position,
                     format_name(f.weights), format_name(f.cache));
}
struct Half {
  std::vector<float> sums, out;
  std::vector<std::byte> cache;
  std::vector<float> norm, biases;
  KvLayerView kv;  // of the cache, without memory
};
// The largest norm weights and biases; and of how much as much every 13th of them is, and of x.
struct HalfNumbers {
  float norm = 2, bias = 1, outlier = 1;
};

// By cuda_one_launch_bf16, by the ops one by one, or by the references of these.
enum class HalfBy { kOneLaunch, kOps, kReferences };
Half run_half(const HalfShape& s, HalfWeights& weights, Format cache, HalfBy by,
              DeviceArray<std::byte>& signals, ThreadPool& pool, const HalfNumbers& numbers = {}) {
  constexpr std::int64_t kPageSize = 16;
  RandomStream random(62);
  const std::int64_t q_size = s.heads * s.head_dim;
  const std::int64_t kv_size = s.kv_heads * s.head_dim;
  const std::int64_t half = s.head_dim / 2;
  const std::int64_t pages = s.position / kPageSize + 1;
  KvLayerView kv;
  kv.format = cache;
  kv.page_size = kPageSize;
  kv.num_kv_heads = s.kv_heads;
  kv.head_dim = s.head_dim;
  kv.row_bytes = row_bytes(kv.format, s.head_dim);
  const std::size_t values_begin = static_cast<std::size_t>(kPageSize * s.kv_heads) * kv.row_bytes;
  kv.page_stride = 2 * values_begin;
  const auto with_outliers = [&](std::vector<float> values) {
    for (std::size_t i = 5; i < values.size(); i += 13) values[i] *= numbers.outlier;
    return values;
  };
  const std::vector<float> x = with_outliers(verify::random_floats(random, s.hidden, 3.0F));
  Half result{x, std::vector<float>(x.size(), std::nanf("")), {}, {}, {}, kv};
  result.cache.resize(static_cast<std::size_t>(pages) * kv.page_stride);
  for (std::size_t row = 0; row < result.cache.size() / kv.row_bytes; ++row) {
    kv.encode(result.cache.data() + row * kv.row_bytes,
              verify::random_floats(random, s.head_dim, 1.0F).data());
  }
  std::vector<std::int32_t> tables;  // backwards
  for (std::int64_t p = pages; p > 0; --p) tables.push_back(static_cast<std::int32_t>(p - 1));
  const std::vector<std::int32_t> zero = {0};
  const std::vector<std::int32_t> position = {s.position};
  const std::vector<float> addend = verify::random_floats(random, s.hidden, 1.0F);
  const std::vector<float> norm =
      with_outliers(verify::random_floats(random, s.hidden, numbers.norm));
  const std::vector<float> biases =
      with_outliers(verify::random_floats(random, q_size + 2 * kv_size, numbers.bias));
  result.norm = norm;
  result.biases = biases;
  const std::vector<float> out_bias = verify::random_floats(random, s.hidden, 1.0F);
  const std::vector<float> sinks = verify::random_floats(random, s.heads, 2.0F);
  const std::vector<float> cos = verify::random_floats(random, half, 1.3F);
  const std::vector<float> sin = verify::random_floats(random, half, 1.3F);
  const auto nothing = [](std::int64_t count) {
    return std::vector<float>(static_cast<std::size_t>(count), std::nanf(""));
  };
  std::vector<float> normed = nothing(s.hidden);
  std::vector<float> queries = nothing(q_size);
  std::vector<float> keys = nothing(kv_size);
  std::vector<float> values = nothing(kv_size);
  std::vector<float> heads = nothing(q_size);
  Operands o("cuda");
  const float* const bias = o.in(biases);
  const auto optional = [&](const float* data, std::int64_t count) {
    return View<const float, 1>{s.full ? data : nullptr, {count}};
  };
  float* const q = o.out(queries);
  float* const k = o.out(keys);
  float* const v = o.out(values);
  float* const h = o.out(heads);
  const View<float, 2> sums{o.out(result.sums), {1, s.hidden}};
  const View<float, 2> out{o.out(result.out), {1, s.hidden}};
  const View<const float, 2> added{s.full ? o.in(addend) : nullptr, {1, s.hidden}};
  const View<const float, 1> norm_view{o.in(norm), {s.hidden}};
  const View<const float, 2> cosines{o.in(cos), {1, half}};
  const View<const float, 2> sines{o.in(sin), {1, half}};
  kv.keys = o.out(result.cache);
  kv.values = kv.keys + values_begin;
  attention::Args args;
  args.queries = View<const float, 3>{q, {1, s.heads, s.head_dim}};
  args.kv = kv;
  args.places = {{o.in(position), {1}}, {o.in(zero), {1}}, {o.in(tables), {1, pages}}};
  args.sinks = optional(o.in(sinks), s.heads);
  args.scale = 0.125F;
  args.window = s.window;
  args.max_context = pages * kPageSize;
  args.out = {h, {1, s.heads, s.head_dim}};
  const attention::Product products[] = {
      {o.in(weights.query.view[0]), {bias, {q_size}}},
      {o.in(weights.key_value.view[0]), optional(bias + q_size, kv_size)},
      {o.in(weights.key_value.view[1]), {bias + q_size + kv_size, {kv_size}}},
      {o.in(weights.output.view[0]), optional(o.in(out_bias), s.hidden)}};
  const attention::Problem problem{cache,
                                   1,
                                   s.heads,
                                   s.kv_heads,
                                   s.head_dim,
                                   s.window,
                                   args.max_context,
                                   s.hidden,
                                   products[0].weight.format};
  const bool at_once = by == HalfBy::kOneLaunch;
  const attention::Variant& variant =
      by == HalfBy::kReferences
          ? attention::reference
          : cuda_variant(attention::variants(), at_once ? "cuda_one_launch_bf16" : "cuda_split_kv");
  Context context = o.context(variant, problem, pool);
  context.signals = {signals.data(), signals.size()};
  if (at_once) {
    REQUIRE(variant.normalises(problem));
    args.queries.data = nullptr;
    args.around = {{{o.in(x), {1, s.hidden}}, added, norm_view, 1e-5F, sums},
                   products[0],
                   products[1],
                   products[2],
                   cosines,
                   sines,
                   products[3],
                   out};
    const std::size_t begin = simt::launches().size();
    variant.run(args, context);
    CHECK(simt::launches().size() - begin == 1);
  } else if (by == HalfBy::kReferences) {
    const View<float, 2> normed_view{o.out(normed), {1, s.hidden}};
    const View<float, 3> key_view{k, {1, s.kv_heads, s.head_dim}};
    rms_norm::reference.run({sums, added, norm_view, 1e-5F, normed_view}, context);
    const auto multiply = [&](const float* from, const attention::Product& product, float* to) {
      const MatrixView& w = product.weight;
      const linear::Problem one{w.format, 1, w.rows, w.cols};
      Context alone = o.context(linear::reference, one, pool);
      linear::reference.run({{from, {1, w.cols}}, w, product.bias, {to, {1, w.rows}}}, alone);
    };
    float* const to[] = {q, k, v};
    for (std::size_t i = 0; i < 3; ++i) multiply(normed_view.data, products[i], to[i]);
    rope::reference.run({{q, {1, s.heads, s.head_dim}}, cosines, sines}, context);
    rope::reference.run({key_view, cosines, sines}, context);
    kv_write::reference.run(
        {{k, {1, s.kv_heads, s.head_dim}}, {v, {1, s.kv_heads, s.head_dim}}, kv, args.places},
        context);
    variant.run(args, context);
    multiply(h, products[3], out.data);
  } else {
    const linear::Variant& linear = cuda_variant(linear::variants(), "cuda_stream_bf16");
    const View<float, 2> normed_view{o.out(normed), {1, s.hidden}};
    cuda_variant(rms_norm::variants(), "cuda_block")
        .run({sums, added, norm_view, 1e-5F, normed_view}, context);
    linear::Args to_attend{normed_view, products[0].weight, products[0].bias, {q, {1, q_size}}, {}};
    to_attend.also = {{{products[1].weight, products[1].bias, {k, {1, kv_size}}},
                       {products[2].weight, products[2].bias, {v, {1, kv_size}}}}};
    linear.run(to_attend, context);
    kv_write::Args to_cache{
        {k, {1, s.kv_heads, s.head_dim}}, {v, {1, s.kv_heads, s.head_dim}}, kv, args.places};
    to_cache.rotation = {
        {q, {1, s.heads, s.head_dim}}, {k, {1, s.kv_heads, s.head_dim}}, cosines, sines};
    cuda_variant(kv_write::variants(), "cuda_rows").run(to_cache, context);
    variant.run(args, context);
    linear.run({{h, {1, q_size}}, products[3].weight, products[3].bias, out, {}}, context);
  }
  o.fetch();
  return result;
}

double nmse_of(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0;
  double power = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    power += std::pow(static_cast<double>(want[i]), 2);
  }
  return error / power;
}
// This token's keys and values as they are in the cache.
std::vector<float> cached(const Half& half, const HalfShape& s) {
  KvLayerView kv = half.kv;
  std::vector<std::byte> memory = half.cache;
  kv.keys = memory.data();
  kv.values = kv.keys + kv.page_stride / 2;
  const std::int64_t last = s.position / kv.page_size;
  const auto page = static_cast<std::int32_t>(
      static_cast<std::int64_t>(memory.size() / kv.page_stride) - 1 - last);
  std::vector<float> vectors(static_cast<std::size_t>(2 * s.kv_heads * s.head_dim));
  float* to = vectors.data();
  for (std::byte* const base : {kv.keys, kv.values}) {
    for (std::int64_t h = 0; h < s.kv_heads; ++h, to += s.head_dim) {
      kv.decode(kv.row(base, page, s.position % kv.page_size, h), to);
    }
  }
  return vectors;
}

// Attention may differ by what float32 rounds, and what it found by a bf16 now and then.
void check_same(const Half& got, const Half& want) {
  CHECK(same_bits(got.sums, want.sums));
  CHECK(got.cache == want.cache);
  CHECK(nmse_of(got.out, want.out) < 1e-7);  // false for NaN
}

// What one launch is to do, and how near it comes: with bf16 weights the ops, and their bits; with
// float8, whose inputs it rounds less than they do, the references.
struct HalfCheck {
  Half want;
  HalfShape shape;
  HalfFormats formats;

  HalfCheck(const HalfShape& s, HalfWeights& weights, const HalfFormats& half_formats,
            DeviceArray<std::byte>& signals, ThreadPool& pool)
      : want(run_half(s, weights, half_formats.cache,
                      half_formats.weights == Format::kBf16 ? HalfBy::kOps : HalfBy::kReferences,
                      signals, pool)),
        shape(s),
        formats(half_formats) {}

  void operator()(const Half& got) const {
    if (formats.weights == Format::kBf16) return check_same(got, want);
    CHECK(nmse_of(got.sums, want.sums) < 1e-12);
    // Float8 that is near the middle of two codes may be either.
    const bool is_bf16 = formats.cache == Format::kBf16;
    const double of_cache = nmse_of(cached(got, shape), cached(want, shape));
    const double of_out = nmse_of(got.out, want.out);
    CHECK(of_cache < (is_bf16 ? 3e-6 : 2e-3));
    CHECK(of_out < (is_bf16 ? 5e-6 : 1e-4));
  }
};

struct AttentionShape {
  std::int64_t heads, kv_heads, head_dim, window;
  bool sinks;
  std::vector<std::int32_t> positions;  // of one token a sequence
  std::int64_t max_context;
};

// By cuda_decode_mma: on Hopper, or on a GPU without clusters.
std::vector<float> attend(const AttentionShape& s, Format format, bool has_clusters,
                          ThreadPool& pool) {
  constexpr std::int64_t kPageSize = 16;
  RandomStream random(41);
  const auto n = static_cast<std::int64_t>(s.positions.size());
  const std::int64_t last = *std::max_element(s.positions.begin(), s.positions.end());
  const std::int64_t pages = last / kPageSize + 1;  // of a sequence
  KvLayerView kv;
  kv.format = format;
  kv.page_size = kPageSize;
  kv.num_kv_heads = s.kv_heads;
  kv.head_dim = s.head_dim;
  kv.row_bytes = (row_bytes(format, s.head_dim) + 3) / 4 * 4;
  const std::size_t half = static_cast<std::size_t>(kPageSize * s.kv_heads) * kv.row_bytes;
  kv.page_stride = 2 * half;
  std::vector<std::byte> memory(static_cast<std::size_t>(n * pages) * kv.page_stride);
  for (std::size_t row = 0; row < memory.size() / kv.row_bytes; ++row) {
    kv.encode(memory.data() + row * kv.row_bytes,
              verify::random_floats(random, s.head_dim, 1.0F).data());
  }
  std::vector<std::int32_t> sequences;
  std::vector<std::int32_t> tables;
  for (std::int32_t t = 0; t < n; ++t) {
    sequences.push_back(t);
    for (std::int64_t p = 0; p < pages; ++p) {
      tables.push_back(static_cast<std::int32_t>((pages - 1 - p) * n + t));
    }
  }
  const std::vector<float> queries = verify::random_floats(random, n * s.heads * s.head_dim, 2.0F);
  const std::vector<float> sinks = verify::random_floats(random, s.heads, 2.0F);
  std::vector<float> out(queries.size(), std::nanf(""));
  Operands o("cuda");
  attention::Args args;
  args.queries = {o.in(queries), {n, s.heads, s.head_dim}};
  args.kv = kv;
  args.kv.keys = o.out(memory);
  args.kv.values = args.kv.keys + half;
  args.places = {{o.in(s.positions), {n}}, {o.in(sequences), {n}}, {o.in(tables), {n, pages}}};
  if (s.sinks) args.sinks = {o.in(sinks), {s.heads}};
  args.scale = 0.125F;
  args.window = s.window;
  args.max_context = s.max_context;
  args.joins = true;
  args.out = {o.out(out), {n, s.heads, s.head_dim}};
  const attention::Variant& variant = cuda_variant(attention::variants(), "cuda_decode_mma");
  const attention::Problem problem{format,     n,        s.heads,      s.kv_heads,
                                   s.head_dim, s.window, s.max_context};
  if (has_clusters) {
    o.run(variant, problem, args, pool);
  } else {
    const gpu::DescribedDevice plain(gpu::known_device("a100"));
    o.run(variant, problem, args, pool);
  }
  return out;
}

}  // namespace

#if !defined(SIMT_TSAN)
TEST_CASE("linear: cuda_stream_bf16 normalises with the bits of cuda_block") {
  ThreadPool pool(1);
  for (const Codec* c : codecs()) {
    const Format format = c->format;
    for (const auto& [tokens, cols, adds] : {std::tuple{1, 2880, true},
                                             {2, 96, true},
                                             {7, 1888, false},
                                             {16, 416, true},
                                             {9, 4096, true}}) {
      INFO(format_name(format) << ", " << tokens << " tokens of " << cols);
      check_same(normalise_and_multiply(format, tokens, cols, adds, true, pool),
                 normalise_and_multiply(format, tokens, cols, adds, false, pool));
    }
  }
}
#endif

TEST_CASE("linear: cuda_stream_bf16 normalises in every schedule") {
  ThreadPool pool(1);
  const auto want = normalise_and_multiply(Format::kBf16, 3, 800, true, false, pool);
  for (simt::Settings settings : schedules()) {
    INFO(describe(settings));
    settings.resident_blocks = 4;
    const WithSettings with(settings);
    check_same(normalise_and_multiply(Format::kBf16, 3, 800, true, true, pool), want);
  }
}

TEST_CASE("linear: cuda_chain_bf16 has the bits of cuda_wgmma_bf16 in every schedule") {
  ThreadPool pool(1);
  // Layers that end inside tiles; columns that end inside a stage and inside a box, and turn the
  // ring where a stage holds many tokens; x that is staged and x that comes with the stages.
  for (const std::int64_t tokens : {1, 11, 18, 40}) {
    const std::array<std::int64_t, 3> rows = {70, 21, 33};
    const std::int64_t cols = tokens == 40 ? 1632 : 608;
    const auto want = multiply_three("cuda_wgmma_bf16", tokens, rows, cols, pool);
    for (simt::Settings settings : schedules()) {
      INFO(tokens << " tokens, " << describe(settings));
      settings.resident_blocks = 4;
      const WithSettings with(settings);
      const auto got = multiply_three("cuda_chain_bf16", tokens, rows, cols, pool);
      for (std::size_t i = 0; i < 3; ++i) CHECK(same_bits(got[i], want[i]));
    }
  }
}

#if !defined(SIMT_TSAN)
TEST_CASE("linear: cuda_stream_bf16 caches with the bits of product and rotation and kv_write") {
  ThreadPool pool(1);
  // Heads of which a tile has all, or some; more tiles than blocks, and fewer.
  for (const CachedShape& s :
       {CachedShape{1, 8, 2, 64, 160}, CachedShape{2, 3, 1, 32, 96}, CachedShape{7, 4, 4, 40, 416},
        CachedShape{8, 1, 1, 2, 64}, CachedShape{3, 2, 1, 128, 544}}) {
    for (const Format format : {Format::kBf16, Format::kF32, Format::kFp8E4m3, Format::kMxfp4}) {
      for (const Format kv : {Format::kF32, Format::kBf16, Format::kF16}) {
        INFO(s.tokens << " tokens, " << s.heads << " and " << s.kv_heads << " heads of "
                      << s.head_dim << ", " << format_name(format) << " into " << format_name(kv));
        const Cached want = multiply_and_cache(s, format, kv, false, pool);
        CHECK(multiply_and_cache(s, format, kv, true, pool) == want);
      }
    }
  }
}
#endif

TEST_CASE("linear: cuda_stream_bf16 caches in every schedule") {
  ThreadPool pool(1);
  const CachedShape s{3, 4, 2, 64, 800};
  const Cached want = multiply_and_cache(s, Format::kBf16, Format::kF32, false, pool);
  for (simt::Settings settings : schedules()) {
    INFO(describe(settings));
    settings.resident_blocks = 4;
    const WithSettings with(settings);
    CHECK(multiply_and_cache(s, Format::kBf16, Format::kF32, true, pool) == want);
  }
}

TEST_CASE("linear: cuda_stream_bf16 says which norms it takes, and refuses others") {
  const linear::Variant& variant = cuda_variant(linear::variants(), "cuda_stream_bf16");
  CHECK(variant.normalises({Format::kBf16, 1, 5120, 2880}));
  CHECK(variant.normalises({Format::kMxfp4, 4, 5120, 2880}));
  CHECK_FALSE(variant.normalises({Format::kBf16, 5, 5120, 2880}));
  CHECK_FALSE(variant.normalises({Format::kBf16, 1, 5120, 4128}));
  CHECK_FALSE(variant.normalises({Format::kF32, 1, 5120, 2000000}));
  CHECK(variant.normalises({Format::kBf16, 4, 4096, 2880, 64, Format::kBf16}));
  CHECK_FALSE(variant.normalises({Format::kBf16, 4, 4096, 2880, 64, Format::kFp8E4m3}));
  CHECK_FALSE(variant.normalises({Format::kBf16, 4, 4095, 2880, 63, Format::kBf16}));
  ThreadPool pool(1);
  Context context{pool, {}};
  std::vector<float> floats(4128);
  linear::Args args;
  args.x = {nullptr, {1, 4128}};
  args.weight = {Format::kF32, 1, 4128, reinterpret_cast<const std::byte*>(floats.data())};
  args.norm.weight = {floats.data(), {4128}};
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("at most 16 tokens of 4096"));
  args.norm = {};
  args.weight.cols = 64;
  args.x = {floats.data(), {9, 64}};
  args.cached.cos = {floats.data(), {9, 32}};
  args.cached.kv.head_dim = 64;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("at most 8 tokens; there are 9"));
  args.x.shape[0] = 1;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("not whole heads of 64"));
}

#if !defined(SIMT_TSAN)
TEST_CASE("router: cuda_cluster has the bits of norm and product and choice one after the other") {
  ThreadPool pool(1);
  // Odd sizes; fewer experts than blocks; rows in one pass and in two; all the columns there can
  // be.
  for (const RoutedShape& s :
       {RoutedShape{1, 32, 4, 2880, true}, RoutedShape{2, 128, 4, 2880, true},
        RoutedShape{7, 19, 3, 160, true}, RoutedShape{16, 33, 2, 96, false},
        RoutedShape{3, 1, 1, 32, true}, RoutedShape{2, 127, 127, 4096, true}}) {
    for (const Format format : {Format::kBf16, Format::kF32}) {
      INFO(s.tokens << " tokens, " << s.experts << " experts, " << s.size << " columns, "
                    << format_name(format));
      RandomStream random(22);
      verify::RandomMatrices weight(random, format, 1, s.experts, s.size, pool);
      repeat_rows(weight);
      const Routed want = route(s, weight, false, pool);
      check_same(route(s, weight, true, pool), want);
    }
  }
}
#endif

#if !defined(SIMT_TSAN)
TEST_CASE("moe_experts: cuda_one_launch_fp8 has the bits of the ops one by one") {
  ThreadPool pool(1);
  // The same signals for all of them: each launch finds what the one before has left.
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // As nano; one expert of one; fewer than there are lanes, and more; rows that end inside tiles,
  // columns inside steps; all the rows that the machine's blocks can have.
  for (const ExpertsShape& s :
       {ExpertsShape{128, 192, 16, 2, true}, ExpertsShape{32, 32, 1, 1, false},
        ExpertsShape{96, 64, 5, 3, true}, ExpertsShape{448, 96, 33, 4, true},
        ExpertsShape{512, 160, 128, 4, false}, ExpertsShape{160, 32, 4, 4, true}}) {
    INFO(s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of " << s.experts
                  << " experts");
    ExpertsWeights weights(s, RandomStream(51), pool);
    const AfterExperts want = run_experts(s, weights, Launches::kByOp, signals, pool);
    for (int run = 0; run < 2; ++run) {
      check_same(run_experts(s, weights, Launches::kExperts, signals, pool), want);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool), want);
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_fp8 shares a row of the router between blocks") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // As many columns as gpt-oss, which takes more multiprocessors than the machine has.
  for (const ExpertsShape& s :
       {ExpertsShape{2880, 32, 8, 4, true}, ExpertsShape{1504, 64, 32, 2, true}}) {
    INFO(s.hidden << " columns, " << s.experts << " experts");
    gpu::DeviceInfo many = gpu::known_device("h200");
    many.num_sms = 24;
    const gpu::DescribedDevice described(many);
    simt::Settings settings;
    settings.num_sms = many.num_sms;
    const WithSettings with(settings);
    ExpertsWeights weights(s, RandomStream(53), pool);
    const AfterExperts want = run_experts(s, weights, Launches::kByOp, signals, pool);
    check_same(run_experts(s, weights, Launches::kAll, signals, pool), want);
  }
}
#endif

TEST_CASE("moe_experts: cuda_one_launch_fp8 in every schedule") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const ExpertsShape s{160, 96, 19, 3, true};
  ExpertsWeights weights(s, RandomStream(54), pool);
  const AfterExperts want = run_experts(s, weights, Launches::kByOp, signals, pool);
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    check_same(run_experts(s, weights, Launches::kExperts, signals, pool), want);
    check_same(run_experts(s, weights, Launches::kAll, signals, pool), want);
  }
}

TEST_CASE("moe_experts: cuda_one_launch_fp8 says which routers it takes") {
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), "cuda_one_launch_fp8");
  constexpr Format kExperts = Format::kMxfp4;
  constexpr Format kRouter = Format::kBf16;
  const auto takes = [&](const moe_experts::Problem& p) { return variant.normalises(p); };
  CHECK(takes({kExperts, 1, 128, 192, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 2, 128, 192, 16, 4, kRouter}));   // tokens
  CHECK_FALSE(takes({kExperts, 1, 128, 192, 16, 5, kRouter}));   // of each
  CHECK_FALSE(takes({kExperts, 1, 128, 192, 129, 4, kRouter}));  // experts
  CHECK_FALSE(takes({kExperts, 1, 2880, 192, 16, 4, kRouter}));  // rows of four blocks
  CHECK_FALSE(takes({Format::kInt4, 1, 128, 192, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 1, 128, 192, 16, 4, Format::kF32}));
  {
    const gpu::DescribedDevice described(gpu::known_device("h200"));
    CHECK(takes({kExperts, 1, 2880, 2880, 32, 4, kRouter}));
    CHECK(takes({kExperts, 1, 2880, 2880, 128, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 3104, 2880, 32, 4, kRouter}));  // columns
    CHECK_FALSE(takes({kExperts, 1, 2880, 3104, 32, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 2880, 2880, 129, 4, kRouter}));
  }
  // And refuses the others; and to run without signals.
  ThreadPool pool(1);
  Context context{pool, {}};
  std::vector<float> floats(64);
  std::vector<std::int32_t> ids(1);
  moe_experts::Args args;
  args.expert_ids = {ids.data(), {1, 1}};
  args.gate_up.format = args.down.format = kExperts;
  args.gate_up.count = args.down.count = 4;
  args.gate_up.rows = args.gate_up.cols = args.down.cols = args.down.rows = 64;
  args.down.cols = 32;
  args.route.norm.weight = {floats.data(), {64}};
  args.route.weight = {Format::kF32, 4, 64, reinterpret_cast<const std::byte*>(floats.data())};
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("must be bf16"));
  args.route.weight.format = kRouter;
  args.route.weight.rows = 3;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("3 x 64 for 4 experts"));
  args.route.weight.rows = 4;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("signals"));
}

#if !defined(SIMT_TSAN)
TEST_CASE("attention: cuda_one_launch_bf16 does what the ops do one by one") {
  ThreadPool pool(1);
  // The same signals for all of them: each launch finds what the one before has left.
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // As nano and as gpt-oss, with a window and without; the first position; splits that are joined;
  // more heads than blocks; rows that blocks do not share evenly; heads that do not fill a group.
  for (const HalfShape& shape :
       {HalfShape{8, 2, 32, 128, 32, 40, true}, HalfShape{16, 2, 64, 160, 128, 300, true},
        HalfShape{16, 2, 64, 160, 0, 300, true}, HalfShape{16, 2, 64, 96, 0, 0, false},
        HalfShape{8, 1, 64, 96, 0, 127, true}, HalfShape{8, 1, 64, 32, 0, 128, false},
        HalfShape{8, 1, 64, 224, 0, 700, true}, HalfShape{24, 8, 32, 64, 0, 200, true},
        HalfShape{3, 1, 64, 64, 0, 261, true}, HalfShape{5, 5, 32, 96, 48, 47, false},
        HalfShape{1, 1, 32, 32, 0, 5, false}}) {
    for (const HalfFormats& formats : kHalfFormats) {
      const HalfShape s = half_shape(shape, formats.weights);
      INFO(half_text(s, formats));
      HalfWeights weights(s, formats.weights, pool);
      const HalfCheck check(s, weights, formats, signals, pool);
      for (int run = 0; run < 2; ++run) {
        check(run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool));
      }
    }
  }
}

// Then attention rounds nothing, and only the last product adds in another order.
TEST_CASE("attention: cuda_one_launch_bf16 is the ops where one position is seen") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  for (const Format cache : {Format::kBf16, Format::kFp8E4m3}) {
    const HalfFormats formats{Format::kBf16, cache};
    const HalfShape s{16, 2, 64, 160, 0, 0, false};
    INFO(half_text(s, formats));
    HalfWeights weights(s, formats.weights, pool);
    const Half want = run_half(s, weights, cache, HalfBy::kOps, signals, pool);
    const Half got = run_half(s, weights, cache, HalfBy::kOneLaunch, signals, pool);
    check_same(got, want);
    CHECK(nmse_of(got.out, want.out) < 1e-12);
  }
}

TEST_CASE("attention: cuda_one_launch_bf16 rounds little of what float8 weights multiply") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // One position is seen: what attention finds is the value, a bf16, which is an input as it is.
  const HalfShape s{16, 2, 64, 192, 0, 0, false};
  HalfWeights weights(s, Format::kFp8E4m3, pool);
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (const HalfNumbers& numbers :
       {HalfNumbers{}, HalfNumbers{2, 1, 1000}, HalfNumbers{1e-12F, 1e-12F, 1000},
        HalfNumbers{1e9F, 1e9F, 1000}, HalfNumbers{0, 1, 1000}}) {
    INFO("norm weights of " << numbers.norm << ", outliers of " << numbers.outlier);
    const Half got =
        run_half(s, weights, Format::kBf16, HalfBy::kOneLaunch, signals, pool, numbers);
    const std::vector<float> key_values = cached(got, s);
    const std::int64_t row_size = s.kv_heads * s.head_dim;
    const auto value = [&](std::int64_t i) {
      return static_cast<double>(key_values[at(row_size + i)]);
    };
    double squares = 0;
    for (const float x : got.sums) squares += std::pow(static_cast<double>(x), 2);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(s.hidden) + 1e-5);
    for (std::int64_t i = 0; i < row_size; ++i) {
      double want = static_cast<double>(got.biases[at(s.heads * s.head_dim + row_size + i)]);
      double most = 0;
      for (std::int64_t c = 0; c < s.hidden; ++c) {
        const double product = weights.key_value.decoded[at((row_size + i) * s.hidden + c)] *
                               static_cast<double>(got.norm[at(c)]) *
                               static_cast<double>(got.sums[at(c)]) * scale;
        want += product;
        most += std::abs(product);
      }
      INFO("value " << i);
      // The result is a bf16, an input has eleven bits.
      CHECK(std::abs(value(i) - want) <= std::abs(want) * 0x1p-8 + most * 0x1p-11);
    }
    std::vector<float> want;
    const std::int64_t group = s.heads / s.kv_heads;
    for (std::int64_t row = 0; row < s.hidden; ++row) {
      double sum = 0;
      for (std::int64_t h = 0; h < s.heads; ++h) {
        for (std::int64_t c = 0; c < s.head_dim; ++c) {
          sum += weights.output.decoded[at((row * s.heads + h) * s.head_dim + c)] *
                 value(h / group * s.head_dim + c);
        }
      }
      want.push_back(static_cast<float>(sum));
    }
    CHECK(nmse_of(got.out, want) < 1e-12);
  }
}

TEST_CASE("attention: cuda_one_launch_bf16 encodes keys of zeros as kv_write does") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  for (const HalfFormats& formats : kHalfFormats) {
    const HalfShape s{8, 2, 32, 128, 0, 33, false};
    INFO(half_text(s, formats));
    HalfWeights weights(s, formats.weights, pool);
    std::fill(weights.key_value.data.begin(), weights.key_value.data.end(), std::byte{0});
    const HalfCheck check_half(s, weights, formats, signals, pool);
    check_half(run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool));
  }
}

TEST_CASE("attention: cuda_one_launch_bf16 on many multiprocessors") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  gpu::DeviceInfo many = gpu::known_device("h200");
  const auto check = [&](const HalfShape& shape, const HalfFormats& formats, int num_sms) {
    many.num_sms = num_sms;
    const gpu::DescribedDevice described(many);
    simt::Settings settings;
    settings.num_sms = num_sms;
    const WithSettings with(settings);
    const HalfShape s = half_shape(shape, formats.weights);
    INFO(half_text(s, formats) << ", " << num_sms << " multiprocessors");
    HalfWeights weights(s, formats.weights, pool);
    const HalfCheck check_half(s, weights, formats, signals, pool);
    check_half(run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool));
  };
  // Rows of several pieces, more of them than the ring holds; splits of one chunk, of one and a
  // half, of several; fewer than there are lanes to join them, and as many; the token alone in its
  // split, in its warp, and in its warp's part of a second chunk.
  for (const HalfShape& shape :
       {HalfShape{16, 2, 64, 1504, 0, 1100, true}, HalfShape{8, 1, 64, 864, 0, 1023, true},
        HalfShape{8, 1, 64, 96, 0, 2300, true}, HalfShape{8, 1, 64, 96, 0, 2304, false},
        HalfShape{8, 1, 64, 96, 0, 2320, true}, HalfShape{8, 1, 64, 96, 0, 2432, true},
        HalfShape{8, 1, 64, 96, 0, 5000, false}, HalfShape{64, 8, 64, 480, 128, 200, true},
        HalfShape{64, 8, 64, 480, 0, 1023, true}}) {
    for (const HalfFormats& formats : {kHalfFormats[0], kHalfFormats[1]}) {
      check(shape, formats, 24);
    }
  }
  // Blocks without rows of the last product; float8 would take more of them than the machine has.
  check({8, 1, 32, 32, 0, 20, true}, kHalfFormats[0], 40);
}
#endif

TEST_CASE("attention: cuda_one_launch_bf16 in every schedule") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  for (const HalfShape& shape :
       {HalfShape{8, 1, 32, 96, 0, 300, true}, HalfShape{8, 2, 32, 64, 40, 60, true}}) {
    for (const HalfFormats& formats : {kHalfFormats[0], kHalfFormats[1]}) {
      const HalfShape s = half_shape(shape, formats.weights);
      HalfWeights weights(s, formats.weights, pool);
      const HalfCheck check(s, weights, formats, signals, pool);
      const Half first = run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool);
      for (const simt::Settings& settings : schedules()) {
        INFO(half_text(s, formats) << ", " << describe(settings));
        const WithSettings with(settings);
        const Half got = run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool);
        check(got);
        CHECK(same_bits(got.out, first.out));
      }
    }
  }
}

TEST_CASE("attention: cuda_one_launch_bf16 says what it takes, and refuses other things") {
  const attention::Variant& variant = cuda_variant(attention::variants(), "cuda_one_launch_bf16");
  constexpr Format kBf16 = Format::kBf16;
  const auto takes = [&](const attention::Problem& p) { return variant.normalises(p); };
  CHECK(takes({kBf16, 1, 8, 2, 32, 0, 64, 128, kBf16}));
  CHECK_FALSE(takes({kBf16, 1, 8, 2, 32, 0, 64, 0, kBf16}));    // nothing around it
  CHECK_FALSE(takes({kBf16, 2, 8, 2, 32, 0, 64, 128, kBf16}));  // tokens
  CHECK_FALSE(takes({Format::kF32, 1, 8, 2, 32, 0, 64, 128, kBf16}));
  constexpr Format kFp8 = Format::kFp8E4m3;
  CHECK(takes({kFp8, 1, 8, 2, 32, 0, 64, 128, kFp8}));
  CHECK(takes({kBf16, 1, 8, 2, 32, 0, 64, 128, kFp8}));
  CHECK(takes({kFp8, 1, 8, 2, 32, 0, 64, 96, kBf16}));
  CHECK_FALSE(takes({kBf16, 1, 8, 2, 32, 0, 64, 96, kFp8}));   // columns
  CHECK_FALSE(takes({kBf16, 1, 3, 1, 32, 0, 64, 128, kFp8}));  // of all heads
  CHECK_FALSE(takes({Format::kMxfp8, 1, 8, 2, 32, 0, 64, 128, kFp8}));
  CHECK_FALSE(takes({kBf16, 1, 8, 2, 32, 0, 64, 128, Format::kMxfp4}));
  CHECK_FALSE(takes({kBf16, 1, 8, 2, 128, 0, 64, 128, kBf16}));
  CHECK_FALSE(takes({kBf16, 1, 9, 1, 32, 0, 64, 128, kBf16}));  // heads of a group
  CHECK_FALSE(takes({kBf16, 1, 8, 3, 32, 0, 64, 128, kBf16}));
  CHECK_FALSE(takes({kBf16, 1, 8, 2, 32, 0, 64, 136, kBf16}));  // columns
  CHECK_FALSE(takes({kBf16, 1, 8, 2, 32, 0, 64, 288, kBf16}));  // rows of four blocks
  {
    const gpu::DescribedDevice described(gpu::known_device("h200"));
    CHECK(takes({kBf16, 1, 64, 8, 64, 128, 131072, 2880, kBf16}));
    CHECK(takes({kBf16, 1, 64, 8, 64, 0, 131072, 2880, kBf16}));
    CHECK(takes({kFp8, 1, 64, 8, 64, 128, 131072, 2880, kFp8}));
    CHECK(takes({kFp8, 1, 64, 8, 64, 0, 131072, 3840, kFp8}));
    CHECK_FALSE(takes({kBf16, 1, 72, 9, 64, 0, 1024, 2880, kBf16}));
    CHECK_FALSE(takes({kBf16, 1, 64, 8, 64, 0, 1024, 4096, kBf16}));  // 32 rows an SM
  }
  {
    const gpu::DescribedDevice described(gpu::known_device("a100"));
    CHECK_FALSE(takes({kBf16, 1, 64, 8, 64, 0, 1024, 2880, kBf16}));
  }
  ThreadPool pool(1);
  Context context{pool, {}};
  std::vector<float> floats(64);
  attention::Args args;
  args.queries = {nullptr, {1, 2, 32}};
  args.kv.format = kBf16;
  args.kv.num_kv_heads = 1;
  args.kv.head_dim = 32;
  args.around.norm.weight = {floats.data(), {64}};
  const auto matrix = [&](std::int64_t rows, std::int64_t cols) {
    return attention::Product{
        {kBf16, rows, cols, reinterpret_cast<const std::byte*>(floats.data())}, {}};
  };
  args.around.query = matrix(64, 64);
  args.around.key = matrix(32, 64);
  args.around.value = matrix(64, 64);
  args.around.output = matrix(64, 64);
  CHECK_THROWS_WITH(variant.run(args, context),
                    Catch::Contains("weights of 64 x 64 bf16, not 32 x 64"));
  args.around.value = matrix(32, 64);
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("signals"));
  args.queries.shape[0] = 2;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("one token"));
}

// Shapes for what does one token's experts in one launch.
constexpr ExpertsShape kExpertsShapes[] = {{128, 192, 16, 2, true},  {32, 32, 1, 1, false},
                                           {96, 64, 5, 3, true},     {384, 96, 33, 4, true},
                                           {320, 160, 65, 4, false}, {160, 32, 4, 4, true},
                                           {96, 64, 5, 3, true, 300}};

// Calls check(shape) for shapes; then, on a machine of `many` multiprocessors, for one with rows as
// of gpt-oss, which take more than the machine has otherwise, and for one with which a block has no
// rows, and nothing to wait for before it arrives.
template <class Check>
void check_experts(std::span<const ExpertsShape> shapes, int many, const Check& check) {
  for (const ExpertsShape& s : shapes) check(s);
  gpu::DeviceInfo device = gpu::known_device("h200");
  device.num_sms = many;
  const gpu::DescribedDevice described(device);
  simt::Settings settings;
  settings.num_sms = many;
  const WithSettings with(settings);
  check({2880, kShort ? 128 : 608, 8, 4, true});
  for (const simt::Order order : {simt::Order::kFifo, simt::Order::kLifo, simt::Order::kShuffled}) {
    settings.order = order;
    const WithSettings in_order(settings);
    check({32, 32, 3, 1, true});
  }
}

#if !defined(SIMT_TSAN)
TEST_CASE("moe_experts: cuda_one_launch_stream_int8 agrees with the reference in any company") {
  constexpr std::string_view kName = "cuda_one_launch_stream_int8";
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const auto check = [&](const ExpertsShape& s) {
    INFO(s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of " << s.experts
                  << " experts");
    ExpertsWeights weights(s, RandomStream(55), pool);
    AfterExperts first;
    for (int run = 0; run < 2; ++run) {
      const AfterExperts got = run_experts(s, weights, Launches::kExperts, signals, pool, kName);
      if (run == 0) first = got;
      // Activations are shown as f16, where none is larger than an f16 can be, else as bf16.
      const double error = nmse(got.out, got.reference);
      CHECK(error <= (s.limit < 200 ? 1e-7 : 5e-6));
      CHECK((s.limit < 200 || error > 1e-7));
      check_same(got, first);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, kName), first);
      check_same(run_experts(s, weights, run == 0 ? Launches::kExperts : Launches::kAll, signals,
                             pool, "cuda_one_launch_readers_int8"),
                 first);
    }
  };
  // As nano; one expert of one; blocks without rows; shares of several experts, that end inside
  // tiles; tiles of up to eight rows; more tiles than stages, and less; all the rows of down that
  // there may be.
  check_experts(kExpertsShapes, 32, check);
}
#endif

TEST_CASE("moe_experts: cuda_one_launch_stream_int8 in every schedule") {
  constexpr std::string_view kName = "cuda_one_launch_stream_int8";
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const ExpertsShape s{160, 96, 19, 3, true};
  ExpertsWeights weights(s, RandomStream(56), pool);
  const AfterExperts want = run_experts(s, weights, Launches::kExperts, signals, pool, kName);
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    for (const std::string_view name : {kName, std::string_view("cuda_one_launch_readers_int8")}) {
      check_same(run_experts(s, weights, Launches::kExperts, signals, pool, name), want);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, name), want);
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_stream_int8 says which routers it takes") {
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), "cuda_one_launch_stream_int8");
  constexpr Format kExperts = Format::kMxfp4;
  constexpr Format kRouter = Format::kBf16;
  const auto takes = [&](const moe_experts::Problem& p) { return variant.normalises(p); };
  CHECK(takes({kExperts, 1, 128, 96, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 2, 128, 96, 16, 4, kRouter}));   // tokens
  CHECK_FALSE(takes({kExperts, 1, 128, 96, 16, 5, kRouter}));   // of each
  CHECK_FALSE(takes({kExperts, 1, 128, 96, 129, 4, kRouter}));  // experts
  CHECK_FALSE(takes({kExperts, 1, 448, 96, 16, 4, kRouter}));   // rows of four blocks
  CHECK_FALSE(takes({kExperts, 1, 128, 448, 16, 4, kRouter}));
  CHECK_FALSE(takes({Format::kInt4, 1, 128, 96, 16, 4, kRouter}));
  CHECK_FALSE(takes({kExperts, 1, 128, 96, 16, 4, Format::kF32}));
  for (const char* device : {"h100", "h200"}) {
    const gpu::DescribedDevice described(gpu::known_device(device));
    CHECK(takes({kExperts, 1, 2880, 2880, 32, 4, kRouter}));
    CHECK(takes({kExperts, 1, 2880, 2880, 128, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 3104, 2880, 32, 4, kRouter}));  // columns
    CHECK_FALSE(takes({kExperts, 1, 2880, 3104, 32, 4, kRouter}));
    CHECK_FALSE(takes({kExperts, 1, 2880, 2880, 129, 4, kRouter}));
  }
  // And refuses the others; and to run without signals.
  ThreadPool pool(1);
  Context context{pool, {}};
  std::vector<float> floats(64);
  std::vector<std::int32_t> ids(1);
  moe_experts::Args args;
  args.expert_ids = {ids.data(), {1, 1}};
  args.gate_up.format = args.down.format = kExperts;
  args.gate_up.count = args.down.count = 4;
  args.gate_up.rows = args.gate_up.cols = args.down.cols = args.down.rows = 64;
  args.down.cols = 32;
  args.route.norm.weight = {floats.data(), {64}};
  args.route.weight = {Format::kF32, 4, 64, reinterpret_cast<const std::byte*>(floats.data())};
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("must be bf16"));
  args.route.weight.format = kRouter;
  args.down.format = Format::kInt4;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("4 MXFP4 experts"));
  args.down.format = kExperts;
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("signals"));
}

// Variants of one launch, and those beside which they have bits, or up to which error.
struct LikeGrouped {
  std::string_view name;
  std::string_view grouped;
  double most_error;
};
constexpr LikeGrouped kLikeGrouped[] = {
    {"cuda_one_launch_chunks_fp8", "cuda_grouped_chunks_fp8", 0},
    {"cuda_one_launch_blocks_fp8", "cuda_grouped_blocks_fp8", 1e-6}};

#if !defined(SIMT_TSAN)
TEST_CASE("moe_experts: cuda_one_launch_chunks_fp8 and _blocks_ agree with grouped ones") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  const auto check = [&](const ExpertsShape& s) {
    INFO(s.hidden << " and " << s.intermediate << " columns, " << s.top_k << " of " << s.experts
                  << " experts");
    ExpertsWeights weights(s, RandomStream(57), pool);
    for (const auto& [name, grouped, most_error] : kLikeGrouped) {
      INFO(name);
      const AfterExperts want =
          run_experts(s, weights, Launches::kByOp, signals, pool, name, grouped);
      const AfterExperts got = run_experts(s, weights, Launches::kExperts, signals, pool, name);
      if (most_error == 0) check_same(got, want);
      CHECK(nmse(got.out, want.out) <= most_error);
      CHECK(nmse(got.out, got.reference) <= 2e-5);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, name), got);
    }
  };
  // As nano; one expert of one; teams without an expert; rows of one and of two tiles, of which the
  // last have rows for some warps; a chunk that is not whole, with and without one before it; all
  // the rows of down that there may be.
  check_experts(kExpertsShapes, 30, check);
  check({512, 288, 4, 4, true});
}
#endif

TEST_CASE("moe_experts: cuda_one_launch_chunks_fp8 and _blocks_ in every schedule") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // Many tiles of one stage, and one of many: rings turn, and so do the places of scales.
  const ExpertsShape s{32, 1088, 5, 2, true};
  ExpertsWeights weights(s, RandomStream(58), pool);
  for (const auto& [name, grouped, most_error] : kLikeGrouped) {
    const AfterExperts want = run_experts(s, weights, Launches::kExperts, signals, pool, name);
    for (const simt::Settings& settings : schedules()) {
      INFO(name << ", " << describe(settings));
      const WithSettings with(settings);
      check_same(run_experts(s, weights, Launches::kExperts, signals, pool, name), want);
      check_same(run_experts(s, weights, Launches::kAll, signals, pool, name), want);
#if defined(SIMT_TSAN)
      break;  // it sees races in any
#endif
    }
  }
}

TEST_CASE("moe_experts: cuda_one_launch_chunks_fp8 takes one token, and ends without the norm") {
  const moe_experts::Variant& variant =
      cuda_variant(moe_experts::variants(), "cuda_one_launch_chunks_fp8");
  constexpr Format kExperts = Format::kMxfp4;
  constexpr Format kRouter = Format::kBf16;
  for (const char* device : {"h100", "h200"}) {
    const gpu::DescribedDevice described(gpu::known_device(device));
    for (const std::int64_t experts : {32, 128}) {
      CHECK(variant.normalises({kExperts, 1, 2880, 2880, experts, 4, kRouter}));
      CHECK_FALSE(variant.ends_with_norm({kExperts, 1, 2880, 2880, experts, 4, kRouter}));
      CHECK_FALSE(variant.normalises({kExperts, 2, 2880, 2880, experts, 4, kRouter}));
      CHECK(variant.ends_with_norm({kExperts, 2, 2880, 2880, experts, 4, kRouter}));
      const moe_experts::Variant& blocks = moe_experts::cuda_one_launch_blocks_fp8;
      CHECK(blocks.normalises({kExperts, 1, 2880, 2880, experts, 4, kRouter}));
      CHECK_FALSE(blocks.ends_with_norm({kExperts, 2, 2880, 2880, experts, 4, kRouter}));
      CHECK(blocks.ends_with_norm({kExperts, 6, 2880, 2880, experts, 4, kRouter}));
    }
    CHECK_FALSE(variant.normalises({kExperts, 1, 3104, 2880, 32, 4, kRouter}));  // columns
    CHECK_FALSE(variant.normalises({kExperts, 1, 2880, 3104, 32, 4, kRouter}));
    CHECK_FALSE(variant.normalises({kExperts, 1, 2880, 2880, 129, 4, kRouter}));
    CHECK_FALSE(variant.normalises({kExperts, 1, 2880, 2880, 32, 5, kRouter}));
    CHECK_FALSE(variant.normalises({Format::kInt4, 1, 2880, 2880, 32, 4, kRouter}));
  }
}

TEST_CASE("router: cuda_cluster in every schedule") {
  ThreadPool pool(1);
  const RoutedShape s{3, 70, 4, 544, true};
  RandomStream random(23);
  verify::RandomMatrices weight(random, Format::kBf16, 1, s.experts, s.size, pool);
  repeat_rows(weight);
  const Routed want = route(s, weight, false, pool);
  for (simt::Settings settings : schedules()) {
    INFO(describe(settings));
    settings.resident_blocks = 16;
    const WithSettings with(settings);
    check_same(route(s, weight, true, pool), want);
  }
}

TEST_CASE("router: cuda_cluster says which norms and products it takes") {
  const router::Variant& variant = cuda_variant(router::variants(), "cuda_cluster");
  const auto takes = [&](const router::Problem& p) { return variant.normalises(p); };
  CHECK(takes({16, 128, 4, Format::kBf16, 2880}));
  CHECK_FALSE(takes({17, 128, 4, Format::kBf16, 2880}));  // tokens
  CHECK_FALSE(takes({1, 129, 4, Format::kBf16, 2880}));   // experts
  CHECK_FALSE(takes({1, 32, 4, Format::kBf16, 2888}));    // columns
  CHECK_FALSE(takes({1, 32, 4, Format::kBf16, 4128}));
  CHECK_FALSE(takes({1, 32, 4, Format::kBf16, 0}));
  CHECK_FALSE(takes({1, 32, 4, Format::kInt4, 2880}));
  // And refuses the others.
  ThreadPool pool(1);
  Context context{pool, {}};
  std::vector<float> floats(64);
  std::vector<std::int32_t> ids(1);
  router::Args args;
  args.expert_ids = {ids.data(), {1, 1}};
  args.product.norm.weight = {floats.data(), {48}};
  args.product.weight = {Format::kF32, 1, 48, reinterpret_cast<const std::byte*>(floats.data())};
  CHECK_THROWS_WITH(variant.run(args, context), Catch::Contains("multiple of 32"));
}

#if !defined(SIMT_TSAN)
TEST_CASE("attention: cuda_decode_mma joins splits in a cluster with the bits of two launches") {
  ThreadPool pool(1);
  const std::vector<AttentionShape> shapes = {
      // As gpt-oss, with a window and without; one split, fewer than blocks, more.
      {16, 2, 64, 128, true, {0, 127, 128, 300, 640}, 1024},
      {16, 2, 64, 0, true, {0, 130, 1023}, 1024},
      {8, 1, 64, 0, true, {1500, 127, 129}, 2048},
      // Heads that the blocks do not share evenly, in two parts; other sizes; no sinks.
      {12, 1, 32, 0, false, {511, 385, 384, 100}, 512},
      {3, 3, 128, 0, true, {300, 5}, 384},
      {4, 2, 128, 0, false, {100, 3}, 128},
  };
  for (const AttentionShape& s : shapes) {
    for (const Format format : {Format::kF32, Format::kBf16, Format::kFp8E4m3}) {
      INFO(s.heads << " heads of " << s.head_dim << ", window " << s.window << ", " << s.max_context
                   << " positions, " << format_name(format));
      const std::size_t begin = simt::launches().size();
      const std::vector<float> joined = attend(s, format, true, pool);
      const std::size_t then = simt::launches().size();
      const std::vector<float> apart = attend(s, format, false, pool);
      CHECK(then - begin == 1);
      CHECK(simt::launches().size() - then == 2);
      CHECK(same_bits(joined, apart));
      CHECK(std::none_of(joined.begin(), joined.end(), [](float v) { return std::isnan(v); }));
    }
  }
}
#endif

#if !defined(SIMT_TSAN)
TEST_CASE("attention: a token has the same bits however long its batch's longest context may be") {
  ThreadPool pool(1);
  AttentionShape s{8, 1, 64, 0, true, {300, 1100}, 1152};
  const std::vector<float> want = attend(s, Format::kBf16, true, pool);
  for (const std::int64_t most : {2048, 2049, 20000}) {  // one launch, and two
    s.max_context = most;
    CHECK(same_bits(attend(s, Format::kBf16, true, pool), want));
  }
}
#endif

TEST_CASE("attention: cuda_decode_mma joins splits in every schedule") {
  ThreadPool pool(1);
  for (const AttentionShape& s : {AttentionShape{16, 2, 64, 128, true, {300, 5}, 1024},
                                  AttentionShape{8, 1, 64, 0, true, {1100}, 1152}}) {
    const std::vector<float> want = attend(s, Format::kBf16, false, pool);
    for (simt::Settings settings : schedules()) {
      INFO(describe(settings));
      settings.resident_blocks = 16;
      const WithSettings with(settings);
      CHECK(same_bits(attend(s, Format::kBf16, true, pool), want));
    }
  }
}

}  // namespace moebench::test
