// Kernels that promise the bits of others: the streaming ones those of their plainer siblings, for
// any number of tokens and in any schedule; and fused ones those of the ops one after the other.
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "kernels/attention/kv_layout.h"
#include "kernels/core/float_types.h"
#include "kernels/core/thread_pool.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/verify/compare.h"
#include "tests/simt/support.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

using verify::Operands;

constexpr Format kFormats[] = {Format::kF32,   Format::kBf16,  Format::kF16,
                               Format::kInt8,  Format::kInt4,  Format::kFp8E4m3,
                               Format::kMxfp8, Format::kMxfp4, Format::kNvfp4};

std::vector<bf16> bf16_of(const std::vector<float>& values) {
  std::vector<bf16> rounded;
  for (const float value : values) rounded.push_back(to_bf16(value));
  return rounded;
}

// `rounds`: x goes to it as bf16.
std::vector<float> linear_with(std::string_view name, verify::RandomMatrices& weight,
                               const std::vector<float>& x, const std::vector<float>& bias,
                               std::int64_t tokens, ThreadPool& pool, bool rounds = false) {
  const linear::Variant& variant = cuda_variant(linear::variants(), name);
  const std::int64_t rows = weight.view.rows;
  const std::int64_t cols = weight.view.cols;
  std::vector<float> out(static_cast<std::size_t>(tokens * rows), std::nanf(""));
  Operands o("cuda");
  linear::Args args{{o.in(x), {tokens, cols}},
                    o.in(weight.view[0]),
                    {o.in(bias), {rows}},
                    {o.out(out), {tokens, rows}},
                    {}};
  const std::vector<bf16> rounded = bf16_of(x);
  if (rounds) {
    args.x.data = nullptr;
    args.rounded = {o.in(rounded), {tokens, cols}};
  }
  o.run(variant, linear::Problem{weight.view.format, tokens, rows, cols}, args, pool);
  return out;
}

// A norm behind the experts: x, which is added to, and what it gives.
struct NormBehind {
  std::vector<float> x, weight, out;
  std::vector<bf16> rounded;
  bool rounds = false;
};

std::vector<float> experts_with(std::string_view name, verify::RandomMatrices& gate_up,
                                verify::RandomMatrices& down, std::int64_t tokens,
                                std::int64_t top_k, ThreadPool& pool,
                                NormBehind* behind = nullptr) {
  const moe_experts::Variant& variant = cuda_variant(moe_experts::variants(), name);
  const std::int64_t hidden = gate_up.view.cols;
  const std::int64_t wide = gate_up.view.rows;
  const std::int64_t experts = gate_up.view.count;
  // What does not depend on the number of tokens first, and tokens one after the other: those of a
  // small batch are the first of a larger one.
  RandomStream random(11);
  const std::vector<float> gate_up_bias = verify::random_floats(random, experts * wide, 1.0F);
  const std::vector<float> down_bias = verify::random_floats(random, experts * hidden, 1.0F);
  const std::vector<float> x = verify::random_floats(random, tokens * hidden, 2.0F);
  RandomStream of_weights(12);
  const std::vector<float> weights = verify::random_floats(of_weights, tokens * top_k, 1.0F);
  // Expert 2 has every token, for groups of more than eight; the others some.
  std::vector<std::int32_t> ids;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      ids.push_back(
          static_cast<std::int32_t>(k == 1 ? 2 : (2 + 1 + (t * 3 + k) % (experts - 1)) % experts));
    }
  }
  std::vector<float> out(static_cast<std::size_t>(tokens * hidden), std::nanf(""));
  Operands o("cuda");
  moe_experts::Args args;
  args.x = {o.in(x), {tokens, hidden}};
  args.expert_ids = {o.in(ids), {tokens, top_k}};
  args.expert_weights = {o.in(weights), {tokens, top_k}};
  args.gate_up = o.in(gate_up.view);
  args.gate_up_bias = {o.in(gate_up_bias), {experts, wide}};
  args.down = o.in(down.view);
  args.down_bias = {o.in(down_bias), {experts, hidden}};
  args.out = {o.out(out), {tokens, hidden}};
  if (behind != nullptr) {
    args.out.data = nullptr;
    args.behind = {{o.out(behind->x), {tokens, hidden}},
                   {o.in(behind->weight), {hidden}},
                   1e-5F,
                   {behind->rounds ? nullptr : o.out(behind->out), {tokens, hidden}},
                   {behind->rounds ? o.out(behind->rounded) : nullptr, {tokens, hidden}}};
  }
  o.run(variant,
        moe_experts::Problem{gate_up.view.format, tokens, hidden, wide / 2, experts, top_k}, args,
        pool);
  return out;
}

}  // namespace

TEST_CASE("linear: cuda_stream_bf16 has the bits of cuda_rows_bf16, however many tokens") {
  ThreadPool pool(1);
  for (const Format format : kFormats) {
    RandomStream random(7);
    // Rows that do not divide evenly; columns that end inside a step and reach several pieces.
    verify::RandomMatrices weight(random, format, 1, 75, 1888, pool);
    const std::vector<float> bias = verify::random_floats(random, 75, 1.0F);
    for (const std::int64_t tokens : {1, 3, 8, 9, 16, 17}) {
      INFO(format_name(format) << ", " << tokens << " tokens");
      const std::vector<float> x = verify::random_floats(random, tokens * 1888, 2.0F);
      const auto want = linear_with("cuda_rows_bf16", weight, x, bias, tokens, pool);
      CHECK(same_bits(linear_with("cuda_stream_bf16", weight, x, bias, tokens, pool), want));
    }
  }
}

