// mxfp4: E2M1 elements in blocks of 32 that share a power-of-two scale: what gpt-oss ships.
//
//   X = 2^(floor(log2 max|w|) - 2)        code = e2m1(w / X), saturating        w' = value(code) *
//   X
//
// Column 2t of a row is the low nibble of byte t, column 2t + 1 the high one.
// Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5 and 6.3; byte order as in
// openai/gpt-oss checkpoints (gpt_oss/torch/weights.py).
#include "kernels/core/float_types.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

constexpr std::int64_t kBlock = 32;
constexpr int kElementMaxExponent = 2;  // 6 = 1.5 * 2^2

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / 2); }
std::size_t scale_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / kBlock); }

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte* scales) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float* block = values + b * kBlock;
    const std::uint8_t scale_code =
        e8m0_scale_for(max_magnitude(block, kBlock), kElementMaxExponent);
    scales[b] = static_cast<std::byte>(scale_code);
    const float scale = e8m0_to_float(scale_code);
    encode_nibbles(block, kBlock, data + b * kBlock / 2,
                   [scale](float value) { return float_to_e2m1(value / scale); });
  }
}

void decode(const std::byte* data, const std::byte* scales, float, std::int64_t cols,
            float* values) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float scale = e8m0_to_float(static_cast<std::uint8_t>(scales[b]));
    decode_nibbles(data + b * kBlock / 2, kBlock, kE2m1Values, scale, values + b * kBlock);
  }
}

}  // namespace

const Codec codec_mxfp4 = {
    .format = Format::kMxfp4,
    .name = "mxfp4",
    .summary = "E2M1 elements, one E8M0 scale per 32",
    .source = "OCP Microscaling Formats (MX) Specification 1.0",
    .block = kBlock,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
