// Sampling on the host: parameters checked, and the draw that kernels/sample defines.
#include "engine/sampling.h"

#include "kernels/core/error.h"
#include "kernels/core/random.h"
#include "kernels/sample/choose_token.h"

namespace moebench {

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

double log_sum_exp(std::span<const float> logits) { return sample::log_sum_exp(logits); }

sample::RowParams row_params(const SamplingParams& params, std::uint64_t index) {
  return {.temperature = params.temperature,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .uniform = random_uniform(params.seed, 0, index),
          .top_k = params.top_k};
}

std::string sampling_problem(std::int32_t status, std::int32_t token) {
  switch (status) {
    case sample::kOk:
      return "";
    case sample::kNoneFinite:
      return "sample a token: no logit is finite";
    default:
      return fmt::format(
          "sample a token: the logit of token {} is nan or infinite; the model's weights or a "
          "kernel "
          "are broken",
          token);
  }
}

SampledToken sample_token(std::span<const float> logits, const SamplingParams& params,
                          std::uint64_t index) {
  require(!logits.empty(), "sample a token: there are no logits");
  const sample::Choice choice = sample::choose_token(logits, row_params(params, index));
  const std::string problem = sampling_problem(choice.status, choice.token);
  require(problem.empty(), "{}", problem);
  return {choice.token, choice.log_probability};
}

}  // namespace moebench
