// embedding, rms_norm, linear, rope and router: every CPU variant against loops in float64 written
// here, and against the edges of each contract.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "kernels/embedding/embedding.h"
#include "kernels/linear/linear.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/router/router.h"
#include "tests/support/encoded.h"
#include "tests/support/op_runner.h"

namespace moebench::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> filled(std::int64_t count) {
  return std::vector<float>(static_cast<std::size_t>(count), kNaN);
}

std::vector<float> linear_outputs(const linear::Variant& variant, const MatrixView& weight,
                                  std::span<const float> x, std::span<const float> bias,
                                  int threads = 2) {
  const std::int64_t num_tokens = static_cast<std::int64_t>(x.size()) / weight.cols;
  const linear::Problem problem{weight.format, num_tokens, weight.rows, weight.cols};
  std::vector<float> out = filled(num_tokens * weight.rows);
  linear::Args args;
  args.x = {x.data(), {num_tokens, weight.cols}};
  args.weight = weight;
  if (!bias.empty()) args.bias = {bias.data(), {weight.rows}};
  args.out = {out.data(), {num_tokens, weight.rows}};
  run_op(variant, problem, args, threads);
  return out;
}

struct Routing {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
};

Routing route(const router::Variant& variant, const std::vector<float>& logits,
              std::int64_t num_experts, std::int64_t top_k) {
  const auto tokens = static_cast<std::int64_t>(logits.size()) / num_experts;
  Routing routing{std::vector<std::int32_t>(static_cast<std::size_t>(tokens * top_k), -1),
                  filled(tokens * top_k)};
  run_op(variant, {tokens, num_experts, top_k},
         {{logits.data(), {tokens, num_experts}},
          {routing.ids.data(), {tokens, top_k}},
          {routing.weights.data(), {tokens, top_k}}});
  return routing;
}

}  // namespace

TEST_CASE("embedding: the rows of the tokens, in every format, repeated ones too") {
  for_each_cpu_variant(embedding::variants(), [](const embedding::Variant& variant) {
    for (const Codec* c : codecs()) {
      INFO(c->name);
      const EncodedStack table(c->format, 1, 37, 64, random_floats(37 * 64, 1));
      const auto rows = table.decoded();
      for (const std::vector<std::int32_t>& tokens :
           {std::vector<std::int32_t>{36}, {0, 36, 5, 5, 5, 1, 2, 3, 4, 0, 36}}) {
        const auto count = static_cast<std::int64_t>(tokens.size());
        std::vector<float> out = filled(count * 64);
        run_op(variant, {c->format, count, 37, 64},
               {{tokens.data(), {count}}, table.matrix(), {out.data(), {count, 64}}});
        for (std::size_t t = 0; t < tokens.size(); ++t) {
          CHECK(std::equal(out.begin() + static_cast<std::ptrdiff_t>(64 * t),
                           out.begin() + static_cast<std::ptrdiff_t>(64 * t + 64),
                           rows.begin() + tokens[t] * 64));
        }
      }
    }
  });
}

TEST_CASE("rms_norm: the formula, for one element, odd sizes and many tokens") {
  for_each_cpu_variant(rms_norm::variants(), [](const rms_norm::Variant& variant) {
    for (const std::int64_t size : {1, 3, 31, 64, 2880}) {
      for (const std::int64_t tokens : {1, 2, 17}) {
        const auto x = random_floats(tokens * size, 2);
        const auto weight = random_floats(size, 3);
        std::vector<double> want;
        for (std::int64_t t = 0; t < tokens; ++t) {
          const float* row = x.data() + t * size;
          double squares = 0;
          for (std::int64_t i = 0; i < size; ++i) squares += double{row[i]} * double{row[i]};
          for (std::int64_t i = 0; i < size; ++i) {
            want.push_back(double{weight[static_cast<std::size_t>(i)]} * double{row[i]} /
                           std::sqrt(squares / static_cast<double>(size) + 1e-5));
          }
        }
        INFO(tokens << " tokens of " << size);
        std::vector<float> out = filled(tokens * size);
        const View<const float, 1> weights{weight.data(), {size}};
        std::vector<float> input = x;
        const View<float, 2> rows{input.data(), {tokens, size}};
        run_op(variant, {tokens, size}, {rows, {}, weights, 1e-5F, {out.data(), {tokens, size}}});
        CHECK(input == x);
        check_nmse(out, want, variant.max_nmse({tokens, size}));
        std::vector<float> in_place = x;
        const View<float, 2> both{in_place.data(), {tokens, size}};
        run_op(variant, {tokens, size}, {both, {}, weights, 1e-5F, both});
        CHECK(in_place == out);
        // The branch arrives first, and stays in the residual stream.
        const std::vector<float> addend = random_floats(tokens * size, 4);
        std::vector<float> sum = x;
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += addend[i];
        std::vector<float> want_out = filled(tokens * size);
        std::vector<float> residual = sum;
        run_op(variant, {tokens, size},
               {{residual.data(), {tokens, size}},
                {},
                weights,
                1e-5F,
                {want_out.data(), {tokens, size}}});
        residual = x;
        run_op(variant, {tokens, size},
               {{residual.data(), {tokens, size}},
                {addend.data(), {tokens, size}},
                weights,
                1e-5F,
                {out.data(), {tokens, size}}});
        CHECK(residual == sum);
        CHECK(out == want_out);
      }
    }
  });
}

