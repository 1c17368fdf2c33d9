// Families of variants, fastest first.
#include "engine/op_choice.h"

#include <span>

#include "kernels/core/error.h"

namespace moebench {
namespace {

// Names in order of preference: an op takes the first that it has and that can run. `moebench
// kernels verify` holds every one of them to its bound; `moebench kernels bench` is where the order
// comes from.
constexpr std::string_view kFast[] = {"avx2_int8", "avx2_f32", "one_pass", "portable_f32",
                                      "reference"};
constexpr std::string_view kAccurate[] = {"avx2_int15", "avx2_f32", "one_pass", "portable_f32",
                                          "reference"};
constexpr std::string_view kReference[] = {"reference"};

std::span<const std::string_view> names_of(OpFamily family) {
  switch (family) {
    case OpFamily::kFast:
      return kFast;
    case OpFamily::kAccurate:
      return kAccurate;
    case OpFamily::kReference:
      break;
  }
  return kReference;
}

// Empty, or why `variant` cannot run one of the problems that the model has for its op.
template <class V>
std::string cannot_run(const V& variant, const Plan& plan, const ModelConfig& config,
                       const WeightLayout& layout) {
  std::string reason;
  visit_problems(config, layout, plan, {1, 1, 1}, [&](std::string_view, auto, const auto& problem) {
    using Problem = std::remove_cvref_t<decltype(problem)>;
    if constexpr (std::is_same_v<Problem, typename V::Problem>) {
      if (reason.empty()) reason = variant.unsupported(problem);
    }
  });
  return reason;
}

// The variants of `op` that may run, in order of preference. Throws if there is none.
template <class V>
std::vector<const V*> choices(std::string_view op, std::span<const V* const> variants,
                              const Plan& plan, const ModelConfig& config,
                              const WeightLayout& layout) {
  const auto named = plan.ops.find(std::string(op));
  if (named != plan.ops.end()) {
    const V& variant = find_variant(variants, op, named->second);
    const std::string reason = cannot_run(variant, plan, config, layout);
    require_or(ErrorCode::kUnsupported, reason.empty(), "use variant '{}' of {}: {}", variant.name,
               op, reason);
    return {&variant};
  }
  std::vector<const V*> result;
  std::string reason;
  for (const std::string_view name : names_of(plan.family)) {
    for (const V* variant : variants) {
      if (variant->name != name) continue;
      const std::string why = cannot_run(*variant, plan, config, layout);
      if (why.empty()) result.push_back(variant);
      if (!why.empty()) reason = why;
    }
  }
  require_or(ErrorCode::kUnsupported, !result.empty(),
             "choose a variant of {}: none of plan '{}' can run this model: {}", op, plan.name,
             reason);
  return result;
}

}  // namespace

OpTable choose_ops(const Plan& plan, const ModelConfig& config, const WeightLayout& layout) {
  OpTable ops;
  for_each_op_member([&](std::string_view name, auto member, auto variants) {
    ops.*member = choices(name, variants, plan, config, layout).front();
  });
  return ops;
}

std::map<std::string, std::vector<std::string>> variants_to_choose_from(
    const Plan& plan, const ModelConfig& config, const WeightLayout& layout) {
  std::map<std::string, std::vector<std::string>> names;
  for_each_op_member([&](std::string_view op, auto, auto variants) {
    for (const auto* variant : choices(op, variants, plan, config, layout)) {
      names[std::string(op)].emplace_back(variant->name);
    }
  });
  return names;
}

OpTable with_variant(OpTable ops, std::string_view op, std::string_view variant) {
  for_each_op_member([&](std::string_view name, auto member, auto variants) {
    if (name == op) ops.*member = &find_variant(variants, op, variant);
  });
  return ops;
}

std::map<std::string, std::string> op_variant_names(const OpTable& ops) {
  std::map<std::string, std::string> names;
  for_each_op_member([&](std::string_view name, auto member, auto) {
    names[std::string(name)] = (ops.*member)->name;
  });
  return names;
}

}  // namespace moebench
