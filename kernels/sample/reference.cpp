// reference: float64, one row after the other.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/sample/choose_token.h"
#include "kernels/sample/sample.h"

namespace moebench::sample {
namespace {

struct Candidate {
  std::int32_t token;
  float logit;
  double probability;
};

// Candidates and their weights (not normalised), cut down by the three filters. With a filter on,
// they stand by falling logit, ties by rising id; else by id, which saves sorting 200,000.
std::vector<Candidate> candidates(std::span<const float> logits, const RowParams& params) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  std::vector<Candidate> all(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double scaled = (static_cast<double>(logits[i]) - largest) / params.temperature;
    all[i] = {static_cast<std::int32_t>(i), logits[i], std::exp(scaled)};
  }
  if (params.top_k == 0 && params.top_p == 1 && params.min_p == 0) return all;
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
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

std::int32_t draw(std::span<const float> logits, const RowParams& params) {
  const std::vector<Candidate> kept = candidates(logits, params);
  double total = 0;
  for (const Candidate& c : kept) total += c.probability;
  const double target = params.uniform * total;
  double sum = 0;
  for (const Candidate& c : kept) {
    sum += c.probability;
    if (target < sum) return c.token;
  }
  return kept.back().token;  // rounding at the very end
}

void run(const Args& args, Context& context) {
  context.pool.parallel_for(
      args.logits.shape[0], 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t r = begin; r < end; ++r) {
          const Choice choice = choose_token(args.logits[r].span(), args.params[r]);
          args.tokens[r] = choice.token;
          args.log_probabilities[r] = choice.log_probability;
          args.status[r] = choice.status;
        }
      });
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

Choice choose_token(std::span<const float> logits, const RowParams& params) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    // Written so that NaN is broken.
    if (!(logits[i] < std::numeric_limits<float>::infinity())) {
      return {static_cast<std::int32_t>(i), kNan, kBroken};
    }
  }
  // max_element returns the first of equal elements: the lower id.
  const auto best = std::max_element(logits.begin(), logits.end());
  if (!std::isfinite(*best)) return {0, kNan, kNoneFinite};
  const std::int32_t token = params.temperature == 0
                                 ? static_cast<std::int32_t>(best - logits.begin())
                                 : draw(logits, params);
  const auto logit = static_cast<double>(logits[static_cast<std::size_t>(token)]);
  return {token, logit - log_sum_exp(logits), kOk};
}

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "candidates sorted as far as the filters need",
    .rounds = "probabilities: f64",
    .max_nmse = [](const Problem&) { return 1e-13; },
    .unsupported = [](const Problem&) { return std::string(); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::sample
