// parquet.thrift, as much of it as rows need.
#include "datasets/parquet_footer.h"

#include <array>

#include "datasets/parquet_pages.h"
#include "datasets/thrift_compact.h"
#include "kernels/core/error.h"

namespace moebench::parquet {
namespace {

constexpr std::string_view kMagic = "PAR1";
constexpr std::string_view kEncryptedMagic = "PARE";
constexpr std::size_t kMostFooterBytes = std::size_t{16} << 20;
constexpr std::size_t kMostElements = 4000;  // of the schema: columns, and groups of them

class MetadataReader {
 public:
  MetadataReader(std::string_view bytes, std::string_view where)
      : reader_(bytes, where), where_(where) {}

  std::size_t bytes_read() const { return reader_.bytes_read(); }

  // `file` is what the columns' places refer to.
  Footer footer(std::string_view file) {
    Footer footer;
    reader_.read_struct([&](int id, ThriftType type) {
      switch (id) {
        case 2:
          reader_.read_list(type, [&](ThriftType element) {
            require_or(ErrorCode::kParse, footer.schema.size() < kMostElements,
                       "read {}: its schema has more than {} elements", where_, kMostElements);
            footer.schema.push_back(schema_element(element));
          });
          return true;
        case 4:
          reader_.read_list(type, [&](ThriftType element) {
            footer.row_groups.push_back(row_group(element, file));
          });
          return true;
        case 8:
          fail(ErrorCode::kUnsupported, "read {}: it is encrypted", where_);
        default:
          return false;
      }
    });
    return footer;
  }

  PageHeader page_header() {
    PageHeader page;
    std::optional<std::int64_t> type, unpacked, stored;
    bool has_details = false;
    reader_.read_struct([&](int id, ThriftType field) {
      switch (id) {
        case 1:
          type = reader_.integer(field);
          return true;
        case 2:
          unpacked = reader_.integer(field);
          return true;
        case 3:
          stored = reader_.integer(field);
          return true;
        case 4:
          page.crc = static_cast<std::uint32_t>(reader_.integer(field));
          return true;
        case 5:
        case 7:
        case 8:
          require_struct(field);
          page_details(id, page);
          has_details = true;
          return true;
        default:
          return false;
      }
    });
    page.type = static_cast<PageType>(bounded(type, "page type", 3));
    page.unpacked_bytes = static_cast<std::size_t>(bounded(unpacked, "page size", INT32_MAX));
    page.stored_bytes = static_cast<std::size_t>(bounded(stored, "stored page size", INT32_MAX));
    require_or(ErrorCode::kParse, has_details || page.type == PageType::kIndex,
               "read {}: a page's header does not say what is in it", where_);
    return page;
  }

 private:
  void require_struct(ThriftType type) const {
    require_or(ErrorCode::kParse, type == ThriftType::kStruct,
               "read {}: its metadata has type {} in place of a structure", where_,
               static_cast<int>(type));
  }

  std::int64_t bounded(std::optional<std::int64_t> value, std::string_view what,
                       std::int64_t most) const {
    require_or(ErrorCode::kParse, value.has_value(), "read {}: its metadata has no {}", where_,
               what);
    require_or(ErrorCode::kParse, *value >= 0 && *value <= most,
               "read {}: {} is {} (0 to {} are accepted)", where_, what, *value, most);
    return *value;
  }

  Encoding encoding_of(std::optional<std::int64_t> number) const {
    return static_cast<Encoding>(bounded(number, "encoding", 1000));
  }

  // DataPageHeader (field 5), DictionaryPageHeader (7), DataPageHeaderV2 (8).
  void page_details(int kind, PageHeader& page) {
    std::optional<std::int64_t> num_values, encoding, definition = 0, repetition = 0;
    reader_.read_struct([&](int id, ThriftType type) {
      if (id == 1) {
        num_values = reader_.integer(type);
      } else if (id == (kind == 8 ? 4 : 2)) {
        encoding = reader_.integer(type);
      } else if (kind == 5 && id == 3) {
        page.definition_encoding = encoding_of(reader_.integer(type));
      } else if (kind == 5 && id == 4) {
        page.repetition_encoding = encoding_of(reader_.integer(type));
      } else if (kind == 8 && id == 5) {
        definition = reader_.integer(type);
      } else if (kind == 8 && id == 6) {
        repetition = reader_.integer(type);
      } else if (kind == 8 && id == 7) {
        page.is_packed = reader_.boolean(type);
      } else {
        return false;
      }
      return true;
    });
    page.num_values =
        static_cast<std::size_t>(bounded(num_values, "a page's number of values", INT32_MAX));
    page.encoding = encoding_of(encoding);
    page.definition_bytes =
        static_cast<std::size_t>(bounded(definition, "size of definition levels", INT32_MAX));
    page.repetition_bytes =
        static_cast<std::size_t>(bounded(repetition, "size of repetition levels", INT32_MAX));
  }