TEST_CASE("linear: cuda_wgmma_rows_bf16 has the bits of cuda_wgmma_bf16, however many tokens") {
  ThreadPool pool(1);
  // Fewer rows than make a tile for each multiprocessor, in tiles of 16, and more, in tiles of 32;
  // columns that end inside a tile and turn the ring.
  for (const auto& [rows, cols] : {std::pair{75, 1888}, {5000, 96}}) {
    RandomStream random(17);
    verify::RandomMatrices weight(random, Format::kBf16, 1, rows, cols, pool);
    const std::vector<float> bias = verify::random_floats(random, rows, 1.0F);
    for (const std::int64_t tokens : {1, 3, 8, 9, 16, 17}) {
      INFO(rows << " rows, " << tokens << " tokens");
      const std::vector<float> x = verify::random_floats(random, tokens * cols, 2.0F);
      const auto want = linear_with("cuda_wgmma_bf16", weight, x, bias, tokens, pool);
      CHECK(same_bits(linear_with("cuda_wgmma_rows_bf16", weight, x, bias, tokens, pool), want));
    }
  }
  RandomStream random(18);
  verify::RandomMatrices weight(random, Format::kBf16, 1, 45, 4096, pool);
  const std::vector<float> bias = verify::random_floats(random, 45, 1.0F);
  const std::vector<float> x = verify::random_floats(random, std::int64_t{2} * 4096, 2.0F);
  const auto want = linear_with("cuda_wgmma_bf16", weight, x, bias, 2, pool);
  for (const simt::Settings& settings : schedules()) {
    INFO(describe(settings));
    const WithSettings with(settings);
    CHECK(same_bits(linear_with("cuda_wgmma_rows_bf16", weight, x, bias, 2, pool), want));
  }
}

TEST_CASE("linear: cuda_chain_bf16 has the bits of cuda_wgmma_bf16, however many tokens") {
  ThreadPool pool(1);
  // Also that the machine's mma.sync and wgmma add up alike, as a GPU's do. A tile a block, of 16
  // rows and of more; several tiles a block; gpt-oss's columns, and fewer than a stage or one of
  // its boxes has; more stages than the ring.
  for (const auto& [rows, cols] : {std::pair{75, 1888},
                                   {130, 4096},
                                   {700, 96},
                                   {45, 2880},
                                   {20, 32},
                                   {250, 448},
                                   {300, 4384}}) {
    RandomStream random(17);
    verify::RandomMatrices weight(random, Format::kBf16, 1, rows, cols, pool);
    const std::vector<float> bias = verify::random_floats(random, rows, 1.0F);
    const std::vector<float> x = verify::random_floats(random, std::int64_t{65} * cols, 2.0F);
    const auto all = linear_with("cuda_wgmma_bf16", weight, x, bias, 65, pool);
    for (const std::int64_t tokens : {1, 3, 8, 9, 16, 17, 33, 64, 65}) {
      INFO(rows << " rows, " << tokens << " tokens");
      const std::vector<float> of_some(x.begin(), x.begin() + tokens * cols);
      const std::vector<float> want(all.begin(), all.begin() + tokens * rows);
      CHECK(same_bits(linear_with("cuda_chain_bf16", weight, of_some, bias, tokens, pool), want));
    }
  }
}

TEST_CASE("linear: cuda_stream_bf16 multiplies float8 with inputs of every size") {
  // As f16, to which each token's inputs are brought by a power of two of its own.
  ThreadPool pool(1);
  RandomStream random(9);
  constexpr std::int64_t kTokens = 5;
  constexpr std::int64_t kCols = 1888;
  verify::RandomMatrices weight(random, Format::kFp8E4m3, 1, 75, kCols, pool);
  const std::vector<float> bias = verify::random_floats(random, 75, 1.0F);
  std::vector<float> x = verify::random_floats(random, kTokens * kCols, 2.0F);
  const float factors[kTokens] = {1.0F, 0x1p-120F, 0x1p100F, 0.0F, 1.0F};
  for (std::int64_t i = 0; i < kTokens * kCols; ++i) x[i] *= factors[i / kCols];
  x[kCols - 1] = 0x1p-31F;  // beside 1
  x[4 * kCols + 700] = std::numeric_limits<float>::infinity();
  const auto want = linear_with("cuda_rows_bf16", weight, x, bias, kTokens, pool);
  const auto got = linear_with("cuda_stream_bf16", weight, x, bias, kTokens, pool);
  constexpr std::int64_t kFinite = 4 * 75;
  CHECK(same_bits({got.begin(), got.begin() + kFinite}, {want.begin(), want.begin() + kFinite}));
  for (std::size_t i = kFinite; i < want.size(); ++i) {
    CHECK_FALSE(std::isfinite(want[i]));
    CHECK(std::isnan(got[i]) == std::isnan(want[i]));
    CHECK((std::isnan(got[i]) || got[i] == want[i]));
  }
}

TEST_CASE("linear: cuda_stream_bf16 in every schedule") {
  ThreadPool pool(1);
  for (const Format format : {Format::kBf16, Format::kFp8E4m3}) {
    RandomStream random(8);
    verify::RandomMatrices weight(random, format, 1, 45, 4096, pool);
    const std::vector<float> bias = verify::random_floats(random, 45, 1.0F);
    const std::vector<float> x = verify::random_floats(random, std::int64_t{2} * 4096, 2.0F);
    const auto want = linear_with("cuda_rows_bf16", weight, x, bias, 2, pool);
    for (const simt::Settings& settings : schedules()) {
      INFO(format_name(format) << ", " << describe(settings));
      const WithSettings with(settings);
      CHECK(same_bits(linear_with("cuda_stream_bf16", weight, x, bias, 2, pool), want));
    }
  }
}

