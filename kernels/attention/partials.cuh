// What is known of a token's splits of the context between two kernels: one finds it, one joins it.
#pragma once

#include <algorithm>

#include "kernels/core/context.h"
#include "kernels/core/gpu.cuh"

namespace moebench::attention {
namespace {

// Of [token of a round, head, split that it sees]; scores are in powers of two.
struct Partials {
  float* sums;    // [.., head_dim], of values times weights
  float2* stats;  // the largest score (or what weights are seen from), the sum of weights
  int most_splits;
};

// More tokens than fill this are taken in several rounds.
constexpr std::int64_t kMostPartialBytes = std::int64_t{128} << 20;

// Of `split` positions each, beginning at multiples of that, as many as a token can see.
inline std::int64_t most_splits(std::int64_t window, std::int64_t max_context, std::int64_t split) {
  const std::int64_t all = (max_context + split - 1) / split;
  return window > 0 ? std::min(all, (window + split - 2) / split + 1) : all;
}
inline std::int64_t round_tokens(std::int64_t num_tokens, std::int64_t num_heads,
                                 std::int64_t head_dim, std::int64_t splits) {
  const std::int64_t bytes = num_heads * splits * (head_dim + 2) * std::int64_t{sizeof(float)};
  return std::clamp<std::int64_t>(kMostPartialBytes / bytes, 1, num_tokens);
}
inline Partials take_partials(Workspace& workspace, std::int64_t tokens, std::int64_t num_heads,
                              std::int64_t head_dim, std::int64_t splits) {
  const std::int64_t count = tokens * num_heads * splits;
  float* sums = workspace.take<float>(count * head_dim);
  return {sums, workspace.take<float2>(count), static_cast<int>(splits)};
}

// For any round of such tokens, of contexts with up to `splits`: shorter ones may have more tokens
// a round, and take more of kMostPartialBytes.
inline std::size_t partials_bytes(std::int64_t num_tokens, std::int64_t num_heads,
                                  std::int64_t head_dim, std::int64_t splits) {
  const auto bytes_of = [&](std::int64_t tokens, std::int64_t of_token) {
    Workspace workspace;
    take_partials(workspace, tokens, num_heads, head_dim, of_token);
    return workspace.used();
  };
  const std::int64_t tokens = round_tokens(num_tokens, num_heads, head_dim, splits);
  if (tokens == num_tokens) return bytes_of(tokens, splits);
  // As if they were one token's.
  const std::int64_t all =
      kMostPartialBytes / (num_heads * (head_dim + 2) * std::int64_t{sizeof(float)});
  return std::max(bytes_of(tokens, splits), bytes_of(1, all));
}

}  // namespace
}  // namespace moebench::attention
