// Tables and rows: RFC 4180 to the letter, broken files by name and line.
#include <catch2/catch.hpp>

#include "datasets/csv.h"
#include "datasets/rows.h"
#include "tests/support/throws.h"

namespace moebench::test {

using Records = std::vector<std::vector<std::string>>;

TEST_CASE("csv: the rules of RFC 4180, section 2") {
  CHECK(parse_csv("aaa,bbb,ccc\r\nzzz,yyy,xxx\r\n", "t") ==
        Records{{"aaa", "bbb", "ccc"}, {"zzz", "yyy", "xxx"}});
  CHECK(parse_csv("aaa,bbb\nzzz,yyy", "t") == Records{{"aaa", "bbb"}, {"zzz", "yyy"}});
  CHECK(parse_csv("\"aaa\",\"b \r\nbb\",\"ccc\"\r\nzzz,yyy,xxx", "t") ==
        Records{{"aaa", "b \r\nbb", "ccc"}, {"zzz", "yyy", "xxx"}});
  CHECK(parse_csv("\"aaa\",\"b\"\"bb\",\"ccc\"", "t") == Records{{"aaa", "b\"bb", "ccc"}});
  CHECK(parse_csv("\"a,b\",c", "t") == Records{{"a,b", "c"}});
}

TEST_CASE("csv: empty fields, white space, a byte order mark, empty lines") {
  CHECK(parse_csv(",a,\n", "t") == Records{{"", "a", ""}});
  CHECK(parse_csv(" a , b\n", "t") == Records{{" a ", " b"}});
  CHECK(parse_csv("\xEF\xBB\xBF\"x\",y\n\n\nz,w\n", "t") == Records{{"x", "y"}, {"z", "w"}});
  CHECK(parse_csv("\"\"", "t").empty());  // an empty line, however it is written
  CHECK(parse_csv("\"\",\"\"", "t") == Records{{"", ""}});
  CHECK(parse_csv("", "t").empty());
  CHECK(parse_csv("a\tb,c\n", "t", '\t') == Records{{"a", "b,c"}});
  CHECK(parse_csv("a\rb,c\n", "t") == Records{{"a\rb", "c"}});  // a lone CR is content
}

TEST_CASE("csv: what is broken is refused by file and line") {
  const auto parse = [](std::string_view text) { parse_csv(text, "t.csv"); };
  check_error([&] { parse("a,b\n\"c,d\n"); }, ErrorCode::kParse,
              {"t.csv", "line 2", "never closed"});
  check_error([&] { parse("\"a\nb\"c,d\n"); }, ErrorCode::kParse, {"line 2", "closing quote"});
  check_error([&] { parse("a,b\"c\n"); }, ErrorCode::kParse, {"line 1", "quote inside"});
  CsvLimits limits{.max_rows = 2, .max_columns = 2, .max_field_bytes = 3};
  const auto bounded = [&](std::string_view text) { parse_csv(text, "t.csv", ',', limits); };
  CHECK_NOTHROW(bounded("abc,b\nc,d\n"));
  check_error([&] { bounded("a\nb\nc\n"); }, ErrorCode::kParse, {"more than 2 rows"});
  check_error([&] { bounded("a,b,c\n"); }, ErrorCode::kParse, {"more than 2 fields"});
  check_error([&] { bounded("abcd\n"); }, ErrorCode::kParse, {"4 bytes"});
}

TEST_CASE("rows: CSV, TSV, JSON and JSON lines give the same rows") {
  const std::vector<std::pair<DataFormat, std::string>> files = {
      {DataFormat::kCsv, "q,a\n\"x, y\",1\nz,2\n"},
      {DataFormat::kTsv, "q\ta\nx, y\t1\nz\t2\n"},
      {DataFormat::kJson, R"([{"q": "x, y", "a": 1}, {"q": "z", "a": "2"}])"},
      {DataFormat::kJson, R"({"data": [{"q": "x, y", "a": 1}, {"q": "z", "a": "2"}]})"},
      {DataFormat::kJsonl, "{\"q\": \"x, y\", \"a\": 1}\n\n{\"q\": \"z\", \"a\": \"2\"}\n"}};
  for (const auto& [format, text] : files) {
    INFO(data_format_name(format) << ": " << text);
    const auto rows = parse_rows(text, format, "f");
    REQUIRE(rows.size() == 2);
    CHECK(text_field(rows[0], "q") == "x, y");
    CHECK(text_field(rows[0], "a") == "1");
    CHECK(text_field(rows[1], "a") == "2");
  }
}

TEST_CASE("rows: nested columns, lists, and what is not there") {
  const auto rows = parse_rows(
      R"({"a.b": "dot", "a": {"b": "nested", "c": {"d": true}}, "list": ["x", "y"], "n": 1.5})",
      DataFormat::kJsonl, "f.jsonl");
  CHECK(text_field(rows[0], "a.b") == "dot");  // a column's own name goes before
  CHECK(text_field(rows[0], "a.c.d") == "true");
  CHECK(list_field(rows[0], "list") == std::vector<std::string>{"x", "y"});
  check_error([&] { text_field(rows[0], "lists"); }, ErrorCode::kInvalidArgument,
              {"f.jsonl", "line 1", "'lists'", "did you mean 'list'?"});
  check_error([&] { text_field(rows[0], "a.x"); }, ErrorCode::kInvalidArgument, {"'a.x'"});
  check_error([&] { text_field(rows[0], "n"); }, ErrorCode::kInvalidArgument, {"1.5"});
  check_error([&] { list_field(rows[0], "n"); }, ErrorCode::kInvalidArgument, {"list of strings"});
}

TEST_CASE("rows: tables that do not fit together are refused") {
  const auto parse = [](std::string_view text, DataFormat format = DataFormat::kCsv) {
    parse_rows(text, format, "f");
  };
  check_error([&] { parse("a,b\n1\n"); }, ErrorCode::kParse, {"row 1", "1 fields", "has 2"});
  check_error([&] { parse("a,a\n1,2\n"); }, ErrorCode::kParse, {"one name"});
  check_error([&] { parse(""); }, ErrorCode::kParse, {"nothing"});
  check_error([&] { parse("a\n\xff\n"); }, ErrorCode::kParse, {"not UTF-8"});
  check_error([&] { parse("[1]", DataFormat::kJson); }, ErrorCode::kParse, {"expected an object"});
  check_error([&] { parse("3", DataFormat::kJson); }, ErrorCode::kParse, {"list of objects"});
  check_error([&] { parse(std::string(40, '['), DataFormat::kJson); }, ErrorCode::kParse,
              {"nested deeper"});
}

TEST_CASE("rows: formats by name and by file") {
  CHECK(data_format_of_file("a/b.x.jsonl") == DataFormat::kJsonl);
  CHECK(data_format_of_file("b.csv") == DataFormat::kCsv);
  CHECK(data_format_of_file("b.parquet") == DataFormat::kParquet);
  check_error([] { data_format_of_file("b"); }, ErrorCode::kInvalidArgument, {"known: csv"});
  check_error([] { data_format_from_name("jsonll", "x"); }, ErrorCode::kInvalidArgument,
              {"did you mean 'jsonl'?"});
}

}  // namespace moebench::test