TEST_CASE("linear: inputs that are bf16 already have the bits of those rounded on the way") {
  ThreadPool pool(1);
  RandomStream random(20);
  verify::RandomMatrices weight(random, Format::kBf16, 1, 136, 160, pool);
  const std::vector<float> bias = verify::random_floats(random, 136, 1.0F);
  const std::vector<float> of_130 = verify::random_floats(random, std::int64_t{130} * 160, 2.0F);
  std::size_t count = 0;
  for (const linear::Variant* variant : linear::variants()) {
    if (variant->knows_bf16 == nullptr || variant->name == "cuda_cublaslt") continue;  // not here
    for (const std::int64_t tokens : {1, 9, 40, 130}) {
      linear::Args args;
      args.x.shape = {tokens, 160};
      args.weight = weight.view[0];
      INFO(variant->name << ", " << tokens << " tokens");
      CHECK(variant->knows_bf16(args) == (variant->name != "cuda_stream_bf16" || tokens <= 16));
      if (!variant->knows_bf16(args)) continue;
      ++count;
      const std::vector<float> x(of_130.begin(), of_130.begin() + tokens * 160);
      CHECK(same_bits(linear_with(variant->name, weight, x, bias, tokens, pool, true),
                      linear_with(variant->name, weight, x, bias, tokens, pool)));
    }
  }
  CHECK(count == 4 * 4 + 2);
  // x that is staged, and that comes with the stages; more stages than the ring has.
  verify::RandomMatrices wide(random, Format::kBf16, 1, 40, 4384, pool);
  const std::vector<float> wide_x = verify::random_floats(random, std::int64_t{33} * 4384, 2.0F);
  for (const std::int64_t tokens : {1, 3, 16, 17, 33}) {
    INFO(tokens << " tokens");
    const std::vector<float> of_some(wide_x.begin(), wide_x.begin() + tokens * 4384);
    CHECK(same_bits(linear_with("cuda_chain_bf16", wide, of_some, bias, tokens, pool, true),
                    linear_with("cuda_chain_bf16", wide, of_some, bias, tokens, pool)));
  }
  verify::RandomMatrices codes(random, Format::kInt8, 1, 136, 160, pool);
  check_error([&] { linear_with("cuda_mma_bf16", codes, of_130, bias, 130, pool, true); },
              ErrorCode::kInvalidArgument, {"inputs of bf16", "weights of bf16"});
}

TEST_CASE("rms_norm: cuda_block rounds to bf16 what it would have given") {
  ThreadPool pool(1);
  // Rows of whole groups of four or not, held in registers or not.
  for (const std::int64_t size : {7, 2880, 5003, 8192}) {
    INFO(size);
    constexpr std::int64_t kTokens = 3;
    RandomStream random(21);
    const std::vector<float> x = verify::random_floats(random, kTokens * size, 3.0F);
    const std::vector<float> addend = verify::random_floats(random, kTokens * size, 1.0F);
    const std::vector<float> weight = verify::random_floats(random, size, 2.0F);
    const auto run = [&](bool rounds) {
      std::vector<float> sum = x;
      std::vector<float> out(x.size(), std::nanf(""));
      std::vector<bf16> rounded(x.size(), to_bf16(std::nanf("")));
      {
        Operands o("cuda");
        rms_norm::Args args{{o.out(sum), {kTokens, size}},
                            {o.in(addend), {kTokens, size}},
                            {o.in(weight), {size}},
                            1e-5F,
                            {rounds ? nullptr : o.out(out), {kTokens, size}}};
        if (rounds) args.rounded = {o.out(rounded), {kTokens, size}};
        o.run(cuda_variant(rms_norm::variants(), "cuda_block"), rms_norm::Problem{kTokens, size},
              args, pool);
      }
      if (!rounds) rounded = bf16_of(out);
      std::vector<std::uint16_t> bits;
      for (const bf16 value : rounded) bits.push_back(value.bits);
      return std::pair(sum, bits);
    };
    CHECK(run(true) == run(false));
  }
}

TEST_CASE(
    "linear: cuda_two_parts_bf16 is as good as float32 and gives a token the same bits always") {
  ThreadPool pool(1);
  // Tiles of 32 and of 128 rows, whole and not; columns that end inside a stage, columns for which
  // some blocks of a cluster have nothing to do, and gpt-oss's.
  for (const auto& [rows, cols] : {std::pair{32, 2880}, {7, 96}, {128, 2880}, {131, 1888}}) {
    INFO(rows << " rows, " << cols << " columns");
    RandomStream random(19);
    verify::RandomMatrices weight(random, Format::kBf16, 1, rows, cols, pool);
    const std::vector<float> bias = verify::random_floats(random, rows, 1.0F);
    const std::vector<float> x = verify::random_floats(random, std::int64_t{66} * cols, 2.0F);
    const auto all = linear_with("cuda_two_parts_bf16", weight, x, bias, 66, pool);
    CHECK(nmse(all, linear_with("cuda_tiled_f32", weight, x, bias, 66, pool)) < 5e-12);
    for (const std::int64_t tokens : {1, 64}) {
      const std::vector<float> first(all.begin(), all.begin() + tokens * rows);
      const std::vector<float> of_first(x.begin(), x.begin() + tokens * cols);
      CHECK(same_bits(linear_with("cuda_two_parts_bf16", weight, of_first, bias, tokens, pool),
                      first));
    }
    for (const simt::Settings& settings : schedules()) {
      INFO(describe(settings));
      const WithSettings with(settings);
      CHECK(same_bits(linear_with("cuda_two_parts_bf16", weight, x, bias, 66, pool), all));
    }
  }
}

