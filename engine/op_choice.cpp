// Families of variants, fastest first.
#include "engine/op_choice.h"

#include <span>

#include "kernels/core/device.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

// Names in order of preference: an op takes the first that it has and that can run, and
// `--autotune` the fastest. `moebench kernels verify` holds every one of them to its bound;
// `moebench kernels bench` is where the order comes from.
constexpr std::string_view kFast[] = {"avx2_int8", "avx2_f32", "one_pass", "portable_f32",
                                      "reference"};
constexpr std::string_view kAccurate[] = {"avx2_int15", "avx2_f32", "one_pass", "portable_f32",
                                          "reference"};
constexpr std::string_view kReference[] = {"reference"};

// On the GPU: the plain variants; those in f32; those that stream weights once for few tokens; and
// those that multiply tiles for many.
constexpr std::string_view kCudaReference[] = {
    "cuda_tiled_f32",   "cuda_per_token_f32", "cuda_plain_f32", "cuda_rows",
    "cuda_elementwise", "cuda_warp",          "cuda_block",     "cuda_radix"};
constexpr std::string_view kCudaAccurate[] = {
    "cuda_rows_f32", "cuda_split_kv", "cuda_tiled_f32",   "cuda_per_token_f32", "cuda_plain_f32",
    "cuda_rows",     "cuda_warp",     "cuda_elementwise", "cuda_block",         "cuda_radix"};
constexpr std::string_view kCudaFew[] = {"cuda_one_launch_bf16",
                                         "cuda_one_launch_routed_bf16",
                                         "cuda_one_launch_stream_int8",
                                         "cuda_one_launch_blocks_fp8",
                                         "cuda_one_launch_readers_int8",
                                         "cuda_one_launch_fp8",
                                         "cuda_digits_fp8",
                                         "cuda_decode_stream_mma",
                                         "cuda_direct_bf16",
                                         "cuda_folded_fp8",
                                         "cuda_decode",
                                         "cuda_stream_bf16",
                                         "cuda_rows_bf16",
                                         "cuda_wgmma_rows_bf16",
                                         "cuda_fused_bf16",
                                         "cuda_grouped_registers_bf16",
                                         "cuda_decode_mma",
                                         "cuda_split_kv",
                                         "cuda_flash_splits_mma",
                                         "cuda_tiled_f32",
                                         "cuda_per_token_f32",
                                         "cuda_plain_f32",
                                         "cuda_rows",
                                         "cuda_elementwise",
                                         "cuda_cluster",
                                         "cuda_warp",
                                         "cuda_block",
                                         "cuda_radix"};
constexpr std::string_view kCudaMany[] = {"cuda_cublaslt",
                                          "cuda_wgmma_bf16",
                                          "cuda_grouped_fp8",
                                          "cuda_grouped_ahead_fp8",
                                          "cuda_grouped_folded_32_fp8",
                                          "cuda_grouped_registers_bf16",
                                          "cuda_grouped_wgmma_bf16",
                                          "cuda_mma_bf16",
                                          "cuda_grouped_mma_bf16",
                                          "cuda_flash_wgmma",
                                          "cuda_flash_mma",
                                          "cuda_rows_bf16",
                                          "cuda_fused_bf16",
                                          "cuda_split_kv",
                                          "cuda_tiled_f32",
                                          "cuda_per_token_f32",
                                          "cuda_plain_f32",
                                          "cuda_rows",
                                          "cuda_elementwise",
                                          "cuda_warp",
                                          "cuda_block",
                                          "cuda_radix"};
// The same for any number of tokens, with the same bits: those that are fast for prompts and for
// decoding, then those that are for decoding.
constexpr std::string_view kCudaInvariant[] = {"cuda_chain_bf16",
                                               "cuda_flash_splits_mma",
                                               "cuda_one_launch_chunks_fp8",
                                               "cuda_grouped_chunks_fp8",
                                               "cuda_grouped_blocks_fp8",
                                               "cuda_direct_bf16",
                                               "cuda_stream_bf16",
                                               "cuda_rows_bf16",
                                               "cuda_fused_bf16",
                                               "cuda_decode_mma",
                                               "cuda_split_kv",
                                               "cuda_tiled_f32",
                                               "cuda_per_token_f32",
                                               "cuda_plain_f32",
                                               "cuda_rows",
                                               "cuda_elementwise",
                                               "cuda_cluster",
                                               "cuda_warp",
                                               "cuda_block",
                                               "cuda_radix"};
constexpr std::string_view kCudaRouterMany = "cuda_two_parts_bf16";
constexpr std::string_view kCudaAccurateMany[] = {
    "cuda_tiled_f32", "cuda_per_token_f32", "cuda_split_kv", "cuda_plain_f32", "cuda_rows",
    "cuda_warp",      "cuda_elementwise",   "cuda_block",    "cuda_radix"};

