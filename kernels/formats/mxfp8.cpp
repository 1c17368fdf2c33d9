// mxfp8: E4M3 elements in blocks of 32 that share a power-of-two scale.
//
//   X = 2^(floor(log2 max|w|) - 8)        code = e4m3(w / X), saturating        w' = value(code) *
//   X
//
// Source: OCP Microscaling Formats (MX) Specification 1.0, sections 5 and 6.3.
#include "kernels/core/float_types.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

constexpr std::int64_t kBlock = 32;
constexpr int kElementMaxExponent = 8;  // 448 = 1.75 * 2^8

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols); }
std::size_t scale_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / kBlock); }

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte* scales) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float* block = values + b * kBlock;
    const std::uint8_t scale_code =
        e8m0_scale_for(max_magnitude(block, kBlock), kElementMaxExponent);
    scales[b] = static_cast<std::byte>(scale_code);
    const float scale = e8m0_to_float(scale_code);
    for (std::int64_t i = 0; i < kBlock; ++i) {
      data[b * kBlock + i] = static_cast<std::byte>(float_to_fp8_e4m3(block[i] / scale));
    }
  }
}

void decode(const std::byte* data, const std::byte* scales, float, std::int64_t cols,
            float* values) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float scale = e8m0_to_float(static_cast<std::uint8_t>(scales[b]));
    decode_fp8_e4m3(data + b * kBlock, kBlock, scale, values + b * kBlock);
  }
}

}  // namespace

const Codec codec_mxfp8 = {
    .format = Format::kMxfp8,
    .name = "mxfp8",
    .summary = "E4M3 elements, one E8M0 scale per 32",
    .source = "OCP Microscaling Formats (MX) Specification 1.0",
    .block = kBlock,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