TEST_CASE(
    "moe_experts: the streaming variants have the bits of cuda_fused_bf16, however many tokens") {
  ThreadPool pool(1);
  for (const Format format : kFormats) {
    RandomStream random(9);
    verify::RandomMatrices gate_up(random, format, 6, 128, 96, pool);
    verify::RandomMatrices down(random, format, 6, 96, 64, pool);
    for (const std::int64_t tokens : {1, 2, 8, 9, 21}) {
      INFO(format_name(format) << ", " << tokens << " tokens");
      const auto want = experts_with("cuda_fused_bf16", gate_up, down, tokens, 3, pool);
      CHECK(same_bits(experts_with("cuda_stream_bf16", gate_up, down, tokens, 3, pool), want));
      CHECK(same_bits(experts_with("cuda_direct_bf16", gate_up, down, tokens, 3, pool), want));
    }
  }
}

TEST_CASE("moe_experts: the norm behind has the bits of cuda_block's, whatever runs the experts") {
  ThreadPool pool(1);
  constexpr std::int64_t kHidden = 160;
  // Codes that cuda_grouped_fp8 takes, and what it hands on; tiles of each size.
  for (const auto& [format, name, tokens] : {std::tuple{Format::kMxfp4, "cuda_grouped_fp8", 6},
                                             {Format::kMxfp4, "cuda_grouped_chunks_fp8", 33},
                                             {Format::kMxfp4, "cuda_one_launch_stream_int8", 40},
                                             {Format::kMxfp4, "cuda_grouped_fp8", 130},
                                             {Format::kInt8, "cuda_grouped_fp8", 21}}) {
    RandomStream random(24);
    verify::RandomMatrices gate_up(random, format, 4, 128, kHidden, pool);
    verify::RandomMatrices down(random, format, 4, kHidden, 64, pool);
    const moe_experts::Variant& variant = cuda_variant(moe_experts::variants(), name);
    REQUIRE(variant.ends_with_norm != nullptr);
    CHECK(variant.ends_with_norm({format, tokens, kHidden, 64, 4, 3}));
    CHECK(!variant.ends_with_norm({format, tokens, kHidden + 2, 64, 4, 3}));
    const std::vector<float> x = verify::random_floats(random, tokens * kHidden, 3.0F);
    const std::vector<float> weight = verify::random_floats(random, kHidden, 2.0F);
    const std::vector<float> nothing(x.size(), std::nanf(""));
    const std::vector<bf16> nothing_rounded(x.size(), to_bf16(std::nanf("")));
    const auto apart = experts_with(name, gate_up, down, tokens, 3, pool);
    for (const bool rounds : {false, true}) {
      INFO(name << ", " << format_name(format) << ", " << tokens << " tokens, rounds " << rounds);
      NormBehind want{x, weight, nothing, nothing_rounded, rounds};
      {
        Operands o("cuda");
        rms_norm::Args args{{o.out(want.x), {tokens, kHidden}},
                            {o.in(apart), {tokens, kHidden}},
                            {o.in(weight), {kHidden}},
                            1e-5F,
                            {rounds ? nullptr : o.out(want.out), {tokens, kHidden}}};
        if (rounds) args.rounded = {o.out(want.rounded), {tokens, kHidden}};
        o.run(cuda_variant(rms_norm::variants(), "cuda_block"), rms_norm::Problem{tokens, kHidden},
              args, pool);
      }
      NormBehind got{x, weight, nothing, nothing_rounded, rounds};
      experts_with(name, gate_up, down, tokens, 3, pool, &got);
      CHECK(same_bits(got.x, want.x));
      if (!rounds) CHECK(same_bits(got.out, want.out));
      for (std::size_t i = 0; rounds && i < x.size(); ++i) {
        CHECK(got.rounded[i].bits == want.rounded[i].bits);
      }
    }
  }
}

TEST_CASE("moe_experts: the streaming variants in every schedule") {
  ThreadPool pool(1);
  RandomStream random(10);
  // Rows of several pieces, and enough groups for every ring to turn.
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 12, 64, 2144, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 12, 2144, 32, pool);
  for (const std::int64_t tokens : {1, 5, 12}) {
    const auto want = experts_with("cuda_fused_bf16", gate_up, down, tokens, 4, pool);
    for (const simt::Settings& settings : schedules()) {
      INFO(tokens << " tokens, " << describe(settings));
      const WithSettings with(settings);
      CHECK(same_bits(experts_with("cuda_stream_bf16", gate_up, down, tokens, 4, pool), want));
      CHECK(same_bits(experts_with("cuda_direct_bf16", gate_up, down, tokens, 4, pool), want));
    }
  }
}

