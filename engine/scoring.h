// Teacher forcing: the logits a model gives at every position of a known token sequence.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/model.h"

namespace moebench {

// Feeds a sequence chunk by chunk, so that two models can be stepped side by side without keeping
// the logits of a whole sequence (200,000 floats a position).
class SequenceScorer {
 public:
  // Logits are wanted from position `first` on. `tokens` must outlive the scorer.
  SequenceScorer(Model& model, KvCache& cache, std::span<const std::int32_t> tokens,
                 std::int64_t first);
  ~SequenceScorer();
  SequenceScorer(const SequenceScorer&) = delete;
  SequenceScorer& operator=(const SequenceScorer&) = delete;

  struct Chunk {
    std::int64_t first_position = 0;  // of the first row
    View<const float, 2> logits;      // [positions, vocab_size]; predict the token after each
  };

  // Positions the next chunk may hold at most.
  std::int64_t max_chunk() const;
  bool done() const { return position_ >= static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t position() const { return position_; }

  // Runs the next `count` positions (at most max_chunk()). The logits are valid until the model's
  // next step; positions before `first` give no row.
  Chunk advance(std::int64_t count, const Observer* observer = nullptr);

 private:
  Model& model_;
  KvCache& cache_;
  std::span<const std::int32_t> tokens_;
  std::int64_t first_;
  std::int64_t position_ = 0;
  std::int32_t sequence_;
  Step step_;
};

// Calls visit(position, logits [vocab_size]) for each position >= `first`, in order.
void score_sequence(Model& model, KvCache& cache, std::span<const std::int32_t> tokens,
                    std::int64_t first,
                    const std::function<void(std::int64_t, std::span<const float>)>& visit,
                    const Observer* observer = nullptr);

}  // namespace moebench
