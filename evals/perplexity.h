// How well a model predicts a text: perplexity per token and bits per byte, in strided windows.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "evals/statistics.h"
#include "evals/two_sample.h"

namespace moebench {

// A text longer than the context is read in windows of `window` tokens that begin `stride` tokens
// apart; each scores the tokens that no window before it has scored, with all before them in the
// window as context, and the last one is moved back until it is full. stride = window - 1 is the
// fastest and gives the first tokens of each window little context; a smaller stride costs
// window / stride times as much and is nearer to what the model can do. Without a prefix nothing
// comes before the first token, so that one is not scored.
// Source: Hugging Face transformers, "Perplexity of fixed-length models"; lm-evaluation-harness,
// get_rolling_token_windows, which our window of its max_length + 1 and stride of max_length give.
struct PerplexitySettings {
  std::int64_t window = 0;  // tokens, 2 or more; 0: what the engine's context holds
  std::int64_t stride = 0;  // 1 to window - 1; 0: half the window
  // Comes before the text, so that its first token is scored too; see text_start.
  std::optional<std::int32_t> prefix;
};

// The token that a text begins with, "<|startoftext|>", as lm-evaluation-harness takes it (the
// tokenizer's bos_token); nothing where the tokenizer has none.
std::optional<std::int32_t> text_start(const Tokenizer& tokenizer);

// Quotients of the whole text; nothing but the tokenizer and the text bears on bits per byte's
// denominator, so it compares models of different vocabularies, which perplexity does not.
struct PerplexityResult {
  std::int64_t window = 0;  // as used
  std::int64_t stride = 0;
  std::int64_t num_tokens = 0;  // scored
  std::int64_t num_bytes = 0;   // of the scored tokens, UTF-8
  std::int64_t num_windows = 0;
  double mean_nll = 0;       // nats per token
  double perplexity = 0;     // exp(mean_nll)
  double bits_per_byte = 0;  // sum of nll / ln 2 / bytes
  // 95 %, by drawing whole blocks of neighbouring tokens with replacement: tokens of one passage
  // are easy or hard together. Nothing for fewer than two blocks.
  std::optional<Interval> mean_nll_interval;
  std::int64_t block = 0;            // tokens: the square root of num_tokens, rounded up
  std::vector<double> nll_by_block;  // sums, block after block; the last may be shorter
};

// Throws Error(kInvalidArgument) for a text of fewer than 2 tokens, settings out of range or a
// logit that is not finite. `on_progress` is told of tokens scored.
PerplexityResult measure_perplexity(
    Engine& engine, std::string_view text, const PerplexitySettings& settings,
    const std::function<void(std::int64_t done, std::int64_t total)>& on_progress = {},
    const std::function<bool()>& stop_requested = {});

// How the perplexities of two models on one text relate, candidate over base, from the sums of the
// same blocks (PerplexityResult's nll_by_block, `block` and num_tokens). The text's hard passages
// are hard for both: what they differ by is told far better than either. The interval is Student's
// t of the differences by block, as a ratio; method "paired_blocks". Throws Error(kInvalidArgument)
// for blocks that do not fit num_tokens, or sums that are not finite.
RatioEstimate perplexity_ratio(std::span<const double> base_nll_by_block,
                               std::span<const double> candidate_nll_by_block,
                               std::int64_t num_tokens, std::int64_t block, double level = 0.95);

}  // namespace moebench
