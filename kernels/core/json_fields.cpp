// Strict JSON reading over nlohmann/json.
#include "kernels/core/json_fields.h"

#include <algorithm>
#include <limits>
#include <set>

#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {

Json parse_json(std::string_view text, std::string_view where, int max_depth) {
  // One set of keys per open object; nlohmann keeps the last of two equal keys in silence, which
  // would let a file say one thing to us and another to its author.
  std::vector<std::set<std::string>> open_objects;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    // nlohmann counts what encloses the event: the outermost bracket opens at depth 0.
    const bool opens =
        event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    require_or(ErrorCode::kParse, !opens || depth < max_depth,
               "parse {}: nested deeper than {} levels", where, max_depth);
    if (event == Json::parse_event_t::object_start) {
      open_objects.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open_objects.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      require_or(ErrorCode::kParse, open_objects.back().insert(key).second,
                 "parse {}: field '{}' stands twice in one object", where, key.substr(0, 200));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    // Drop nlohmann's "[json.exception.parse_error.101] " prefix: it helps nobody.
    std::string reason = error.what();
    if (const auto bracket = reason.find("] "); bracket != std::string::npos) {
      reason.erase(0, bracket + 2);
    }
    fail(ErrorCode::kParse, "parse {}: {}", where, reason.substr(0, 300));
  }
}

void for_each_json_line(std::string_view text, std::string_view where, int max_depth,
                        const std::function<void(const Json&, const std::string&)>& visit) {
  std::size_t line_number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}: line {}", where, line_number);
    visit(parse_json(line, place, max_depth), place);
  }
}

std::string json_excerpt(const Json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

JsonFields::JsonFields(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  require(object.is_object(), "{}: expected an object, got {}", where_, json_excerpt(object));
}

std::string JsonFields::path(std::string_view name) const {
  // "config.json: hidden_size", then "config.json: rope_scaling.factor".
  const bool is_file = where_.find(": ") == std::string::npos;
  return fmt::format("{}{}{}", where_, is_file ? ": " : ".", name);
}

const Json* JsonFields::find(std::string_view name) {
  asked_.emplace_back(name);
  const auto it = object_.find(name);
  return it == object_.end() ? nullptr : &*it;
}

bool JsonFields::has(std::string_view name) { return find(name) != nullptr; }

void JsonFields::missing(std::string_view name) const {
  fail(ErrorCode::kInvalidArgument, "{}: field '{}' is missing", where_, name);
}

void JsonFields::finish() const {
  for (const auto& [name, value] : object_.items()) {
    if (std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
    std::vector<std::string> known = asked_;
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    fail(ErrorCode::kInvalidArgument, "{}: unknown field '{}'; {}", where_, name.substr(0, 200),
         suggestion(name, known));
  }
}

template <>
bool JsonFields::convert<bool>(const Json& value, const std::string& path) {
  require(value.is_boolean(), "{}: expected true or false, got {}", path, json_excerpt(value));
  return value.get<bool>();
}

template <>
std::int64_t JsonFields::convert<std::int64_t>(const Json& value, const std::string& path) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    require(number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()),
            "{}: {} does not fit 63 bits", path, number);
    return static_cast<std::int64_t>(number);
  }
  require(value.is_number_integer(), "{}: expected an integer, got {}", path, json_excerpt(value));
  return value.get<std::int64_t>();
}

template <>
int JsonFields::convert<int>(const Json& value, const std::string& path) {
  const auto number = convert<std::int64_t>(value, path);
  require(number >= std::numeric_limits<int>::min() && number <= std::numeric_limits<int>::max(),
          "{}: {} is out of range", path, number);
  return static_cast<int>(number);
}

template <>
double JsonFields::convert<double>(const Json& value, const std::string& path) {
  require(value.is_number(), "{}: expected a number, got {}", path, json_excerpt(value));
  return value.get<double>();
}

template <>
std::string JsonFields::convert<std::string>(const Json& value, const std::string& path) {
  require(value.is_string(), "{}: expected a string, got {}", path, json_excerpt(value));
  return value.get<std::string>();
}

template <>
std::vector<std::string> JsonFields::convert<std::vector<std::string>>(const Json& value,
                                                                       const std::string& path) {
  require(value.is_array(), "{}: expected a list of strings, got {}", path, json_excerpt(value));
  std::vector<std::string> result;
  for (const Json& element : value) {
    result.push_back(convert<std::string>(element, fmt::format("{}[{}]", path, result.size())));
  }
  return result;
}

template <>
std::vector<std::int64_t> JsonFields::convert<std::vector<std::int64_t>>(const Json& value,
                                                                         const std::string& path) {
  require(value.is_array(), "{}: expected a list of integers, got {}", path, json_excerpt(value));
  std::vector<std::int64_t> result;
  for (const Json& element : value) {
    result.push_back(convert<std::int64_t>(element, fmt::format("{}[{}]", path, result.size())));
  }
  return result;
}

template <class T>
T in_range(T value, T low, T high, std::string_view path) {
  require(value >= low && value <= high, "{}: {} is out of range [{}, {}]", path, value, low, high);
  return value;
}

template int in_range<int>(int, int, int, std::string_view);
template std::int64_t in_range<std::int64_t>(std::int64_t, std::int64_t, std::int64_t,
                                             std::string_view);
template double in_range<double>(double, double, double, std::string_view);

}  // namespace moebench
