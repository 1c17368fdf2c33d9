// Parquet files: those that pyarrow wrote against the JSON lines of the same script, and files made
// here byte by byte for what it does not write: older forms of lists, and lies.
#include <catch2/catch.hpp>

#include "datasets/parquet.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::filesystem::path fixture(const std::string& name) {
  return source_dir() / "tests/datasets/parquet" / name;
}

std::vector<std::string> lines_of(const std::vector<DataRow>& rows) {
  std::vector<std::string> lines;
  for (const DataRow& row : rows) lines.push_back(row.fields.dump());
  return lines;
}

// Thrift's compact protocol, written.
class Thrift {
 public:
  static std::string varint(std::uint64_t value) {
    std::string bytes;
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    return bytes + static_cast<char>(value);
  }
  static std::string zigzag(std::int64_t value) {
    return varint((static_cast<std::uint64_t>(value) << 1) ^
                  static_cast<std::uint64_t>(value >> 63));
  }

  Thrift& integer(int id, std::int64_t value) { return field(id, 5, zigzag(value)); }
  Thrift& text(int id, const std::string& value) {
    return field(id, 8, varint(value.size()) + value);
  }
  Thrift& object(int id, const Thrift& value) { return field(id, 12, value.bytes()); }
  Thrift& list(int id, char type, const std::vector<std::string>& elements) {
    std::string payload = static_cast<char>(0xf0 | type) + varint(elements.size());
    for (const std::string& element : elements) payload += element;
    return field(id, 9, payload);
  }
  std::string bytes() const { return bytes_ + '\0'; }

 private:
  Thrift& field(int id, int type, const std::string& payload) {
    bytes_ += static_cast<char>((id - last_) << 4 | type);
    bytes_ += payload;
    last_ = id;
    return *this;
  }

  std::string bytes_;
  int last_ = 0;
};

std::string little_endian(std::uint32_t value) {
  std::string bytes;
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string group(const std::string& name, int num_children, int repetition = 0,
                  int converted = -1) {
  Thrift element;
  element.integer(3, repetition).text(4, name).integer(5, num_children);
  if (converted >= 0) element.integer(6, converted);
  return element.bytes();
}

std::string int32_leaf(const std::string& name, int repetition = 0) {
  return Thrift().integer(1, 1).integer(3, repetition).text(4, name).bytes();
}

// A data page of version 1 that is not packed.
std::string page(int num_values, const std::string& body, int encoding = 0,
                 int level_encoding = 3) {
  const auto size = static_cast<std::int64_t>(body.size());
  const Thrift details = Thrift()
                             .integer(1, num_values)
                             .integer(2, encoding)
                             .integer(3, level_encoding)
                             .integer(4, level_encoding);
  return Thrift().integer(1, 0).integer(2, size).integer(3, size).object(5, details).bytes() + body;
}

struct TestColumn {
  std::string path;
  std::int64_t num_values = 0;
  std::string pages;
  std::int64_t codec = 0;
  std::int64_t place = -1;  // where it claims to be; -1: where it is
  std::int64_t size = -1;
};

std::string parquet_file(const std::vector<std::string>& schema, std::int64_t num_rows,
                         const std::vector<TestColumn>& columns) {
  std::string file = "PAR1";
  std::vector<std::string> chunks;
  for (const TestColumn& column : columns) {
    std::vector<std::string> path;
    for (std::size_t at = 0; at <= column.path.size();) {
      const std::size_t end = std::min(column.path.find('.', at), column.path.size());
      path.push_back(Thrift::varint(end - at) + column.path.substr(at, end - at));
      at = end + 1;
    }
    Thrift metadata;
    metadata.integer(1, 1)
        .list(3, 8, path)
        .integer(4, column.codec)
        .integer(5, column.num_values)
        .integer(7, column.size < 0 ? static_cast<std::int64_t>(column.pages.size()) : column.size)
        .integer(9, column.place < 0 ? static_cast<std::int64_t>(file.size()) : column.place);
    chunks.push_back(Thrift().object(3, metadata).bytes());
    file += column.pages;
  }
  const std::string row_group = Thrift().list(1, 12, chunks).integer(3, num_rows).bytes();
  const std::string footer = Thrift()
                                 .integer(1, 1)
                                 .list(2, 12, schema)
                                 .integer(3, num_rows)
                                 .list(4, 12, {row_group})
                                 .bytes();
  return file + footer + little_endian(static_cast<std::uint32_t>(footer.size())) + "PAR1";
}

// Levels of one bit: bit-packed groups with the length before them.
std::string bits(const std::string& zeros_and_ones) {
  std::string packed((zeros_and_ones.size() + 7) / 8, '\0');
  for (std::size_t i = 0; i < zeros_and_ones.size(); ++i) {
    if (zeros_and_ones[i] == '1') packed[i / 8] = static_cast<char>(packed[i / 8] | 1 << (i % 8));
  }
  const std::string run = Thrift::varint(packed.size() << 1 | 1) + packed;
  return little_endian(static_cast<std::uint32_t>(run.size())) + run;
}

std::string int32s(std::initializer_list<std::uint32_t> values) {
  std::string bytes;
  for (const std::uint32_t value : values) bytes += little_endian(value);
  return bytes;
}

// One required column of numbers, "n".
std::string numbers_file(std::int64_t num_rows, const TestColumn& column) {
  return parquet_file({group("schema", 1), int32_leaf("n")}, num_rows, {column});
}

void check_refused(const std::string& file, std::initializer_list<std::string> words,
                   ErrorCode code = ErrorCode::kParse) {
  check_error([&] { parse_parquet(file, "f.parquet"); }, code, words);
}

}  // namespace

