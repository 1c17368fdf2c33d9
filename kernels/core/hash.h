// Content hashes: what a result is about, so that only like is compared with like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moebench {

// FNV-1a, 64 bits: for short keys whose hash must be easy to recompute anywhere.
constexpr std::uint64_t fnv1a64(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

// XXH3, 64 bits: for weights, logits and files.
std::uint64_t content_hash(std::span<const std::byte> bytes, std::uint64_t seed = 0);
std::uint64_t content_hash(std::string_view text, std::uint64_t seed = 0);

// Sixteen lower-case hexadecimal digits.
std::string hash_hex(std::uint64_t hash);

}  // namespace moebench
