// int4: 4-bit integers in blocks of 32 with one float16 scale.
//
//   m = the w of largest magnitude, with its sign     d = f16(m / -8)
//   q = round(w / d) + 8  in [0, 15]                   w' = (q - 8) * d
//
// so that the extreme value lands on -8, the one code without a mirror image.
// Source: ggml Q4_0 (ggml-org/llama.cpp: ggml/src/ggml-quants.c, quantize_row_q4_0_ref). Different
// here: ties round to even, the scale is used as stored (rounded to f16), and column 2t is the low
// nibble of byte t, as in our other 4-bit formats (ggml puts columns t and t + 16 together).
#include <algorithm>
#include <cmath>

#include "kernels/core/float_types.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

constexpr std::int64_t kBlock = 32;
constexpr std::array<float, 16> kValues = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / 2); }
std::size_t scale_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / kBlock) * 2; }

std::uint8_t quantize(float value, float scale) {
  const float scaled = scale != 0.0F ? std::nearbyint(value / scale) : 0.0F;
  return static_cast<std::uint8_t>(std::clamp(scaled + 8.0F, 0.0F, 15.0F));
}

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte* scales) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float* block = values + b * kBlock;
    float extreme = 0.0F;
    for (std::int64_t i = 0; i < kBlock; ++i) {
      if (std::fabs(block[i]) > std::fabs(extreme)) extreme = block[i];
    }
    const f16 stored = to_f16(std::clamp(extreme / -8.0F, -65504.0F, 65504.0F));
    store_unaligned(scales + 2 * b, stored);
    const float scale = to_float(stored);
    encode_nibbles(block, kBlock, data + b * kBlock / 2,
                   [scale](float value) { return quantize(value, scale); });
  }
}

void decode(const std::byte* data, const std::byte* scales, float, std::int64_t cols,
            float* values) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float scale = to_float(load_unaligned<f16>(scales + 2 * b));
    decode_nibbles(data + b * kBlock / 2, kBlock, kValues, scale, values + b * kBlock);
  }
}

}  // namespace

const Codec codec_int4 = {
    .format = Format::kInt4,
    .name = "int4",
    .summary = "4-bit integers, one f16 scale per 32 (extreme/-8)",
    .source = "ggml Q4_0",
    .block = kBlock,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
