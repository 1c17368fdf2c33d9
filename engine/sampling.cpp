// Sampling on the host, in float64.
#include "engine/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

std::size_t argmax(std::span<const float> logits) {
  // max_element returns the first of equal elements: the lower id.
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct Candidate {
  std::int32_t token;
  double probability;
};

// Candidates and their weights (not normalised), cut down by the three filters. With a filter on,
// they stand by falling probability, ties by rising id; else by id, which saves sorting 200,000.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplingParams& params) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  std::vector<Candidate> all(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double scaled = (static_cast<double>(logits[i]) - largest) / params.temperature;
    all[i] = {static_cast<std::int32_t>(i), std::exp(scaled)};
  }
  if (params.top_k == 0 && params.top_p == 1 && params.min_p == 0) return all;
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
  };
  // top_k needs no full sort.
  auto kept = all.size();
  if (params.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(params.top_k));
  if (kept < all.size()) {
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(),
                     before);
    all.resize(kept);
  }
  std::sort(all.begin(), all.end(), before);

  const auto total = [&] {
    return std::accumulate(all.begin(), all.end(), 0.0,
                           [](double sum, const Candidate& c) { return sum + c.probability; });
  };
  if (params.top_p < 1) {
    const double wanted = params.top_p * total();
    double sum = 0;
    std::size_t count = 0;
    while (count < all.size() && sum < wanted) sum += all[count++].probability;
    all.resize(std::max<std::size_t>(1, count));
  }
  if (params.min_p > 0) {
    const double least = params.min_p * all.front().probability;
    while (all.size() > 1 && all.back().probability < least) all.pop_back();
  }
  return all;
}

}  // namespace

void check_sampling(const SamplingParams& params) {
  // Written so that NaN fails.
  require(params.temperature >= 0 && params.temperature <= 100,
          "set up sampling: temperature {} is not in [0, 100]", params.temperature);
  require(params.top_k >= 0, "set up sampling: top_k {} is negative (0 turns it off)",
          params.top_k);
  require(params.top_p > 0 && params.top_p <= 1, "set up sampling: top_p {} is not in (0, 1]",
          params.top_p);
  require(params.min_p >= 0 && params.min_p < 1, "set up sampling: min_p {} is not in [0, 1)",
          params.min_p);
}

double log_sum_exp(std::span<const float> logits) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

SampledToken sample_token(std::span<const float> logits, const SamplingParams& params,
                          std::uint64_t index) {
  require(!logits.empty(), "sample a token: there are no logits");
  for (std::size_t i = 0; i < logits.size(); ++i) {
    require(
        !std::isnan(logits[i]) && logits[i] < std::numeric_limits<float>::infinity(),
        "sample a token: the logit of token {} is {}; the model's weights or a kernel are broken",
        i, logits[i]);
  }
  const std::size_t best = argmax(logits);
  require(std::isfinite(logits[best]), "sample a token: no logit is finite");
  const double normaliser = log_sum_exp(logits);
  const auto result = [&](std::size_t token) {
    return SampledToken{static_cast<std::int32_t>(token),
                        static_cast<double>(logits[token]) - normaliser};
  };
  if (params.temperature == 0) return result(best);

  const std::vector<Candidate> kept = candidates(logits, params);
  double total = 0;
  for (const Candidate& c : kept) total += c.probability;
  const double target = random_uniform(params.seed, 0, index) * total;
  double sum = 0;
  for (const Candidate& c : kept) {
    sum += c.probability;
    if (target < sum) return result(static_cast<std::size_t>(c.token));
  }
  return result(static_cast<std::size_t>(kept.back().token));  // rounding at the very end
}

}  // namespace moebench
