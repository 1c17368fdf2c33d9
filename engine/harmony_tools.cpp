// JSON schemas as types. Every quirk of spacing is the published renderer's: models were trained on
// its output. See shared/spec/harmony.md, section 5.
#include "engine/harmony_tools.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr int kMaxSchemaDepth = 64;  // recursion over untrusted input

const OrderedJson* find(const OrderedJson& schema, const char* name) {
  if (!schema.is_object()) return nullptr;
  const auto it = schema.find(name);
  return it == schema.end() ? nullptr : &*it;
}

// The following give nullptr unless the field is there and of that type: what a schema says wrongly
// is passed over, as the published renderer does.
const std::string* find_string(const OrderedJson& schema, const char* name) {
  const OrderedJson* value = find(schema, name);
  return value == nullptr ? nullptr : value->get_ptr<const std::string*>();
}

const OrderedJson* find_array(const OrderedJson& schema, const char* name) {
  const OrderedJson* value = find(schema, name);
  return value != nullptr && value->is_array() ? value : nullptr;
}

bool is_enum(const OrderedJson& schema) {
  const OrderedJson* values = find_array(schema, "enum");
  return values != nullptr && !values->empty();
}

// The strings of a list, others left out.
std::vector<std::string> strings_of(const OrderedJson* list) {
  std::vector<std::string> strings;
  if (list == nullptr) return strings;
  for (const OrderedJson& element : *list) {
    if (element.is_string()) strings.push_back(element.get<std::string>());
  }
  return strings;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  return fmt::format("{}", fmt::join(parts, separator));
}

std::string json_text(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

// "default: VALUE", or "" without one. Strings stand in plain quotes, those of an enum in none.
std::string default_text(const OrderedJson& schema) {
  const OrderedJson* value = find(schema, "default");
  if (value == nullptr) return "";
  if (!value->is_string()) return "default: " + json_text(*value);
  const char* quote = is_enum(schema) ? "" : "\"";
  return fmt::format("default: {}{}{}", quote, value->get_ref<const std::string&>(), quote);
}

// " // description default: VALUE", either of them or nothing.
std::string comment(const std::string* description, const std::string& default_value) {
  std::vector<std::string> parts;
  if (description != nullptr) parts.push_back(*description);
  if (!default_value.empty()) parts.push_back(default_value);
  return parts.empty() ? "" : " // " + join(parts, " ");
}

// In the following, `indent` is that of the lines of an object, and `depth` how many schemas are
// around this one.
std::string type_text(const OrderedJson& schema, const std::string& indent, int depth);

std::string nullable_type_text(const OrderedJson& schema, const std::string& indent, int depth) {
  std::string text = type_text(schema, indent, depth);
  const OrderedJson* nullable = find(schema, "nullable");
  const bool is_nullable = nullable != nullptr && *nullable == true;
  if (is_nullable && text.find("null") == std::string::npos) text += " | null";
  return text;
}

std::string string_text(const OrderedJson& schema) {
  std::vector<std::string> values = strings_of(find_array(schema, "enum"));
  for (std::string& value : values) value = fmt::format("\"{}\"", value);
  return values.empty() ? "string" : join(values, " | ");
}

// One of several types, where it is not that of a property.
std::string choice_text(const OrderedJson& variants, const std::string& indent, int depth) {
  std::string text;
  for (const OrderedJson& variant : variants) {
    std::string value = default_text(variant);
    // Here alone a default of an enum is quoted.
    if (is_enum(variant) && !value.empty())
      value = "default: " + json_text(*find(variant, "default"));
    text +=
        fmt::format("\n{} | {}{}", indent, nullable_type_text(variant, indent + "   ", depth + 1),
                    comment(find_string(variant, "description"), value));
  }
  return text;
}

// A property that is one of several types: the lines after its title and examples. A description
// stands above, and beside the types after the first unless it is the same; if that above and that
// of the first type are the same, neither is written.
std::string choice_property_text(const std::string& label, const OrderedJson& schema,
                                 const OrderedJson& variants, const std::string& indent,
                                 int depth) {
  std::string text;
  const std::string* above = find_string(schema, "description");
  const std::string* first =
      variants.empty() ? nullptr : find_string(variants.front(), "description");
  const bool is_shown_above = above != nullptr && (first == nullptr || *first != *above);
  if (is_shown_above) text += fmt::format("{}// {}\n", indent, *above);
  if (const std::string value = default_text(schema); !value.empty()) {
    text += fmt::format("{}// {}\n", indent, value);
  }
  text += fmt::format("{}{}:\n", indent, label);
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const std::string* description = find_string(variants[i], "description");
    const bool is_repeated = description != nullptr && above != nullptr && *description == *above;
    if (is_repeated || (i == 0 && is_shown_above)) description = nullptr;
    text += fmt::format("{} | {}{}\n", indent,
                        nullable_type_text(variants[i], indent + "   ", depth + 1),
                        comment(description, default_text(variants[i])));
  }
  return text + indent + ",\n";
}

