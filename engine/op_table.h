// The ops of the forward pass by name, and the variant a plan chose for each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/embedding/embedding.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/router/router.h"
#include "kernels/sample/sample.h"

namespace moebench {

struct OpTable {
  const embedding::Variant* embedding = &embedding::reference;
  const rms_norm::Variant* rms_norm = &rms_norm::reference;
  const linear::Variant* linear = &linear::reference;
  const rope::Variant* rope = &rope::reference;
  const kv_write::Variant* kv_write = &kv_write::reference;
  const attention::Variant* attention = &attention::reference;
  const router::Variant* router = &router::reference;
  const moe_experts::Variant* moe_experts = &moe_experts::reference;
  const sample::Variant* sample = &sample::reference;
  // The product of the router alone: follows `linear` on the CPU, and is as good as f32 on the GPU,
  // since a rounding there can change which experts run.
  const linear::Variant* router_linear = &linear::reference;
  // Whether variants may do what is before and after them on the way (Plan::fuses); and whether the
  // router and the experts may, which `fast` and `invariant` do without being asked.
  bool fuses = false;
  bool fuses_experts = false;
};

// What a model runs: steps of up to kFewTokens tokens (op_choice.h) take the first, as does the
// attention of tokens that are the only ones of their sequences.
struct OpTables {
  OpTable few, many;
};

// Calls visit(op_name, member of OpTable, variants) for each op.
template <class Visitor>
void for_each_op_member(Visitor&& visit) {
  visit("embedding", &OpTable::embedding, embedding::variants());
  visit("rms_norm", &OpTable::rms_norm, rms_norm::variants());
  visit("linear", &OpTable::linear, linear::variants());
  visit("rope", &OpTable::rope, rope::variants());
  visit("kv_write", &OpTable::kv_write, kv_write::variants());
  visit("attention", &OpTable::attention, attention::variants());
  visit("router", &OpTable::router, router::variants());
  visit("moe_experts", &OpTable::moe_experts, moe_experts::variants());
  visit("sample", &OpTable::sample, sample::variants());
}

// Calls visit(op_name, variants) for each op.
template <class Visitor>
void for_each_op(Visitor&& visit) {
  for_each_op_member([&](std::string_view name, auto, auto variants) { visit(name, variants); });
}

inline std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for_each_op([&](std::string_view name, auto) { names.emplace_back(name); });
  return names;
}

}  // namespace moebench