std::span<const std::string_view> names_of(const Plan& plan, bool many) {
  const bool cuda = plan.backend == PlanBackend::kCuda;
  using Names = std::span<const std::string_view>;
  switch (plan.family) {
    case OpFamily::kFast:
      if (!cuda) return kFast;
      return many ? Names(kCudaMany) : Names(kCudaFew);
    case OpFamily::kInvariant:  // every CPU variant keeps a token's bits in any company
      return cuda ? Names(kCudaInvariant) : Names(kFast);
    case OpFamily::kAccurate:
      return !cuda ? Names(kAccurate) : many ? Names(kCudaAccurateMany) : Names(kCudaAccurate);
    case OpFamily::kReference:
      break;
  }
  return cuda ? Names(kCudaReference) : Names(kReference);
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
                              const WeightLayout& layout, bool many_tokens) {
  const std::string_view backend = backend_name(plan.backend);
  const auto named = plan.ops.find(std::string(op));
  if (named != plan.ops.end()) {
    const V& variant = find_variant(variants, op, variant_for(named->second, many_tokens));
    const std::string reason =
        variant.backend == backend
            ? cannot_run(variant, plan, config, layout)
            : fmt::format("it runs on {}, and the plan on {}", variant.backend, backend);
    require_or(ErrorCode::kUnsupported, reason.empty(), "use variant '{}' of {}: {}", variant.name,
               op, reason);
    return {&variant};
  }
  std::vector<const V*> result;
  std::string reason = plan.backend == PlanBackend::kCuda ? gpu::unavailable() : "";
  for (const std::string_view name : names_of(plan, many_tokens)) {
    for (const V* variant : variants) {
      if (variant->name != name || variant->backend != backend) continue;
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

// The router's product of many tokens under `fast`: as good as f32 for choosing experts. Null if it
// cannot run one of the model's.
const linear::Variant* fast_router_product(const Plan& plan, const ModelConfig& config,
                                           const WeightLayout& layout) {
  for (const linear::Variant* variant : linear::variants()) {
    if (variant->name != kCudaRouterMany) continue;
    bool runs = true;
    visit_problems(
        config, layout, plan, {1, 1, 1}, [&](std::string_view, auto member, const auto& problem) {
          if constexpr (std::is_same_v<decltype(member), linear::Variant const * OpTable::*>) {
            if (member == &OpTable::router_linear) {
              runs = runs && variant->unsupported(problem).empty();
            }
          }
        });
    return runs ? variant : nullptr;
  }
  return nullptr;
}

}  // namespace

OpTable choose_ops(const Plan& plan, const ModelConfig& config, const WeightLayout& layout,
                   bool many_tokens) {
  OpTable ops;
  ops.fuses = plan.fuses;
  ops.fuses_experts =
      plan.fuses || plan.family == OpFamily::kFast || plan.family == OpFamily::kInvariant;
  for_each_op_member([&](std::string_view name, auto member, auto variants) {
    ops.*member = choices(name, variants, plan, config, layout, many_tokens).front();
  });
  ops.router_linear = ops.linear;
  if (plan.backend == PlanBackend::kCuda) {
    Plan accurate = plan;
    accurate.family = OpFamily::kAccurate;
    accurate.ops.erase("linear");
    ops.router_linear =
        choices("linear", linear::variants(), accurate, config, layout, false).front();
    if (plan.family == OpFamily::kFast && many_tokens) {
      const linear::Variant* fast = fast_router_product(plan, config, layout);
      if (fast != nullptr) ops.router_linear = fast;
    }
  }
  return ops;
}

OpTable reference_ops(const Plan& plan, const ModelConfig& config, const WeightLayout& layout) {
  Plan plain = plan;
  plain.family = OpFamily::kReference;
  plain.ops.clear();
  return choose_ops(plain, config, layout, false);
}

OpCandidates variants_to_choose_from(const Plan& plan, const ModelConfig& config,
                                     const WeightLayout& layout, bool many_tokens) {
  OpCandidates names;
  for_each_op_member([&](std::string_view op, auto, auto variants) {
    for (const auto* variant : choices(op, variants, plan, config, layout, many_tokens)) {
      names[std::string(op)].emplace_back(variant->name);
    }
  });
  return names;
}

OpTable with_variant(OpTable ops, std::string_view op, std::string_view variant) {
  for_each_op_member([&](std::string_view name, auto member, auto variants) {
    if (name == op) ops.*member = &find_variant(variants, op, variant);
  });
  if (op == "linear" && ops.linear->backend == "cpu") ops.router_linear = ops.linear;
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
