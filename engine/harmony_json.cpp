// Reading conversations from JSON, and the names of roles and efforts as they stand there and in
// prompts.
#include <array>
#include <utility>

#include "engine/harmony.h"
#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

// By the value of the enumerator.
const std::array<std::string, 5> kRoleNames = {"system", "developer", "user", "assistant", "tool"};
const std::array<std::string, 3> kEffortNames = {"low", "medium", "high"};

template <std::size_t size>
std::optional<std::size_t> index_of(const std::array<std::string, size>& names,
                                    std::string_view name) {
  for (std::size_t i = 0; i < size; ++i) {
    if (names[i] == name) return i;
  }
  return std::nullopt;
}

Role required_role(JsonFields& fields) {
  const auto name = fields.required<std::string>("role");
  const auto role = role_from_name(name);
  require(role.has_value(), "{}: unknown role '{}'; {}", fields.path("role"), name.substr(0, 100),
          suggestion(name, kRoleNames));
  return *role;
}

// Absent: `value` stays. null: nothing.
void read_nullable(JsonFields& fields, std::string_view name, std::optional<std::string>& value) {
  const Json* given = fields.find(name);
  if (given == nullptr) return;
  value.reset();
  if (!given->is_null()) value = fields.required<std::string>(name);
}

// JsonFields reads objects with sorted fields, but the properties of a schema are printed in the
// order of the file. So fields are read from a sorted copy, and `parameters` is taken from
// `ordered`.
ToolDescription read_tool(const OrderedJson& ordered, const std::string& path) {
  const Json sorted = ordered;
  JsonFields fields(sorted, path);
  ToolDescription tool;
  tool.name = fields.required<std::string>("name");
  tool.description = fields.optional<std::string>("description", "");
  const Json* parameters = fields.find("parameters");
  fields.finish();
  if (parameters != nullptr && !parameters->is_null()) {
    require(parameters->is_object(), "{}: expected a JSON schema, got {}",
            fields.path("parameters"), json_excerpt(*parameters));
    tool.parameters = ordered.at("parameters");
  }
  return tool;
}

ToolNamespace read_namespace(const std::string& name, const OrderedJson& ordered,
                             const std::string& path) {
  const Json sorted = ordered;
  JsonFields fields(sorted, path);
  const auto repeated_name = fields.optional<std::string>("name", name);
  require(repeated_name == name, "{}: '{}' differs from the key '{}'", fields.path("name"),
          repeated_name.substr(0, 100), name.substr(0, 100));
  ToolNamespace result;
  read_nullable(fields, "description", result.description);
  const Json* tools = fields.find("tools");
  fields.finish();
  if (tools == nullptr || tools->is_null()) return result;
  require(tools->is_array(), "{}: expected a list, got {}", fields.path("tools"),
          json_excerpt(*tools));
  for (const OrderedJson& tool : ordered.at("tools")) {
    result.tools.push_back(
        read_tool(tool, fmt::format("{}[{}]", fields.path("tools"), result.tools.size())));
  }
  return result;
}

// The field "tools" of `ordered`, by namespace.
ToolNamespaces read_tools(JsonFields& fields, const OrderedJson& ordered) {
  ToolNamespaces namespaces;
  const Json* tools = fields.find("tools");
  if (tools == nullptr || tools->is_null()) return namespaces;
  const std::string path = fields.path("tools");
  require(tools->is_object(), "{}: expected an object of namespaces, got {}", path,
          json_excerpt(*tools));
  for (const auto& [name, value] : ordered.at("tools").items()) {
    namespaces.emplace(name, read_namespace(name, value, fmt::format("{}.{}", path, name)));
  }
  return namespaces;
}

void read_channel_config(JsonFields& fields, std::optional<ChannelConfig>& config) {
  const Json* given = fields.find("channel_config");
  if (given == nullptr) return;
  config.reset();
  if (given->is_null()) return;
  JsonFields inner(*given, fields.path("channel_config"));
  config = ChannelConfig{inner.required<std::vector<std::string>>("valid_channels"),
                         inner.required<bool>("channel_required")};
  inner.finish();
}