TEST_CASE("parquet: one table in many codecs, page versions and encodings gives the same rows") {
  const auto expected =
      lines_of(parse_rows(read_file(fixture("rows.jsonl")), DataFormat::kJsonl, "rows.jsonl"));
  REQUIRE(expected.size() == 45);
  for (const std::string name : {"plain_v1", "snappy_dictionary_v1", "gzip_dictionary_v2",
                                 "snappy_plain_v2", "zstd_deltas_v1", "lengths_v2"}) {
    INFO(name);
    const auto rows = parse_rows(read_file(fixture(name + ".parquet")), DataFormat::kParquet, name);
    CHECK(lines_of(rows) == expected);
    CHECK(rows.back().where == name + ": row 45");
  }
  const auto some = parse_parquet(read_file(fixture("statistics.parquet")), "f");
  REQUIRE(some.size() == expected.size());
  for (std::size_t i = 0; i < some.size(); ++i) {
    const Json all = Json::parse(expected[i]);
    CHECK(some[i].fields == Json({{"question", all.at("question")},
                                  {"options", all.at("options")},
                                  {"weight", all.at("weight")}}));
  }
}

TEST_CASE("parquet: thousands of rows: blocks of deltas, runs, bit-packed indices") {
  const Json expected = read_json(fixture("many.json"));
  const auto rows = parse_parquet(read_file(fixture("many.parquet")), "many.parquet");
  std::int64_t sum = 0, product = 0, steps = 0, i = 0;
  for (const DataRow& row : rows) {
    sum += row.fields.at("n").get<std::int64_t>();
    product += i++ * row.fields.at("n").get<std::int64_t>();
    steps += row.fields.at("step").get<std::int64_t>();
    CHECK(row.fields.at("same") == "x");
  }
  CHECK(i == expected.at("rows"));
  CHECK(sum == expected.at("sum_n"));
  CHECK(product == expected.at("sum_product"));
  CHECK(steps == expected.at("sum_step"));
}

