// Windows over one sequence of tokens.
#include "evals/perplexity.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "engine/sampling.h"
#include "engine/scoring.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

PerplexityResult checked_settings(const Engine& engine, const PerplexitySettings& settings) {
  PerplexityResult result;
  // The last token of a window is predicted, never read.
  const std::int64_t most = engine.model->limits().max_context + 1;
  result.window = settings.window > 0 ? settings.window : most;
  require(result.window >= 2 && result.window <= most,
          "measure perplexity: a window of {} tokens; expected 2 to {}, what the context holds",
          result.window, most);
  result.stride =
      settings.stride > 0 ? settings.stride : std::max<std::int64_t>(1, result.window / 2);
  require(result.stride < result.window,
          "measure perplexity: a stride of {} tokens in windows of {}; expected 1 to {}, so that "
          "every token has another before it",
          result.stride, result.window, result.window - 1);
  return result;
}

}  // namespace

std::optional<std::int32_t> text_start(const Tokenizer& tokenizer) {
  return tokenizer.special_id("<|startoftext|>");
}

PerplexityResult measure_perplexity(
    Engine& engine, std::string_view text, const PerplexitySettings& settings,
    const std::function<void(std::int64_t done, std::int64_t total)>& on_progress,
    const std::function<bool()>& stop_requested) {
  PerplexityResult result = checked_settings(engine, settings);
  const Tokenizer& tokenizer = engine.require_tokenizer();
  std::vector<std::int32_t> tokens = tokenizer.encode(text);
  if (settings.prefix) tokens.insert(tokens.begin(), *settings.prefix);
  const auto total = static_cast<std::int64_t>(tokens.size());
  require(total >= 2, "measure perplexity: {} tokens; at least 2 are needed", total);

  std::vector<double> nll;
  nll.reserve(tokens.size() - 1);
  for (std::int64_t scored = 1, begin = 0; scored < total; begin += result.stride) {
    require_or(ErrorCode::kInterrupted, !stop_requested || !stop_requested(),
               "measure perplexity: interrupted after {} of {} tokens", scored, total);
    // The last window is a whole one: its context costs nothing.
    begin = std::max<std::int64_t>(0, std::min(begin, total - result.window));
    const std::int64_t end = std::min(begin + result.window, total);
    const auto read = std::span(tokens).subspan(static_cast<std::size_t>(begin),
                                                static_cast<std::size_t>(end - begin - 1));
    score_sequence(*engine.model, *engine.cache, read, scored - 1 - begin,
                   [&](std::int64_t position, std::span<const float> logits) {
                     const auto next = static_cast<std::size_t>(
                         tokens[static_cast<std::size_t>(begin + position + 1)]);
                     const double value = log_sum_exp(logits) - static_cast<double>(logits[next]);
                     require(std::isfinite(value),
                             "measure perplexity: token {} has a probability that is not a number",
                             begin + position + 1);
                     nll.push_back(value);
                   });
    scored = end;
    ++result.num_windows;
    if (on_progress) on_progress(scored, total);
  }

  result.num_tokens = static_cast<std::int64_t>(nll.size());
  result.num_bytes = static_cast<std::int64_t>(text.size());
  if (!settings.prefix) {
    result.num_bytes -= static_cast<std::int64_t>(tokenizer.token_bytes(tokens.front()).size());
  }
  const double sum = std::accumulate(nll.begin(), nll.end(), 0.0);
  result.mean_nll = sum / static_cast<double>(nll.size());
  result.perplexity = std::exp(result.mean_nll);
  result.bits_per_byte = sum / std::numbers::ln2 / static_cast<double>(result.num_bytes);

  result.block = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(nll.size()))));
  std::vector<std::int64_t> blocks(nll.size());
  for (std::size_t i = 0; i < nll.size(); ++i) {
    blocks[i] = static_cast<std::int64_t>(i) / result.block;
    if (static_cast<std::size_t>(blocks[i]) == result.nll_by_block.size()) {
      result.nll_by_block.push_back(0);
    }
    result.nll_by_block.back() += nll[i];
  }
  constexpr std::int64_t kResamples = 2000;
  result.mean_nll_interval = cluster_bootstrap_interval(nll, blocks, kResamples, 0.95, 0);
  return result;
}

RatioEstimate perplexity_ratio(std::span<const double> base_nll_by_block,
                               std::span<const double> candidate_nll_by_block,
                               std::int64_t num_tokens, std::int64_t block, double level) {
  const auto count = static_cast<std::int64_t>(base_nll_by_block.size());
  require(count > 0 && candidate_nll_by_block.size() == base_nll_by_block.size(),
          "compare perplexities: {} blocks of the base, {} of the candidate", count,
          candidate_nll_by_block.size());
  // All are whole but the last.
  require(block > 0 && num_tokens > 0 && (num_tokens - 1) / block + 1 == count,
          "compare perplexities: {} tokens in {} blocks of {}", num_tokens, count, block);
  std::vector<double> differences;
  double sum = 0;
  for (std::size_t i = 0; i < base_nll_by_block.size(); ++i) {
    differences.push_back(candidate_nll_by_block[i] - base_nll_by_block[i]);
    sum += differences.back();
  }
  require(std::isfinite(sum), "compare perplexities: the difference of the sums is {}", sum);
  const auto tokens = static_cast<double>(num_tokens);
  const double per_token = sum / tokens;
  RatioEstimate estimate;
  estimate.ratio = std::exp(per_token);
  std::vector<std::int64_t> numbers;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t length = std::min(block, num_tokens - i * block);
    differences[static_cast<std::size_t>(i)] -= per_token * static_cast<double>(length);
    numbers.push_back(i);
  }
  const MeanEstimate mean = mean_with_clustered_interval(differences, numbers, level);
  if (!mean.standard_error) {
    estimate.reason =
        count == 1 ? "a text of one block shows no error" : "the blocks show no spread";
    return estimate;
  }
  estimate.standard_error = *mean.standard_error * static_cast<double>(count) / tokens;
  estimate.degrees = static_cast<double>(count - 1);
  const double half = estimate.standard_error * t_quantile(estimate.degrees, (1 - level) / 2);
  estimate.interval = Interval{std::exp(per_token - half), std::exp(per_token + half), level};
  estimate.p_value = t_p_value(per_token, estimate.standard_error, estimate.degrees);
  estimate.method = "paired_blocks";
  return estimate;
}

}  // namespace moebench
