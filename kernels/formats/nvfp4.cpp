// nvfp4: E2M1 elements in blocks of 16 with an E4M3 scale, under one float32 scale per matrix.
//
//   s = max|W| / (6 * 448)      b = e4m3(max|w| / 6 / s)      code = e2m1(w / (b s))
//   w' = value(code) * b * s
//
// Source: NVIDIA, "Introducing NVFP4 for Efficient and Accurate Low-Precision Inference" (2025);
// NVIDIA/TensorRT-Model-Optimizer: modelopt/torch/quantization/qtensor/nvfp4_tensor.py.
#include "kernels/core/float_types.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

constexpr std::int64_t kBlock = 16;

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / 2); }
std::size_t scale_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols / kBlock); }

float matrix_scale(float max_abs) {
  const float scale = max_abs / (kE2m1Max * kFp8E4m3Max);
  return scale > 0.0F ? scale : 1.0F;
}

void encode(const float* values, std::int64_t cols, float tensor_scale, std::byte* data,
            std::byte* scales) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float* block = values + b * kBlock;
    const std::uint8_t scale_code =
        float_to_fp8_e4m3(max_magnitude(block, kBlock) / kE2m1Max / tensor_scale);
    scales[b] = static_cast<std::byte>(scale_code);
    const float scale = fp8_e4m3_to_float(scale_code) * tensor_scale;
    encode_nibbles(block, kBlock, data + b * kBlock / 2, [scale](float value) {
      return scale > 0.0F ? float_to_e2m1(value / scale) : std::uint8_t{0};
    });
  }
}

void decode(const std::byte* data, const std::byte* scales, float tensor_scale, std::int64_t cols,
            float* values) {
  for (std::int64_t b = 0; b < cols / kBlock; ++b) {
    const float scale = fp8_e4m3_to_float(static_cast<std::uint8_t>(scales[b])) * tensor_scale;
    decode_nibbles(data + b * kBlock / 2, kBlock, kE2m1Values, scale, values + b * kBlock);
  }
}

}  // namespace

const Codec codec_nvfp4 = {
    .format = Format::kNvfp4,
    .name = "nvfp4",
    .summary = "E2M1 elements, one E4M3 scale per 16, one f32 scale per matrix",
    .source = "NVIDIA NVFP4 (TensorRT Model Optimizer)",
    .block = kBlock,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = matrix_scale,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
