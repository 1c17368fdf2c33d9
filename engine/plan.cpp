// Plans from words and from JSON.
#include "engine/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>

#include "engine/op_table.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

struct FormatChoice {
  std::string_view name;
  std::optional<Format> Plan::*format;
};
constexpr std::array<FormatChoice, 4> kFormatChoices = {{{"experts", &Plan::experts},
                                                         {"attention", &Plan::attention},
                                                         {"embedding", &Plan::embedding},
                                                         {"unembedding", &Plan::unembedding}}};

constexpr std::array<std::string_view, 4> kFamilyNames = {"reference", "accurate", "fast",
                                                          "invariant"};
constexpr std::array<std::string_view, 2> kBackendNames = {"cpu", "cuda"};
constexpr std::string_view kCudaPrefix = "cuda_";

OpFamily parse_family(std::string_view name) {
  return static_cast<OpFamily>(index_of_name(kFamilyNames, name, "read a plan", "family of ops"));
}

PlanBackend parse_backend(std::string_view name) {
  return static_cast<PlanBackend>(index_of_name(kBackendNames, name, "read a plan", "backend"));
}

void set_op(Plan& plan, const std::string& op, const std::string& variant) {
  bool known = false;
  for_each_op([&](std::string_view name, auto variants) {
    if (name != op) return;
    known = true;
    for (const bool many : {false, true}) {
      find_variant(variants, name, variant_for(variant, many));  // throws with the nearest name
    }
  });
  const std::vector<std::string> names = op_names();
  require(known, "choose a variant: no op '{}'; {}", op, suggestion(op, names));
  plan.ops[op] = variant;
}

// Whether `text` begins with the name of a variant of `op`, if there is such an op.
bool names_variant(std::string_view op, std::string_view text) {
  bool known = false;
  for_each_op([&](std::string_view name, auto variants) {
    if (name != op) return;
    known = std::any_of(variants.begin(), variants.end(), [&](const auto* variant) {
      return variant->name == variant_for(text, false);
    });
  });
  return known;
}

// One `key=value` of the short spelling.
void set_word(Plan& plan, const std::string& key, const std::string& value) {
  for (const FormatChoice& group : kFormatChoices) {
    if (group.name != key) continue;
    if (names_variant(key, value)) break;  // attention is the name of weights and of an op
    plan.*group.format = value == "stored" ? std::nullopt : std::optional(parse_format(value));
    return;
  }
  if (key == "kv") {
    plan.kv = parse_format(value);
    return;
  }
  if (key == "ops") {
    plan.family = parse_family(value);
    return;
  }
  if (key == "backend") {
    plan.backend = parse_backend(value);
    return;
  }
  if (key == "fuse" || key == "overlap") {
    require(value == "yes" || value == "no", "read a plan: {} is yes or no, not '{}'", key, value);
    (key == "fuse" ? plan.fuses : plan.overlaps) = value == "yes";
    return;
  }
  std::vector<std::string> known = op_names();
  const bool is_op = std::find(known.begin(), known.end(), key) != known.end();
  if (!is_op) {
    for (const FormatChoice& group : kFormatChoices) known.emplace_back(group.name);
    known.emplace_back("kv");
    known.emplace_back("ops");
    known.emplace_back("backend");
    known.emplace_back("fuse");
    known.emplace_back("overlap");
    fail(ErrorCode::kInvalidArgument, "read a plan: no weight group or op '{}'; {}", key,
         suggestion(key, known));
  }
  set_op(plan, key, value);
}

}  // namespace

std::string_view op_family_name(OpFamily family) {
  return kFamilyNames[static_cast<std::size_t>(family)];
}

std::string_view backend_name(PlanBackend backend) {
  return kBackendNames[static_cast<std::size_t>(backend)];
}

std::string_view variant_for(std::string_view named, bool many_tokens) {
  const std::size_t plus = named.find('+');
  if (plus == std::string_view::npos) return named;
  return many_tokens ? named.substr(plus + 1) : named.substr(0, plus);
}

std::string Plan::variant_of(std::string_view op) const {
  const auto it = ops.find(std::string(op));
  return it == ops.end() ? std::string(op_family_name(family)) : it->second;
}

std::string Plan::canonical_text() const {
  std::string text;
  for (const FormatChoice& group : kFormatChoices) {
    const auto& format = this->*group.format;
    text += fmt::format("{}={},", group.name, format ? format_name(*format) : "stored");
  }
  text += fmt::format("kv={}", format_name(kv));
  if (backend != PlanBackend::kCpu) text += fmt::format(",backend={}", backend_name(backend));
  for (const std::string& op : op_names()) {
    // An op that came later: without it, the ids of cases stay what they were.
    if (op == "sample" && !ops.contains(op)) continue;
    text += fmt::format(",{}={}", op, variant_of(op));
  }
  if (tunes) text += ",tune";
  if (fuses) text += ",fuse";
  if (!overlaps) text += ",no overlap";
  return text;
}