TEST_CASE("rms_norm: epsilon stands inside the root, and no size overflows") {
  for_each_cpu_variant(rms_norm::variants(), [](const rms_norm::Variant& variant) {
    const auto run = [&](std::vector<float> x, float epsilon) {
      const auto size = static_cast<std::int64_t>(x.size());
      const std::vector<float> weight(x.size(), 2.0F);
      std::vector<float> out = filled(size);
      run_op(
          variant, {1, size},
          {{x.data(), {1, size}}, {}, {weight.data(), {size}}, epsilon, {out.data(), {1, size}}});
      return out;
    };
    CHECK(run({3.0F, 4.0F}, 3.5F)[0] == Approx(2 * 3 / std::sqrt(12.5 + 3.5)));
    CHECK(run({0.0F, -0.0F}, 1e-5F) == std::vector<float>{0.0F, 0.0F});
    CHECK(run({1e25F, -1e25F}, 1e-5F)[1] == Approx(-2.0));  // the squares exceed float32
    CHECK(run({1e-25F, 1e-25F}, 0.0F)[0] == Approx(2.0));
  });
}

TEST_CASE("linear: the product in every format, with and without bias, at odd sizes") {
  struct Shape {
    std::int64_t tokens, rows, cols;
  };
  for_each_cpu_variant(linear::variants(), [](const linear::Variant& variant) {
    for (const Codec* c : codecs()) {
      for (const auto& [tokens, rows, cols] :
           {Shape{1, 1, 1}, Shape{1, 1, 32}, Shape{3, 5, 7}, Shape{1, 33, 96}, Shape{17, 65, 64},
            Shape{2, 3, 2880}, Shape{5, 16, 33}}) {
        if (cols % c->block != 0) continue;
        if (!variant.unsupported({c->format, tokens, rows, cols}).empty()) continue;
        INFO(c->name << ": " << tokens << " tokens, " << rows << " x " << cols);
        const EncodedStack weight(c->format, 1, rows, cols, random_floats(rows * cols, 4),
                                  variant.weight_layout);
        const auto decoded = weight.decoded();
        const auto x = random_floats(tokens * cols, 5);
        const auto bias = random_floats(rows, 6);
        std::vector<double> plain, biased;
        double energy = 0;
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t r = 0; r < rows; ++r) {
            double sum = 0;
            for (std::int64_t i = 0; i < cols; ++i) {
              sum += double{decoded[static_cast<std::size_t>(r * cols + i)]} *
                     double{x[static_cast<std::size_t>(t * cols + i)]};
              energy += std::pow(double{decoded[static_cast<std::size_t>(r * cols + i)]} *
                                     double{x[static_cast<std::size_t>(t * cols + i)]},
                                 2);
            }
            plain.push_back(sum);
            biased.push_back(sum + double{bias[static_cast<std::size_t>(r)]});
          }
        }
        const double bound = variant.max_nmse({c->format, tokens, rows, cols});
        check_nmse(linear_outputs(variant, weight.matrix(), x, {}), plain, bound, energy);
        check_nmse(linear_outputs(variant, weight.matrix(), x, bias), biased, bound, energy);
      }
    }
  });
}

