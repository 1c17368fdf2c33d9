// Fuzz entry for the manifest of datasets. Whatever the bytes, an accepted file has a name that
// stays in its folder, https URLs, and a checksum that is one.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "datasets/manifest.h"
#include "kernels/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    for (const moebench::DatasetInfo& info : moebench::parse_manifest(text, "manifest.json")) {
      if (info.files.empty() || info.name.find('/') != std::string::npos) std::abort();
      for (const moebench::DatasetFile& file : info.files) {
        if (file.name.empty() || file.name.front() == '.') std::abort();
        if (file.name.find_first_of("/\\\n") != std::string::npos || file.rows < 1) std::abort();
        if (file.sha256 && file.sha256->size() != 64) std::abort();
        for (const std::string& url : file.urls) {
          if (url.rfind("https://", 0) != 0) std::abort();
        }
      }
    }
  } catch (const moebench::Error&) {
  }
  return 0;
}
