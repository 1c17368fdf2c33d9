// Whole numbers as Thrift's compact protocol and Parquet's encodings write them: seven bits a byte,
// the lowest first (LEB128), and signed ones with the sign in the lowest bit ("zigzag").
#pragma once

#include <cstdint>
#include <optional>

namespace moebench {

// `next_byte()` gives the next byte, or throws. Nothing if the number is longer than 64 bits.
template <class NextByte>
std::optional<std::uint64_t> read_varint(NextByte&& next_byte) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const std::uint8_t next = next_byte();
    value |= std::uint64_t{next & 0x7fU} << shift;
    if ((next & 0x80) == 0) return value;
  }
  return std::nullopt;
}

// In the bits of a signed number: sums of them may wrap around.
inline std::uint64_t from_zigzag(std::uint64_t value) { return (value >> 1) ^ (0 - (value & 1)); }

}  // namespace moebench