TEST_CASE("parquet: what is not read is refused by column and by what it holds") {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"date", "DATE"},    {"timestamp", "TIMESTAMP"},  {"decimal", "DECIMAL"},
      {"int96", "INT96"},  {"fixed", "FIXED_LEN_BYTE"}, {"map", "MAP"},
      {"half", "FLOAT16"}, {"brotli", "Brotli"},        {"lz4", "LZ4"}};
  for (const auto& [name, word] : files) {
    INFO(name);
    check_refused(read_file(fixture("refused_" + name + ".parquet")),
                  {"f.parquet", "column strange", word}, ErrorCode::kUnsupported);
  }
  check_refused(read_file(fixture("refused_bytes.parquet")), {"column strange", "not UTF-8"});
  check_refused("PAR1" + std::string(20, '\0') + "PARE", {"encrypted"}, ErrorCode::kUnsupported);
}

TEST_CASE("parquet: a file under the name of another format is told by its first bytes") {
  const std::string file = read_file(fixture("statistics.parquet"));
  check_error([&] { parse_rows(file, DataFormat::kJsonl, "f.jsonl"); }, ErrorCode::kParse,
              {"f.jsonl", "Parquet file", "not jsonl"});
  check_error([] { parse_rows("{\"a\": 1}\n", DataFormat::kParquet, "f.parquet"); },
              ErrorCode::kParse, {"f.parquet", "does not begin with PAR1"});
}

TEST_CASE("parquet: a file cut off anywhere is refused") {
  const std::string file = read_file(fixture("mmlu_pro_validation.parquet"));
  REQUIRE(parse_parquet(file, "f").size() == 2);
  for (std::size_t size = 0; size < file.size(); ++size) {
    INFO(size);
    CHECK(error_of([&] { parse_parquet(file.substr(0, size), "f"); }).code() == ErrorCode::kParse);
  }
}

TEST_CASE("parquet: a changed byte in a page with a checksum is found") {
  std::string file = read_file(fixture("zstd_deltas_v1.parquet"));
  const std::string magic = "\x28\xb5\x2f\xfd";  // of Zstandard: the begin of a page
  const std::size_t at = file.find(magic);
  REQUIRE(at != std::string::npos);
  file[at + 12] = static_cast<char>(file[at + 12] ^ 1);
  check_refused(file, {"column question_id", "checksum"});
}

