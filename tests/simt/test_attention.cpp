// Attention for prompts on Hopper's tensor cores, and for decoding many sequences: against the
// reference, and in every schedule; and that a token's output does not depend on what is computed
// beside it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/core/described_device.h"
#include "kernels/core/float_types.h"
#include "kernels/core/thread_pool.h"
#include "kernels/verify/compare.h"
#include "tests/simt/support.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

using attention::Variant;
using verify::Operands;

struct Shape {
  const char* name;
  std::int64_t heads, kv_heads, page_size, window;
  bool sinks;
  std::vector<std::int64_t> contexts;  // one sequence each; its last tokens are queries
  std::int64_t queries;                // of a sequence
  std::int64_t head_dim = 64;
  float growth = 128;  // in so many positions keys grow by what they began with
  float value_size = 1;
  float value_spread = 1;  // of three neighbouring positions one has values larger by this
};

const Variant& variant_named(std::string_view name) {
  const auto all = attention::variants();
  return **std::find_if(all.begin(), all.end(), [&](const Variant* v) { return v->name == name; });
}

// The keys and values of some sequences in pages that lie in no order, and their queries.
class Prompts {
 public:
  Prompts(const Shape& shape, Format format) : shape_(shape) {
    RandomStream random(21);
    view_ = one_layer(format, shape.page_size, shape.kv_heads, shape.head_dim);
    longest_ = *std::max_element(shape.contexts.begin(), shape.contexts.end());
    pages_ = (longest_ + shape.page_size - 1) / shape.page_size;
    const auto sequences = static_cast<std::int64_t>(shape.contexts.size());
    // What no position is written to holds NaNs, as a page that is used again might.
    memory_.assign(static_cast<std::size_t>(pages_ * sequences) * view_.page_stride,
                   std::byte{0xff});
    view_.keys = memory_.data();
    view_.values = memory_.data() + half_page_bytes(view_);
    tables_.assign(static_cast<std::size_t>(pages_ * sequences), -1);
    for (std::int64_t s = 0; s < sequences; ++s) {
      const std::int64_t context = shape.contexts[static_cast<std::size_t>(s)];
      const std::int64_t first_query = std::max<std::int64_t>(0, context - shape.queries);
      const std::int64_t first_seen =
          shape.window > 0 ? std::max<std::int64_t>(0, first_query - shape.window + 1) : 0;
      for (std::int64_t p = first_seen / shape.page_size * shape.page_size; p < context; ++p) {
        const auto page =
            static_cast<std::int32_t>((pages_ - 1 - p / shape.page_size) * sequences + s);
        tables_[static_cast<std::size_t>(s * pages_ + p / shape.page_size)] = page;
        for (std::int64_t h = 0; h < shape.kv_heads; ++h) {
          for (std::byte* base : {view_.keys, view_.values}) {
            const float size = base == view_.keys ? 1.0F + static_cast<float>(p) / shape.growth
                               : p % 3 == 1       ? shape.value_size * shape.value_spread
                                                  : shape.value_size;
            const auto vector = verify::random_floats(random, shape.head_dim, size);
            if (p >= first_seen) {
              view_.encode(view_.row(base, page, p % shape.page_size, h), vector.data());
            }
          }
        }
      }
      for (std::int64_t p = first_query; p < context; ++p) {
        positions_.push_back(static_cast<std::int32_t>(p));
        sequences_.push_back(static_cast<std::int32_t>(s));
      }
    }
    queries_ = verify::random_floats(random, tokens() * shape.heads * shape.head_dim, 2.0F);
    // Scores of any size are then the same however they are computed, but for the order of sums.
    for (float& query : queries_) query = to_float(to_bf16(query));
    sinks_ = verify::random_floats(random, shape.heads, 2.0F);
  }

  std::int64_t tokens() const { return static_cast<std::int64_t>(positions_.size()); }

  std::int64_t num_single = 0;  // what variants are told

