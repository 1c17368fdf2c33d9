// Suites from JSON.
#include "bench/suite.h"

#include <algorithm>
#include <set>

#include "engine/mapped_file.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/resources.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

// Lists in a workload or task mean "each of these": {"kind": "decode", "batch": [1, 8]} is two
// scenarios. Returns the cross product of all list-valued fields.
std::vector<Json> expand_lists(const Json& object, const std::string& where) {
  require(object.is_object(), "{}: expected an object, got {}", where, json_excerpt(object));
  std::vector<Json> expanded = {Json::object()};
  for (const auto& [name, value] : object.items()) {
    std::vector<Json> next;
    const bool is_list = value.is_array();
    require(!is_list || !value.empty(), "{}.{}: the list is empty", where, name);
    for (const Json& partial : expanded) {
      for (std::size_t i = 0; i < (is_list ? value.size() : 1); ++i) {
        Json with = partial;
        with[name] = is_list ? value[i] : value;
        next.push_back(std::move(with));
      }
    }
    require(next.size() <= 10000, "{}: the lists multiply to more than 10000 cases", where);
    expanded = std::move(next);
  }
  return expanded;
}

// Appends the scenarios of one section: "workloads" name their kind, others imply it.
void read_section(JsonFields& fields, std::string_view section, std::string_view implied_kind,
                  std::vector<Scenario>& scenarios) {
  const Json* list = fields.find(section);
  if (list == nullptr) return;
  require(list->is_array(), "{}: expected a list, got {}", fields.path(section),
          json_excerpt(*list));
  for (std::size_t i = 0; i < list->size(); ++i) {
    const std::string where = fmt::format("{}[{}]", fields.path(section), i);
    for (Json& one : expand_lists((*list)[i], where)) {
      if (!implied_kind.empty()) {
        require(!one.contains("kind"), "{}: 'kind' does not belong here", where);
        one["kind"] = implied_kind;
      }
      scenarios.push_back(scenario_from_json(one, where));
    }
  }
}

// Follows one dotted path; "*" fans out over a list.
void set_path(Json& json, std::string_view path, std::string_view whole, const Json& value) {
  const std::size_t dot = path.find('.');
  const std::string key(path.substr(0, dot));
  const bool last = dot == std::string_view::npos;
  const std::string_view rest = last ? std::string_view() : path.substr(dot + 1);
  if (json.is_array()) {
    const bool all = key == "*";
    std::size_t index = 0;
    if (!all) {
      require(!key.empty() && key.size() < 6 &&
                  key.find_first_not_of("0123456789") == std::string::npos &&
                  (index = std::stoul(key)) < json.size(),
              "set {}: '{}' is not an index below {} or *", whole, key, json.size());
    }
    for (std::size_t i = all ? 0 : index; i < (all ? json.size() : index + 1); ++i) {
      if (last) {
        json[i] = value;
      } else {
        set_path(json[i], rest, whole, value);
      }
    }
    return;
  }
  require(json.is_object() && !key.empty(), "set {}: there is nothing named '{}' to go into", whole,
          key);
  if (last) {
    json[key] = value;
    return;
  }
  std::vector<std::string> known;
  for (const auto& [name, ignored] : json.items()) known.push_back(name);
  require(json.contains(key), "set {}: there is no '{}'; {}", whole, key, suggestion(key, known));
  set_path(json[key], rest, whole, value);
}

void apply_setting(Json& json, const std::string& setting) {
  const std::size_t equals = setting.find('=');
  require(equals != std::string::npos && equals > 0, "set '{}': expected key=value", setting);
  const std::string text = setting.substr(equals + 1);
  // A value that is not JSON is a plain string: --set models.0=nano.
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) value = text;
  set_path(json, std::string_view(setting).substr(0, equals), setting, value);
}

}  // namespace

std::string Case::label() const {
  return fmt::format("{} / {}", plan.name, scenario_label(scenario));
}

