// int8: signed bytes in blocks of 32 with one float16 scale.
//
//   d = f16(max|w| / 127)       q = round(w / d)  in [-127, 127]        w' = q * d
//
// Source: ggml Q8_0 (ggml-org/llama.cpp: ggml/src/ggml-quants.c, quantize_row_q8_0_ref). Two
// choices differ from it: ties round to even, not away from zero, and q is found with the scale as
// stored (rounded to f16), which can only lower the error.
#include <algorithm>
#include <cmath>

#include "kernels/core/float_types.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

constexpr std::int64_t kBlock = 32;

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols); }
std::size_t scale_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / kBlock) * 2; }

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte* scales) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float* block = values + b * kBlock;
    const f16 stored = to_f16(std::min(max_magnitude(block, kBlock) / 127.0F, 65504.0F));
    store_unaligned(scales + 2 * b, stored);
    const float scale = to_float(stored);
    for (std::int64_t i = 0; i < kBlock; ++i) {
      const float scaled = scale > 0.0F ? std::nearbyint(block[i] / scale) : 0.0F;
      const auto q = static_cast<std::int8_t>(std::clamp(scaled, -127.0F, 127.0F));
      data[b * kBlock + i] = static_cast<std::byte>(q);
    }
  }
}

void decode(const std::byte* data, const std::byte* scales, float, std::int64_t cols,
            float* values) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float scale = to_float(load_unaligned<f16>(scales + 2 * b));
    for (std::int64_t i = b * kBlock; i < (b + 1) * kBlock; ++i) {
      values[i] = static_cast<float>(static_cast<std::int8_t>(data[i])) * scale;
    }
  }
}

}  // namespace

const Codec codec_int8 = {
    .format = Format::kInt8,
    .name = "int8",
    .summary = "signed bytes, one f16 scale per 32 (max/127)",
    .source = "ggml Q8_0",
    .block = kBlock,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
