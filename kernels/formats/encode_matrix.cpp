// See encode_matrix.h.
#include "kernels/formats/encode_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

// Units of `Unit` bytes of `rows` rows, `stride` bytes apart, to `to`: unit 0 of each, unit 1, ...
// Lanes of rows that are not there keep what `to` holds.
template <std::size_t Unit>
void interleave_units(const std::byte* from, std::size_t stride, std::size_t rows, std::byte* to) {
  constexpr auto kGroup = static_cast<std::size_t>(kRowGroup);
  for (std::size_t u = 0; u < stride / Unit; ++u) {
    if (rows == kGroup) {  // a constant count: the compiler unrolls it
      for (std::size_t r = 0; r < kGroup; ++r) {
        std::memcpy(to + (u * kGroup + r) * Unit, from + r * stride + u * Unit, Unit);
      }
      continue;
    }
    for (std::size_t r = 0; r < rows; ++r) {
      std::memcpy(to + (u * kGroup + r) * Unit, from + r * stride + u * Unit, Unit);
    }
  }
}

// At most kRowGroup row-major rows, side by side.
void interleave_group(const Codec& c, const MatrixView& from, std::byte* data, std::byte* scales) {
  constexpr auto kGroup = static_cast<std::size_t>(kRowGroup);
  const std::size_t row_data = c.row_data_bytes(from.cols);
  const std::size_t row_scales = c.row_scale_bytes(from.cols);
  const std::size_t scale = row_scales > 0 ? c.row_scale_bytes(c.block) : 0;
  const auto rows = static_cast<std::size_t>(from.rows);
  if (rows < kGroup) {
    std::memset(data, 0, kGroup * row_data);
    if (scale > 0) std::memset(scales, 0, kGroup * row_scales);
  }
  interleave_units<kRowUnit>(from.data, row_data, rows, data);
  if (scale == 1) interleave_units<1>(from.scales, row_scales, rows, scales);
  if (scale == 2) interleave_units<2>(from.scales, row_scales, rows, scales);
  if (scale == 4) interleave_units<4>(from.scales, row_scales, rows, scales);
}

}  // namespace

void interleave_rows(const MatrixView& from, std::byte* data, std::byte* scales, ThreadPool& pool) {
  const Codec& c = codec(from.format);
  const std::string reason = interleave_unsupported(from.format, from.cols);
  require(from.layout == RowLayout::kRowMajor && reason.empty(), "interleave rows: {}",
          reason.empty() ? "they are interleaved already" : reason);
  const std::size_t row_data = c.row_data_bytes(from.cols);
  const std::size_t row_scales = c.row_scale_bytes(from.cols);
  const std::int64_t groups = stored_rows(RowLayout::kInterleaved, from.rows) / kRowGroup;
  constexpr std::int64_t kGrain = 8;
  pool.parallel_for(groups, kGrain, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t g = begin; g < end; ++g) {
      const std::int64_t first = g * kRowGroup;
      const auto at = static_cast<std::size_t>(first);
      interleave_group(c, from.slice(first, std::min(kRowGroup, from.rows - first)),
                       data + at * row_data, scales + at * row_scales);
    }
  });
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
                            std::string_view what, ThreadPool& pool, RowLayout layout) {
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
      float& so_far = largest[static_cast<std::size_t>(thread)];
      so_far = std::max(so_far, max_abs);
    });
    *tensor_scale = codec.tensor_scale(*std::max_element(largest.begin(), largest.end()));
  }

  // One error sum per row, added in row order: the result does not depend on the thread count.
  std::vector<EncodingError> errors(static_cast<std::size_t>(rows));
  const std::size_t row_data = codec.row_data_bytes(cols);
  const std::size_t row_scales = codec.row_scale_bytes(cols);
  const bool interleaved = layout == RowLayout::kInterleaved;
  constexpr auto kGroup = static_cast<std::size_t>(kRowGroup);
  const std::int64_t groups = (rows + kRowGroup - 1) / kRowGroup;
  pool.parallel_for(groups, kGrain / kRowGroup, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> values(static_cast<std::size_t>(cols));
    std::vector<float> decoded(static_cast<std::size_t>(cols));
    std::vector<std::byte> group(interleaved ? kGroup * (row_data + row_scales) : 0);
    for (std::int64_t r = begin * kRowGroup; r < std::min(rows, end * kRowGroup); ++r) {
      const auto row = static_cast<std::size_t>(r);
      const std::size_t lane = row % kGroup;
      read_row(r, values.data());
      for (std::size_t i = 0; i < values.size(); ++i) {
        require(std::isfinite(values[i]), "encode {} as {}: row {}, column {} holds {}", what,
                codec.name, r, i, values[i]);
      }
      std::byte* to = interleaved ? group.data() + lane * row_data : data + row * row_data;
      std::byte* to_scales = interleaved ? group.data() + kGroup * row_data + lane * row_scales
                                         : scales + row * row_scales;
      codec.encode_row(values.data(), cols, *tensor_scale, to, to_scales);
      codec.decode_row(to, to_scales, *tensor_scale, cols, decoded.data());
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
      if (interleaved && (lane + 1 == kGroup || r + 1 == rows)) {
        const MatrixView part{codec.format, static_cast<std::int64_t>(lane + 1), cols, group.data(),
                              group.data() + kGroup * row_data};
        const std::size_t first = row - lane;
        interleave_group(codec, part, data + first * row_data, scales + first * row_scales);
      }
    }
  });
  EncodingError total;
  for (const EncodingError& error : errors) total.add(error);
  return total;
}

}  // namespace moebench