std::string Plan::describe() const {
  std::vector<std::string> parts;
  for (const FormatChoice& group : kFormatChoices) {
    const auto& format = this->*group.format;
    if (format) parts.push_back(fmt::format("{} {}", group.name, format_name(*format)));
  }
  if (kv != Format::kF32) parts.push_back(fmt::format("cache {}", format_name(kv)));
  if (parts.empty()) parts.emplace_back("as stored");
  const bool on_gpu = backend == PlanBackend::kCuda;
  parts.push_back(fmt::format("{} ops{}", op_family_name(family), on_gpu ? " on the GPU" : ""));
  for (const auto& [op, variant] : ops) {
    if (variant != op_family_name(family)) parts.push_back(fmt::format("{} by {}", op, variant));
  }
  if (fuses) parts.emplace_back("several in one launch");
  if (!overlaps) parts.emplace_back("one step at a time");
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::vector<std::string> builtin_plan_names() {
  std::vector<std::string> names(kFamilyNames.begin(), kFamilyNames.end());
  for (const Codec* c : codecs()) names.emplace_back(c->name);
  std::vector<std::string> all = names;
  all.emplace_back(backend_name(PlanBackend::kCuda));
  for (const std::string& name : names) all.push_back(std::string(kCudaPrefix) + name);
  return all;
}

Plan parse_plan(std::string_view text) {
  Plan plan;
  plan.name = std::string(text);
  plan.family = OpFamily::kFast;
  if (text.find('=') == std::string_view::npos) {
    const std::vector<std::string> known = builtin_plan_names();
    require(std::find(known.begin(), known.end(), text) != known.end(),
            "read a plan: no plan '{}'; {}; or group=format,... as in experts=int4,kv=bf16", text,
            suggestion(text, known));
    if (text == backend_name(PlanBackend::kCuda)) {
      plan.backend = PlanBackend::kCuda;
      return plan;
    }
    if (text.substr(0, kCudaPrefix.size()) == kCudaPrefix) {
      plan.backend = PlanBackend::kCuda;
      text.remove_prefix(kCudaPrefix.size());
    }
    if (std::find(kFamilyNames.begin(), kFamilyNames.end(), text) != kFamilyNames.end()) {
      plan.family = parse_family(text);
    } else {
      plan.experts = parse_format(text);
    }
    return plan;
  }
  std::set<std::string_view> chosen;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    const std::size_t equals = word.find('=');
    require(equals != std::string_view::npos, "read a plan: '{}' is not of the form group=format",
            word);
    require(chosen.insert(word.substr(0, equals)).second, "read a plan: '{}' is chosen twice",
            word.substr(0, equals));
    set_word(plan, std::string(word.substr(0, equals)), std::string(word.substr(equals + 1)));
    begin = end + 1;
  }
  return plan;
}

Json plan_to_json(const Plan& plan) {
  Json json = {{"name", plan.name}, {"kv", format_name(plan.kv)}};
  if (plan.backend != PlanBackend::kCpu) json["backend"] = backend_name(plan.backend);
  for (const FormatChoice& group : kFormatChoices) {
    const auto& format = plan.*group.format;
    if (format) json[std::string(group.name)] = format_name(*format);
  }
  json["ops"] = plan.ops;
  json["ops"]["default"] = op_family_name(plan.family);
  if (plan.tunes) json["tune"] = true;
  if (plan.fuses) json["fuse"] = true;
  if (!plan.overlaps) json["overlap"] = false;
  return json;
}

Plan plan_from_json(const Json& json, const std::string& where) {
  if (json.is_string()) return parse_plan(json.get<std::string>());
  JsonFields fields(json, where);
  Plan plan;
  plan.family = OpFamily::kFast;
  plan.name = fields.required<std::string>("name");
  // Room for the short spelling of every choice, which is a plan's name if it has no other.
  constexpr std::size_t kLongestName = 1000;
  require(!plan.name.empty() && plan.name.size() <= kLongestName,
          "{}: a name has 1 to {} characters", fields.path("name"), kLongestName);
  for (const FormatChoice& group : kFormatChoices) {
    const auto format = fields.optional<std::string>(group.name, "stored");
    set_word(plan, std::string(group.name), format);
  }
  plan.kv = parse_format(fields.optional<std::string>("kv", "f32"));
  plan.backend = parse_backend(fields.optional<std::string>("backend", "cpu"));
  plan.tunes = fields.optional<bool>("tune", false);
  plan.fuses = fields.optional<bool>("fuse", false);
  plan.overlaps = fields.optional<bool>("overlap", true);
  if (const Json* ops = fields.find("ops")) {
    require(ops->is_object(), "{}: expected an object of op: variant", fields.path("ops"));
    JsonFields chosen(*ops, fields.path("ops"));
    for (const auto& [op, variant] : ops->items()) {
      if (op == "default") {
        plan.family = parse_family(chosen.required<std::string>(op));
        continue;
      }
      set_op(plan, op, chosen.required<std::string>(op));
    }
  }
  fields.finish();
  return plan;
}

}  // namespace moebench