TEST_CASE("moe_experts: scales that a bf16 cannot hold are exact in the streaming variants") {
  ThreadPool pool(1);
  RandomStream random(12);
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 4, 64, 64, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 4, 64, 32, pool);
  // 2^2 and 2^1: the first is more than the quick way of decoding takes.
  for (std::size_t i = 0; i < down.scales.size(); ++i) {
    down.scales[i] = static_cast<std::byte>(i % 3 == 0 ? 129 : 128);
  }
  const auto want = experts_with("cuda_fused_bf16", gate_up, down, 2, 3, pool);
  CHECK(same_bits(experts_with("cuda_stream_bf16", gate_up, down, 2, 3, pool), want));
  CHECK(same_bits(experts_with("cuda_direct_bf16", gate_up, down, 2, 3, pool), want));
}

TEST_CASE("moe_experts: cuda_grouped_registers_bf16 multiplies tiles of every size") {
  ThreadPool pool(1);
  struct Case {
    std::int64_t experts, hidden, intermediate, tokens, top_k;
  };
  // Windows of columns that are whole, half and end inside a half; rows that end inside a tile, or
  // leave four warps without any; of 8, 16, 32, of 64 and 96, and of 32, 64 and 128 tokens.
  const Case cases[] = {{4, 160, 96, 12, 2},
                        {4, 320, 160, 45, 2},
                        {4, 96, 192, 130, 2},
                        {3, 64, 32, 150, 2},
                        {4, 128, 64, 190, 2}};
  for (const Format format : {Format::kInt8, Format::kInt4, Format::kFp8E4m3, Format::kMxfp8,
                              Format::kMxfp4, Format::kNvfp4, Format::kBf16}) {
    for (const Case& c : cases) {
      // The tiles are the same of every format.
      if (kShort && format != Format::kMxfp4 && &c != &cases[0]) continue;
      INFO(format_name(format) << ", " << c.tokens << " tokens");
      RandomStream random(14);
      verify::RandomMatrices gate_up(random, format, c.experts, 2 * c.intermediate, c.hidden, pool);
      verify::RandomMatrices down(random, format, c.experts, c.hidden, c.intermediate, pool);
      const auto want = experts_with("cuda_per_token_f32", gate_up, down, c.tokens, c.top_k, pool);
      CHECK(
          nmse(experts_with("cuda_grouped_registers_bf16", gate_up, down, c.tokens, c.top_k, pool),
               want) < moe_experts::cuda_grouped_registers_bf16.max_nmse({.format = format}));
    }
  }
}

TEST_CASE("moe_experts: cuda_grouped_registers_bf16 gives a token the same bits in every batch") {
  ThreadPool pool(1);
  for (const Format format : {Format::kMxfp4, Format::kInt8}) {
    RandomStream random(16);
    verify::RandomMatrices gate_up(random, format, 4, 192, 160, pool);
    verify::RandomMatrices down(random, format, 4, 160, 96, pool);
    const auto all = experts_with("cuda_grouped_registers_bf16", gate_up, down, 190, 2, pool);
    for (const std::int64_t tokens : {1, 9, 33, 130}) {
      INFO(format_name(format) << ", " << tokens << " tokens");
      const auto some = experts_with("cuda_grouped_registers_bf16", gate_up, down, tokens, 2, pool);
      CHECK(same_bits(some, {all.begin(), all.begin() + tokens * 160}));
    }
  }
}

TEST_CASE("moe_experts: cuda_grouped_registers_bf16 in every schedule") {
  ThreadPool pool(1);
  RandomStream random(15);
  // Windows enough for the ring to turn, and more products than blocks.
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 3, 320, 832, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 3, 832, 160, pool);
  // A block scale that a bf16 cannot hold.
  for (std::size_t i = 0; i < down.scales.size(); i += 7) {
    down.scales[i] = static_cast<std::byte>(129);
  }
  for (const std::int64_t tokens : {5, 70}) {
    const auto want = experts_with("cuda_per_token_f32", gate_up, down, tokens, 2, pool);
    const auto once = experts_with("cuda_grouped_registers_bf16", gate_up, down, tokens, 2, pool);
    CHECK(nmse(once, want) < 5e-5);
    for (const simt::Settings& settings : schedules()) {
      INFO(tokens << " tokens, " << describe(settings));
      const WithSettings with(settings);
      CHECK(same_bits(experts_with("cuda_grouped_registers_bf16", gate_up, down, tokens, 2, pool),
                      once));
    }
  }
}

TEST_CASE("moe_experts: cuda_grouped_fp8 and its like multiply tiles of every size") {
  ThreadPool pool(1);
  struct Case {
    std::int64_t experts, hidden, intermediate, tokens, top_k;
  };
  // Chunks of columns that are whole and that are not, one and several; rows that end inside 64,
  // and that leave four warps without any; products of 8, 16, 24, 32, 64 and 96 tokens, each as the
  // most of a tile and as the fewer; several tiles of an expert; so few pairs that two or three
  // groups of warps have a tile's rows.
  const Case cases[] = {{8, 160, 96, 12, 2},  {4, 320, 160, 10, 2}, {4, 96, 192, 45, 2},
                        {4, 288, 96, 23, 2},  {3, 64, 32, 36, 2},   {4, 448, 320, 48, 2},
                        {2, 256, 128, 48, 1}, {2, 160, 96, 70, 1},  {2, 288, 224, 130, 1},
                        {2, 64, 32, 230, 1},  {4, 64, 96, 3, 1},    {4, 160, 96, 1, 2}};
  for (const Case& c : cases) {
    INFO(c.tokens << " tokens, " << c.hidden << ", " << c.intermediate);
    RandomStream random(14);
    verify::RandomMatrices gate_up(random, Format::kMxfp4, c.experts, 2 * c.intermediate, c.hidden,
                                   pool);
    verify::RandomMatrices down(random, Format::kMxfp4, c.experts, c.hidden, c.intermediate, pool);
    const auto want = experts_with("cuda_per_token_f32", gate_up, down, c.tokens, c.top_k, pool);
    for (const char* variant : {"cuda_grouped_fp8", "cuda_grouped_chunks_fp8",
                                "cuda_grouped_blocks_fp8", "cuda_grouped_folded_32_fp8"}) {
      const auto got = experts_with(variant, gate_up, down, c.tokens, c.top_k, pool);
      CHECK(nmse(got, want) < moe_experts::cuda_grouped_fp8.max_nmse({.format = Format::kMxfp4}));
      // Not what it falls back to.
      CHECK_FALSE(same_bits(got, experts_with("cuda_grouped_registers_bf16", gate_up, down,
                                              c.tokens, c.top_k, pool)));
    }
    const auto once = experts_with("cuda_grouped_fp8", gate_up, down, c.tokens, c.top_k, pool);
    for (const char* variant : {"cuda_grouped_short_fp8", "cuda_grouped_ahead_fp8"}) {
      CHECK(same_bits(experts_with(variant, gate_up, down, c.tokens, c.top_k, pool), once));
    }
  }
}

