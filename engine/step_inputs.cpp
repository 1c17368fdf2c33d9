// Packing a step.
#include "engine/step_inputs.h"

#include <algorithm>
#include <bit>

#include "kernels/core/error.h"

namespace moebench {

void StepInputs::reserve(std::size_t words) {
  if (place_ == Place::kHost) {
    const std::size_t bytes = words * sizeof(std::int32_t);
    if (bytes > host_.size()) host_ = Buffer(std::bit_ceil(bytes), "the inputs of a step");
    filled_ = host_.as<std::int32_t>();
    block_ = filled_;
    return;
  }
  last_pinned_ = 1 - last_pinned_;
  Pinned& pinned = pinned_[last_pinned_];
  if (words > pinned.words) {
    pinned.words = std::bit_ceil(std::max<std::size_t>(words, 4096));
    pinned.memory = gpu::PinnedMemory(
        gpu::device().allocate_pinned(pinned.words * sizeof(std::int32_t), "the inputs of a step"));
  }
  filled_ = reinterpret_cast<std::int32_t*>(pinned.memory.get());
}

void StepInputs::pack(const Step& step, const KvCache& cache,
                      std::span<const sample::RowParams> draws) {
  const std::size_t n = step.tokens.size();
  require(draws.empty() || draws.size() == step.logit_rows.size(),
          "run a step: {} draws for {} rows of logits", draws.size(), step.logit_rows.size());
  // Tokens name their sequence by its number within the step.
  for (const std::int32_t handle : handles_) numbers_[static_cast<std::size_t>(handle)] = -1;
  handles_.clear();
  numbers_.resize(static_cast<std::size_t>(cache.options().max_sequences), -1);
  std::vector<std::int32_t> local(n);
  std::size_t singles = n;
  for (std::size_t t = 0; t < n; ++t) {
    require(step.positions[t] < cache.length(step.sequences[t]),
            "run a step: position {} has no room in the KV cache", step.positions[t]);
    std::int32_t& number = numbers_[static_cast<std::size_t>(step.sequences[t])];
    if (number < 0) {
      number = static_cast<std::int32_t>(handles_.size());
      handles_.push_back(step.sequences[t]);
    } else {
      // Up to the second token of a sequence, token t is of sequence t.
      singles = std::min(singles, static_cast<std::size_t>(number));
    }
    local[t] = number;
  }
  std::size_t pages = 1;
  for (const std::int32_t handle : handles_) {
    pages = std::max(pages, cache.page_table(handle, KvCache::kFull).size());
  }
  if (place_ == Place::kDevice) pages = std::bit_ceil(pages);

  shape_ = {static_cast<std::int64_t>(n),
            static_cast<std::int64_t>(step.logit_rows.size()),
            static_cast<std::int64_t>(handles_.size()),
            static_cast<std::int64_t>(singles),
            static_cast<std::int64_t>(pages),
            !draws.empty()};
  const std::size_t table = handles_.size() * pages;
  const std::array<std::size_t, kNumParts> sizes = {
      n, n, n, table, table, step.logit_rows.size(), draws.size_bytes() / sizeof(std::int32_t)};
  for (std::size_t i = 0; i < kNumParts; ++i) begin_[i + 1] = begin_[i] + (sizes[i] + 3) / 4 * 4;
  reserve(begin_[kNumParts]);

  std::copy(step.tokens.begin(), step.tokens.end(), filled_ + begin_[0]);
  std::transform(step.positions.begin(), step.positions.end(), filled_ + begin_[1],
                 [](std::int64_t position) { return static_cast<std::int32_t>(position); });
  std::copy(local.begin(), local.end(), filled_ + begin_[2]);
  for (const auto kind : {KvCache::kFull, KvCache::kSliding}) {
    std::int32_t* rows = filled_ + begin_[kind == KvCache::kFull ? 3 : 4];
    for (const std::int32_t handle : handles_) {
      const auto page_table = cache.page_table(handle, kind);
      std::fill(std::copy(page_table.begin(), page_table.end(), rows), rows + pages, -1);
      rows += pages;
    }
  }
  std::copy(step.logit_rows.begin(), step.logit_rows.end(), filled_ + begin_[5]);
  std::copy(draws.begin(), draws.end(), reinterpret_cast<sample::RowParams*>(filled_ + begin_[6]));
}

void StepInputs::upload(gpu::Stream stream) {
  if (place_ == Place::kHost) return;
  const std::size_t bytes = begin_[kNumParts] * sizeof(std::int32_t);
  if (bytes > device_.size()) {
    gpu::device().synchronize(stream);  // the step before may still read the smaller block
    device_ = Buffer(pinned_[last_pinned_].words * sizeof(std::int32_t), "the inputs of a step",
                     Place::kDevice);
    ++generation_;
  }
  block_ = device_.as<std::int32_t>();
  gpu::device().copy(device_.data(), filled_, bytes, gpu::Copy::kToDevice, stream);
}

TokenPlaces StepInputs::places(KvCache::Kind kind) const {
  return {positions(),
          {at(2), {shape_.num_tokens}},
          {at(kind == KvCache::kFull ? 3 : 4), {shape_.num_sequences, shape_.table_pages}}};
}

}  // namespace moebench
