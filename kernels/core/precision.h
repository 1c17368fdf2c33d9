// The arithmetic that a kernel multiplies in: what its peak depends on.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace moebench {

enum class Precision : std::uint8_t { kF32, kInt16, kInt8, kBf16, kFp8 };

inline constexpr std::array<std::string_view, 5> kPrecisionNames = {"f32", "int16", "int8", "bf16",
                                                                    "fp8"};
inline constexpr std::string_view precision_name(Precision precision) {
  return kPrecisionNames[static_cast<std::size_t>(precision)];
}

}  // namespace moebench