TEST_CASE("moe_experts: cuda_grouped_fp8 gives a token the same bits in every batch") {
  ThreadPool pool(1);
  RandomStream random(16);
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 4, 192, 160, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 4, 160, 96, pool);
  // Two ways to sum: with up to 24 tokens an expert, and with more.
  const auto check = [&](std::int64_t most, std::initializer_list<std::int64_t> fewer) {
    const auto all = experts_with("cuda_grouped_fp8", gate_up, down, most, 2, pool);
    for (const std::int64_t tokens : fewer) {
      INFO(tokens << " tokens of " << most);
      const auto some = experts_with("cuda_grouped_fp8", gate_up, down, tokens, 2, pool);
      CHECK(same_bits(some, {all.begin(), all.begin() + tokens * 160}));
    }
  };
  check(48, {1, 9, 21, 24, 30, 33});  // expert 2 has all: products of 8, 16, 24, 24, 32, 32 and 16
  check(130, {49, 80});
}

// Every seventh block's scale becomes far less than the largest of its chunk: folded, it loses
// bits.
void lessen_scales(verify::RandomMatrices& matrices) {
  for (std::size_t i = 0; i < matrices.scales.size(); i += 7) {
    matrices.scales[i] = static_cast<std::byte>(static_cast<int>(matrices.scales[i]) - 17);
  }
}

TEST_CASE("moe_experts: cuda_grouped_folded_32_fp8 folds scales from tiles of 32 tokens on") {
  ThreadPool pool(1);
  RandomStream random(18);
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 4, 192, 416, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 4, 416, 96, pool);
  lessen_scales(down);
  const auto of = [&](const char* variant, std::int64_t tokens) {
    return experts_with(variant, gate_up, down, tokens, 2, pool);
  };
  for (const std::int64_t tokens : {3, 20, 21, 27, 48, 49, 70, 110}) {
    INFO(tokens << " tokens");
    const auto got = of("cuda_grouped_folded_32_fp8", tokens);
    const bool in_tiles_of_32 = tokens > 20 && tokens <= 48;
    CHECK(same_bits(got, of("cuda_grouped_fp8", tokens)) == !in_tiles_of_32);
    // In larger tiles it rounds outputs.
    CHECK(same_bits(got, of("cuda_grouped_chunks_fp8", tokens)) == in_tiles_of_32);
  }
}

TEST_CASE("moe_experts: chunks and blocks of float8 have one way to sum for every batch") {
  ThreadPool pool(1);
  RandomStream random(16);
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 4, 192, 288, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 4, 288, 96, pool);
  lessen_scales(down);
  // What cuda_grouped_fp8 does in large tiles, and in small ones.
  const bool folds = GENERATE(true, false);
  const char* variant = folds ? "cuda_grouped_chunks_fp8" : "cuda_grouped_blocks_fp8";
  const auto all = experts_with(variant, gate_up, down, 190, 2, pool);
  for (const std::int64_t tokens : {1, 3, 8, 22, 30, 33, 70, 130}) {
    INFO(variant << ", " << tokens << " tokens");
    const auto some = experts_with(variant, gate_up, down, tokens, 2, pool);
    CHECK(same_bits(some, {all.begin(), all.begin() + tokens * 288}));
    const auto of_both = experts_with("cuda_grouped_fp8", gate_up, down, tokens, 2, pool);
    CHECK(same_bits(some, of_both) == (!folds && tokens <= 33));
    // But for an expert's outputs, which it rounds to bf16.
    if (folds && tokens > 33) CHECK(nmse(of_both, some) < 4e-6);
  }
}