  // The output of tokens [begin, end), computed together.
  // `rounds`: from queries that are bf16, as bf16.
  std::vector<float> run(const Variant& variant, std::int64_t begin, std::int64_t end,
                         ThreadPool& pool, bool rounds = false) {
    const std::int64_t n = end - begin;
    const std::int64_t size = shape_.heads * shape_.head_dim;
    std::vector<float> out(static_cast<std::size_t>(n * size), std::nanf(""));
    const std::vector<float> queries(queries_.begin() + begin * size,
                                     queries_.begin() + end * size);
    const std::vector<std::int32_t> positions(positions_.begin() + begin, positions_.begin() + end);
    const std::vector<std::int32_t> sequences(sequences_.begin() + begin, sequences_.begin() + end);
    Operands o(variant.backend);
    attention::Args args;
    args.queries = {o.in(queries), {n, shape_.heads, shape_.head_dim}};
    args.kv = view_;
    args.kv.keys = o.out(memory_);
    args.kv.values = args.kv.keys + (view_.values - view_.keys);
    args.places = {{o.in(positions), {n}},
                   {o.in(sequences), {n}},
                   {o.in(tables_), {static_cast<std::int64_t>(shape_.contexts.size()), pages_}}};
    if (shape_.sinks) args.sinks = {o.in(sinks_), {shape_.heads}};
    args.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape_.head_dim)));
    args.window = shape_.window;
    args.max_context = longest_;
    args.num_single = num_single;
    args.out = {o.out(out), {n, shape_.heads, shape_.head_dim}};
    const attention::Problem problem{
        view_.format, n, shape_.heads, shape_.kv_heads, shape_.head_dim, shape_.window, longest_};
    CHECK(variant.unsupported(problem) == "");
    std::vector<bf16> rounded(out.size(), to_bf16(std::nanf("")));
    std::vector<bf16> rounded_queries;
    if (rounds) {
      for (const float query : queries) rounded_queries.push_back(to_bf16(query));
      args.rounded_queries = {o.in(rounded_queries), args.queries.shape};
      args.queries.data = nullptr;
      args.rounded = {o.out(rounded), args.out.shape};
      args.out.data = nullptr;
    }
    o.run(variant, problem, args, pool);
    for (std::size_t i = 0; i < out.size() && rounds; ++i) out[i] = to_float(rounded[i]);
    return out;
  }
  std::vector<float> run(const Variant& variant, ThreadPool& pool) {
    return run(variant, 0, tokens(), pool);
  }

 private:
  Shape shape_;
  KvLayerView view_;
  std::int64_t longest_ = 0;
  std::int64_t pages_ = 0;
  std::vector<std::byte> memory_;
  std::vector<std::int32_t> tables_, positions_, sequences_;
  std::vector<float> queries_, sinks_;
};

// Mean square of the difference, over that of `want`; NaN if one is.
double error_of(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0;
  double sum = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    sum += std::pow(static_cast<double>(want[i]), 2);
  }
  return difference / sum;
}

// Items of 24 tokens; tiles of 128 keys, which begin at multiples of 128.
const Shape kSchedules[] = {
    {"two whole tiles and one in part, then one token", 8, 1, 16, 0, true, {270, 1}, 30},
    {"tiles in part only, more than the ring holds", 8, 8, 16, 100, true, {130}, 60},
};
const Shape kEdges[] = {
    {"one token", 8, 1, 16, 0, true, {1}, 1},
    {"a tile and its neighbours", 8, 1, 16, 0, true, {127, 128, 129}, 2},
    {"a window that ends inside tiles", 8, 1, 16, 128, true, {300, 1, 130}, 25},
    {"a window that ends at tiles", 8, 1, 16, 129, false, {256, 129}, 1},
    {"pages of 8, of two heads", 8, 2, 8, 0, false, {140}, 9},
    {"pages larger than tiles", 4, 2, 256, 0, true, {300}, 3},
    {"pages that tiles are no multiple of", 8, 1, 12, 0, true, {150}, 5},
    {"a group of three, and many sequences", 6, 2, 16, 40, true, {3, 150, 1, 129, 64, 2, 30}, 3},
    {"as many heads as a block of two groups has rows", 128, 1, 16, 0, true, {130}, 2},
    {"short heads", 4, 2, 4, 0, true, {131, 5}, 7, 32},
    {"scores that go on rising", 8, 1, 16, 0, false, {700}, 5, 64, 2},
    {"more rounds of items than one", 8, 8, 16, 0, true, {130}, 60},
};

