// One layer's keys and values of several sequences, in pages.
//
// A page holds `page_size` consecutive positions of one sequence. Each (position, head) vector is
// one encoded row: its elements, then its scales. Pages of a pool are `page_stride` bytes apart.
#pragma once

#include <cstdint>

#include "kernels/core/view.h"
#include "kernels/formats/format.h"

namespace moebench {

struct KvLayerView {
  Format format = Format::kF32;
  std::int64_t page_size = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::size_t row_bytes = 0;    // row_bytes(format, head_dim), rounded up to a multiple of 4
  std::size_t page_stride = 0;  // bytes from one page to the next
  std::byte* keys = nullptr;    // page 0: [page_size, num_kv_heads] rows
  std::byte* values = nullptr;  // page 0: [page_size, num_kv_heads] rows

  std::byte* row(std::byte* base, std::int32_t page, std::int64_t slot, std::int64_t head) const {
    return base + static_cast<std::size_t>(page) * page_stride +
           static_cast<std::size_t>(slot * num_kv_heads + head) * row_bytes;
  }

  void encode(std::byte* row_at, const float* vector) const {
    const Codec& c = codec(format);
    c.encode_row(vector, head_dim, 1.0F, row_at, row_at + c.row_data_bytes(head_dim));
  }

  void decode(const std::byte* row_at, float* vector) const {
    const Codec& c = codec(format);
    c.decode_row(row_at, row_at + c.row_data_bytes(head_dim), 1.0F, head_dim, vector);
  }
};

// Where each token of a step stands.
struct TokenPlaces {
  View<const std::int32_t, 1> position;  // [num_tokens], absolute, from 0
  View<const std::int32_t, 1> sequence;  // [num_tokens], index into page_tables
  // [num_sequences, pages of the longest]: the page of positions [i * page_size, (i + 1) *
  // page_size) at index i. Entries of pages that no layer of this kind can see any more, and those
  // behind a shorter sequence's end, are -1.
  View<const std::int32_t, 2> page_tables;
};

}  // namespace moebench
