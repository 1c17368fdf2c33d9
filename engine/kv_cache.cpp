// Page bookkeeping.
#include "engine/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention/kv_layout.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"

namespace moebench {

struct KvCache::Sizes {
  std::array<std::size_t, 2> page_stride;
  std::array<std::int64_t, 2> num_pages;

  Sizes(const ModelConfig& config, const KvCacheOptions& options) {
    const std::int64_t sliding_layers = config.num_sliding_layers();
    const std::array<std::int64_t, 2> layers = {config.num_layers - sliding_layers, sliding_layers};
    const std::size_t per_layer =
        one_layer(options.format, options.page_size, config.num_kv_heads, config.head_dim)
            .page_stride;
    const auto pages = [&](std::int64_t positions) {
      return (positions + options.page_size - 1) / options.page_size;
    };
    for (std::size_t kind = 0; kind < 2; ++kind) {
      page_stride[kind] = static_cast<std::size_t>(layers[kind]) * per_layer;
    }
    // A sequence wastes less than one page at its end, and a fork copies one.
    num_pages[kFull] = pages(options.max_tokens) + options.max_sequences;
    // A sequence's window, and its part of a step: each touches a page more than it fills. Never
    // more than all tokens.
    const std::int64_t of_windows = options.max_sequences * (pages(config.sliding_window) + 2);
    num_pages[kSliding] = std::min(of_windows + pages(options.max_step), num_pages[kFull]);
  }

  std::size_t bytes(std::size_t kind) const {
    return static_cast<std::size_t>(num_pages[kind]) * page_stride[kind];
  }
};

KvCache::KvCache(const ModelConfig& config, const KvCacheOptions& options)
    : config_(config), options_(options) {
  require(options.page_size > 0 && options.max_sequences > 0 && options.max_tokens > 0 &&
              options.max_step > 0,
          "make a KV cache: page_size {}, max_sequences {}, max_tokens {}, max_step {} must be "
          "positive",
          options.page_size, options.max_sequences, options.max_tokens, options.max_step);
  const Codec& c = codec(options.format);
  require(config.head_dim % c.block == 0,
          "make a KV cache: head_dim {} is not a multiple of {}, the block of {}", config.head_dim,
          c.block, c.name);
  const Sizes sizes(config, options);
  memory_ = Buffer(sizes.bytes(kFull) + sizes.bytes(kSliding), "the KV cache", options.place);
  for (std::size_t kind = 0; kind < 2; ++kind) {
    Pool& pool = pools_[kind];
    pool.page_stride = sizes.page_stride[kind];
    pool.memory = memory_.data() + (kind == kFull ? 0 : sizes.bytes(kFull));
    pool.references.assign(static_cast<std::size_t>(sizes.num_pages[kind]), 0);
    // Lowest numbers on top: memory is touched from the bottom up, and only as far as needed.
    for (auto page = static_cast<std::int32_t>(sizes.num_pages[kind]); page-- > 0;) {
      pool.free.push_back(page);
    }
  }
  std::array<std::int32_t, 2> next = {0, 0};
  for (const bool sliding : config.layer_is_sliding) {
    layer_index_.push_back(next[sliding ? kSliding : kFull]++);
  }
  sequences_.resize(static_cast<std::size_t>(options.max_sequences));
}

std::size_t KvCache::bytes_needed(const ModelConfig& config, const KvCacheOptions& options) {
  const Sizes sizes(config, options);
  return sizes.bytes(kFull) + sizes.bytes(kSliding);
}

const KvCache::Sequence& KvCache::at(std::int32_t sequence) const {
  require(sequence >= 0 && sequence < static_cast<std::int32_t>(sequences_.size()) &&
              sequences_[static_cast<std::size_t>(sequence)].alive,
          "use KV sequence {}: it is not alive", sequence);
  return sequences_[static_cast<std::size_t>(sequence)];
}

std::int32_t KvCache::create() {
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    if (sequences_[i].alive) continue;
    sequences_[i] = Sequence{};
    sequences_[i].alive = true;
    return static_cast<std::int32_t>(i);
  }
  fail(ErrorCode::kOutOfMemory, "start a sequence: all {} are in use", sequences_.size());
}

std::int32_t KvCache::take_page(Kind kind) {
  Pool& pool = pools_[kind];
  require_or(ErrorCode::kOutOfMemory, !pool.free.empty(),
             "grow a sequence: all {} {} KV pages of {} positions are in use",
             pool.references.size(), kind == kFull ? "full" : "sliding", options_.page_size);
  const std::int32_t page = pool.free.back();
  pool.free.pop_back();
  pool.references[static_cast<std::size_t>(page)] = 1;
  return page;
}