// Tiles of 16 positions, two a batch, a batch a warp; clusters of blocks where there are fewer than
// eight tokens times key/value heads, and more than 128 positions.
const Shape kStreamSchedules[] = {
    {"many sequences", 16, 2, 16, 0, true, {300, 70, 1, 128}, 1},
    {"windows", 16, 2, 16, 128, true, {300, 70, 1, 128}, 1},
    {"a cluster for each token", 8, 1, 16, 0, true, {300, 7}, 1},
};
const Shape kStreamEdges[] = {
    {"one position", 8, 1, 16, 0, true, {1}, 1},
    {"tiles and batches and their neighbours",
     8,
     1,
     16,
     0,
     true,
     {15, 16, 17, 31, 32, 33, 48, 49, 127, 128, 129, 145},
     1},
    {"many sequences of any length", 16, 2, 16, 0, true, {300, 1, 64, 130, 5, 513, 257, 33}, 1},
    {"windows of 128", 16, 2, 16, 128, true, {1, 127, 128, 129, 160, 300}, 1},
    {"a window that ends inside tiles", 16, 2, 16, 100, false, {99, 100, 101, 300}, 2},
    {"a window of more than a batch a warp", 16, 2, 16, 200, true, {199, 200, 201, 450}, 1},
    {"a window of one", 16, 2, 16, 1, true, {1, 2, 40, 300}, 1},
    {"a cluster of two blocks", 8, 1, 16, 0, true, {200}, 1},
    {"a cluster of four, some without positions", 8, 1, 16, 0, false, {400, 3}, 1},
    {"a cluster of eight", 8, 1, 16, 0, true, {1100}, 1},
    {"clusters with windows", 8, 1, 16, 300, true, {310, 20}, 2},
    {"a prompt", 8, 1, 16, 0, true, {150}, 40},
    {"pages of one position", 8, 1, 1, 0, true, {45, 160}, 4},
    {"pages larger than all", 16, 2, 512, 0, true, {300, 5}, 5},
    {"scores that go on rising", 8, 1, 16, 0, true, {500}, 8, 64, 2},
    // Of cuda_decode_mma.
    {"pages of twelve", 8, 1, 12, 0, true, {150}, 5},
    {"a group of four", 8, 2, 16, 0, true, {150}, 5},
    {"a group of sixteen", 16, 1, 16, 0, true, {150}, 5},
    {"short heads", 8, 1, 16, 0, true, {150}, 5, 32},
};

// Splits of 128 positions, 32 a warp; rows of float8 have scales, of which a warp takes the
// largest.
const Shape kFloat8Edges[] = {
    {"one position", 8, 1, 16, 0, true, {1}, 1},
    {"warps and splits and their neighbours", 8, 1, 16, 0, true, {31, 32, 33, 127, 128, 129}, 1},
    {"windows that end inside a warp's", 16, 2, 16, 100, true, {99, 100, 101, 300}, 2},
    {"long heads", 8, 1, 16, 0, true, {150}, 5, 128},
    {"short heads, of a group of three", 6, 2, 12, 0, false, {150}, 5, 32},
    {"small values", 8, 1, 16, 0, true, {150}, 5, 64, 128, 0x1p-90F},
    {"large values", 8, 1, 16, 0, true, {150}, 5, 64, 128, 0x1p80F},
    {"values of sizes far apart", 8, 1, 16, 0, true, {150}, 5, 64, 128, 0x1p-20F, 0x1p20F},
    {"values of zeros", 8, 1, 16, 0, true, {40}, 2, 64, 128, 0},
};

