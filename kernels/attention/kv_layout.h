// How a cache's memory is laid out: what whoever makes a KvLayerView has to fill in.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention/kv_view.h"
#include "kernels/formats/format.h"

namespace moebench {

// A page's keys, or its values.
inline std::size_t half_page_bytes(const KvLayerView& kv) {
  return static_cast<std::size_t>(kv.page_size * kv.num_kv_heads) * kv.row_bytes;
}

// A pool of one layer's pages, without its memory: the keys of a page, then its values.
inline KvLayerView one_layer(Format format, std::int64_t page_size, std::int64_t num_kv_heads,
                             std::int64_t head_dim) {
  KvLayerView kv;
  kv.format = format;
  kv.page_size = page_size;
  kv.num_kv_heads = num_kv_heads;
  kv.head_dim = head_dim;
  kv.row_bytes = (row_bytes(format, head_dim) + 3) / 4 * 4;  // see KvLayerView
  kv.page_stride = 2 * half_page_bytes(kv);
  return kv;
}

}  // namespace moebench
