// Rows of a data file, whatever its format: each is a JSON object from column to value.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench {

enum class DataFormat { kCsv, kTsv, kJson, kJsonl, kParquet };
std::string_view data_format_name(DataFormat format);  // "csv", "tsv", "json", "jsonl", "parquet"

// Throws Error(kInvalidArgument) naming `where` and what works.
DataFormat data_format_from_name(std::string_view name, std::string_view where);
// By the extension of a file's name.
DataFormat data_format_of_file(std::string_view file_name);

// Throws Error(kParse) unless `text` is UTF-8.
void require_utf8(std::string_view text, std::string_view where);

// Of values in each other, in any format.
inline constexpr int kMaxRowDepth = 16;

struct DataRow {
  Json fields;
  std::string where;  // "file: row 3": for messages
};

// CSV and TSV: the first record names the columns, each row must have as many fields, and all
// values are strings. JSON: a list of objects, or an object with one field that is such a list.
// JSONL: one object per line. Parquet: datasets/parquet.h. Throws Error naming `where` and the row.
std::vector<DataRow> parse_rows(std::string_view text, DataFormat format, std::string_view where);

// The value of a column as text: strings as they are, integers and booleans as JSON writes them.
// Throws Error(kInvalidArgument) that names the row and, for a column that is not there, the
// nearest one.
std::string text_field(const DataRow& row, std::string_view column);

// A list of strings.
std::vector<std::string> list_field(const DataRow& row, std::string_view column);

// The raw value; `column` may lead into nested objects: "question.stem".
const Json& raw_field(const DataRow& row, std::string_view column);

}  // namespace moebench