  SchemaElement schema_element(ThriftType struct_type) {
    require_struct(struct_type);
    SchemaElement element;
    std::optional<std::int64_t> type, repetition = 0, converted;
    bool has_logical_type = false;
    reader_.read_struct([&](int id, ThriftType field) {
      switch (id) {
        case 1:
          type = reader_.integer(field);
          return true;
        case 3:
          repetition = reader_.integer(field);
          return true;
        case 4:
          element.name = reader_.text(field);
          return true;
        case 5:
          element.num_children = reader_.integer(field);
          return true;
        case 6:
          converted = reader_.integer(field);
          return true;
        case 10:
          require_struct(field);
          logical_type(element);
          has_logical_type = true;
          return true;
        default:
          return false;
      }
    });
    if (type) element.type = static_cast<PhysicalType>(bounded(type, "type", 7));
    element.repetition = static_cast<Repetition>(bounded(repetition, "repetition", 2));
    if (converted && !has_logical_type) {
      converted_type(static_cast<std::size_t>(bounded(converted, "converted type", 1000)), element);
    }
    return element;
  }

  // A union: its one field is the type.
  void logical_type(SchemaElement& element) {
    static constexpr std::array<std::string_view, 19> kNames = {
        "",     "STRING",    "MAP",     "LIST",     "ENUM",     "DECIMAL", "DATE",
        "TIME", "TIMESTAMP", "",        "INTEGER",  "UNKNOWN",  "JSON",    "BSON",
        "UUID", "FLOAT16",   "VARIANT", "GEOMETRY", "GEOGRAPHY"};
    reader_.read_struct([&](int id, ThriftType type) {
      const auto number = static_cast<std::size_t>(id);
      const bool is_known = number < kNames.size() && !kNames[number].empty();
      element.meaning_name =
          is_known ? std::string(kNames[number]) : fmt::format("logical type {}", id);
      element.meaning = meaning_of(element.meaning_name);
      if (element.meaning != Meaning::kInteger) return false;
      require_struct(type);
      reader_.read_struct([&](int inner, ThriftType field) {
        if (inner == 2) element.is_unsigned = !reader_.boolean(field);
        return inner == 2;
      });
      return true;
    });
  }

  static void converted_type(std::size_t number, SchemaElement& element) {
    static constexpr std::array<std::string_view, 22> kNames = {"STRING",
                                                                "MAP",
                                                                "MAP",
                                                                "LIST",
                                                                "ENUM",
                                                                "DECIMAL",
                                                                "DATE",
                                                                "TIME_MILLIS",
                                                                "TIME_MICROS",
                                                                "TIMESTAMP_MILLIS",
                                                                "TIMESTAMP_MICROS",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "INTEGER",
                                                                "JSON",
                                                                "BSON",
                                                                "INTERVAL"};
    element.meaning_name = number < kNames.size() ? std::string(kNames[number])
                                                  : fmt::format("converted type {}", number);
    element.meaning = meaning_of(element.meaning_name);
    element.is_unsigned = number >= 11 && number <= 14;
  }

  static Meaning meaning_of(std::string_view name) {
    if (name == "STRING" || name == "ENUM" || name == "JSON") return Meaning::kText;
    if (name == "LIST") return Meaning::kList;
    if (name == "MAP") return Meaning::kMap;
    if (name == "INTEGER") return Meaning::kInteger;
    if (name == "UNKNOWN") return Meaning::kNull;
    return Meaning::kOther;
  }

  RowGroup row_group(ThriftType struct_type, std::string_view file) {
    require_struct(struct_type);
    RowGroup group;
    std::optional<std::int64_t> num_rows;
    reader_.read_struct([&](int id, ThriftType type) {
      switch (id) {
        case 1:
          reader_.read_list(type, [&](ThriftType element) {
            group.columns.push_back(column_chunk(element, file));
          });
          return true;
        case 3:
          num_rows = reader_.integer(type);
          return true;
        default:
          return false;
      }
    });
    group.num_rows = bounded(num_rows, "a row group's number of rows", INT64_MAX);
    return group;
  }

