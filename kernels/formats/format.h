// How a matrix is stored, and the codec of each format.
//
// A matrix is rows of `cols` numbers; codecs work row by row, and scales never cross rows. Elements
// and scales live in two arrays, because that is how checkpoints ship MXFP4. A codec is a plain
// struct of functions; adding a format is one file with its codec, one enumerator and one line in
// MOEBENCH_FORMATS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "kernels/core/row_layout.h"

namespace moebench {

enum class Format : std::uint8_t {
  kF32,
  kBf16,
  kF16,
  kFp8E4m3,
  kInt8,
  kInt4,
  kMxfp8,
  kMxfp4,
  kNvfp4,
};

struct Codec {
  Format format;
  std::string_view name;
  std::string_view summary;  // element and scale, in one line
  std::string_view source;   // the public definition
  std::int64_t block;        // columns must be a multiple of this; 1 if any number will do

  std::size_t (*row_data_bytes)(std::int64_t cols);
  std::size_t (*row_scale_bytes)(std::int64_t cols);

  // The per-matrix scale for a matrix whose largest magnitude is `max_abs`; nullptr: always 1.
  float (*tensor_scale)(float max_abs);

  // data: row_data_bytes(cols); scales: row_scale_bytes(cols). Inputs must be finite.
  void (*encode_row)(const float* values, std::int64_t cols, float tensor_scale, std::byte* data,
                     std::byte* scales);
  void (*decode_row)(const std::byte* data, const std::byte* scales, float tensor_scale,
                     std::int64_t cols, float* values);
};

#define MOEBENCH_FORMATS(X) \
  X(f32) X(bf16) X(f16) X(fp8_e4m3) X(int8) X(int4) X(mxfp8) X(mxfp4) X(nvfp4)
#define MOEBENCH_DECLARE_CODEC(name) extern const Codec codec_##name;
MOEBENCH_FORMATS(MOEBENCH_DECLARE_CODEC)
#undef MOEBENCH_DECLARE_CODEC

// All codecs, in the order of MOEBENCH_FORMATS, which is the order of enum Format.
std::span<const Codec* const> codecs();
const Codec& codec(Format format);
std::string_view format_name(Format format);
// Throws Error(kInvalidArgument) with the nearest name.
Format parse_format(std::string_view name);

// Bytes of elements plus scales.
std::size_t row_bytes(Format format, std::int64_t cols);

// `rows`, filled up to whole groups if they are interleaved.
std::int64_t stored_rows(RowLayout layout, std::int64_t rows);
std::size_t matrix_bytes(Format format, std::int64_t rows, std::int64_t cols,
                         RowLayout layout = RowLayout::kRowMajor);
// Empty, or why rows of `cols` columns cannot be interleaved.
std::string interleave_unsupported(Format format, std::int64_t cols);

// A matrix that somebody else owns: a mapped checkpoint or re-encoded weights.
struct MatrixView {
  Format format = Format::kF32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const std::byte* data = nullptr;    // stored_rows * row_data_bytes(cols); any alignment
  const std::byte* scales = nullptr;  // stored_rows * row_scale_bytes(cols); null if there are none
  float tensor_scale = 1.0F;
  RowLayout layout = RowLayout::kRowMajor;

  void decode_row(std::int64_t row, float* values) const;
  // Rows [begin, begin + count), sharing the memory. Whole groups only, if they are interleaved.
  MatrixView slice(std::int64_t begin, std::int64_t count) const;
};

// `count` matrices of one shape, one after the other: the experts of a layer.
struct MatrixStackView {
  Format format = Format::kF32;
  std::int64_t count = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const std::byte* data = nullptr;
  const std::byte* scales = nullptr;
  std::span<const float> tensor_scales;  // one per matrix, or empty: all 1
  RowLayout layout = RowLayout::kRowMajor;

  MatrixView operator[](std::int64_t index) const;
};

}  // namespace moebench
