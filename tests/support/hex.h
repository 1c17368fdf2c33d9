// Bytes and floats from the hexadecimal strings of golden files.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace moebench::test {

// "00ff10": two digits a byte.
inline std::vector<std::byte> bytes_from_hex(const std::string& hex) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 2 <= hex.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

// "3f800000": eight digits a float32, its bits with the most significant first.
inline std::vector<float> floats_from_hex(const std::string& hex) {
  std::vector<float> values;
  for (std::size_t i = 0; i + 8 <= hex.size(); i += 8) {
    values.push_back(std::bit_cast<float>(
        static_cast<std::uint32_t>(std::stoul(hex.substr(i, 8), nullptr, 16))));
  }
  return values;
}

}  // namespace moebench::test
