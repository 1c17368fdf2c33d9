// Parquet files to rows. The README says what is read and why the reader is our own.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "datasets/rows.h"

namespace moebench {

// What untrusted bytes may ask of us: a run of a few bytes can stand for millions of values.
struct ParquetLimits {
  std::int64_t max_rows = 4'000'000;
  std::int64_t max_values = 10'000'000;                   // of all columns, nulls among them
  std::int64_t max_pages = 1'000'000;                     // of all columns
  std::int64_t max_page_bytes = std::int64_t{256} << 20;  // unpacked
  std::int64_t max_total_bytes = std::int64_t{1} << 30;   // of unpacked pages, and again of texts
};

// Rows in the order of the file. Text, integers, booleans, floating-point numbers (null where not
// finite), null, lists as arrays and structures as objects. Throws Error naming `where` and the
// column: kUnsupported for types, encodings and codecs that are valid and not read here, kParse for
// bytes that are no Parquet, text that is not UTF-8, and what exceeds `limits`.
std::vector<DataRow> parse_parquet(std::string_view bytes, std::string_view where,
                                   const ParquetLimits& limits = {});

}  // namespace moebench
