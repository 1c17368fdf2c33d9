// Files of five formats to rows.
#include "datasets/rows.h"

#include <algorithm>
#include <array>
#include <set>

#include "datasets/csv.h"
#include "datasets/parquet.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::array<std::string_view, 5> kFormatNames = {"csv", "tsv", "json", "jsonl", "parquet"};

std::vector<DataRow> rows_of_table(std::string_view text, char separator, std::string_view where) {
  require_utf8(text, where);
  const std::vector<std::vector<std::string>> records = parse_csv(text, where, separator);
  require_or(ErrorCode::kParse, !records.empty(), "read {}: there is nothing in it", where);
  const std::vector<std::string>& columns = records.front();
  const std::set<std::string> distinct(columns.begin(), columns.end());
  require_or(ErrorCode::kParse, distinct.size() == columns.size(),
             "read {}: two columns have one name", where);
  std::vector<DataRow> rows;
  rows.reserve(records.size() - 1);
  for (std::size_t r = 1; r < records.size(); ++r) {
    DataRow row{Json::object(), fmt::format("{}: row {}", where, r)};
    require_or(ErrorCode::kParse, records[r].size() == columns.size(),
               "read {}: {} fields, the header has {}", row.where, records[r].size(),
               columns.size());
    for (std::size_t c = 0; c < columns.size(); ++c) row.fields[columns[c]] = records[r][c];
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<DataRow> rows_of_json(std::string_view text, std::string_view where) {
  Json json = parse_json(text, where, kMaxRowDepth);
  if (json.is_object() && json.size() == 1) json = Json(json.begin().value());
  require_or(ErrorCode::kParse, json.is_array(),
             "read {}: expected a list of objects, or an object whose only field is such a list",
             where);
  std::vector<DataRow> rows;
  for (Json& value : json) {
    rows.push_back({std::move(value), fmt::format("{}: row {}", where, rows.size() + 1)});
  }
  return rows;
}

}  // namespace

void require_utf8(std::string_view text, std::string_view where) {
  try {
    static_cast<void>(Json(text).dump());
  } catch (const Json::exception&) {
    fail(ErrorCode::kParse, "read {}: it is not UTF-8 (convert it, with iconv for instance)",
         where);
  }
}

std::string_view data_format_name(DataFormat format) {
  return kFormatNames[static_cast<std::size_t>(format)];
}

DataFormat data_format_from_name(std::string_view name, std::string_view where) {
  return static_cast<DataFormat>(index_of_name(kFormatNames, name, where, "data format"));
}

DataFormat data_format_of_file(std::string_view file_name) {
  const std::size_t dot = file_name.rfind('.');
  const std::string_view extension =
      dot == std::string_view::npos ? std::string_view() : file_name.substr(dot + 1);
  return data_format_from_name(extension, fmt::format("read {}", file_name));
}

std::vector<DataRow> parse_rows(std::string_view text, DataFormat format, std::string_view where) {
  require_or(ErrorCode::kParse, format == DataFormat::kParquet || !text.starts_with("PAR1"),
             "read {}: it is a Parquet file, not {} (name it .parquet, or give the format parquet)",
             where, data_format_name(format));
  std::vector<DataRow> rows;
  switch (format) {
    case DataFormat::kCsv:
      rows = rows_of_table(text, ',', where);
      break;
    case DataFormat::kTsv:
      rows = rows_of_table(text, '\t', where);
      break;
    case DataFormat::kJson:
      rows = rows_of_json(text, where);
      break;
    case DataFormat::kJsonl:
      for_each_json_line(text, where, kMaxRowDepth,
                         [&](const Json& json, const std::string& place) {
                           rows.push_back({json, place});
                         });
      break;
    case DataFormat::kParquet:
      rows = parse_parquet(text, where);
      break;
  }
  for (const DataRow& row : rows) {
    require_or(ErrorCode::kParse, row.fields.is_object(), "read {}: expected an object, got {}",
               row.where, json_excerpt(row.fields));
  }
  return rows;
}

const Json& raw_field(const DataRow& row, std::string_view column) {
  const Json* value = &row.fields;
  // A column whose own name has a dot comes first.
  if (const auto it = value->find(std::string(column)); it != value->end()) return *it;
  std::string_view rest = column;
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string name(rest.substr(0, dot));
    const auto it = value->is_object() ? value->find(name) : value->end();
    if (it == value->end()) {
      std::vector<std::string> known;
      for (const auto& [key, ignored] : row.fields.items()) known.push_back(key.substr(0, 80));
      fail(ErrorCode::kInvalidArgument, "{}: there is no column '{}'; {}", row.where, column,
           suggestion(column, known));
    }
    value = &*it;
    if (dot == std::string_view::npos) return *value;
    rest = rest.substr(dot + 1);
  }
}

std::string text_field(const DataRow& row, std::string_view column) {
  const Json& value = raw_field(row, column);
  if (value.is_string()) return value.get<std::string>();
  require(value.is_number_integer() || value.is_boolean(),
          "{}: column '{}': expected text, an integer or a boolean, got {}", row.where, column,
          json_excerpt(value));
  return value.dump();
}

std::vector<std::string> list_field(const DataRow& row, std::string_view column) {
  const Json& value = raw_field(row, column);
  const bool is_list =
      value.is_array() && std::all_of(value.begin(), value.end(),
                                      [](const Json& element) { return element.is_string(); });
  require(is_list, "{}: column '{}': expected a list of strings, got {}", row.where, column,
          json_excerpt(value));
  return value.get<std::vector<std::string>>();
}

}  // namespace moebench
