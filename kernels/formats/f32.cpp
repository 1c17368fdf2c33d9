// f32: IEEE 754 binary32, stored as it is.
#include <cstring>

#include "kernels/formats/format.h"

namespace moebench {
namespace {

std::size_t data_bytes(std::int64_t cols) { return static_cast<std::size_t>(cols) * 4; }
std::size_t scale_bytes(std::int64_t) { return 0; }

void encode(const float* values, std::int64_t cols, float, std::byte* data, std::byte*) {
  std::memcpy(data, values, data_bytes(cols));
}

void decode(const std::byte* data, const std::byte*, float, std::int64_t cols, float* values) {
  std::memcpy(values, data, data_bytes(cols));
}

}  // namespace

const Codec codec_f32 = {
    .format = Format::kF32,
    .name = "f32",
    .summary = "32-bit float",
    .source = "IEEE 754-2019 binary32",
    .block = 1,
    .row_data_bytes = data_bytes,
    .row_scale_bytes = scale_bytes,
    .tensor_scale = nullptr,
    .encode_row = encode,
    .decode_row = decode,
};

}  // namespace moebench
