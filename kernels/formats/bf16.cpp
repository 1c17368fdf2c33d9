// bf16: the upper half of a float32, rounded to nearest even.
#include "kernels/core/float_types.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols) * 2; }
std::size_t scale_bytes(std::int64_t) { return 0; }

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte*) {
  for (std::int64_t i = 0; i < cols; ++i) store_unaligned(data + 2 * i, to_bf16(values[i]));
}

void decode(const std::byte* data, const std::byte*, float, std::int64_t cols, float* values) {
  for (std::int64_t i = 0; i < cols; ++i) values[i] = to_float(load_unaligned<bf16>(data + 2 * i));
}

}  // namespace

const Codec codec_bf16 = {
    .format = Format::kBf16,
    .name = "bf16",
    .summary = "16-bit float with the exponent range of f32",
    .source = "bfloat16: upper half of IEEE 754 binary32, rounded to nearest even",
    .block = 1,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