// More than 128 tokens each, for which cuda_flash_splits_mma has a kernel by wgmma and one by mma:
// items of 192 and of 128 rows, tiles of 64 keys, splits of 256.
const Shape kManyTokens[] = {
    {"a prompt that ends inside a split", 8, 1, 16, 0, true, {600}, 150},
    {"a prompt from its beginning", 8, 1, 16, 0, true, {131}, 131},
    {"sequences that end at, before and behind a split", 8, 1, 16, 0, true, {256, 255, 257}, 50},
    {"sequences that end around tiles", 8, 1, 16, 0, false, {63, 64, 65, 127, 128, 129}, 25},
    {"many sequences, most of one token", 8, 1, 16, 0, true, {300, 1, 64, 130, 5, 513, 257}, 40},
    {"windows of 128", 8, 1, 16, 128, true, {600, 300, 129, 1}, 50},
    {"windows of 128, of two heads", 16, 2, 16, 128, false, {450}, 140},
    {"windows that end at tiles", 8, 1, 16, 65, true, {512, 320}, 70},
    {"windows of more than a split", 8, 1, 16, 300, true, {700, 310}, 70},
    {"windows of one", 8, 1, 16, 1, true, {200}, 140},
    {"a group of one", 3, 3, 16, 0, true, {300, 7}, 129},
    {"a group of three", 6, 2, 16, 40, true, {300}, 133},
    {"a group of sixteen", 16, 1, 16, 0, true, {300}, 130},
    {"a group of 64", 64, 1, 16, 0, true, {140}, 129},
    {"pages that tiles are no multiple of", 8, 1, 12, 0, true, {270}, 130},
    {"pages larger than tiles", 4, 2, 256, 0, true, {520}, 130},
    {"scores that go on rising", 8, 1, 16, 0, true, {700}, 130, 64, 2},
    {"scores that rise at once", 8, 1, 16, 0, false, {300, 200}, 70, 64, 0.05F},
};

}  // namespace

#if !defined(SIMT_TSAN)
TEST_CASE("attention: cuda_flash_wgmma agrees with the reference at every edge") {
  ThreadPool pool(1);
  for (const Shape& shape : kEdges) {
    for (const Format format : {Format::kBf16, Format::kFp8E4m3}) {
      if (format != Format::kBf16 && shape.growth < 128) continue;  // rounded keys change them
      INFO(shape.name << ", " << format_name(format));
      Prompts prompts(shape, format);
      const auto want = prompts.run(variant_named("reference"), pool);
      CHECK(error_of(prompts.run(variant_named("cuda_flash_wgmma"), pool), want) < 2e-5);
    }
  }
}

// Closer than with a cache of bf16, of which weights are bf16, too.
TEST_CASE("attention: cuda_decode_mma takes the codes of a float8 cache as they are") {
  ThreadPool pool(1);
  for (const Shape& shape : kFloat8Edges) {
    INFO(shape.name);
    Prompts prompts(shape, Format::kFp8E4m3);
    const auto want = prompts.run(variant_named("reference"), pool);
    const auto got = prompts.run(variant_named("cuda_decode_mma"), pool);
    if (shape.value_size == 0) {
      CHECK(got == want);
    } else {
      CHECK(error_of(got, want) < 2e-7);
    }
  }
}

TEST_CASE("attention: from bf16 queries and to bf16 results is the same, rounded") {
  ThreadPool pool(1);
  const auto check = [&](const char* name, const Shape& shape) {
    INFO(name << ", " << shape.name);
    Prompts prompts(shape, Format::kBf16);
    std::vector<float> want = prompts.run(variant_named(name), pool);
    for (float& value : want) value = to_float(to_bf16(value));
    CHECK(prompts.run(variant_named(name), 0, prompts.tokens(), pool, true) == want);
  };
  for (const int i : {1, 7, 9}) check("cuda_flash_wgmma", kEdges[i]);
  for (const int i : {1, 3, 8}) check("cuda_decode_stream_mma", kStreamEdges[i]);
  // In splits; all at once, by wgmma where heads are 64 wide, and by mma.
  for (const int i : {0, 1, 7, 9}) check("cuda_flash_splits_mma", kEdges[i]);
  // What is not streamed has no bf16.
  Prompts prompts(*(std::end(kStreamEdges) - 1), Format::kBf16);
  const Variant& stream = variant_named("cuda_decode_stream_mma");
  check_error([&] { prompts.run(stream, 0, prompts.tokens(), pool, true); },
              ErrorCode::kInvalidArgument, {"bf16 cache"});
}

