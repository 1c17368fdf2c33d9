// fp8_e4m3: 8-bit floats with one float32 scale per row (output channel).
//
//   scale = max|w| / 448        code = e4m3(w / scale)        w' = value(code) * scale
//
// Source: OCP 8-bit Floating Point Specification 1.0 for the element; the static per-channel scale
// of compressed-tensors ("strategy": "channel", symmetric), as vLLM loads it.
#include "kernels/core/float_types.h"
#include "kernels/formats/blocks.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols); }
std::size_t scale_bytes(std::int64_t) { return sizeof(float); }

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte* scales) {
  const float max_abs = max_magnitude(values, cols);
  const float scale = max_abs > 0.0F ? max_abs / kFp8E4m3Max : 1.0F;
  store_unaligned(scales, scale);
  for (std::int64_t i = 0; i < cols; ++i) {
    // A subnormal scale can be 0 after the division: such a row is all zeros to any real sum.
    const float scaled = scale > 0.0F ? values[i] / scale : 0.0F;
    data[i] = static_cast<std::byte>(float_to_fp8_e4m3(scaled));
  }
}

void decode(const std::byte* data, const std::byte* scales, float, std::int64_t cols,
            float* values) {
  decode_fp8_e4m3(data, cols, load_unaligned<float>(scales), values);
}

}  // namespace

const Codec codec_fp8_e4m3 = {
    .format = Format::kFp8E4m3,
    .name = "fp8_e4m3",
    .summary = "E4M3 elements, one f32 scale per row (max/448)",
    .source = "OCP 8-bit Floating Point Specification 1.0; compressed-tensors channel strategy",
    .block = 1,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