TEST_CASE("moe_experts: cuda_grouped_fp8 in every schedule") {
  ThreadPool pool(1);
  RandomStream random(15);
  // Chunks enough for the ring to turn, and more products than blocks.
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 3, 320, 1472, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 3, 1472, 160, pool);
  lessen_scales(down);
  for (const std::int64_t tokens : {5, 36, 90}) {
    const auto want = experts_with("cuda_per_token_f32", gate_up, down, tokens, 2, pool);
    const auto once = experts_with("cuda_grouped_fp8", gate_up, down, tokens, 2, pool);
    CHECK(nmse(once, want) < 5e-5);
    for (const simt::Settings& settings : schedules()) {
      INFO(tokens << " tokens, " << describe(settings));
      const WithSettings with(settings);
      CHECK(same_bits(experts_with("cuda_grouped_fp8", gate_up, down, tokens, 2, pool), once));
      if (tokens > 36) continue;  // the same kernels
      for (const char* variant : {"cuda_grouped_short_fp8", "cuda_grouped_ahead_fp8"}) {
        CHECK(same_bits(experts_with(variant, gate_up, down, tokens, 2, pool), once));
      }
    }
  }
  // Tiles that it sums in the other way.
  const std::tuple<const char*, std::int64_t> others[] = {{"cuda_grouped_chunks_fp8", 5},
                                                          {"cuda_grouped_chunks_fp8", 36},
                                                          {"cuda_grouped_blocks_fp8", 90}};
  for (const auto& [variant, tokens] : others) {
    const auto once = experts_with(variant, gate_up, down, tokens, 2, pool);
    for (const simt::Settings& settings : schedules()) {
      INFO(variant << ", " << tokens << " tokens, " << describe(settings));
      const WithSettings with(settings);
      CHECK(same_bits(experts_with(variant, gate_up, down, tokens, 2, pool), once));
    }
  }
}

TEST_CASE("moe_experts: cuda_grouped_fp8 hands on what it does not take") {
  ThreadPool pool(1);
  RandomStream random(17);
  const auto same = [&](Format format, std::int64_t hidden, std::int64_t tokens) {
    verify::RandomMatrices gate_up(random, format, 2, 64, hidden, pool);
    verify::RandomMatrices down(random, format, 2, hidden, 32, pool);
    return same_bits(experts_with("cuda_grouped_fp8", gate_up, down, tokens, 1, pool),
                     experts_with("cuda_grouped_registers_bf16", gate_up, down, tokens, 1, pool));
  };
  CHECK(same(Format::kFp8E4m3, 64, 5));
  CHECK(same(Format::kMxfp4, 3104, 3));
}

TEST_CASE("moe_experts: cuda_digits_fp8 is as near to float64 as bf16 inputs are") {
  ThreadPool pool(1);
  RandomStream random(13);
  // Rows and columns that end inside tiles and teams' steps.
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 5, 192, 448, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 5, 448, 96, pool);
  for (const std::int64_t top_k : {1, 2, 3, 4}) {
    const auto want = experts_with("cuda_per_token_f32", gate_up, down, 1, top_k, pool);
    for (const simt::Settings& settings : schedules()) {
      INFO(top_k << " experts, " << describe(settings));
      const WithSettings with(settings);
      const auto out = experts_with("cuda_digits_fp8", gate_up, down, 1, top_k, pool);
      CHECK(nmse(out, want) < 2e-5);
    }
  }
}

TEST_CASE("moe_experts: cuda_folded_fp8 is as near to float64 as bf16 inputs are") {
  ThreadPool pool(1);
  RandomStream random(17);
  // Rows that end inside tiles, columns that end inside teams' steps and chunks; blocks with rows
  // of several experts, and experts with more tokens than a group has.
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 5, 320, 736, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 5, 736, 160, pool);
  for (const std::int64_t tokens : {1, 2, 8, 21, 64}) {
    if (kShort && (tokens == 8 || tokens == 64)) continue;
    const auto want = experts_with("cuda_per_token_f32", gate_up, down, tokens, 3, pool);
    for (const simt::Settings& settings : schedules()) {
      INFO(tokens << " tokens, " << describe(settings));
      const WithSettings with(settings);
      const auto out = experts_with("cuda_folded_fp8", gate_up, down, tokens, 3, pool);
      CHECK(nmse(out, want) < 2e-5);
    }
  }
}

TEST_CASE("moe_experts: cuda_folded_fp8 folds scales that differ by any power of two") {
  ThreadPool pool(1);
  RandomStream random(18);
  verify::RandomMatrices gate_up(random, Format::kMxfp4, 3, 64, 256, pool);
  verify::RandomMatrices down(random, Format::kMxfp4, 3, 256, 32, pool);
  // Of a chunk's four blocks each in turn is the largest, and the others are less by up to 2^21;
  // the least scales there are, too.
  for (std::size_t i = 0; i < gate_up.scales.size(); ++i) {
    gate_up.scales[i] = static_cast<std::byte>(i % 29 == 0 ? 0 : 124 - (i * 5 + i / 4) % 22);
  }
  const auto want = experts_with("cuda_per_token_f32", gate_up, down, 4, 2, pool);
  const auto out = experts_with("cuda_folded_fp8", gate_up, down, 4, 2, pool);
  CHECK(nmse(out, want) < 2e-5);
  // Blocks that differ by up to 2^14 are exact: where all others are zeros, so is what is left.
  for (int less = 0; less <= 14; ++less) {
    INFO("2^" << less << " less");
    for (std::size_t i = 0; i < gate_up.scales.size(); ++i) {
      const bool largest = i % 4 == 1;
      gate_up.scales[i] = static_cast<std::byte>(largest ? 127 + less : 127);
      if (largest)
        std::fill_n(gate_up.data.begin() + static_cast<std::ptrdiff_t>(i) * 16, 16,
                    std::byte{0x80});
    }
    CHECK(nmse(experts_with("cuda_folded_fp8", gate_up, down, 2, 2, pool),
               experts_with("cuda_per_token_f32", gate_up, down, 2, 2, pool)) < 2e-5);
  }
}

