// Fuzz entry for the safetensors reader. Whatever the bytes, what is accepted describes the file
// completely: entries in order, within the file, without overlap or hole, of known size.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "engine/safetensors.h"
#include "kernels/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const auto entries = moebench::parse_safetensors(file, "fuzz.safetensors");
    const std::byte* const end = file.data() + file.size();
    const std::byte* at = nullptr;
    for (const moebench::SafetensorsEntry& entry : entries) {
      if (at != nullptr && entry.data.data() != at) std::abort();
      at = entry.data.data() + entry.data.size();
      if (entry.data.data() < file.data() + 8 || at > end) std::abort();
      for (const std::int64_t extent : entry.shape) {
        if (extent < 0) std::abort();
      }
    }
    if (at != nullptr && at != end) std::abort();
  } catch (const moebench::Error&) {
  }
  return 0;
}
