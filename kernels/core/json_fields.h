// Strict reading of JSON objects: every field is named once, has the wanted type and range, and a
// field nobody asked for is an error that suggests the nearest name.
//
//   JsonFields fields(object, "suite.json: plans[2]");
//   const std::string name = fields.required<std::string>("name");
//   const int threads = fields.optional<int>("threads", 0);
//   fields.finish();
//
// Errors read: suite.json: plans[2].threads: expected an integer, got "two"
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

// Parses untrusted text. Throws Error(kParse) naming `where`; nesting deeper than `max_depth` is
// refused, because nlohmann's serialiser recurses. Duplicate keys of one object are refused too.
Json parse_json(std::string_view text, std::string_view where, int max_depth = 64);

// Parses each non-empty line of `text` and calls visit(value, place), `place` being
// "<where>: line <number>".
void for_each_json_line(std::string_view text, std::string_view where, int max_depth,
                        const std::function<void(const Json&, const std::string&)>& visit);

// A short rendering of a value for an error message.
std::string json_excerpt(const Json& value);

class JsonFields {
 public:
  // Throws Error(kInvalidArgument) unless `object` is an object.
  JsonFields(const Json& object, std::string where);

  bool has(std::string_view name);

  template <class T>
  T required(std::string_view name) {
    const Json* value = find(name);
    if (value == nullptr) missing(name);
    return convert<T>(*value, path(name));
  }

  // `null` counts as absent.
  template <class T>
  T optional(std::string_view name, T fallback) {
    const Json* value = find(name);
    return value == nullptr || value->is_null() ? fallback : convert<T>(*value, path(name));
  }

  // The raw value, or nullptr if absent.
  const Json* find(std::string_view name);

  // Marks a field as known without reading it.
  void ignore(std::string_view name) { find(name); }

  // Throws if the object holds fields that were never asked for.
  void finish() const;

  // "file: name" at the top of a file, "file: outer.name" below.
  std::string path(std::string_view name) const;

 private:
  template <class T>
  static T convert(const Json& value, const std::string& path);
  [[noreturn]] void missing(std::string_view name) const;

  const Json& object_;
  std::string where_;
  std::vector<std::string> asked_;
};

template <>
bool JsonFields::convert<bool>(const Json& value, const std::string& path);
template <>
std::int64_t JsonFields::convert<std::int64_t>(const Json& value, const std::string& path);
template <>
int JsonFields::convert<int>(const Json& value, const std::string& path);
template <>
double JsonFields::convert<double>(const Json& value, const std::string& path);
template <>
std::string JsonFields::convert<std::string>(const Json& value, const std::string& path);
template <>
std::vector<std::string> JsonFields::convert<std::vector<std::string>>(const Json& value,
                                                                       const std::string& path);
template <>
std::vector<std::int64_t> JsonFields::convert<std::vector<std::int64_t>>(const Json& value,
                                                                         const std::string& path);

// Checks a number against an inclusive range; the error names the path, the value and the range.
template <class T>
T in_range(T value, T low, T high, std::string_view path);

extern template int in_range<int>(int, int, int, std::string_view);
extern template std::int64_t in_range<std::int64_t>(std::int64_t, std::int64_t, std::int64_t,
                                                    std::string_view);
extern template double in_range<double>(double, double, double, std::string_view);

}  // namespace moebench
