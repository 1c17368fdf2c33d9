// One plan per part.
#include "evals/attribution.h"

#include <algorithm>

#include "engine/op_choice.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

struct Part {
  std::string name;
  Plan plan;
};

std::vector<Part> parts_of(const Plan& reference, const Plan& plan,
                           const std::map<std::string, std::string>& reference_ops,
                           const std::map<std::string, std::string>& ops) {
  std::vector<Part> parts;
  const auto add = [&](std::string name, const auto& change) {
    Part part{std::move(name), reference};
    part.plan.name = part.name;
    change(part.plan);
    parts.push_back(std::move(part));
  };
  struct Group {
    const char* name;
    std::optional<Format> Plan::*format;
  };
  for (const auto& [name, format] : {Group{"experts", &Plan::experts},
                                     {"attention", &Plan::attention},
                                     {"embedding", &Plan::embedding},
                                     {"unembedding", &Plan::unembedding}}) {
    if (plan.*format == reference.*format) continue;
    const std::string text =
        plan.*format ? std::string(format_name(*(plan.*format))) : std::string("as stored");
    add(fmt::format("{} {}", name, text),
        [&, member = format](Plan& p) { p.*member = plan.*member; });
  }
  if (plan.kv != reference.kv) {
    add(fmt::format("cache {}", format_name(plan.kv)), [&](Plan& p) { p.kv = plan.kv; });
  }
  for (const auto& named : ops) {
    const auto before = reference_ops.find(named.first);
    if (before != reference_ops.end() && before->second == named.second) continue;
    add(fmt::format("{} {}", named.first, named.second),
        [&](Plan& p) { p.ops[named.first] = named.second; });
  }
  return parts;
}

}  // namespace

std::vector<Attribution> attribute_divergence(const std::filesystem::path& model,
                                              const Plan& reference_plan, Engine& reference,
                                              const Plan& plan, const Engine& engine,
                                              const EngineOptions& options, ThreadPool& pool,
                                              const std::vector<Trace>& traces) {
  require(reference_plan.backend == plan.backend,
          "attribute a divergence: '{}' is for {}, '{}' for {}; parts of one cannot run in the "
          "other",
          reference_plan.name, backend_name(reference_plan.backend), plan.name,
          backend_name(plan.backend));
  std::vector<Attribution> found;
  for (const Part& part :
       parts_of(reference_plan, plan, op_variant_names(reference.weights->layout.ops),
                op_variant_names(engine.weights->layout.ops))) {
    Attribution one;
    one.part = part.name;
    try {
      Engine swapped = load_engine(model, part.plan, options, pool);
      const FidelityResult result = compare_fidelity(reference, swapped, traces);
      one.mean_kl = result.mean_kl;
      one.top1_agreement = result.top1_agreement.mean;
      one.router_flip_rate = result.router_flip_rate;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupported && error.code() != ErrorCode::kInvalidArgument) {
        throw;
      }
      one.reason = error.what();
    }
    found.push_back(std::move(one));
  }
  std::stable_sort(found.begin(), found.end(), [](const Attribution& a, const Attribution& b) {
    if (a.reason.empty() != b.reason.empty()) return a.reason.empty();
    return a.mean_kl.mean > b.mean_kl.mean;
  });
  return found;
}

}  // namespace moebench
