// What the ops of a step read besides activations and weights: tokens, positions, page tables,
// which rows want logits. Packed into one block, so that it reaches the GPU in one copy.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv_cache.h"
#include "kernels/attention/kv_view.h"
#include "kernels/core/buffer.h"
#include "kernels/core/device.h"
#include "kernels/sample/sample.h"

namespace moebench {

// One step: any mix of prompt chunks and single decoded tokens. Tokens of one sequence stand in
// ascending order of position, and all earlier positions of it are in the cache.
struct Step {
  // -1 - r is the token that row r of the step enqueued before draws: see Model::enqueue_step.
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> positions;   // same length
  std::vector<std::int32_t> sequences;   // same length; handles of the cache
  std::vector<std::int32_t> logit_rows;  // indices of the tokens whose logits are wanted

  void clear() {
    tokens.clear();
    positions.clear();
    sequences.clear();
    logit_rows.clear();
  }
};

// Everything that the launches of a step depend on: steps of one shape can replay one graph.
struct StepShape {
  std::int64_t num_tokens = 0;
  std::int64_t num_rows = 0;       // of logits
  std::int64_t num_sequences = 0;  // in the step
  std::int64_t num_single = 0;     // tokens at its beginning whose sequences have no other in it
  std::int64_t table_pages = 0;    // columns of the page tables
  bool samples = false;            // a token is drawn from each row

  auto operator<=>(const StepShape&) const = default;
};

class StepInputs {
 public:
  explicit StepInputs(Place place) : place_(place) {}

  // Fills one of the host's two blocks in turn: the other may still be on its way to the device. On
  // the device, table_pages is rounded up to a power of two, so that steps of similar contexts have
  // one shape. `draws` has one entry per row of logits, or none: logits only.
  void pack(const Step& step, const KvCache& cache, std::span<const sample::RowParams> draws);
  // Enqueues the block's copy to where the ops read it, which moves when it must grow. There is one
  // such place: steps run one after the other. Nothing to do on the host.
  void upload(gpu::Stream stream);

  const StepShape& shape() const { return shape_; }
  // Counts the moves of the device's block: graphs of an older block are of no use.
  std::int64_t generation() const { return generation_; }

  View<const std::int32_t, 1> tokens() const { return {at(0), {shape_.num_tokens}}; }
  View<const std::int32_t, 1> positions() const { return {at(1), {shape_.num_tokens}}; }
  View<const std::int32_t, 1> logit_rows() const { return {at(5), {shape_.num_rows}}; }
  View<const sample::RowParams, 1> draws() const {
    return {reinterpret_cast<const sample::RowParams*>(at(6)), {shape_.num_rows}};
  }
  TokenPlaces places(KvCache::Kind kind) const;

 private:
  // Parts: tokens, positions, sequences, full page tables, sliding page tables, logit rows, draws.
  static constexpr std::size_t kNumParts = 7;

  struct Pinned {
    gpu::PinnedMemory memory;
    std::size_t words = 0;
  };

  const std::int32_t* at(std::size_t part) const { return block_ + begin_[part]; }
  void reserve(std::size_t words);

  Place place_;
  StepShape shape_;
  std::array<std::size_t, kNumParts + 1> begin_{};  // in words
  std::vector<std::int32_t> handles_;               // of the step's sequences
  std::vector<std::int32_t> numbers_;               // by handle: where in handles_, or -1
  Buffer host_;
  std::array<Pinned, 2> pinned_;
  std::size_t last_pinned_ = 0;  // the one filled last
  Buffer device_;
  std::int32_t* filled_ = nullptr;
  const std::int32_t* block_ = nullptr;
  std::int64_t generation_ = 0;
};

}  // namespace moebench