TEST_CASE("parquet: any changed byte gives rows or an Error, within the limits") {
  const ParquetLimits limits{.max_rows = 1000, .max_values = 10'000, .max_page_bytes = 1 << 16};
  for (const std::string name : {"mmlu_pro_validation.parquet", "snappy_plain_v2.parquet"}) {
    const std::string file = read_file(fixture(name));
    std::size_t refused = 0;
    for (std::size_t i = 0; i < file.size(); i += name[0] == 's' ? 7 : 1) {
      std::string changed = file;
      changed[i] = static_cast<char>(changed[i] ^ (1 << i % 8));
      try {
        const std::size_t num_rows = parse_parquet(changed, "f", limits).size();
        CHECK(num_rows <= 1000);
      } catch (const Error&) {
        ++refused;
      }
    }
    CHECK(refused > 100);
  }
}

TEST_CASE("parquet: limits on rows, values, pages and bytes") {
  const std::string file = read_file(fixture("statistics.parquet"));
  const auto refused = [&](const ParquetLimits& limits, const std::string& words) {
    check_error([&] { parse_parquet(file, "f", limits); }, ErrorCode::kParse, {words});
  };
  refused({.max_rows = 44}, "more than 44 rows");
  refused({.max_values = 100}, "more than 100 values");
  refused({.max_pages = 3}, "more than 3 pages");
  refused({.max_page_bytes = 50}, "at most 50");
  refused({.max_total_bytes = 1000}, "more than 1000 bytes");
  CHECK(parse_parquet(file, "f", {.max_rows = 45}).size() == 45);

  // Ten bytes that stand for two thousand million nulls.
  const std::string run = Thrift::varint(std::uint64_t{2'000'000'000} << 1) + '\0';
  const std::string body = little_endian(static_cast<std::uint32_t>(run.size())) + run;
  const std::string bomb = parquet_file({group("schema", 1), int32_leaf("n", 1)}, 3'000'000,
                                        {{"n", 2'000'000'000, page(2'000'000'000, body)}});
  check_refused(bomb, {"more than 10000000 values"});
}

TEST_CASE("parquet: lists in the older forms") {
  // optional group a (LIST) { repeated int32 element }, of [5], null, [], [6, 7].
  const std::string repetitions = bits("00001000");
  // Definition levels 2 0 1 2 2, two bits each, lowest first: 2 | 0<<2 | 1<<4 | 2<<6, 2.
  const std::string packed = std::string("\x03", 1) + static_cast<char>(0x92) + '\x02';
  const std::string definitions = little_endian(static_cast<std::uint32_t>(packed.size())) + packed;
  const std::string body = repetitions + definitions + int32s({5, 6, 7});
  const auto rows_of = [&](const std::string& repeated, const std::string& path) {
    std::vector<std::string> schema = {group("schema", 1), group("a", 1, 1, 3)};
    if (repeated == "element") {
      schema.push_back(int32_leaf("element", 2));
    } else {
      schema.push_back(group(repeated, 1, 2));
      schema.push_back(int32_leaf("n"));
    }
    return lines_of(parse_parquet(parquet_file(schema, 4, {{path, 5, page(5, body)}}), "f"));
  };
  CHECK(rows_of("element", "a.element") ==
        std::vector<std::string>{R"({"a":[5]})", R"({"a":null})", R"({"a":[]})", R"({"a":[6,7]})"});
  // A group "array" or "a_tuple" is the element itself; any other holds it.
  const std::vector<std::string> objects = {R"({"a":[{"n":5}]})", R"({"a":null})", R"({"a":[]})",
                                            R"({"a":[{"n":6},{"n":7}]})"};
  CHECK(rows_of("array", "a.array.n") == objects);
  CHECK(rows_of("a_tuple", "a.a_tuple.n") == objects);
  CHECK(rows_of("bag", "a.bag.n") == rows_of("element", "a.element"));
  check_refused(parquet_file({group("schema", 1), int32_leaf("n", 2)}, 1, {{"n", 1, ""}}),
                {"column n", "repeated"}, ErrorCode::kUnsupported);
}

TEST_CASE("parquet: gzip of several members, and sizes that are not what comes out") {
  using namespace std::string_literals;
  // Python: gzip.compress(b"\7\0\0\0", mtime=0) + gzip.compress(b"\11\0\0\0", mtime=0)
  const std::string packed =
      "\x1f\x8b\x08\0\0\0\0\0\x02\x03\x63\x67\x60\x60\0\0\xa5\xe7\x93\xbc\x04\0\0\0"s
      "\x1f\x8b\x08\0\0\0\0\0\x02\x03\xe3\x64\x60\x60\0\0\x96\x90\x4c\x5c\x04\0\0\0"s;
  const auto file = [&](std::int64_t unpacked_bytes, const std::string& bytes) {
    const Thrift details = Thrift().integer(1, 2).integer(2, 0).integer(3, 3).integer(4, 3);
    const std::string header = Thrift()
                                   .integer(1, 0)
                                   .integer(2, unpacked_bytes)
                                   .integer(3, static_cast<std::int64_t>(bytes.size()))
                                   .object(5, details)
                                   .bytes();
    return numbers_file(2, {"n", 2, header + bytes, 2});
  };
  CHECK(lines_of(parse_parquet(file(8, packed), "f")) ==
        std::vector<std::string>{R"({"n":7})", R"({"n":9})"});
  for (const std::int64_t size : {7, 9, 1000}) {
    check_refused(file(size, packed), {"column n", fmt::format("not {} bytes", size), "gzip"});
  }
  check_refused(file(8, packed.substr(0, 30)), {"gzip"});
  check_refused(file(8, ""), {"gzip"});
  check_refused(file(-8, packed), {"page size", "-8"});
  check_refused(file(std::int64_t{1} << 30, packed), {"at most 268435456"});
}

TEST_CASE("parquet: files that lie are refused") {
  const std::string two = int32s({7, 9});
  CHECK(lines_of(parse_parquet(numbers_file(2, {"n", 2, page(2, two)}), "f")) ==
        std::vector<std::string>{R"({"n":7})", R"({"n":9})"});
  SECTION("about rows and values") {
    check_refused(numbers_file(3, {"n", 2, page(2, two)}), {"column n", "fewer values than rows"});
    check_refused(numbers_file(1, {"n", 2, page(2, two)}), {"column n", "more values"});
    check_refused(numbers_file(2, {"n", 3, page(2, two)}), {"column n", "2 values of 3"});
    check_refused(numbers_file(1, {"n", 1, page(2, two)}), {"column n", "more than 1 values"});
    check_refused(numbers_file(3, {"n", 3, page(3, two)}), {"column n", "ends too early"});
    check_refused(numbers_file(-1, {"n", 2, page(2, two)}), {"number of rows", "-1"});
    check_refused(numbers_file(1, {"n", -1, page(2, two)}), {"number of values", "-1"});
  }
  SECTION("about encodings") {
    check_refused(numbers_file(2, {"n", 2, page(2, '\x01' + two, 8)}), {"column n", "dictionary"});
    check_refused(numbers_file(2, {"n", 2, page(2, two, 6)}), {"DELTA_LENGTH_BYTE_ARRAY"},
                  ErrorCode::kUnsupported);
    check_refused(numbers_file(2, {"n", 2, page(2, two, 77)}), {"encoding 77"},
                  ErrorCode::kUnsupported);
    check_refused(numbers_file(2, {"n", 2, page(2, two), 99}), {"codec 99"},
                  ErrorCode::kUnsupported);
    check_refused(numbers_file(2, {"n", 2, page(2, two), 1}), {"packed by Snappy"});
    check_refused(parquet_file({group("schema", 1), int32_leaf("n", 1)}, 2,
                               {{"n", 2, page(2, bits("11") + two, 0, 4)}}),
                  {"levels are in BIT_PACKED"}, ErrorCode::kUnsupported);
    const std::string dictionary = Thrift()
                                       .integer(1, 2)
                                       .integer(2, 8)
                                       .integer(3, 8)
                                       .object(7, Thrift().integer(1, 2).integer(2, 0))
                                       .bytes() +
                                   two;
    const auto indices = [&](char run) { return std::string("\x02\x04", 2) + run; };
    CHECK(lines_of(parse_parquet(numbers_file(2, {"n", 2, dictionary + page(2, indices('\1'), 8)}),
                                 "f")) == std::vector<std::string>{R"({"n":9})", R"({"n":9})"});
    check_refused(numbers_file(2, {"n", 2, dictionary + page(2, indices('\2'), 8)}),
                  {"number 2 of a dictionary of 2"});
    check_refused(numbers_file(2, {"n", 2, dictionary + page(2, indices('\4'), 8)}), {"bits"});
    check_refused(numbers_file(2, {"n", 2, dictionary + dictionary + page(2, indices('\1'), 8)}),
                  {"two dictionaries"});
    check_refused(numbers_file(2, {"n", 2, dictionary + page(2, "\x28\x04\x01", 8)}), {"40 bits"});
    // What is said of levels that there are none of does not matter (fastparquet says BIT_PACKED).
    CHECK_NOTHROW(parse_parquet(numbers_file(2, {"n", 2, page(2, two, 0, 4)}), "f"));
    // The first bytes of two numbers, their second ones, ...
    CHECK(lines_of(parse_parquet(
              numbers_file(2, {"n", 2, page(2, std::string("\1\2\0\1\0\0\0\0", 8), 9)}), "f")) ==
          std::vector<std::string>{R"({"n":1})", R"({"n":258})"});
    check_refused(numbers_file(2, {"n", 2, page(2, "1234567", 9)}), {"ends too early"});
  }
  SECTION("about deltas") {
    const auto deltas = [&](const std::string& header) {
      return numbers_file(2, {"n", 2, page(2, header, 5)});
    };
    using namespace std::string_literals;
    // Blocks of 128 in 4 parts, 2 values, the first -3; the difference is 5, in no bits.
    const std::string head = "\x80\x01\x04\x02\x05"s;
    CHECK(lines_of(parse_parquet(deltas(head + "\x0a\0\0\0\0"s), "f")) ==
          std::vector<std::string>{R"({"n":-3})", R"({"n":2})"});
    check_refused(deltas("\x80\x01\x04\x03\x05\x0a\0\0\0\0"s), {"3 deltas where 2"});
    check_refused(deltas("\x80\x01\0\x02\x05"s), {"delta blocks of 128 numbers in 0 parts"});
    check_refused(deltas("\x80\x01\x05\x02\x05"s), {"in 5 parts"});
    check_refused(deltas(head + "\x0a\x41\0\0\0"s), {"deltas of 65 bits"});
    check_refused(deltas(head + "\x0a\x08\0\0\0"s), {"ends too early"});
  }
  SECTION("about the schema") {
    const TestColumn column{"n", 2, page(2, two)};
    check_refused(parquet_file({}, 2, {column}), {"no schema"});
    check_refused(parquet_file({group("schema", 2), int32_leaf("n")}, 2, {column}), {"cut off"});
    check_refused(parquet_file({group("schema", 0)}, 2, {}), {"no columns"});
    check_refused(parquet_file({group("schema", 1), int32_leaf("n"), int32_leaf("m")}, 2, {column}),
                  {"belong to no column"});
    check_refused(
        parquet_file({group("schema", 2), int32_leaf("n"), int32_leaf("n")}, 2, {column, column}),
        {"two columns", "n"});
    check_refused(parquet_file({group("schema", 1), int32_leaf("m")}, 2, {column}),
                  {"column 'n' stands where m belongs"});
    check_refused(parquet_file({group("schema", 1), int32_leaf("n")}, 2, {}), {"0 columns"});
    std::vector<std::string> deep(30, group("g", 1));
    deep.push_back(int32_leaf("n"));
    check_refused(parquet_file(deep, 2, {column}), {"nested deeper than 16"});
  }
  SECTION("about lists") {
    const std::vector<std::string> schema = {group("schema", 1), group("a", 1, 0, 3),
                                             group("list", 1, 2), int32_leaf("n")};
    const auto file = [&](const std::string& repetitions, const std::string& definitions) {
      return parquet_file(schema, 1,
                          {{"a.list.n", 2, page(2, bits(repetitions) + bits(definitions) + two)}});
    };
    CHECK(lines_of(parse_parquet(file("01", "11"), "f")) ==
          std::vector<std::string>{R"({"a":[7,9]})"});
    check_refused(file("11", "11"), {"column a.list.n", "begins within a list"});
    check_refused(file("00", "11"), {"column a.list.n", "more values"});
    // [7, 9] beside [7], [8] as the two parts of each element.
    const std::vector<std::string> pairs = {group("schema", 1), group("a", 1, 0, 3),
                                            group("list", 2, 2), int32_leaf("x"), int32_leaf("y")};
    check_refused(parquet_file(pairs, 1,
                               {{"a.list.x", 2, page(2, bits("01") + bits("11") + two)},
                                {"a.list.y", 1, page(1, bits("0") + bits("1") + int32s({7}))}}),
                  {"column a.list.y", "disagree"});
  }
  SECTION("about places") {
    std::string file = numbers_file(2, {"n", 2, page(2, two)});
    file[file.size() - 8] = '\x7f';
    file[file.size() - 6] = '\x7f';
    check_refused(file, {"a footer of"});
    check_refused(numbers_file(2, {"n", 2, page(2, two), 0, 100'000}), {"place of a column"});
    check_refused(numbers_file(2, {"n", 2, page(2, two), 0, 4, 100'000}), {"size of a column"});
    // A column that reads nearly all of the file, and another.
    const TestColumn whole{"n", 2, page(2, two), 0, 4, 45};
    TestColumn again = whole;
    again.path = "m";
    check_refused(
        parquet_file({group("schema", 2), int32_leaf("n"), int32_leaf("m")}, 2, {whole, again}),
        {"more bytes than the file"});
  }
}

}  // namespace moebench::test