TEST_CASE("attention: cuda_flash_wgmma gives a token the same bits in any company") {
  ThreadPool pool(1);
  const Variant& variant = variant_named("cuda_flash_wgmma");
  for (const std::int64_t window : {0, 100}) {
    Shape shape = {"", 8, 1, 16, window, true, {290, 140}, 40};
    Prompts prompts(shape, Format::kBf16);
    const auto together = prompts.run(variant, pool);
    for (const std::int64_t chunk : {1, 23, 37}) {
      INFO("window " << window << ", chunks of " << chunk);
      std::vector<float> apart;
      // One by one, of those at either end of a sequence alone: others would take long.
      const std::int64_t step = chunk == 1 ? 39 : chunk;
      std::vector<float> want;
      for (std::int64_t t = 0; t < prompts.tokens(); t += step) {
        const std::int64_t end = std::min(prompts.tokens(), t + chunk);
        const auto part = prompts.run(variant, t, end, pool);
        apart.insert(apart.end(), part.begin(), part.end());
        want.insert(want.end(), together.begin() + t * 512, together.begin() + end * 512);
      }
      CHECK(same_bits(apart, want));
    }
  }
}

// Up to 128 tokens are one kernel and its join, more are another: 200 together, and parts of them.
TEST_CASE("attention: cuda_flash_splits_mma gives a token the same bits in prompts and alone") {
  ThreadPool pool(1);
  const Variant& variant = variant_named("cuda_flash_splits_mma");
  for (const std::int64_t window : {0, 100}) {
    // Beyond a split of 256 positions, and a second one.
    Prompts prompts({"", 8, 1, 16, window, true, {600, 140}, 100}, Format::kBf16);
    const auto together = prompts.run(variant, pool);
    CHECK(error_of(together, prompts.run(variant_named("reference"), pool)) < 2e-5);
    for (const auto& [begin, end] : {std::pair{0, 128}, {3, 4}, {99, 101}, {110, 200}}) {
      INFO("window " << window << ", tokens " << begin << " to " << end);
      CHECK(same_bits(prompts.run(variant, begin, end, pool),
                      {together.begin() + begin * 512, together.begin() + end * 512}));
    }
  }
}

