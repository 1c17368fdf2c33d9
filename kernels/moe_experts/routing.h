// Which (token, slot) pairs go to which expert: the inverse of the router's table.
#pragma once

#include <cstdint>

#include "kernels/core/context.h"
#include "kernels/core/view.h"

namespace moebench::moe_experts {

// Pairs are numbered token * top_k + slot. Within an expert they stay in that order.
struct ExpertGroups {
  std::int32_t* pairs = nullptr;    // [num_tokens * top_k], grouped by expert
  std::int64_t* begin = nullptr;    // [num_experts + 1]: expert e owns pairs[begin[e], begin[e+1])
  std::int32_t* touched = nullptr;  // [num_touched], experts with at least one pair, ascending
  std::int64_t num_touched = 0;
};

inline ExpertGroups take_expert_groups(Workspace& workspace, std::int64_t num_pairs,
                                       std::int64_t num_experts) {
  return {workspace.take<std::int32_t>(num_pairs), workspace.take<std::int64_t>(num_experts + 1),
          workspace.take<std::int32_t>(num_experts), 0};
}

// Counting sort of `expert_ids` [num_tokens, top_k] into `groups`.
inline void group_by_expert(View<const std::int32_t, 2> expert_ids, std::int64_t num_experts,
                            ExpertGroups& groups) {
  const std::int64_t num_pairs = expert_ids.size();
  for (std::int64_t e = 0; e <= num_experts; ++e) groups.begin[e] = 0;
  for (std::int64_t p = 0; p < num_pairs; ++p) ++groups.begin[expert_ids.data[p] + 1];
  groups.num_touched = 0;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    if (groups.begin[e + 1] > 0) {
      groups.touched[groups.num_touched++] = static_cast<std::int32_t>(e);
    }
    groups.begin[e + 1] += groups.begin[e];
  }
  // Filling moves each begin[e] to its end, which is begin[e + 1]; so shift by one afterwards.
  for (std::int64_t p = 0; p < num_pairs; ++p) {
    groups.pairs[groups.begin[expert_ids.data[p]]++] = static_cast<std::int32_t>(p);
  }
  for (std::int64_t e = num_experts; e > 0; --e) groups.begin[e] = groups.begin[e - 1];
  groups.begin[0] = 0;
}

}  // namespace moebench::moe_experts
