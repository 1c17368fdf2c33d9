// A matrix, or a stack of them, in any format, made from float32 numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/core/random.h"
#include "kernels/core/thread_pool.h"
#include "kernels/formats/encode_matrix.h"
#include "kernels/formats/format.h"

namespace moebench::test {

class EncodedStack {
 public:
  // `values`: [count, rows, cols]. Elements and scales start at odd addresses, because a checkpoint
  // promises no alignment. `layout` none: row-major.
  EncodedStack(Format format, std::int64_t count, std::int64_t rows, std::int64_t cols,
               std::span<const float> values, std::optional<RowLayout> layout = std::nullopt)
      : format_(format),
        layout_(layout.value_or(RowLayout::kRowMajor)),
        count_(count),
        rows_(rows),
        cols_(cols),
        data_(1 + row_bytes(codec(format).row_data_bytes)),
        scales_(1 + row_bytes(codec(format).row_scale_bytes)),
        tensor_scales_(static_cast<std::size_t>(count)) {
    ThreadPool pool(1);
    for (std::int64_t m = 0; m < count; ++m) {
      const float* matrix = values.data() + m * rows * cols;
      const auto read_row = [&](std::int64_t row, float* out) {
        std::copy(matrix + row * cols, matrix + (row + 1) * cols, out);
      };
      const auto first = static_cast<std::size_t>(m * stored_rows(layout_, rows));
      error_.add(encode_matrix(codec(format), rows, cols, read_row,
                               data_.data() + 1 + first * codec(format).row_data_bytes(cols),
                               scales_.data() + 1 + first * codec(format).row_scale_bytes(cols),
                               &tensor_scales_[static_cast<std::size_t>(m)], "a test", pool,
                               layout_));
    }
  }

  MatrixStackView stack() const {
    return {format_,        count_, rows_, cols_, data_.data() + 1, scales_.data() + 1,
            tensor_scales_, layout_};
  }
  MatrixView matrix() const { return stack()[0]; }
  std::span<const std::byte> data() const { return std::span(data_).subspan(1); }
  std::span<const std::byte> scales() const { return std::span(scales_).subspan(1); }
  const EncodingError& error() const { return error_; }

  // What the codes stand for: [count, rows, cols].
  std::vector<float> decoded() const {
    std::vector<float> values(static_cast<std::size_t>(count_ * rows_ * cols_));
    for (std::int64_t r = 0; r < count_ * rows_; ++r) {
      stack()[r / rows_].decode_row(r % rows_, values.data() + r * cols_);
    }
    return values;
  }

 private:
  std::size_t row_bytes(std::size_t (*of_row)(std::int64_t)) const {
    return static_cast<std::size_t>(count_ * stored_rows(layout_, rows_)) * of_row(cols_);
  }

  Format format_;
  RowLayout layout_;
  std::int64_t count_;
  std::int64_t rows_;
  std::int64_t cols_;
  std::vector<std::byte> data_;
  std::vector<std::byte> scales_;
  std::vector<float> tensor_scales_;
  EncodingError error_;
};

// `count` numbers of mean 0 and deviation `deviation`: sums of four uniform ones.
inline std::vector<float> random_floats(std::int64_t count, std::uint64_t seed,
                                        double deviation = 1) {
  RandomStream random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    const double sum = random.uniform() + random.uniform() + random.uniform() + random.uniform();
    value = static_cast<float>((sum - 2) * 1.7320508 * deviation);
  }
  return values;
}

}  // namespace moebench::test
