// Whole matrices into a format or a layout, by many threads.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>

#include "kernels/formats/format.h"

namespace moebench {

class ThreadPool;

// What a re-encoding did to the numbers. Sums over elements; add() joins several tensors.
struct EncodingError {
  double signal = 0;   // sum of squares of the originals
  double noise = 0;    // sum of squares of the differences
  double max_abs = 0;  // largest difference
  std::int64_t count = 0;

  void add(const EncodingError& other);
  // 10 log10(signal / noise) in dB; +infinity if nothing was lost.
  double sqnr_db() const {
    return noise > 0 ? 10.0 * std::log10(signal / noise) : std::numeric_limits<double>::infinity();
  }
};

// Encodes rows [0, rows), each produced by `read_row(row, values)`, in parallel, into `data` and
// `scales` in the given layout. `tensor_scale` receives the per-matrix scale. Throws
// Error(kInvalidArgument) naming `what` for a value that is not finite or would become infinite,
// and for columns that are not a multiple of the block.
EncodingError encode_matrix(const Codec& codec, std::int64_t rows, std::int64_t cols,
                            const std::function<void(std::int64_t, float*)>& read_row,
                            std::byte* data, std::byte* scales, float* tensor_scale,
                            std::string_view what, ThreadPool& pool,
                            RowLayout layout = RowLayout::kRowMajor);

// Copies a row-major matrix into the interleaved layout: the same bytes in another order, and zeros
// for the rows that fill up the last group.
void interleave_rows(const MatrixView& from, std::byte* data, std::byte* scales, ThreadPool& pool);

}  // namespace moebench
