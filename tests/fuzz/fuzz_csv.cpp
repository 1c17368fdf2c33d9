// Fuzz entry for tables. Whatever the bytes, what is accepted is a table: every row has every
// column, and writing it down and reading it again gives the same fields.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "datasets/csv.h"
#include "datasets/rows.h"
#include "kernels/core/error.h"

namespace {

std::string written(const std::vector<std::vector<std::string>>& records) {
  std::string text;
  for (const auto& fields : records) {
    for (std::size_t i = 0; i < fields.size(); ++i) {
      text += i == 0 ? "\"" : ",\"";
      for (const char c : fields[i]) text += c == '"' ? std::string("\"\"") : std::string(1, c);
      text += '"';
    }
    text += '\n';
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto records = moebench::parse_csv(text, "a.csv");
    if (moebench::parse_csv(written(records), "b.csv") != records) std::abort();
  } catch (const moebench::Error&) {
  }
  for (const auto format : {moebench::DataFormat::kCsv, moebench::DataFormat::kTsv,
                            moebench::DataFormat::kJson, moebench::DataFormat::kJsonl}) {
    try {
      const auto rows = moebench::parse_rows(text, format, "a");
      for (const auto& row : rows) {
        if (!row.fields.is_object()) std::abort();
      }
      const bool is_table = format == moebench::DataFormat::kCsv;
      for (const auto& row : rows) {
        if (is_table && row.fields.size() != rows.front().fields.size()) std::abort();
      }
    } catch (const moebench::Error&) {
    }
  }
  return 0;
}