  ColumnChunk column_chunk(ThriftType struct_type, std::string_view file) {
    require_struct(struct_type);
    std::optional<ColumnChunk> chunk;
    reader_.read_struct([&](int id, ThriftType type) {
      switch (id) {
        case 1:
          fail(ErrorCode::kUnsupported, "read {}: a column lies in another file, '{}'", where_,
               reader_.text(type).substr(0, 80));
        case 3:
          require_struct(type);
          chunk = column_metadata(file);
          return true;
        case 8:
        case 9:
          fail(ErrorCode::kUnsupported, "read {}: a column is encrypted", where_);
        default:
          return false;
      }
    });
    require_or(ErrorCode::kParse, chunk.has_value(), "read {}: a column has no metadata", where_);
    return std::move(*chunk);
  }

  ColumnChunk column_metadata(std::string_view file) {
    ColumnChunk chunk;
    std::optional<std::int64_t> codec, num_values, stored, data_place;
    std::int64_t dictionary_place = 0;  // some writers put 0 where there is none
    reader_.read_struct([&](int id, ThriftType type) {
      switch (id) {
        case 3:
          reader_.read_list(type, [&](ThriftType element) {
            if (!chunk.path.empty()) chunk.path += '.';
            chunk.path += reader_.text(element);
          });
          return true;
        case 4:
          codec = reader_.integer(type);
          return true;
        case 5:
          num_values = reader_.integer(type);
          return true;
        case 7:
          stored = reader_.integer(type);
          return true;
        case 9:
          data_place = reader_.integer(type);
          return true;
        case 11:
          dictionary_place = reader_.integer(type);
          return true;
        default:
          return false;
      }
    });
    chunk.codec = bounded(codec, "codec", 1000);
    chunk.num_values = bounded(num_values, "a column's number of values", INT64_MAX);
    const auto size = static_cast<std::int64_t>(file.size());
    std::int64_t begin = bounded(data_place, "place of a column", size);
    if (dictionary_place > 0 && dictionary_place < begin) begin = dictionary_place;
    const std::int64_t count = bounded(stored, "size of a column", size - begin);
    // Columns that share pages would have a small file read many times over.
    column_bytes_ += count;
    require_or(ErrorCode::kParse, column_bytes_ <= size,
               "read {}: its columns have more bytes than the file", where_);
    chunk.pages = file.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
    return chunk;
  }

  ThriftReader reader_;
  std::string_view where_;
  std::int64_t column_bytes_ = 0;
};

}  // namespace

Footer read_footer(std::string_view file, std::string_view where) {
  require_or(ErrorCode::kUnsupported, !file.ends_with(kEncryptedMagic),
             "read {}: it is an encrypted Parquet file", where);
  require_or(ErrorCode::kParse, file.starts_with(kMagic),
             "read {}: it is not a Parquet file: it does not begin with {}", where, kMagic);
  require_or(ErrorCode::kParse, file.size() >= 12 && file.ends_with(kMagic),
             "read {}: it is cut off: a Parquet file ends in {}", where, kMagic);
  const std::size_t end = file.size() - 8;  // of the footer: its size and the magic follow
  std::string_view tail = file.substr(end);
  const auto size = static_cast<std::size_t>(take_little_endian(tail, 4, where));
  require_or(ErrorCode::kParse, size <= end - kMagic.size() && size <= kMostFooterBytes,
             "read {}: a footer of {} bytes in a file of {} (at most {} are accepted)", where, size,
             file.size(), kMostFooterBytes);
  const std::string_view body = file.substr(0, end - size);
  return MetadataReader(file.substr(end - size, size), where).footer(body);
}

PageHeader read_page_header(std::string_view bytes, std::string_view where) {
  MetadataReader reader(bytes, where);
  PageHeader page = reader.page_header();
  page.header_bytes = reader.bytes_read();
  require_or(ErrorCode::kParse, page.stored_bytes <= bytes.size() - page.header_bytes,
             "read {}: a page of {} bytes where {} are left", where, page.stored_bytes,
             bytes.size() - page.header_bytes);
  return page;
}

std::string encoding_name(Encoding encoding) {
  static constexpr std::array<std::string_view, 10> kNames = {"PLAIN",
                                                              "",
                                                              "PLAIN_DICTIONARY",
                                                              "RLE",
                                                              "BIT_PACKED",
                                                              "DELTA_BINARY_PACKED",
                                                              "DELTA_LENGTH_BYTE_ARRAY",
                                                              "DELTA_BYTE_ARRAY",
                                                              "RLE_DICTIONARY",
                                                              "BYTE_STREAM_SPLIT"};
  const auto number = static_cast<std::size_t>(encoding);
  if (number < kNames.size() && !kNames[number].empty()) return std::string(kNames[number]);
  return fmt::format("encoding {}", number);
}

}  // namespace moebench::parquet
