// Fuzz entry for the safetensors reader. Whatever the bytes, what is accepted describes the file
// completely: entries in order, within the file, without overlap or hole, of known size.
//
// Each input is read twice: as it is, and with the header's length set to end at the last brace, so
// that an edit of the header alone still reaches the checks behind it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "engine/safetensors.h"
#include "kernels/core/error.h"

namespace {

void check(std::span<const std::byte> file) {
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
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  check(std::as_bytes(std::span(data, size)));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t brace = text.rfind('}');
  if (brace == std::string_view::npos || brace < 8) return 0;
  std::vector<std::uint8_t> repaired(data, data + size);
  const std::uint64_t length = brace + 1 - 8;
  std::memcpy(repaired.data(), &length, sizeof(length));
  check(std::as_bytes(std::span(repaired)));
  return 0;
}