void KvCache::drop_page(Kind kind, std::int32_t& page) {
  if (page < 0) return;
  Pool& pool = pools_[kind];
  if (--pool.references[static_cast<std::size_t>(page)] == 0) pool.free.push_back(page);
  page = -1;
}

std::int32_t KvCache::fork(std::int32_t source, std::int64_t length, gpu::Stream stream) {
  require(length >= 0 && length <= at(source).length, "fork a sequence of {} positions at {}",
          at(source).length, length);
  const std::int64_t first_visible = std::max<std::int64_t>(0, length - config_.sliding_window + 1);
  for (std::int64_t i = first_visible / options_.page_size; i < pages_for(length); ++i) {
    require(at(source).pages[kSliding][static_cast<std::size_t>(i)] >= 0,
            "fork at position {}: the source has moved on and given up that window", length);
  }
  const std::int32_t copy = create();
  Sequence& to = sequences_[static_cast<std::size_t>(copy)];
  const Sequence& from = at(source);
  const std::int64_t shared = length / options_.page_size;
  try {
    for (const Kind kind : {kFull, kSliding}) {
      Pool& pool = pools_[kind];
      const auto& pages = from.pages[kind];
      to.pages[kind].assign(pages.begin(), pages.begin() + shared);
      for (const std::int32_t page : to.pages[kind]) {
        if (page >= 0) ++pool.references[static_cast<std::size_t>(page)];
      }
      if (length % options_.page_size == 0) continue;
      const std::int32_t page = take_page(kind);
      to.pages[kind].push_back(page);
      const std::int32_t original = pages[static_cast<std::size_t>(shared)];
      std::byte* copy_to = pool.memory + static_cast<std::size_t>(page) * pool.page_stride;
      const std::byte* copy_from =
          pool.memory + static_cast<std::size_t>(original) * pool.page_stride;
      if (options_.place == Place::kDevice) {
        gpu::device().copy(copy_to, copy_from, pool.page_stride, gpu::Copy::kOnDevice, stream);
      } else {
        std::memcpy(copy_to, copy_from, pool.page_stride);
      }
    }
  } catch (...) {
    release(copy);
    throw;
  }
  // Steps run in streams of their own, which do not wait for the default one.
  if (options_.place == Place::kDevice && stream == nullptr) gpu::device().synchronize(nullptr);
  to.length = length;
  return copy;
}

void KvCache::release(std::int32_t sequence) {
  at(sequence);
  Sequence& s = sequences_[static_cast<std::size_t>(sequence)];
  for (const Kind kind : {kFull, kSliding}) {
    for (std::int32_t& page : s.pages[kind]) drop_page(kind, page);
  }
  s = Sequence{};
}

void KvCache::grow(std::int32_t sequence, std::int64_t length) {
  at(sequence);
  Sequence& s = sequences_[static_cast<std::size_t>(sequence)];
  if (length <= s.length) return;
  for (const Kind kind : {kFull, kSliding}) {
    while (static_cast<std::int64_t>(s.pages[kind].size()) < pages_for(length)) {
      s.pages[kind].push_back(take_page(kind));
    }
  }
  s.length = length;
}

void KvCache::trim(std::int32_t sequence, std::int64_t length) {
  at(sequence);
  Sequence& s = sequences_[static_cast<std::size_t>(sequence)];
  // The next query stands at `length` and sees positions > length - window.
  const std::int64_t first_visible = length - config_.sliding_window + 1;
  auto& pages = s.pages[kSliding];
  for (std::size_t& i = s.first_sliding; i < pages.size(); ++i) {
    if (static_cast<std::int64_t>(i + 1) * options_.page_size > first_visible) break;
    drop_page(kSliding, pages[i]);
  }
}

KvCache::Kind KvCache::kind_of(std::int64_t layer) const {
  return config_.layer_is_sliding[static_cast<std::size_t>(layer)] ? kSliding : kFull;
}

KvLayerView KvCache::layer(std::int64_t layer) const {
  const Pool& pool = pools_[kind_of(layer)];
  KvLayerView view =
      one_layer(options_.format, options_.page_size, config_.num_kv_heads, config_.head_dim);
  view.page_stride = pool.page_stride;  // of all layers of the kind
  const std::size_t half = half_page_bytes(view);
  view.keys = pool.memory +
              static_cast<std::size_t>(layer_index_[static_cast<std::size_t>(layer)]) * 2 * half;
  view.values = view.keys + half;
  return view;
}

}  // namespace moebench
