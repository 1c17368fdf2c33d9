// Products that one launch does with the ops around them: with the bits of the ops one after the
// other, in any order of threads. Under ThreadSanitizer only the latter.
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <deque>

#include "kernels/attention/kv_layout.h"
#include "kernels/core/thread_pool.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/rms_norm/rms_norm.h"
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
  KvLayerView kv = one_layer(kv_format, kPageSize, s.kv_heads, s.head_dim);
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
  kv.values = kv.keys + half_page_bytes(kv);
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

}  // namespace moebench::test
