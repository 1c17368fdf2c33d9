// Sampling against distributions computed by hand, and its independence of everything but logits,
// parameters, seed and index.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/sampling.h"
#include "kernels/core/random.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits whose softmax is (1/2, 1/4, 1/8, 1/16, 1/16), in another order: token 3 is the likeliest.
const std::vector<float> kLogits = {std::log(0.25F), std::log(0.0625F), std::log(0.125F),
                                    std::log(0.5F), std::log(0.0625F)};

// How often each token comes in `draws` draws.
std::vector<double> frequencies(const std::vector<float>& logits, const SamplingParams& params,
                                std::uint64_t draws = 20000) {
  std::vector<double> counts(logits.size());
  for (std::uint64_t i = 0; i < draws; ++i) {
    counts[static_cast<std::size_t>(sample_token(logits, params, i).token)] += 1;
  }
  for (double& count : counts) count /= static_cast<double>(draws);
  return counts;
}

// CHECKs every frequency against its probability: five standard deviations, and never anything
// where the probability is 0.
void check_distribution(const SamplingParams& params, const std::vector<double>& want) {
  constexpr std::uint64_t kDraws = 20000;
  const auto got = frequencies(kLogits, params, kDraws);
  REQUIRE(got.size() == want.size());
  CHECK(std::fabs(std::accumulate(want.begin(), want.end(), 0.0) - 1) <= 1e-12);
  for (std::size_t i = 0; i < want.size(); ++i) {
    INFO("token " << i << ": got " << got[i] << ", want " << want[i]);
    const double deviation = std::sqrt(want[i] * (1 - want[i]) / static_cast<double>(kDraws));
    CHECK(std::fabs(got[i] - want[i]) <= 5 * deviation);
  }
}

}  // namespace

TEST_CASE("sampling: greedy takes the largest logit, and the lower id of equal ones") {
  CHECK(sample_token(kLogits, {}, 0).token == 3);
  CHECK(sample_token(std::vector<float>{1, 2, 2, 2}, {}, 0).token == 1);
  CHECK(sample_token(std::vector<float>{0, 0}, {}, 7).token == 0);
  CHECK(sample_token(std::vector<float>{-kInfinity, -5, -kInfinity}, {}, 0).token == 1);
  CHECK(sample_token(std::vector<float>{-0.0F, 0.0F}, {}, 0).token == 0);
}

TEST_CASE("sampling: at temperature 1 tokens come as often as their probability says") {
  check_distribution({.temperature = 1, .seed = 1}, {0.25, 0.0625, 0.125, 0.5, 0.0625});
}

TEST_CASE("sampling: a temperature raises probabilities to its inverse") {
  // 1/2: the squares of 8, 4, 2, 1, 1 are 64, 16, 4, 1, 1.
  check_distribution({.temperature = 0.5, .seed = 2},
                     {16. / 86, 1. / 86, 4. / 86, 64. / 86, 1. / 86});
  // 2: the square roots.
  const double total = std::sqrt(8) + 2 + std::sqrt(2) + 2;
  check_distribution({.temperature = 2, .seed = 3},
                     {2 / total, 1 / total, std::sqrt(2) / total, std::sqrt(8) / total, 1 / total});
}

TEST_CASE("sampling: a temperature near 0 is greedy without overflow") {
  for (const double temperature : {1e-3, 1e-300, 5e-324}) {
    const SamplingParams params{.temperature = temperature, .seed = 4};
    for (std::uint64_t i = 0; i < 100; ++i) CHECK(sample_token(kLogits, params, i).token == 3);
  }
}

TEST_CASE("sampling: top_k keeps the k likeliest, of equal ones the lower ids") {
  check_distribution({.temperature = 1, .top_k = 2, .seed = 5}, {1. / 3, 0, 0, 2. / 3, 0});
  check_distribution({.temperature = 1, .top_k = 1, .seed = 6}, {0, 0, 0, 1, 0});
  // Tokens 1 and 4 are as likely; one of them is kept.
  check_distribution({.temperature = 1, .top_k = 4, .seed = 7},
                     {4. / 15, 1. / 15, 2. / 15, 8. / 15, 0});
  check_distribution({.temperature = 1, .top_k = 1000, .seed = 8},
                     {0.25, 0.0625, 0.125, 0.5, 0.0625});
}

TEST_CASE("sampling: top_p keeps the fewest likeliest that reach it") {
  check_distribution({.temperature = 1, .top_p = 0.49, .seed = 9}, {0, 0, 0, 1, 0});
  check_distribution({.temperature = 1, .top_p = 0.51, .seed = 10}, {1. / 3, 0, 0, 2. / 3, 0});
  check_distribution({.temperature = 1, .top_p = 0.8, .seed = 11}, {2. / 7, 0, 1. / 7, 4. / 7, 0});
  check_distribution({.temperature = 1, .top_p = 1e-9, .seed = 12}, {0, 0, 0, 1, 0});
}

TEST_CASE("sampling: min_p keeps what reaches its share of the likeliest") {
  // 0.2 of 1/2 is 0.1.
  check_distribution({.temperature = 1, .min_p = 0.2, .seed = 13}, {2. / 7, 0, 1. / 7, 4. / 7, 0});
  check_distribution({.temperature = 1, .min_p = 0.99, .seed = 14}, {0, 0, 0, 1, 0});
}