Suite parse_suite(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  Suite suite;
  suite.name = fields.required<std::string>("name");
  require(
      !suite.name.empty() && suite.name.size() <= 100 && suite.name.find('/') == std::string::npos,
      "{}: '{}' is not a name (1 to 100 characters, no slash)", fields.path("name"),
      suite.name.substr(0, 100));
  suite.description = fields.optional<std::string>("description", "");
  suite.models = fields.required<std::vector<std::string>>("models");
  require(!suite.models.empty(), "{}: the list is empty", fields.path("models"));
  const Json* plans = fields.find("plans");
  require(plans != nullptr && plans->is_array() && !plans->empty(),
          "{}: expected a list of at least one plan", fields.path("plans"));
  std::set<std::string> names;
  for (std::size_t i = 0; i < plans->size(); ++i) {
    const std::string place = fmt::format("{}[{}]", fields.path("plans"), i);
    suite.plans.push_back(plan_from_json((*plans)[i], place));
    require(names.insert(suite.plans.back().name).second, "{}: the plan '{}' stood before", place,
            suite.plans.back().name);
  }
  suite.threads = in_range(fields.optional<int>("threads", 0), 0, 1024, fields.path("threads"));
  suite.timeout_s =
      in_range<std::int64_t>(fields.optional<std::int64_t>("timeout_s", suite.timeout_s), 1,
                             1 << 30, fields.path("timeout_s"));
  EngineOptions& engine = suite.engine;
  engine.max_batch =
      in_range<std::int64_t>(fields.optional<std::int64_t>("max_batch", engine.max_batch), 1, 4096,
                             fields.path("max_batch"));
  engine.max_context = in_range<std::int64_t>(fields.optional<std::int64_t>("max_context", 0), 0,
                                              std::int64_t{1} << 32, fields.path("max_context"));
  engine.step_tokens =
      in_range<std::int64_t>(fields.optional<std::int64_t>("step_tokens", engine.step_tokens), 0,
                             1 << 20, fields.path("step_tokens"));
  suite.scenarios.emplace_back(LoadScenario{});
  read_section(fields, "workloads", "", suite.scenarios);
  read_section(fields, "tasks", "task", suite.scenarios);
  read_section(fields, "probes", "", suite.scenarios);
  fields.finish();
  return suite;
}

Suite load_suite(const std::filesystem::path& path, const std::vector<std::string>& settings) {
  std::filesystem::path file = path;
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored) && path.filename() == path && !path.has_extension()) {
    file = find_resource(fmt::format("bench/suites/{}.json", path.string()));
  }
  constexpr std::size_t kMaxSuiteBytes = 16 << 20;
  Json json = parse_json(read_text_file(file, kMaxSuiteBytes), file.string());
  for (const std::string& setting : settings) apply_setting(json, setting);
  return parse_suite(json, file.string());
}

std::vector<Case> expand_suite(const Suite& suite) {
  std::vector<Case> cases;
  std::set<std::string> ids;
  for (const std::string& model : suite.models) {
    for (const Plan& plan : suite.plans) {
      for (const Scenario& scenario : suite.scenarios) {
        if (const auto* fidelity = std::get_if<FidelityScenario>(&scenario)) {
          const Plan against = parse_plan(fidelity->against);
          if (against.canonical_text() == plan.canonical_text()) continue;
        }
        const OrderedJson identity = {{"model", model},
                                      {"plan", plan.canonical_text()},
                                      {"name", plan.name},
                                      {"scenario", scenario_to_json(scenario)},
                                      {"max_batch", suite.engine.max_batch},
                                      {"max_context", suite.engine.max_context},
                                      {"step_tokens", suite.engine.step_tokens}};
        Case one{hash_hex(content_hash(
                     identity.dump(-1, ' ', false, OrderedJson::error_handler_t::replace))),
                 model, plan, scenario};
        if (ids.insert(one.id).second) cases.push_back(std::move(one));
      }
    }
  }
  return cases;
}

}  // namespace moebench
