// The table of codecs, and whole matrices on top of rows.
#include "kernels/formats/format.h"

#include <algorithm>
#include <array>
#include <limits>
#include <mutex>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {

std::span<const Codec* const> codecs() {
#define MOEBENCH_LIST_CODEC(name) &codec_##name,
  static constexpr const Codec* kAll[] = {MOEBENCH_FORMATS(MOEBENCH_LIST_CODEC)};
#undef MOEBENCH_LIST_CODEC
  return kAll;
}

const Codec& codec(Format format) { return *codecs()[static_cast<std::size_t>(format)]; }

std::string_view format_name(Format format) { return codec(format).name; }

Format parse_format(std::string_view name) {
  std::vector<std::string> known;
  for (const Codec* candidate : codecs()) {
    if (candidate->name == name) return candidate->format;
    known.emplace_back(candidate->name);
  }
  fail(ErrorCode::kInvalidArgument, "choose a format: no format '{}'; {}", name,
       suggestion(name, known));
}

std::size_t row_bytes(Format format, std::int64_t cols) {
  const Codec& c = codec(format);
  return c.row_data_bytes(cols) + c.row_scale_bytes(cols);
}

std::size_t matrix_bytes(Format format, std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>(rows) * row_bytes(format, cols);
}

void MatrixView::decode_row(std::int64_t row, float* values) const {
  const Codec& c = codec(format);
  const auto r = static_cast<std::size_t>(row);
  c.decode_row(data + r * c.row_data_bytes(cols), scales + r * c.row_scale_bytes(cols),
               tensor_scale, cols, values);
}

MatrixView MatrixView::slice(std::int64_t begin, std::int64_t length) const {
  require(begin >= 0 && length >= 0 && begin + length <= rows,
          "slice a matrix: rows [{}, {}) of {}", begin, begin + length, rows);
  const Codec& c = codec(format);
  const auto first = static_cast<std::size_t>(begin);
  MatrixView part = *this;
  part.rows = length;
  part.data = data + first * c.row_data_bytes(cols);
  if (scales != nullptr) part.scales = scales + first * c.row_scale_bytes(cols);
  return part;
}

MatrixView MatrixStackView::operator[](std::int64_t index) const {
  const Codec& c = codec(format);
  const auto first = static_cast<std::size_t>(index) * static_cast<std::size_t>(rows);
  MatrixView matrix{format, rows, cols, data + first * c.row_data_bytes(cols), nullptr, 1.0F};
  if (scales != nullptr) matrix.scales = scales + first * c.row_scale_bytes(cols);
  if (!tensor_scales.empty()) matrix.tensor_scale = tensor_scales[static_cast<std::size_t>(index)];
  return matrix;
}

void EncodingError::add(const EncodingError& other) {
  signal += other.signal;
  noise += other.noise;
  max_abs = std::max(max_abs, other.max_abs);
  count += other.count;
}

EncodingError encode_matrix(const Codec& codec, std::int64_t rows, std::int64_t cols,
                            const std::function<void(std::int64_t, float*)>& read_row,
                            std::byte* data, std::byte* scales, float* tensor_scale,
                            std::string_view what, ThreadPool& pool) {
  require(cols % codec.block == 0, "encode {} as {}: {} columns are not a multiple of {}", what,
          codec.name, cols, codec.block);
  constexpr std::int64_t kGrain = 16;  // rows; below that a thread is not worth waking

  // A pass of its own for the largest magnitude, only for formats that have a per-matrix scale.
  *tensor_scale = 1.0F;
  if (codec.tensor_scale != nullptr) {
    std::vector<float> largest(static_cast<std::size_t>(pool.num_threads()), 0.0F);
    pool.parallel_for(rows, kGrain, [&](std::int64_t begin, std::int64_t end, int thread) {
      std::vector<float> values(static_cast<std::size_t>(cols));
      float max_abs = 0.0F;
      for (std::int64_t r = begin; r < end; ++r) {
        read_row(r, values.data());
        for (float v : values) {
          if (std::isfinite(v)) max_abs = std::max(max_abs, std::fabs(v));  // others: refused below
        }
      }
      largest[static_cast<std::size_t>(thread)] = max_abs;
    });
    *tensor_scale = codec.tensor_scale(*std::max_element(largest.begin(), largest.end()));
  }

  // One error sum per row, added in row order: the result does not depend on the thread count.
  std::vector<EncodingError> errors(static_cast<std::size_t>(rows));
  pool.parallel_for(rows, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> values(static_cast<std::size_t>(cols));
    std::vector<float> decoded(static_cast<std::size_t>(cols));
    for (std::int64_t r = begin; r < end; ++r) {
      const auto row = static_cast<std::size_t>(r);
      read_row(r, values.data());
      for (std::size_t i = 0; i < values.size(); ++i) {
        require(std::isfinite(values[i]), "encode {} as {}: row {}, column {} holds {}", what,
                codec.name, r, i, values[i]);
      }
      std::byte* row_data = data + row * codec.row_data_bytes(cols);
      std::byte* row_scales = scales + row * codec.row_scale_bytes(cols);
      codec.encode_row(values.data(), cols, *tensor_scale, row_data, row_scales);
      codec.decode_row(row_data, row_scales, *tensor_scale, cols, decoded.data());
      EncodingError& error = errors[row];
      error.count = cols;
      for (std::size_t i = 0; i < values.size(); ++i) {
        require(std::isfinite(decoded[i]), "encode {} as {}: row {}, column {} holds {}, too large",
                what, codec.name, r, i, values[i]);
        const double difference = static_cast<double>(decoded[i]) - static_cast<double>(values[i]);
        error.signal += static_cast<double>(values[i]) * static_cast<double>(values[i]);
        error.noise += difference * difference;
        error.max_abs = std::max(error.max_abs, std::fabs(difference));
      }
    }
  });
  EncodingError total;
  for (const EncodingError& error : errors) total.add(error);
  return total;
}

}  // namespace moebench
