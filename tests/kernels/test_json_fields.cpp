// Strict JSON: what is refused, and how the refusal reads.
#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/core/json_fields.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

Json json_of(std::string_view text) { return parse_json(text, "a.json"); }

std::string nested(int depth) {
  const auto n = static_cast<std::size_t>(depth);
  return std::string(n, '[') + std::string(n, ']');
}

}  // namespace

TEST_CASE("json: text that is not JSON is a parse error naming the file") {
  for (const char* text : {"", " ", "{", "{]", "nul", "{\"a\":}", "[1,]", "{} {}", "\"\\x\"", "'a'",
                           "{\"a\" 1}", "01", "1e999", "\"\xff\"", "{\"a\":1,}", "NaN", "//c\n1"}) {
    INFO("text: " << text);
    check_error([&] { json_of(text); }, ErrorCode::kParse, {"parse a.json: "});
  }
  // nlohmann's own prefix says nothing to a user.
  CHECK(message_of([] { json_of("{"); }).find("json.exception") == std::string::npos);
}

TEST_CASE("json: a field that stands twice in one object is refused, at any depth") {
  check_error([] { json_of(R"({"a": 1, "b": 2, "a": 1})"); }, ErrorCode::kParse,
              {"parse a.json: field 'a' stands twice in one object"});
  check_error([] { json_of(R"({"x": [{"y": {"k": 1, "k": 2}}]})"); }, ErrorCode::kParse,
              {"field 'k' stands twice"});
  check_error([] { json_of(R"({"a": 1, "\u0061": 2})"); }, ErrorCode::kParse,
              {"field 'a' stands twice"});
  // The same name in different objects is fine.
  CHECK_NOTHROW(json_of(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})"));
}

TEST_CASE("json: nesting up to the limit is read, one level more is refused") {
  for (const int limit : {1, 2, 8, 64}) {
    CHECK_NOTHROW(parse_json(nested(limit), "deep.json", limit));
    check_error([&] { parse_json(nested(limit + 1), "deep.json", limit); }, ErrorCode::kParse,
                {"parse deep.json: nested deeper than", std::to_string(limit)});
  }
  // Far too deep, and never closed: refused before any stack is at risk.
  check_error([] { json_of(std::string(5'000'000, '[')); }, ErrorCode::kParse, {"nested deeper"});
}

TEST_CASE("json fields: values come back as they stand") {
  const Json json = json_of(
      R"({"flag": true, "int": -3, "big": 9223372036854775807, "real": 2.5, "whole": 4,
          "text": "t", "names": ["a", "b"], "sizes": [1, 2], "nothing": null})");
  JsonFields fields(json, "a.json");
  CHECK(fields.required<bool>("flag"));
  CHECK(fields.required<int>("int") == -3);
  CHECK(fields.required<std::int64_t>("big") == std::numeric_limits<std::int64_t>::max());
  CHECK(fields.required<double>("real") == 2.5);
  CHECK(fields.required<double>("whole") == 4.0);
  CHECK(fields.required<std::string>("text") == "t");
  CHECK(fields.required<std::vector<std::string>>("names") == std::vector<std::string>{"a", "b"});
  CHECK(fields.required<std::vector<std::int64_t>>("sizes") == std::vector<std::int64_t>{1, 2});
  CHECK(fields.optional<int>("nothing", 7) == 7);
  CHECK(fields.optional<int>("absent", 8) == 8);
  CHECK(fields.has("flag"));
  CHECK_FALSE(fields.has("missing"));
  CHECK_NOTHROW(fields.finish());
}