TEST_CASE("attention: cuda_flash_splits_mma has the same bits by wgmma, by mma and in splits") {
  ThreadPool pool(1);
  const Variant& variant = variant_named("cuda_flash_splits_mma");
  const auto run = [&](Prompts& prompts, std::int64_t begin, std::int64_t end, const char* kernel) {
    const std::size_t before = simt::launches().size();
    const auto got = prompts.run(variant, begin, end, pool);
    REQUIRE(simt::launches().size() > before);
    CHECK(simt::launches()[before] == kernel);
    return got;
  };
  for (const Shape& shape : kManyTokens) {
    if (kShort && (&shape - kManyTokens) % 3 != 0) continue;  // all of them take a minute
    INFO(shape.name);
    Prompts prompts(shape, Format::kBf16);
    const std::int64_t all = prompts.tokens();
    const std::int64_t size = shape.heads * shape.head_dim;
    const auto want = run(prompts, 0, all, "attention/cuda_flash_splits_mma (many tokens, wgmma)");
    CHECK(error_of(want, prompts.run(variant_named("reference"), pool)) < 2e-5);
    {
      const gpu::DescribedDevice described(gpu::known_device("a100"));
      CHECK(same_bits(run(prompts, 0, all, "attention/cuda_flash_splits_mma (many tokens)"), want));
    }
    const auto check = [&](std::int64_t begin, std::int64_t end, const char* kernel) {
      INFO("tokens " << begin << " to " << end);
      CHECK(same_bits(run(prompts, begin, end, kernel),
                      {want.begin() + begin * size, want.begin() + end * size}));
    };
    for (std::int64_t begin = 0; begin < all; begin += 128) {
      check(begin, std::min(all, begin + 128), "attention/cuda_flash_splits_mma");
    }
    for (const std::int64_t token : {std::int64_t{0}, all / 2, all - 1}) {
      check(token, token + 1, "attention/cuda_flash_splits_mma");
    }
    if (all > 129) check(1, all, "attention/cuda_flash_splits_mma (many tokens, wgmma)");
    if (all > 139) check(0, all - 10, "attention/cuda_flash_splits_mma (many tokens, wgmma)");
    // Those that decode, alone and before others, few and many.
    for (const std::int64_t singles : {std::int64_t{5}, all - 7, all}) {
      INFO(singles << " are said to be single");
      prompts.num_single = singles;
      check(0, all, "attention/cuda_flash_splits_mma");
    }
  }
}

TEST_CASE("attention: what is enough memory for long contexts is for shorter ones") {
  // Shorter ones have more tokens a round.
  for (const Variant* variant : attention::variants()) {
    INFO(variant->name);
    for (const std::int64_t tokens : {1, 64, 2048}) {
      std::size_t before = 0;
      for (std::int64_t context = 100; context <= 131072; context += context / 3) {
        INFO(tokens << " tokens, contexts of " << context);
        const std::size_t bytes =
            variant->workspace_bytes({Format::kBf16, tokens, 64, 8, 64, 0, context}, 1);
        CHECK(bytes >= before);
        before = bytes;
      }
    }
  }
}

TEST_CASE("attention: cuda_flash_splits_mma takes other caches and heads by mma") {
  ThreadPool pool(1);
  const Variant& variant = variant_named("cuda_flash_splits_mma");
  for (const auto& [head_dim, format] :
       {std::pair{std::int64_t{32}, Format::kBf16}, {128, Format::kBf16}, {64, Format::kFp8E4m3}}) {
    INFO("heads of " << head_dim << ", " << format_name(format));
    Prompts prompts({"", 8, 1, 16, 0, true, {300}, 140, head_dim}, format);
    const std::size_t before = simt::launches().size();
    const auto got = prompts.run(variant, pool);
    CHECK(simt::launches().at(before) == "attention/cuda_flash_splits_mma (many tokens)");
    CHECK(error_of(got, prompts.run(variant_named("reference"), pool)) < 2e-5);
    const std::int64_t size = 8 * head_dim;
    CHECK(same_bits(prompts.run(variant, 20, 140, pool), {got.begin() + 20 * size, got.end()}));
  }
}

TEST_CASE("attention: cuda_decode_stream_mma agrees with the reference at every edge") {
  ThreadPool pool(1);
  const Variant& variant = variant_named("cuda_decode_stream_mma");
  for (const Shape& shape : kStreamEdges) {
    for (const Format format : {Format::kBf16, Format::kFp8E4m3}) {
      if (format != Format::kBf16 && shape.growth < 128) continue;  // rounded keys change them
      INFO(shape.name << ", " << format_name(format));
      Prompts prompts(shape, format);
      const auto want = prompts.run(variant_named("reference"), pool);
      CHECK(error_of(prompts.run(variant, pool), want) < 2e-5);
      gpu::DeviceInfo plain = gpu::known_device("a100");
      plain.num_sms = 1;
      for (const gpu::DeviceInfo& other : {plain, gpu::known_device("h200")}) {
        INFO("as on " << other.name << " with " << other.num_sms << " SMs");
        const gpu::DescribedDevice described(other);
        CHECK(error_of(prompts.run(variant, pool), want) < 2e-5);
      }
    }
  }
}

