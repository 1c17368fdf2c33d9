// What block codecs share: the largest magnitude of a block, and two 4-bit codes per byte.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/core/float_types.h"

namespace moebench {

inline float max_magnitude(const float* values, std::int64_t count) {
  float result = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) result = std::max(result, std::fabs(values[i]));
  return result;
}

// Packs quantize(values[i]) for i in [0, count): column 2t in the low nibble of byte t.
template <class Quantize>
void encode_nibbles(const float* values, std::int64_t count, std::byte* data, Quantize quantize) {
  for (std::int64_t i = 0; i < count; i += 2) {
    const std::uint8_t low = quantize(values[i]);
    const std::uint8_t high = quantize(values[i + 1]);
    data[i / 2] = static_cast<std::byte>(low | (high << 4));
  }
}

// values[i] = table[code i] * scale.
inline void decode_nibbles(const std::byte* data, std::int64_t count,
                           const std::array<float, 16>& table, float scale, float* values) {
  for (std::int64_t i = 0; i < count; i += 2) {
    const auto byte = static_cast<std::size_t>(data[i / 2]);
    values[i] = table[byte & 0xf] * scale;
    values[i + 1] = table[byte >> 4] * scale;
  }
}

// values[i] = e4m3(code i) * scale.
inline void decode_fp8_e4m3(const std::byte* data, std::int64_t count, float scale, float* values) {
  static const std::array<float, 256> kTable = [] {
    std::array<float, 256> table{};
    for (int code = 0; code < 256; ++code) {
      table[static_cast<std::size_t>(code)] = fp8_e4m3_to_float(static_cast<std::uint8_t>(code));
    }
    return table;
  }();
  for (std::int64_t i = 0; i < count; ++i) {
    values[i] = kTable[static_cast<std::size_t>(data[i])] * scale;
  }
}

}  // namespace moebench