TEST_CASE("json fields: a wrong type names the file, the field and the value") {
  const Json json = json_of(
      R"({"i": "two", "r": true, "s": 5, "b": 0, "half": 1.5, "huge": 9223372036854775808,
          "wide": 4294967296, "l": ["a", 3], "n": [1, "x"], "o": {"k": 1}, "z": null})");
  JsonFields f(json, "a.json");
  const auto message = [&](auto type, const char* name) {
    return message_of([&] { f.required<decltype(type)>(name); });
  };
  using Strings = std::vector<std::string>;
  using Ints = std::vector<std::int64_t>;
  CHECK(message(std::int64_t{}, "i") == "a.json: i: expected an integer, got \"two\"");
  CHECK(message(std::int64_t{}, "half") == "a.json: half: expected an integer, got 1.5");
  CHECK(message(std::int64_t{}, "huge") ==
        "a.json: huge: 9223372036854775808 does not fit 63 bits");
  CHECK(message(std::int64_t{}, "z") == "a.json: z: expected an integer, got null");
  CHECK(message(int{}, "wide") == "a.json: wide: 4294967296 is out of range");
  CHECK(message(double{}, "r") == "a.json: r: expected a number, got true");
  CHECK(message(std::string{}, "s") == "a.json: s: expected a string, got 5");
  CHECK(message(bool{}, "b") == "a.json: b: expected true or false, got 0");
  CHECK(message(Strings{}, "l") == "a.json: l[1]: expected a string, got 3");
  CHECK(message(Ints{}, "n") == "a.json: n[1]: expected an integer, got \"x\"");
  CHECK(message(Ints{}, "o") == "a.json: o: expected a list of integers, got an object");
  CHECK(message(Strings{}, "s") == "a.json: s: expected a list of strings, got 5");
  CHECK(message(int{}, "gone") == "a.json: field 'gone' is missing");
  CHECK(error_of([&] { f.required<int>("i"); }).code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("json fields: paths below the top are joined with dots") {
  const Json json = json_of(R"({"outer": {"inner": {"x": 1}}})");
  JsonFields top(json, "a.json");
  CHECK(top.path("outer") == "a.json: outer");
  JsonFields outer(*top.find("outer"), top.path("outer"));
  CHECK(outer.path("inner") == "a.json: outer.inner");
  JsonFields inner(*outer.find("inner"), outer.path("inner"));
  CHECK(inner.path("x") == "a.json: outer.inner.x");
}

TEST_CASE("json fields: a field nobody asked for is refused with the nearest name") {
  const Json json = json_of(R"({"name": 1, "temprature": 0.5})");
  JsonFields fields(json, "a.json");
  fields.required<int>("name");
  fields.optional<double>("temperature", 1.0);
  CHECK(message_of([&] { fields.finish(); }) ==
        "a.json: unknown field 'temprature'; did you mean 'temperature'? known: name, temperature");
  fields.ignore("temprature");
  CHECK_NOTHROW(fields.finish());
}

TEST_CASE("json fields: what is not an object is refused") {
  for (const char* text : {"[]", "1", "\"x\"", "null", "true"}) {
    const Json json = json_of(text);
    check_error([&] { JsonFields(json, "a.json"); }, ErrorCode::kInvalidArgument,
                {"a.json: expected an object, got "});
  }
}

TEST_CASE("json fields: long and ill-formed values are cut short in messages") {
  const Json json = {{"x", std::string(10'000, 'y')}, {"bad", "\xff\xfe"}};
  JsonFields fields(json, "a.json");
  CHECK(message_of([&] { fields.required<int>("x"); }).size() < 200);
  CHECK_THROWS_AS(fields.required<int>("bad"), Error);  // not nlohmann's exception
}

TEST_CASE("json fields: ranges are inclusive, and the message names the path, value and range") {
  CHECK(in_range<int>(1, 1, 3, "p") == 1);
  CHECK(in_range<int>(3, 1, 3, "p") == 3);
  CHECK(message_of([] { in_range<int>(0, 1, 3, "a.json: n"); }) ==
        "a.json: n: 0 is out of range [1, 3]");
  CHECK_THROWS_AS(in_range<std::int64_t>(4, 1, 3, "p"), Error);
  CHECK_THROWS_AS(in_range<double>(std::nan(""), 0, 1, "p"), Error);
}

TEST_CASE("json lines: empty lines are skipped, and an error names its line") {
  std::vector<std::string> places;
  const auto visit = [&](const Json&, const std::string& place) { places.push_back(place); };
  for_each_json_line("{\"a\":1}\n\n  \r\n[2]\r\n3", "b.jsonl", 4, visit);
  CHECK(places ==
        std::vector<std::string>{"b.jsonl: line 1", "b.jsonl: line 4", "b.jsonl: line 5"});
  check_error([&] { for_each_json_line("1\n{\n", "b.jsonl", 4, visit); }, ErrorCode::kParse,
              {"parse b.jsonl: line 2: "});
}

}  // namespace moebench::test