TEST_CASE("linear: a NaN or infinity of one token reaches its outputs and no other token's") {
  for_each_cpu_variant(linear::variants(), [](const linear::Variant& variant) {
    const EncodedStack weight(Format::kMxfp4, 1, 40, 64, random_floats(40 * 64, 7),
                              variant.weight_layout);
    for (const float bad : {kNaN, kInfinity}) {
      auto x = random_floats(3 * 64, 8);
      const auto clean = linear_outputs(variant, weight.matrix(), x, {});
      x[64 + 63] = bad;
      const auto out = linear_outputs(variant, weight.matrix(), x, {});
      for (std::size_t r = 0; r < 40; ++r) {
        CHECK(out[r] == clean[r]);
        CHECK_FALSE(std::isfinite(out[40 + r]));
        CHECK(out[80 + r] == clean[80 + r]);
      }
    }
  });
}

TEST_CASE("linear: outputs do not depend on threads or on the other tokens, bit for bit") {
  for_each_cpu_variant(linear::variants(), [](const linear::Variant& variant) {
    constexpr std::size_t kTokens = 21;  // more than a tile of any kind, and not a multiple
    for (const Codec* c : codecs()) {
      INFO(c->name);
      const EncodedStack weight(c->format, 1, 101, 96, random_floats(101 * 96, 9),
                                variant.weight_layout);
      const auto x = random_floats(kTokens * 96, 10);
      const auto bias = random_floats(101, 11);
      const auto want = linear_outputs(variant, weight.matrix(), x, bias, 1);
      CHECK(linear_outputs(variant, weight.matrix(), x, bias, 3) == want);
      CHECK(linear_outputs(variant, weight.matrix(), x, bias, 7) == want);
      for (std::size_t count = 1; count < kTokens; ++count) {
        const auto some =
            linear_outputs(variant, weight.matrix(),
                           std::span(x).subspan(96 * (kTokens - count), 96 * count), bias);
        CHECK(std::equal(some.begin(), some.end(),
                         want.begin() + static_cast<long>(101 * (kTokens - count))));
      }
    }
  });
}

TEST_CASE("linear: zeros, the smallest numbers and the largest come out finite") {
  for_each_cpu_variant(linear::variants(), [](const linear::Variant& variant) {
    for (const Codec* c : codecs()) {
      INFO(c->name);
      const EncodedStack weight(c->format, 1, 9, 64, random_floats(9 * 64, 12),
                                variant.weight_layout);
      for (const float size : {0.0F, 1e-45F, 1e-38F, 1e-30F, 1e30F}) {
        const std::vector<float> x(64, size);
        for (const float y : linear_outputs(variant, weight.matrix(), x, {})) {
          CHECK(std::isfinite(y));
          CHECK(std::fabs(y) <= 200 * size);
        }
      }
    }
  });
}

TEST_CASE("rope: element i turns with element i + D/2, by its own angle, in every head") {
  for_each_cpu_variant(rope::variants(), [](const rope::Variant& variant) {
    for (const std::int64_t head_dim : {2, 6, 64}) {
      for (const std::int64_t tokens : {1, 19}) {
        constexpr std::int64_t kHeads = 3;
        const std::int64_t half = head_dim / 2;
        auto x = random_floats(tokens * kHeads * head_dim, 12);
        const auto cos = random_floats(tokens * half, 13);
        const auto sin = random_floats(tokens * half, 14);
        std::vector<double> want(x.size());
        for (std::int64_t t = 0; t < tokens; ++t) {
          for (std::int64_t h = 0; h < kHeads; ++h) {
            for (std::int64_t i = 0; i < half; ++i) {
              const auto a = static_cast<std::size_t>((t * kHeads + h) * head_dim + i);
              const auto b = a + static_cast<std::size_t>(half);
              const double c = double{cos[static_cast<std::size_t>(t * half + i)]};
              const double s = double{sin[static_cast<std::size_t>(t * half + i)]};
              want[a] = double{x[a]} * c - double{x[b]} * s;
              want[b] = double{x[b]} * c + double{x[a]} * s;
            }
          }
        }
        run_op(variant, {tokens, kHeads, head_dim},
               {{x.data(), {tokens, kHeads, head_dim}},
                {cos.data(), {tokens, half}},
                {sin.data(), {tokens, half}}});
        check_nmse(x, want, variant.max_nmse({tokens, kHeads, head_dim}));
      }
    }
    CHECK_FALSE(variant.unsupported({1, 1, 3}).empty());
  });
}

