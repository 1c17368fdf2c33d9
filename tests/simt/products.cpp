#include "tests/simt/products.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/core/float_types.h"

namespace moebench::simt {

namespace {

float decode_e4m3(std::uint8_t code) {
  static const std::array<float, 256> kValues = [] {
    std::array<float, 256> values{};
    for (int c = 0; c < 256; ++c) {
      const int exponent = c >> 3 & 15;
      const int mantissa = c & 7;
      float magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
      if (exponent == 0) magnitude = static_cast<float>(mantissa) * 0x1p-9F;
      if ((c & 127) == 127) magnitude = std::numeric_limits<float>::quiet_NaN();
      values[static_cast<std::size_t>(c)] = c >> 7 != 0 ? -magnitude : magnitude;
    }
    return values;
  }();
  return kValues[code];
}

}  // namespace

template <>
void decode(Element element, const void* bytes, float* numbers, int count) {
  for (int i = 0; i < count; ++i) {
    if (element == Element::kBf16 || element == Element::kF16) {
      std::uint16_t bits;
      std::memcpy(&bits, static_cast<const std::byte*>(bytes) + 2 * i, sizeof bits);
      numbers[i] = element == Element::kF16 ? to_float(f16{bits}) : to_float(bf16{bits});
    } else {
      numbers[i] = decode_e4m3(static_cast<const std::uint8_t*>(bytes)[i]);
    }
  }
}
template <>
void decode(Element, const void* bytes, std::int32_t* numbers, int count) {
  for (int i = 0; i < count; ++i) numbers[i] = static_cast<const std::int8_t*>(bytes)[i];
}

template <class T>
void multiply_row(const T* row, const T* b, int depth, int columns, int stride, T* sums) {
  constexpr int kAtOnce = 8;  // of which every product has a multiple: sums that stay in registers
  for (int first = 0; first < columns; first += kAtOnce) {
    T eight[kAtOnce] = {};
    for (int k = 0; k < depth; ++k) {
      for (int n = 0; n < kAtOnce; ++n) eight[n] += row[k] * b[k * stride + first + n];
    }
    std::copy_n(eight, kAtOnce, sums + first);
  }
}
template void multiply_row(const float*, const float*, int, int, int, float*);
template void multiply_row(const std::int32_t*, const std::int32_t*, int, int, int, std::int32_t*);

}  // namespace moebench::simt
