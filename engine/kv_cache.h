// The paged key/value cache of many sequences.
//
// Layers fall into two kinds that share page numbers within a kind: full layers keep every
// position, sliding layers only the pages that their window can still see. Pages are counted by
// references, so that sequences can share a computed prefix (`fork`). All memory is taken once.
//
// Pages may be given back while a step that reads or writes them is still under way on the GPU: a
// model's steps run in the order they were enqueued, so whoever gets the pages next comes behind
// it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/model_config.h"
#include "kernels/attention/kv_view.h"
#include "kernels/core/buffer.h"
#include "kernels/core/stream.h"

namespace moebench {

struct KvCacheOptions {
  Format format = Format::kF32;
  std::int64_t page_size = 16;      // positions
  std::int64_t max_sequences = 16;  // alive at once, shared prefixes included
  std::int64_t max_tokens = 8192;   // positions over all sequences that full layers can hold
  // Most positions by which all sequences together grow beyond what was trimmed last.
  std::int64_t max_step = 256;
  Place place = Place::kHost;
};

class KvCache {
 public:
  enum Kind { kFull = 0, kSliding = 1 };

  KvCache(const ModelConfig& config, const KvCacheOptions& options);

  // Bytes a cache with these options takes, without taking them.
  static std::size_t bytes_needed(const ModelConfig& config, const KvCacheOptions& options);
  std::size_t bytes() const { return memory_.size(); }
  std::span<const std::byte> memory() const { return {memory_.data(), memory_.size()}; }

  // A new empty sequence, as a handle in [0, max_sequences). Throws Error(kOutOfMemory) if all are
  // taken.
  std::int32_t create();

  // A new sequence that begins with the first `length` positions of `source`, sharing its whole
  // pages and copying the part of one, on the GPU in the order of `stream`, where the steps of both
  // run (nullptr: at once). The window of `source` must still cover `length`.
  std::int32_t fork(std::int32_t source, std::int64_t length, gpu::Stream stream = nullptr);

  void release(std::int32_t sequence);

  // Makes room for positions [0, length). Throws Error(kOutOfMemory) if no page is free.
  void grow(std::int32_t sequence, std::int64_t length);

  // Gives back sliding pages that no position >= `length` can see.
  void trim(std::int32_t sequence, std::int64_t length);

  std::int64_t length(std::int32_t sequence) const { return at(sequence).length; }

  // Full pages that are free: what admission control asks for before it takes in a request.
  std::int64_t free_full_pages() const {
    return static_cast<std::int64_t>(pools_[kFull].free.size());
  }
  std::int64_t pages_for(std::int64_t length) const {
    return (length + options_.page_size - 1) / options_.page_size;
  }

  KvLayerView layer(std::int64_t layer) const;
  Kind kind_of(std::int64_t layer) const;
  std::span<const std::int32_t> page_table(std::int32_t sequence, Kind kind) const {
    return at(sequence).pages[kind];
  }

  const KvCacheOptions& options() const { return options_; }

 private:
  struct Pool {
    std::vector<std::int32_t> free;
    std::vector<std::int32_t> references;  // per page
    std::size_t page_stride = 0;
    std::byte* memory = nullptr;
  };
  struct Sequence {
    bool alive = false;
    std::int64_t length = 0;  // positions with room
    std::array<std::vector<std::int32_t>, 2> pages;
    std::size_t first_sliding = 0;  // page of the sliding layers that was not given back
  };
  struct Sizes;

  const Sequence& at(std::int32_t sequence) const;
  std::int32_t take_page(Kind kind);
  void drop_page(Kind kind, std::int32_t& page);

  ModelConfig config_;
  KvCacheOptions options_;
  Buffer memory_;
  std::array<Pool, 2> pools_;
  std::vector<std::int32_t> layer_index_;  // number of the layer within its kind
  std::vector<Sequence> sequences_;
};

}  // namespace moebench
