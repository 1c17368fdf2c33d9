// Attention that one launch does with the ops around it: with the bits of the ops one after the
// other, in any order of threads. Under ThreadSanitizer only the latter.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/core/described_device.h"
#include "kernels/core/thread_pool.h"
#include "kernels/fused/router_sums.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/verify/compare.h"
#include "tests/simt/support.h"

namespace moebench::test {
namespace {

using verify::Operands;

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

// The router behind it.
struct HalfRouter {
  verify::RandomMatrices weight;
  std::vector<float> norm;

  HalfRouter(const HalfShape& s, std::int64_t experts, ThreadPool& pool)
      : HalfRouter(s, experts, RandomStream(63), pool) {}

 private:
  HalfRouter(const HalfShape& s, std::int64_t experts, RandomStream random, ThreadPool& pool)
      : weight(random, Format::kBf16, 1, experts, s.hidden, pool),
        norm(verify::random_floats(random, s.hidden, 2.0F)) {}
};

// By cuda_one_launch_bf16, with the product of a router if there is one, by the ops one by one, or
// by the references of these.
enum class HalfBy { kOneLaunch, kOps, kReferences };
Half run_half(const HalfShape& s, HalfWeights& weights, Format cache, HalfBy by,
              DeviceArray<std::byte>& signals, ThreadPool& pool, const HalfNumbers& numbers = {},
              HalfRouter* router = nullptr) {
  constexpr std::int64_t kPageSize = 16;
  RandomStream random(62);
  const std::int64_t q_size = s.heads * s.head_dim;
  const std::int64_t kv_size = s.kv_heads * s.head_dim;
  const std::int64_t half = s.head_dim / 2;
  const std::int64_t pages = s.position / kPageSize + 1;
  KvLayerView kv = one_layer(cache, kPageSize, s.kv_heads, s.head_dim);
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
  kv.values = kv.keys + half_page_bytes(kv);
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
                                   products[0].weight.format,
                                   router != nullptr ? router->weight.view.count : 0};
  const bool at_once = by == HalfBy::kOneLaunch;
  const attention::Variant& variant =
      by == HalfBy::kReferences
          ? attention::reference
          : cuda_variant(attention::variants(), router != nullptr ? "cuda_one_launch_routed_bf16"
                                                : at_once         ? "cuda_one_launch_bf16"
                                                                  : "cuda_split_kv");
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
    if (router != nullptr) {
      args.around.router = {o.in(router->weight.view[0]), {o.in(router->norm), {s.hidden}}};
    }
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
  CHECK(nmse(got.out, want.out) < 1e-7);  // false for NaN
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
    CHECK(nmse(got.sums, want.sums) < 1e-12);
    // Float8 that is near the middle of two codes may be either.
    const bool is_bf16 = formats.cache == Format::kBf16;
    const double of_cache = nmse(cached(got, shape), cached(want, shape));
    const double of_out = nmse(got.out, want.out);
    CHECK(of_cache < (is_bf16 ? 3e-6 : 2e-3));
    CHECK(of_out < (is_bf16 ? 5e-6 : 1e-4));
  }
};

// What a launch with the router has left for the experts', beside what it leaves without.
void check_router_sums(const HalfShape& s, const HalfFormats& formats, std::int64_t experts,
                       DeviceArray<std::byte>& signals, ThreadPool& pool) {
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  INFO(half_text(s, formats) << ", " << experts << " experts");
  HalfWeights weights(s, formats.weights, pool);
  HalfRouter router(s, experts, pool);
  const Half want = run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool);
  // As the experts' launch before has left them.
  fused::RouterSums& sums = reinterpret_cast<fused::RouterSignals*>(signals.data())->next();
  sums = {};
  const Half got =
      run_half(s, weights, formats.cache, HalfBy::kOneLaunch, signals, pool, {}, &router);
  CHECK(same_bits(got.sums, want.sums));
  CHECK(same_bits(got.out, want.out));
  CHECK(got.cache == want.cache);
  double want_squares = 0;
  std::vector<double> products(at(experts));
  std::vector<double> sizes(at(experts));
  for (std::int64_t c = 0; c < s.hidden; ++c) {
    const auto value = static_cast<double>(got.sums[at(c)] + got.out[at(c)]);
    want_squares += value * value;
    for (std::int64_t e = 0; e < experts; ++e) {
      const double product = router.weight.decoded[at(e * s.hidden + c)] *
                             static_cast<double>(router.norm[at(c)]) * value;
      products[at(e)] += product;
      sizes[at(e)] += std::abs(product);
    }
  }
  double squares = 0;
  for (const float of_block : sums.squares) squares += static_cast<double>(of_block);
  CHECK(squares == Approx(want_squares).epsilon(1e-5));
  for (std::int64_t e = 0; e < experts; ++e) {
    const double sum = static_cast<double>(static_cast<std::int64_t>(sums.products[at(e)]));
    INFO("expert " << e);
    CHECK(std::abs(sum * 0x1p-32 - products[at(e)]) <= 1e-6 * sizes[at(e)] + 1e-7);
  }
  for (std::int64_t e = experts; e < fused::kMostRouted; ++e) CHECK(sums.products[at(e)] == 0);
}

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
  const KvLayerView kv = one_layer(format, kPageSize, s.kv_heads, s.head_dim);
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
  args.kv.values = args.kv.keys + half_page_bytes(kv);
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
    CHECK(nmse(got.out, want.out) < 1e-12);
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
    CHECK(nmse(got.out, want) < 1e-12);
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

TEST_CASE("attention: cuda_one_launch_routed_bf16 leaves the router's sums") {
  ThreadPool pool(1);
  DeviceArray<std::byte> signals{std::vector<std::byte>(kSignalBytes)};
  // One expert, as many as are taken; blocks that begin with an odd column; as many rows as a block
  // can have.
  for (const HalfFormats& formats : {kHalfFormats[0], kHalfFormats[1]}) {
    check_router_sums({8, 2, 32, 128, 32, 40, true}, formats, 16, signals, pool);
    check_router_sums({8, 2, 32, 256, 0, 3, false}, formats, 128, signals, pool);
  }
  check_router_sums({8, 2, 32, 96, 0, 150, true}, kHalfFormats[0], 1, signals, pool);
  gpu::DeviceInfo many = gpu::known_device("h200");
  // Seven and six columns a block, 36; and blocks without any.
  for (const auto& [columns, num_sms] :
       {std::pair<std::int64_t, int>{96, 15}, {864, 24}, {32, 40}}) {
    many.num_sms = num_sms;
    const gpu::DescribedDevice described(many);
    simt::Settings settings;
    settings.num_sms = num_sms;
    const WithSettings with(settings);
    INFO(num_sms << " multiprocessors");
    check_router_sums({8, 1, 32, columns, 0, 20, true}, kHalfFormats[0], 37, signals, pool);
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
        if (s.window > 0) check_router_sums(s, formats, 19, signals, pool);
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
    // With the router.
    CHECK(takes({kBf16, 1, 64, 8, 64, 0, 131072, 2880, kBf16, 32}));
    CHECK(takes({kBf16, 1, 64, 8, 64, 0, 131072, 2880, kBf16, 128}));
    CHECK(takes({kFp8, 1, 64, 8, 64, 0, 131072, 2880, kFp8, 128}));
    CHECK_FALSE(takes({kBf16, 1, 64, 8, 64, 0, 131072, 2880, kBf16, 129}));
    CHECK_FALSE(takes({kBf16, 1, 64, 8, 64, 0, 131072, 2880, kFp8, 32}));
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
