// Fuzz entry for Parquet files. Whatever the bytes, rows that are accepted are within the limits,
// have the same columns each, and can be written as JSON.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "datasets/parquet.h"
#include "kernels/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const moebench::ParquetLimits limits{.max_rows = 1000,
                                       .max_values = 20'000,
                                       .max_pages = 1000,
                                       .max_page_bytes = 1 << 16,
                                       .max_total_bytes = 1 << 20};
  try {
    const auto rows = moebench::parse_parquet(bytes, "a.parquet", limits);
    if (rows.size() > 1000) std::abort();
    for (const moebench::DataRow& row : rows) {
      if (row.fields.dump().empty() || row.fields.size() != rows.front().fields.size()) {
        std::abort();
      }
    }
  } catch (const moebench::Error&) {
  }
  return 0;
}
