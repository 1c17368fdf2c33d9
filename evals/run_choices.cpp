// Each option as one teacher-forced sequence.
#include "evals/run_choices.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "engine/scoring.h"
#include "engine/utf8.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

// log softmax(logits)[token], in double.
double log_probability(std::span<const float> logits, std::int32_t token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  const double result =
      static_cast<double>(logits[static_cast<std::size_t>(token)]) - largest - std::log(sum);
  require(std::isfinite(result), "score a continuation: a logit is not finite");
  return result;
}

std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

struct Encoded {
  std::vector<std::int32_t> tokens;
  std::size_t continuation = 0;  // index of its first token
};

Encoded encode_pair(const Tokenizer& tokenizer, const ScoredOption& option) {
  const std::size_t end = option.context.find_last_not_of(" \t\n\r\f\v");
  const std::string context = option.context.substr(0, end == std::string::npos ? 0 : end + 1);
  Encoded encoded{tokenizer.encode(option.context + option.continuation),
                  tokenizer.encode(context).size()};
  require(encoded.continuation > 0, "score a continuation: there is no context before it");
  require(encoded.continuation < encoded.tokens.size(), "score a continuation: it has no tokens");
  return encoded;
}

LedgerLine score_item(Engine& engine, const TaskItem& item, const TaskSettings& settings,
                      bool hides_text) {
  const auto start = std::chrono::steady_clock::now();
  LedgerLine line;
  line.item = item.id;
  line.category = item.category;
  line.seed = answer_seed(settings.sampling.seed, item.id, 0);
  line.expected = item.expected;
  line.finish = "scored";
  std::uint64_t read = 0;
  for (std::size_t i = 0; i < item.options.size(); ++i) {
    OptionScore score = score_option(engine, item.options[i]);
    // The length that normalises is the choice's own, as it stands in the dataset.
    const std::string& choice = item.choices[i];
    score.bytes = static_cast<std::int64_t>(choice.size());
    score.characters = count_characters(choice);
    line.options.push_back(score);
    read = content_hash(item.options[i].context + item.options[i].continuation, read);
  }
  line.item_hash = hash_hex(read);
  line.token_digest = line.item_hash;
  const std::size_t best = best_option(line.options, "none");
  line.answer = choice_letter(best);
  line.log_probability = line.options[best].log_probability;
  line.verdict = line.answer == line.expected ? Verdict::kCorrect : Verdict::kWrong;
  if (!hides_text) line.final_text = item.choices[best];
  line.timing.e2e_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return line;
}

}  // namespace

bool is_choice_task(const TaskData& data) {
  return !data.items.empty() && !data.items.front().options.empty();
}

OptionScore score_option(Engine& engine, const ScoredOption& option) {
  Encoded encoded = encode_pair(engine.require_tokenizer(), option);
  // The last token is never read, only predicted.
  const auto most = static_cast<std::size_t>(engine.model->limits().max_context) + 1;
  if (encoded.tokens.size() > most) {
    const std::size_t cut = encoded.tokens.size() - most;
    encoded.tokens.erase(encoded.tokens.begin(),
                         encoded.tokens.begin() + static_cast<std::ptrdiff_t>(cut));
    encoded.continuation = std::max<std::size_t>(encoded.continuation, cut + 1) - cut;
  }
  const std::span<const std::int32_t> tokens(encoded.tokens);
  OptionScore score;
  score.tokens = static_cast<std::int64_t>(tokens.size() - encoded.continuation);
  score_sequence(*engine.model, *engine.cache, tokens.first(tokens.size() - 1),
                 static_cast<std::int64_t>(encoded.continuation) - 1,
                 [&](std::int64_t position, std::span<const float> logits) {
                   const auto next = tokens[static_cast<std::size_t>(position) + 1];
                   score.log_probability += log_probability(logits, next);
                 });
  return score;
}

std::vector<LedgerLine> run_choices(Engine& engine, const Task& task, const TaskData& data,
                                    std::span<const std::size_t> indices,
                                    const TaskSettings& settings,
                                    const std::vector<LedgerLine>& done, const TaskHooks& hooks) {
  require(settings.repeats == 1,
          "run {}: {} repeats of a log-likelihood task would all be the same "
          "(1 is right)",
          task.name, settings.repeats);
  std::set<std::string> finished;
  for (const LedgerLine& line : done) finished.insert(line.item);
  std::vector<LedgerLine> lines = done;
  const bool hides_text = !task.public_text && !settings.include_items;
  for (const std::size_t i : indices) {
    if (hooks.on_progress) {
      hooks.on_progress(static_cast<std::int64_t>(lines.size()),
                        static_cast<std::int64_t>(indices.size()));
    }
    if (finished.contains(data.items[i].id)) continue;
    require_or(ErrorCode::kInterrupted, !hooks.stop_requested || !hooks.stop_requested(),
               "score question '{}': interrupted", data.items[i].id);
    lines.push_back(score_item(engine, data.items[i], settings, hides_text));
    if (hooks.on_line) hooks.on_line(lines.back());
  }
  return lines;
}

}  // namespace moebench
