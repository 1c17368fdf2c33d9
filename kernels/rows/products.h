// Products of interleaved weight rows with one or more inputs: the inner loops that `linear` and
// `moe_experts` share.
//
//   out[t, r] = bias[r] + sum_c weight[r, c] * x[t, c]
//
// Every element of `out` is computed in one order of operations that depends on the format alone:
// neither on the number of tokens in the call nor on the rows beside it. So the bits are the same
// in a batch of one and in a chunk of a prompt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/formats/format.h"

namespace moebench {

// What is done to the inputs before they meet weights whose codes are small integers (int8, int4,
// mxfp4, nvfp4). Other formats (f32, bf16, f16, fp8_e4m3, mxfp8) always meet them in float32.
enum class Activations : std::uint8_t {
  kF32,    // left as they are; weights are decoded
  kInt15,  // blocks of 32, max / 16319, as two int8 planes (128 * high + low)
  kInt8,   // blocks of 32, max / 127
           // With int8 weights both of these are int16 (max / 32767), which costs no more.
};

// Prepared inputs lie in tiles of this many tokens, block by block.
inline constexpr std::int64_t kInputTile = 4;

// Some rows, and the inputs of some tokens.
struct RowProduct {
  MatrixView weight;                // interleaved
  std::int64_t begin_row = 0;       // a multiple of kRowGroup
  std::int64_t end_row = 0;         // at most weight.rows; a multiple of kRowGroup or weight.rows
  const float* bias = nullptr;      // [weight.rows], or null
  const float* const* x = nullptr;  // [num_tokens]: the inputs, if there is nothing to prepare
  const std::byte* prepared = nullptr;  // or tiles of them, as `prepare` made them
  std::int64_t num_tokens = 0;
  float* out = nullptr;         // out[t * out_stride + r - begin_row]
  std::int64_t out_stride = 0;  // floats
  float* scratch = nullptr;     // scratch_floats(cols), of the calling thread, 64-byte aligned
};

// The functions for one instruction set, weight format and kind of activations.
struct RowProducts {
  // Bytes of one token's part of a tile; 0: there is nothing to prepare, the floats are read.
  std::size_t (*prepared_bytes)(std::int64_t cols);
  // Columns [first_column, first_column + cols), whole blocks of 32, of token `slot` of a tile.
  void (*prepare)(const float* x, std::int64_t cols, std::byte* tile, std::int64_t slot,
                  std::int64_t first_column);
  void (*multiply)(const RowProduct& product);
};

// Empty, or why rows of `cols` columns cannot be multiplied that way.
std::string rows_unsupported(const RowProducts& products, Format format, std::int64_t cols);

// Floats of scratch that one thread needs for rows of `cols` columns.
inline std::int64_t scratch_floats(std::int64_t cols) { return 2 * kRowGroup * cols; }

// The largest NMSE of a product of random rows with uniformly random inputs, with a factor of about
// 4 to spare. Rounding a block to +-n steps leaves errors of at most half a step, uniform: a
// twelfth of a step squared, against a third of n squared.
double rounding_bound(Format format, Activations activations);

const RowProducts& avx2_products(Format format, Activations activations);
const RowProducts& portable_products(Format format);  // float32 activations

// Bytes of the tiles that hold `num_tokens` prepared inputs.
inline std::size_t tile_bytes(const RowProducts& products, std::int64_t num_tokens,
                              std::int64_t cols) {
  const std::int64_t tiles = (num_tokens + kInputTile - 1) / kInputTile;
  return static_cast<std::size_t>(tiles * kInputTile) * products.prepared_bytes(cols);
}

}  // namespace moebench
