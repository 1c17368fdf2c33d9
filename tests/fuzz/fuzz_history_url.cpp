// Fuzz entry for urls of histories. Whatever the bytes, what is accepted is a path that SOCI reads
// as one value, or a url of PostgreSQL of which no password is shown.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "kernels/core/error.h"
#include "reports/history_database.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string url(reinterpret_cast<const char*>(data), size);
  try {
    const moebench::history::Place place = moebench::history::parse_url(url);
    for (const char c : place.target) {
      if (static_cast<unsigned char>(c) < 32) std::abort();
    }
    if (place.kind == moebench::history::Kind::kSqlite) {
      if (!place.target.starts_with("/") || place.target.find('"') != std::string::npos) {
        std::abort();
      }
    } else if (place.shown.find('?') != std::string::npos ||
               place.shown.find(":secret@") != std::string::npos) {
      std::abort();
    }
  } catch (const moebench::Error&) {
  }
  return 0;
}
