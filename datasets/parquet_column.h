// One column of a Parquet file: what a leaf of the schema holds, and its values and levels from the
// pages of a row group.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/parquet.h"
#include "datasets/parquet_footer.h"
#include "kernels/core/json_fields.h"

namespace moebench::parquet {

struct Leaf {
  std::string path;   // "choices.list.element"
  std::string where;  // "file: column choices.list.element": for messages
  PhysicalType type = PhysicalType::kByteArray;
  bool is_unsigned = false;
  int max_definition = 0;  // the level at which there is a value
  int max_repetition = 0;
};

// Counts what a file has asked for, against the limits.
class Budget {
 public:
  Budget(const ParquetLimits& limits, std::string_view where) : limits_(limits), where_(where) {}

  void take_rows(std::int64_t count) { take("rows", count, limits_.max_rows, rows_); }
  void take_values(std::int64_t count) { take("values", count, limits_.max_values, values_); }
  void take_page(std::int64_t unpacked_bytes);
  void take_text(std::int64_t bytes) {
    take("bytes of text", bytes, limits_.max_total_bytes, text_);
  }

 private:
  void take(std::string_view what, std::int64_t count, std::int64_t most, std::int64_t& taken);

  const ParquetLimits& limits_;
  std::string_view where_;
  std::int64_t rows_ = 0;
  std::int64_t values_ = 0;
  std::int64_t pages_ = 0;
  std::int64_t page_bytes_ = 0;
  std::int64_t text_ = 0;
};

// The entries of a column: each has its levels, and those with the leaf's max_definition a value.
struct Column {
  std::vector<std::uint8_t> definitions;
  std::vector<std::uint8_t> repetitions;
  std::vector<Json> values;
};

// Throws Error naming the column.
Column read_column(const ColumnChunk& chunk, const Leaf& leaf, Budget& budget);

}  // namespace moebench::parquet