// `label` is the name, with "?" if the property is optional.
std::string property_text(const std::string& label, const OrderedJson& schema,
                          const std::string& indent, int depth) {
  std::string text;
  if (const std::string* title = find_string(schema, "title")) {
    text += fmt::format("{0}// {1}\n{0}//\n", indent, *title);
  }
  const bool has_one_type = find(schema, "oneOf") == nullptr;
  const std::string* description = find_string(schema, "description");
  if (has_one_type && description != nullptr) {
    text += fmt::format("{}// {}\n", indent, *description);
  }
  const OrderedJson* examples = find_array(schema, "examples");
  if (examples != nullptr && !examples->empty()) {
    text += indent + "// Examples:\n";
    for (const std::string& example : strings_of(examples)) {
      text += fmt::format("{}// - \"{}\"\n", indent, example);
    }
  }
  if (const OrderedJson* variants = find_array(schema, "oneOf")) {
    return text + choice_property_text(label, schema, *variants, indent, depth);
  }
  const std::string value = has_one_type ? default_text(schema) : "";
  return text + fmt::format("{}{}: {},{}\n", indent, label,
                            nullable_type_text(schema, indent + "    ", depth + 1),
                            comment(nullptr, value));
}

std::string object_text(const OrderedJson& schema, const std::string& indent, int depth) {
  std::string text;
  if (const std::string* description = find_string(schema, "description")) {
    text += fmt::format("{}// {}\n", indent, *description);
  }
  text += "{\n";
  const std::vector<std::string> required = strings_of(find_array(schema, "required"));
  const OrderedJson* properties = find(schema, "properties");
  if (properties != nullptr && properties->is_object()) {
    for (const auto& [name, value] : properties->items()) {
      const bool is_required = std::find(required.begin(), required.end(), name) != required.end();
      text += property_text(name + (is_required ? "" : "?"), value, indent, depth);
    }
  }
  return text + indent + "}";
}

std::string type_text(const OrderedJson& schema, const std::string& indent, int depth) {
  require(depth <= kMaxSchemaDepth, "render a tool: its schema is nested deeper than {} levels",
          kMaxSchemaDepth);
  if (const OrderedJson* variants = find_array(schema, "oneOf")) {
    return choice_text(*variants, indent, depth);
  }
  if (const OrderedJson* list = find_array(schema, "type")) {
    std::vector<std::string> names = strings_of(list);
    std::replace(names.begin(), names.end(), std::string("integer"), std::string("number"));
    return names.empty() ? "any" : join(names, " | ");
  }
  const std::string* name = find_string(schema, "type");
  if (name == nullptr) return "any";
  if (*name == "object") return object_text(schema, indent, depth);
  if (*name == "string") return string_text(schema);
  if (*name == "number" || *name == "integer") return "number";
  if (*name == "boolean") return "boolean";
  if (*name != "array") return "any";
  const OrderedJson* items = find(schema, "items");
  return items == nullptr ? "Array<any>" : type_text(*items, indent, depth + 1) + "[]";
}

// The lines of a text without their line breaks; a break at the end starts no further line. They
// point into `text`.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
  }
  return lines;
}

std::string namespace_text(const std::string& name, const ToolNamespace& tools) {
  std::vector<std::string> lines = {fmt::format("## {}\n", name)};
  const char* comment = tools.tools.empty() ? "" : "// ";
  const std::string description = tools.description.value_or("");
  for (const std::string_view line : lines_of(description)) {
    lines.push_back(fmt::format("{}{}", comment, line));
  }
  if (tools.tools.empty()) return join(lines, "\n");

  lines.push_back(fmt::format("namespace {} {{\n", name));
  for (const ToolDescription& tool : tools.tools) {
    for (const std::string_view line : lines_of(tool.description)) {
      lines.push_back(fmt::format("// {}", line));
    }
    const std::string parameters =
        tool.parameters ? "_: " + type_text(*tool.parameters, "", 0) : "";
    lines.push_back(fmt::format("type {} = ({}) => any;\n", tool.name, parameters));
  }
  lines.push_back(fmt::format("}} // namespace {}", name));
  return join(lines, "\n");
}

}  // namespace

std::string tools_section(const ToolNamespaces& namespaces) {
  std::vector<std::string> sections = {"# Tools"};
  for (const auto& [name, tools] : namespaces) sections.push_back(namespace_text(name, tools));
  return join(sections, "\n\n");
}

}  // namespace moebench