TEST_CASE("sampling: filters apply after the temperature, top_k first, each on the rest") {
  // Temperature 1/2: 64, 16, 4, 1, 1 of 86. Of the likeliest three (84), 0.8 is 67.2: two are kept.
  check_distribution({.temperature = 0.5, .top_k = 3, .top_p = 0.8, .seed = 15},
                     {0.2, 0, 0, 0.8, 0});
  // At temperature 1, top_p of the likeliest two counts in thirds: 0.6 is below 2/3.
  check_distribution({.temperature = 1, .top_k = 2, .top_p = 0.6, .seed = 16}, {0, 0, 0, 1, 0});
  // min_p is relative to the likeliest: 0.3 of 64 is 19.2.
  check_distribution({.temperature = 0.5, .min_p = 0.3, .seed = 17}, {0, 0, 0, 1, 0});
}

TEST_CASE("sampling: a draw is a function of logits, parameters, seed and index alone") {
  const SamplingParams params{.temperature = 1, .seed = 99};
  std::vector<std::int32_t> forwards, backwards;
  for (std::uint64_t i = 0; i < 200; ++i)
    forwards.push_back(sample_token(kLogits, params, i).token);
  for (std::uint64_t i = 200; i-- > 0;) {
    frequencies(kLogits, {.temperature = 1, .seed = i}, 3);  // other requests in between
    backwards.insert(backwards.begin(), sample_token(kLogits, params, i).token);
  }
  CHECK(forwards == backwards);
  std::vector<std::int32_t> other;
  for (std::uint64_t i = 0; i < 200; ++i) {
    other.push_back(sample_token(kLogits, {.temperature = 1, .seed = 100}, i).token);
  }
  CHECK(forwards != other);
}

TEST_CASE("sampling: the draw is the inverse of the distribution at the counter's number") {
  // The definition, spelled out: the first token, by id, whose cumulative probability exceeds u.
  const std::vector<double> probabilities = {0.25, 0.0625, 0.125, 0.5, 0.0625};
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const double u = random_uniform(42, 0, i);
    double sum = 0;
    std::int32_t want = 0;
    while ((sum += probabilities[static_cast<std::size_t>(want)]) < u) ++want;
    if (std::fabs(sum - u) < 1e-6) continue;  // logits are float32: too close to call
    CHECK(sample_token(kLogits, {.temperature = 1, .seed = 42}, i).token == want);
  }
}

TEST_CASE("sampling: the log-probability is the model's own, whatever the filters") {
  const std::vector<double> probabilities = {0.25, 0.0625, 0.125, 0.5, 0.0625};
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.temperature = 0.3, .top_k = 2, .seed = 1},
        SamplingParams{.temperature = 2, .top_p = 0.9, .min_p = 0.01, .seed = 2}}) {
    for (std::uint64_t i = 0; i < 50; ++i) {
      const SampledToken sampled = sample_token(kLogits, params, i);
      const double want = std::log(probabilities[static_cast<std::size_t>(sampled.token)]);
      CHECK(std::fabs(sampled.log_probability - want) <= 1e-6);
    }
  }
  // A shift of all logits changes nothing, and large ones do not overflow.
  CHECK(std::fabs(log_sum_exp(std::vector<float>{1000, 1000}) - (1000 + std::log(2.0))) <= 1e-9);
  CHECK(std::fabs(log_sum_exp(std::vector<float>{-1000, -1000}) - (-1000 + std::log(2.0))) <= 1e-9);
  CHECK(sample_token(std::vector<float>{3e38F, -3e38F}, {}, 0).log_probability == 0);
}

TEST_CASE("sampling: parameters out of range, and NaN, are refused by name") {
  const double nan = std::nan("");
  const auto refused = [](const SamplingParams& params, const std::string& word) {
    check_error([&] { check_sampling(params); }, ErrorCode::kInvalidArgument, {word});
  };
  for (const double value : {-0.1, 101.0, nan}) {
    refused({.temperature = value}, "temperature");
  }
  refused({.top_k = -1}, "top_k -1");
  for (const double value : {0.0, -0.1, 1.1, nan}) refused({.top_p = value}, "top_p");
  for (const double value : {1.0, -0.1, nan}) refused({.min_p = value}, "min_p");
  check_sampling({.temperature = 100, .top_k = 5, .top_p = 1, .min_p = 0.5});
}

TEST_CASE("sampling: broken logits are an error, never a token") {
  for (const float bad : {std::nanf(""), kInfinity}) {
    for (const double temperature : {0.0, 1.0}) {
      check_error(
          [&] {
            sample_token(std::vector<float>{1, 2, bad}, {.temperature = temperature}, 0);
          },
          ErrorCode::kInvalidArgument, {"token 2", fmt::format("{}", bad)});
    }
  }
  check_error(
      [] {
        sample_token(std::vector<float>{-kInfinity, -kInfinity}, {}, 0);
      },
      ErrorCode::kInvalidArgument, {"no logit is finite"});
  check_error([] { sample_token(std::vector<float>{}, {}, 0); }, ErrorCode::kInvalidArgument,
              {"no logits"});
}

}  // namespace moebench::test