TEST_CASE("attention: cuda_decode_stream_mma gives a token the same bits in any large company") {
  ThreadPool pool(1);
  const Variant& variant = variant_named("cuda_decode_stream_mma");
  for (const std::int64_t window : {0, 100, 200}) {
    Prompts prompts({"", 8, 1, 16, window, true, {290, 140, 30}, 10}, Format::kBf16);
    const auto together = prompts.run(variant, pool);
    for (const auto& [begin, end] : {std::pair{0, 8}, {5, 14}, {20, 30}}) {
      INFO("window " << window << ", tokens " << begin << " to " << end);
      CHECK(same_bits(prompts.run(variant, begin, end, pool),
                      {together.begin() + begin * 512, together.begin() + end * 512}));
    }
  }
}

TEST_CASE("attention: cuda_flash_wgmma says what it cannot do") {
  const auto reason = [](std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim) {
    return variant_named("cuda_flash_wgmma")
        .unsupported({Format::kBf16, 1, heads, kv_heads, head_dim, 0, 1});
  };
  CHECK(reason(64, 8, 64) == "");
  CHECK(reason(8, 2, 32) == "");
  CHECK(reason(8, 2, 128) == "head_dim 128 is not 32 or 64");
  CHECK(reason(8, 3, 64) == "num_heads must be a multiple of num_kv_heads");
  CHECK(reason(129, 1, 64) == "129 query heads share a key/value head, more than 128");
}
#endif

// A variant has the same bits in all schedules.
void check_schedules(std::string_view name, const Shape& shape, Format format,
                     const std::vector<simt::Settings>& all = schedules()) {
  ThreadPool pool(1);
  Prompts prompts(shape, format);
  const auto want = prompts.run(variant_named("reference"), pool);
  std::vector<float> first;
  for (const simt::Settings& settings : all) {
    INFO(shape.name << ", " << format_name(format) << ", " << describe(settings));
    const WithSettings with(settings);
    const auto got = prompts.run(variant_named(name), pool);
    CHECK(error_of(got, want) < 2e-5);
    if (first.empty()) first = got;
    CHECK(same_bits(got, first));
#if defined(SIMT_TSAN)
    break;  // it sees races in any
#endif
  }
}

TEST_CASE("attention: cuda_decode_stream_mma in every schedule") {
  for (const Shape& shape : kStreamSchedules) {
    std::vector<simt::Settings> all = schedules();
    for (simt::Settings& settings : all) settings.resident_blocks = 16;
    check_schedules("cuda_decode_stream_mma", shape, Format::kBf16, all);
  }
}

TEST_CASE("attention: cuda_flash_splits_mma in splits in every schedule") {
  for (const Shape& shape :
       {Shape{"whole splits and tiles, and parts", 8, 1, 16, 0, true, {600, 130}, 2},
        Shape{"windows", 4, 2, 16, 100, false, {300}, 3},
        Shape{"scores that rise at once", 8, 1, 16, 0, false, {300}, 3, 64, 0.05F}}) {
    check_schedules("cuda_flash_splits_mma", shape, Format::kBf16);
  }
}

TEST_CASE("attention: cuda_flash_splits_mma by wgmma in every schedule") {
  for (const Shape& shape : {Shape{"more stages than the ring holds, then a token of its own",
                                   2,
                                   2,
                                   16,
                                   0,
                                   true,
                                   {700, 1},
                                   130},
                             Shape{"windows", 2, 1, 16, 100, true, {300, 40}, 100}}) {
    check_schedules("cuda_flash_splits_mma", shape, Format::kBf16);
  }
}

TEST_CASE("attention: cuda_flash_wgmma in every schedule") {
  for (const Shape& shape : kSchedules) {
    for (const Format format : {Format::kBf16, Format::kFp8E4m3}) {
      check_schedules("cuda_flash_wgmma", shape, format);
    }
  }
}

}  // namespace moebench::test
