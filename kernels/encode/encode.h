// encode: a matrix in another format, and what that did to its numbers.
//
//   data, scales = the bytes that the codec of `to` makes of the decoded rows, bit for bit
//
// Rows that hold a value that is not finite are not encoded: their bytes are left undefined, and
// `non_finite` tells. A format with a scale per matrix takes two runs: one that only measures
// (without data), then one with codec(to).tensor_scale(sums.largest).
// Lower bound: reading one encoding and writing the other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/variant.h"
#include "kernels/formats/format.h"

namespace moebench::encode {

struct Problem {
  Format from = Format::kF32;
  Format to = Format::kF32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
};

// Over all elements: EncodingError's numbers, and what a run is told by beforehand.
struct Sums {
  double signal = 0;            // sum of squares of the originals
  double noise = 0;             // sum of squares of the differences
  double max_abs = 0;           // largest difference
  double largest = 0;           // largest magnitude of the finite originals
  std::int64_t non_finite = 0;  // originals that are not finite, or have become infinite
};

struct Args {
  MatrixView from;  // row-major
  Format to = Format::kF32;
  std::byte* data = nullptr;    // rows * row_data_bytes(cols), row-major; null: only `sums`
  std::byte* scales = nullptr;  // rows * row_scale_bytes(cols)
  float tensor_scale = 1.0F;
  Sums* sums = nullptr;  // one; overwritten
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_ENCODE_VARIANTS(X) X(reference)
#define MOEBENCH_ENCODE_CUDA_VARIANTS(X) X(cuda_rows)
MOEBENCH_VARIANTS(MOEBENCH_ENCODE_VARIANTS, MOEBENCH_ENCODE_CUDA_VARIANTS)

}  // namespace moebench::encode
