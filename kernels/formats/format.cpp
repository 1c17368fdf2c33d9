// The table of codecs, and what a matrix is on top of rows.
#include "kernels/formats/format.h"

#include <cstring>
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

std::int64_t stored_rows(RowLayout layout, std::int64_t rows) {
  return layout == RowLayout::kRowMajor ? rows : (rows + kRowGroup - 1) / kRowGroup * kRowGroup;
}

std::size_t matrix_bytes(Format format, std::int64_t rows, std::int64_t cols, RowLayout layout) {
  return static_cast<std::size_t>(stored_rows(layout, rows)) * row_bytes(format, cols);
}

std::string interleave_unsupported(Format format, std::int64_t cols) {
  const std::size_t bytes = codec(format).row_data_bytes(cols);
  return bytes % kRowUnit == 0 ? ""
                               : fmt::format("{} columns of {} are {} bytes, not a multiple of {}",
                                             cols, format_name(format), bytes, kRowUnit);
}

void MatrixView::decode_row(std::int64_t row, float* values) const {
  const Codec& c = codec(format);
  const auto r = static_cast<std::size_t>(row);
  const std::size_t row_data = c.row_data_bytes(cols);
  const std::size_t row_scales = c.row_scale_bytes(cols);
  if (layout == RowLayout::kRowMajor) {
    c.decode_row(data + r * row_data, scales + r * row_scales, tensor_scale, cols, values);
    return;
  }
  thread_local std::vector<std::byte> gathered;
  gathered.resize(row_data + row_scales);
  constexpr auto kGroup = static_cast<std::size_t>(kRowGroup);
  const std::size_t first = r / kGroup * kGroup;
  const std::size_t lane = r % kGroup;
  for (std::size_t i = 0; i < row_data; i += kRowUnit) {
    std::memcpy(gathered.data() + i, data + first * row_data + i * kGroup + lane * kRowUnit,
                kRowUnit);
  }
  const std::size_t scale = row_scales > 0 ? c.row_scale_bytes(c.block) : 1;
  for (std::size_t i = 0; i < row_scales; i += scale) {
    std::memcpy(gathered.data() + row_data + i,
                scales + first * row_scales + i * kGroup + lane * scale, scale);
  }
  c.decode_row(gathered.data(), gathered.data() + row_data, tensor_scale, cols, values);
}

MatrixView MatrixView::slice(std::int64_t begin, std::int64_t length) const {
  require(begin >= 0 && length >= 0 && begin + length <= rows,
          "slice a matrix: rows [{}, {}) of {}", begin, begin + length, rows);
  require(layout == RowLayout::kRowMajor || begin % kRowGroup == 0,
          "slice a matrix: row {} is not the first of {} that are interleaved", begin, kRowGroup);
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
  const std::size_t first =
      static_cast<std::size_t>(index) * static_cast<std::size_t>(stored_rows(layout, rows));
  MatrixView matrix{format,  rows, cols,  data + first * c.row_data_bytes(cols),
                    nullptr, 1.0F, layout};
  if (scales != nullptr) matrix.scales = scales + first * c.row_scale_bytes(cols);
  if (!tensor_scales.empty()) matrix.tensor_scale = tensor_scales[static_cast<std::size_t>(index)];
  return matrix;
}

}  // namespace moebench
