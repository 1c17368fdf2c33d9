// The metadata of a Parquet file: its schema, where its columns lie, and the headers of its pages.
// Numbers are those of the format's definition, apache/parquet-format, parquet.thrift.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moebench::parquet {

enum class PhysicalType {
  kBoolean,
  kInt32,
  kInt64,
  kInt96,
  kFloat,
  kDouble,
  kByteArray,
  kFixedLenByteArray,
};

enum class Repetition { kRequired, kOptional, kRepeated };

enum class Encoding {
  kPlain = 0,
  kPlainDictionary = 2,
  kRle = 3,
  kBitPacked = 4,
  kDeltaBinaryPacked = 5,
  kDeltaLengthByteArray = 6,
  kDeltaByteArray = 7,
  kRleDictionary = 8,
  kByteStreamSplit = 9,
};

enum class Codec { kNone = 0, kSnappy = 1, kGzip = 2, kZstd = 6 };

// What a column means beyond its physical type: logicalType where there is one, else the older
// converted_type.
enum class Meaning {
  kPlain,
  kText,  // also enumerations and JSON
  kList,
  kMap,
  kInteger,
  kNull,   // a column of nothing but nulls
  kOther,  // dates, decimals, ...: `meaning_name` says which
};

struct SchemaElement {
  std::string name;
  std::optional<PhysicalType> type;  // absent: a group
  Repetition repetition = Repetition::kRequired;
  std::int64_t num_children = 0;
  Meaning meaning = Meaning::kPlain;
  std::string meaning_name;
  bool is_unsigned = false;
};

// The pages of one column in one row group.
struct ColumnChunk {
  std::string path;  // "choices.list.element"
  std::int64_t codec = 0;
  std::int64_t num_values = 0;  // nulls among them
  std::string_view pages;
};

struct RowGroup {
  std::int64_t num_rows = 0;
  std::vector<ColumnChunk> columns;
};

struct Footer {
  std::vector<SchemaElement> schema;  // depth first, the root first
  std::vector<RowGroup> row_groups;
};

// Views into `file`. Throws Error(kParse) naming `where` for what is no Parquet file, is cut off or
// points outside itself; Error(kUnsupported) for encrypted files and columns in other files.
Footer read_footer(std::string_view file, std::string_view where);

enum class PageType { kData = 0, kIndex = 1, kDictionary = 2, kDataV2 = 3 };

struct PageHeader {
  PageType type = PageType::kData;
  std::size_t header_bytes = 0;
  std::size_t unpacked_bytes = 0;
  std::size_t stored_bytes = 0;
  std::optional<std::uint32_t> crc;  // of the stored bytes
  std::size_t num_values = 0;        // nulls among them
  Encoding encoding = Encoding::kPlain;
  // Of a data page of version 1: how its levels are written, if it has any.
  Encoding definition_encoding = Encoding::kRle;
  Encoding repetition_encoding = Encoding::kRle;
  // Of version 2: its levels lie before the values and are never packed.
  std::size_t repetition_bytes = 0;
  std::size_t definition_bytes = 0;
  bool is_packed = true;
};

// The header at the front of `bytes`; the page's stored bytes follow it, within `bytes`.
PageHeader read_page_header(std::string_view bytes, std::string_view where);

std::string encoding_name(Encoding encoding);

}  // namespace moebench::parquet