TEST_CASE("kv_write rotates as rope does, in place or from one product's rows") {
  ThreadPool pool(1);
  using Sizes = std::array<std::int64_t, 4>;
  const auto sizes =
      GENERATE(Sizes{5, 6, 2, 32}, Sizes{70, 6, 2, 32}, Sizes{64, 64, 8, 64},  // gpt-oss's
               Sizes{66, 90, 2, 32},  // more than a thread has at once
               Sizes{65, 3, 1, 96},   // not a power of two of columns
               Sizes{65, 2, 2, 256});
  const auto [tokens, heads, kv_heads, dim] = sizes;
  INFO(tokens << " tokens, " << heads << " and " << kv_heads << " heads of " << dim);
  constexpr std::int64_t kPageSize = 4;
  const std::int64_t half = dim / 2;
  RandomStream random(13);
  const std::vector<float> queries = verify::random_floats(random, tokens * heads * dim, 2.0F);
  const std::vector<float> keys = verify::random_floats(random, tokens * kv_heads * dim, 2.0F);
  const std::vector<float> values = verify::random_floats(random, tokens * kv_heads * dim, 2.0F);
  const std::vector<float> cos = verify::random_floats(random, tokens * half, 1.0F);
  const std::vector<float> sin = verify::random_floats(random, tokens * half, 1.0F);
  std::vector<float> rows;  // a token's query, key and value
  std::vector<std::int32_t> positions, pages;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (const std::vector<float>* part : {&queries, &keys, &values}) {
      const auto size = static_cast<std::int64_t>(part->size()) / tokens;
      rows.insert(rows.end(), part->begin() + t * size, part->begin() + (t + 1) * size);
    }
    positions.push_back(static_cast<std::int32_t>(t) + 3);
  }
  const auto num_pages = static_cast<std::int32_t>((tokens + 3 + kPageSize - 1) / kPageSize);
  for (std::int32_t p = num_pages; p > 0; --p) pages.push_back(p - 1);
  const std::vector<std::int32_t> sequences(positions.size(), 0);
  enum class How { kApart, kInPlace, kJoined, kRounded };
  for (const Format format : {Format::kF32, Format::kBf16, Format::kF16, Format::kFp8E4m3}) {
    INFO(format_name(format));
    const KvLayerView kv = one_layer(format, kPageSize, sizes[2], sizes[3]);
    const auto run = [&, tokens = sizes[0], heads = sizes[1], kv_heads = sizes[2],
                      dim = sizes[3]](How how) {
      std::vector<std::byte> memory(static_cast<std::size_t>(num_pages) * kv.page_stride);
      std::vector<float> q = queries;
      std::vector<float> k = keys;
      std::vector<float> joined = rows;
      std::vector<bf16> rounded(q.size(), to_bf16(std::nanf("")));
      {
        Operands o("cuda");
        kv_write::Args args;
        float* on_device = o.out(k);
        const View<float, 3> key_view{on_device, {tokens, kv_heads, dim}};
        const View<float, 3> query_view{o.out(q), {tokens, heads, dim}};
        const View<const float, 2> cosines{o.in(cos), {tokens, half}};
        const View<const float, 2> sines{o.in(sin), {tokens, half}};
        args.keys = key_view;
        args.values = {o.in(values), {tokens, kv_heads, dim}};
        args.kv = kv;
        args.kv.keys = o.out(memory);
        args.kv.values = args.kv.keys + half_page_bytes(kv);
        args.places = {{o.in(positions), {tokens}},
                       {o.in(sequences), {tokens}},
                       {o.in(pages), {1, num_pages}}};
        if (how == How::kApart) {
          const rope::Variant& rope = cuda_variant(rope::variants(), "cuda_elementwise");
          Context context{pool, {}};
          rope.run({query_view, cosines, sines}, context);
          rope.run({key_view, cosines, sines}, context);
        } else {
          args.rotation = {query_view, key_view, cosines, sines};
        }
        if (how == How::kJoined || how == How::kRounded) {
          args.keys.data = nullptr;
          args.values.data = nullptr;
          args.rotation.keys.data = nullptr;
          args.rotation.joined = {o.out(joined), {tokens, (heads + 2 * kv_heads) * dim}};
        }
        if (how == How::kRounded) {
          args.rotation.rounded_queries = {o.out(rounded), query_view.shape};
          args.rotation.queries.data = nullptr;
        }
        o.run(cuda_variant(kv_write::variants(), "cuda_rows"),
              kv_write::Problem{format, tokens, kv_heads, dim}, args, pool);
      }
      for (std::size_t i = 0; i < q.size() && how == How::kRounded; ++i) {
        q[i] = to_float(rounded[i]);
      }
      return std::make_tuple(memory, q, k);
    };
    const auto want = run(How::kApart);
    CHECK(run(How::kInPlace) == want);
    const auto from_rows = run(How::kJoined);
    CHECK(std::get<0>(from_rows) == std::get<0>(want));
    CHECK(std::get<1>(from_rows) == std::get<1>(want));
    std::vector<float> of_bf16 = std::get<1>(want);
    for (float& value : of_bf16) value = to_float(to_bf16(value));
    const auto of_queries = run(How::kRounded);
    CHECK(std::get<0>(of_queries) == std::get<0>(want));
    CHECK(std::get<1>(of_queries) == of_bf16);
    for (const simt::Settings& settings : schedules()) {
      INFO(describe(settings));
      const WithSettings with(settings);
      CHECK(run(How::kInPlace) == want);
      CHECK(run(How::kJoined) == from_rows);
    }
  }
}

}  // namespace moebench::test