SystemContent read_system(JsonFields& fields, const OrderedJson& ordered) {
  SystemContent content;
  read_nullable(fields, "model_identity", content.model_identity);
  read_nullable(fields, "knowledge_cutoff", content.knowledge_cutoff);
  read_nullable(fields, "conversation_start_date", content.conversation_start_date);
  std::optional<std::string> effort(effort_name(*content.reasoning_effort));
  read_nullable(fields, "reasoning_effort", effort);
  content.reasoning_effort.reset();
  if (effort) content.reasoning_effort = effort_from_name(*effort, fields.path("reasoning_effort"));
  content.tools = read_tools(fields, ordered);
  read_channel_config(fields, content.channel_config);
  return content;
}

Content read_part(const OrderedJson& ordered, const std::string& path) {
  const Json sorted = ordered;
  JsonFields fields(sorted, path);
  const auto type = fields.required<std::string>("type");
  Content content;
  if (type == "text") {
    content = fields.required<std::string>("text");
  } else if (type == "system") {
    content = read_system(fields, ordered);
  } else if (type == "developer") {
    DeveloperContent developer;
    read_nullable(fields, "instructions", developer.instructions);
    developer.tools = read_tools(fields, ordered);
    content = std::move(developer);
  } else {
    static const std::array<std::string, 3> kTypes = {"text", "system", "developer"};
    fail(ErrorCode::kInvalidArgument, "{}: unknown type '{}'; {}", fields.path("type"),
         type.substr(0, 100), suggestion(type, kTypes));
  }
  fields.finish();
  return content;
}

Message read_message(const OrderedJson& ordered, const std::string& path) {
  const Json sorted = ordered;
  JsonFields fields(sorted, path);
  Message message;
  message.role = required_role(fields);
  message.name = fields.optional<std::string>("name", "");
  message.recipient = fields.optional<std::string>("recipient", "");
  message.channel = fields.optional<std::string>("channel", "");
  message.content_type = fields.optional<std::string>("content_type", "");
  const Json* content = fields.find("content");
  fields.finish();
  require(content != nullptr && (content->is_string() || content->is_array()),
          "{}: expected a string or a list of parts, got {}", fields.path("content"),
          content == nullptr ? "nothing" : json_excerpt(*content));
  if (content->is_string()) {
    message.content = {content->get<std::string>()};
    return message;
  }
  for (const OrderedJson& part : ordered.at("content")) {
    message.content.push_back(
        read_part(part, fmt::format("{}[{}]", fields.path("content"), message.content.size())));
  }
  return message;
}

}  // namespace

std::string_view role_name(Role role) { return kRoleNames[static_cast<std::size_t>(role)]; }

std::optional<Role> role_from_name(std::string_view name) {
  const auto index = index_of(kRoleNames, name);
  if (!index) return std::nullopt;
  return static_cast<Role>(*index);
}

std::string_view effort_name(ReasoningEffort effort) {
  return kEffortNames[static_cast<std::size_t>(effort)];
}

ReasoningEffort effort_from_name(std::string_view name, std::string_view where) {
  const auto index = index_of(kEffortNames, name);
  require(index.has_value(), "{}: unknown reasoning effort '{}'; {}", where, name.substr(0, 100),
          suggestion(name, kEffortNames));
  return static_cast<ReasoningEffort>(*index);
}

Message text_message(Role role, std::string text, std::string channel) {
  Message message;
  message.role = role;
  message.channel = std::move(channel);
  message.content.emplace_back(std::move(text));
  return message;
}

Message system_message(ReasoningEffort effort) {
  SystemContent content;
  content.reasoning_effort = effort;
  Message message;
  message.role = Role::kSystem;
  message.content.emplace_back(std::move(content));
  return message;
}

std::string message_text(const Message& message) {
  std::string text;
  for (const Content& part : message.content) {
    if (const auto* plain = std::get_if<std::string>(&part)) text += *plain;
  }
  return text;
}

Conversation conversation_from_json(const OrderedJson& messages, std::string_view where) {
  require(messages.is_array(), "{}: expected a list of messages", where);
  Conversation conversation;
  for (const OrderedJson& message : messages) {
    conversation.push_back(
        read_message(message, fmt::format("{}: messages[{}]", where, conversation.size())));
  }
  return conversation;
}

Conversation parse_conversation(std::string_view text, std::string_view where) {
  const Json checked = parse_json(text, where);  // refuses deep nesting and doubled fields
  const OrderedJson ordered = OrderedJson::parse(text);
  if (!checked.is_object()) return conversation_from_json(ordered, where);
  JsonFields fields(checked, std::string(where));
  require(fields.has("messages"), "{}: the field is missing", fields.path("messages"));
  fields.finish();
  return conversation_from_json(ordered.at("messages"), where);
}

}  // namespace moebench