TEST_CASE("router: ties go to the lower expert, at the edge of the selection too") {
  for_each_cpu_variant(router::variants(), [](const router::Variant& variant) {
    const Routing all_equal = route(variant, std::vector<float>(8, 1.5F), 8, 4);
    CHECK(all_equal.ids == std::vector<std::int32_t>{0, 1, 2, 3});
    for (const float weight : all_equal.weights) CHECK(weight == 0.25F);
    // Three share the second place; two of them are taken.
    CHECK(route(variant, {1, 2, 3, 2, 0, 2}, 6, 3).ids == std::vector<std::int32_t>{2, 1, 3});
    CHECK(route(variant, {0.0F, -0.0F, -1.0F}, 3, 2).ids == std::vector<std::int32_t>{0, 1});
    CHECK(route(variant, {-1.0F, -0.0F, 0.0F}, 3, 1).ids == std::vector<std::int32_t>{1});
  });
}

TEST_CASE("router: the largest logits in falling order, weighted by their own softmax") {
  for_each_cpu_variant(router::variants(), [](const router::Variant& variant) {
    for (const auto& [experts, top_k] : {std::pair<int, int>{1, 1}, {4, 4}, {32, 4}, {129, 7}}) {
      constexpr std::int64_t kTokens = 33;
      const auto logits = random_floats(kTokens * experts, 15, 3);
      const Routing got = route(variant, logits, experts, top_k);
      for (std::int64_t t = 0; t < kTokens; ++t) {
        const float* row = logits.data() + t * experts;
        std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](std::int32_t a, std::int32_t b) { return row[a] > row[b]; });
        double sum = 0;
        for (int k = 0; k < top_k; ++k) sum += std::exp(double{row[order[std::size_t(k)]]});
        for (int k = 0; k < top_k; ++k) {
          const auto slot = static_cast<std::size_t>(t * top_k + k);
          CHECK(got.ids[slot] == order[std::size_t(k)]);
          CHECK(double{got.weights[slot]} ==
                Approx(std::exp(double{row[order[std::size_t(k)]]}) / sum).epsilon(1e-6));
        }
      }
    }
  });
}

TEST_CASE("router: huge and infinitely low logits do not spoil the weights") {
  for_each_cpu_variant(router::variants(), [](const router::Variant& variant) {
    const Routing huge = route(variant, {3e38F, 1e4F, 3e38F, -3e38F}, 4, 3);
    CHECK(huge.ids == std::vector<std::int32_t>{0, 2, 1});
    CHECK(huge.weights == std::vector<float>{0.5F, 0.5F, 0.0F});
    const Routing masked = route(variant, {-kInfinity, 1.0F, -kInfinity, -kInfinity}, 4, 2);
    CHECK(masked.ids == std::vector<std::int32_t>{1, 0});
    CHECK(masked.weights == std::vector<float>{1.0F, 0.0F});
  });
}

TEST_CASE("router: a NaN logit is never passed over in silence, and ids stay valid") {
  for_each_cpu_variant(router::variants(), [](const router::Variant& variant) {
    for (std::size_t place = 0; place < 6; ++place) {
      std::vector<float> logits = {1, 5, 2, 4, 3, 0, 1, 5, 2, 4, 3, 0};
      logits[place] = kNaN;
      const Routing got = route(variant, logits, 6, 3);
      INFO("NaN at expert " << place);
      const std::set<std::int32_t> distinct(got.ids.begin(), got.ids.begin() + 3);
      CHECK(distinct.size() == 3);
      CHECK(*distinct.begin() >= 0);
      CHECK(*distinct.rbegin() < 6);
      for (std::size_t k = 0; k < 3; ++k) CHECK(std::isnan(got.weights[k]));
      // The other token is untouched.
      CHECK(std::vector(got.ids.begin() + 3, got.ids.end()) == std::vector<std::int32_t>{1, 3, 4});
      CHECK(std::isfinite(got.weights[3]));
    }
    const Routing all = route(variant, std::vector<float>(4, kNaN), 4, 2);
    CHECK(all.ids[0] != all.ids[1]);
    CHECK(std::isnan(all.weights[0]));
  });
}

TEST_CASE("router: a top_k that cannot be is unsupported, with the range") {
  for_each_cpu_variant(router::variants(), [](const router::Variant& variant) {
    CHECK(variant.unsupported({1, 4, 4}).empty());
    CHECK_FALSE(variant.unsupported({1, 4, 5}).empty());
    CHECK_FALSE(variant.unsupported({1, 4, 0}).empty());
  });
}

}  // namespace moebench::test
