// Chunks of a sequence through Model::forward.
#include "engine/scoring.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace moebench {

SequenceScorer::SequenceScorer(Model& model, KvCache& cache, std::span<const std::int32_t> tokens,
                               std::int64_t first)
    : model_(model), cache_(cache), tokens_(tokens), first_(first), sequence_(cache.create()) {}

SequenceScorer::~SequenceScorer() { cache_.release(sequence_); }

std::int64_t SequenceScorer::max_chunk() const {
  const ModelLimits& limits = model_.limits();
  return std::min({limits.max_step_tokens, limits.max_logit_rows, cache_.options().max_step});
}

SequenceScorer::Chunk SequenceScorer::advance(std::int64_t count, const Observer* observer) {
  const auto total = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t begin = position_;
  const std::int64_t end = std::min(total, begin + count);
  require(count > 0 && end > begin, "score {} more positions of a sequence: {} of {} are done",
          count, begin, total);
  cache_.trim(sequence_, begin);
  cache_.grow(sequence_, end);
  step_.clear();
  for (std::int64_t p = begin; p < end; ++p) {
    step_.tokens.push_back(tokens_[static_cast<std::size_t>(p)]);
    step_.positions.push_back(p);
    step_.sequences.push_back(sequence_);
    if (p >= first_) step_.logit_rows.push_back(static_cast<std::int32_t>(p - begin));
  }
  const View<const float, 2> logits = model_.forward(step_, cache_, observer);
  position_ = end;
  return {std::max(begin, first_), logits};
}

void score_sequence(Model& model, KvCache& cache, std::span<const std::int32_t> tokens,
                    std::int64_t first,
                    const std::function<void(std::int64_t, std::span<const float>)>& visit,
                    const Observer* observer) {
  SequenceScorer scorer(model, cache, tokens, first);
  while (!scorer.done()) {
    const auto chunk = scorer.advance(scorer.max_chunk(), observer);
    for (std::int64_t row = 0; row < chunk.logits.shape[0]; ++row) {
      visit(chunk.first_position + row, chunk.logits[row].span());
    }
  }
}

}  // namespace moebench
