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

}  // namespace moebench
