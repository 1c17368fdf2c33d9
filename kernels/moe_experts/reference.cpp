// reference: tokens grouped by expert, so that each touched weight row is decoded once; every
// (token, slot) pair is then computed alone, and slots are summed in router order.
#include <algorithm>
#include <cmath>

#include "kernels/core/dot.h"
#include "kernels/core/thread_pool.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/moe_experts/routing.h"

namespace moebench::moe_experts {
namespace {

std::int64_t row_stride(std::int64_t cols) { return (cols + 15) / 16 * 16; }

struct Scratch {
  ExpertGroups groups;
  float* activated;  // [num_pairs, intermediate_size]
  float* projected;  // [num_pairs, hidden_size]
  float* rows;       // [num_threads, 2, row_stride(max(hidden_size, intermediate_size))]
};

Scratch take_scratch(Workspace& workspace, std::int64_t num_pairs, std::int64_t hidden_size,
                     std::int64_t intermediate_size, std::int64_t num_experts, int num_threads) {
  return {take_expert_groups(workspace, num_pairs, num_experts),
          workspace.take<float>(num_pairs * intermediate_size),
          workspace.take<float>(num_pairs * hidden_size),
          workspace.take<float>(2 * row_stride(std::max(hidden_size, intermediate_size)) *
                                num_threads)};
}

std::size_t workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  take_scratch(workspace, problem.num_tokens * problem.top_k, problem.hidden_size,
               problem.intermediate_size, problem.num_experts, num_threads);
  return workspace.used();
}

float swiglu(float gate, float up, float alpha, float limit) {
  const float g = std::min(gate, limit);
  const float c = std::clamp(up, -limit, limit);
  return g / (1.0F + std::exp(-alpha * g)) * (c + 1.0F);
}

void run(const Args& args, Context& context) {
  const std::int64_t num_tokens = args.x.shape[0];
  const std::int64_t hidden_size = args.x.shape[1];
  const std::int64_t intermediate_size = args.down.cols;
  const std::int64_t num_experts = args.gate_up.count;
  const std::int64_t top_k = args.expert_ids.shape[1];
  Workspace workspace(context.workspace);
  Scratch scratch = take_scratch(workspace, num_tokens * top_k, hidden_size, intermediate_size,
                                 num_experts, context.pool.num_threads());
  const std::int64_t stride = row_stride(std::max(hidden_size, intermediate_size));
  ExpertGroups& groups = scratch.groups;
  group_by_expert(args.expert_ids, num_experts, groups);

  // First matrix and activation: one work item per (touched expert, intermediate feature).
  context.pool.parallel_for(
      groups.num_touched * intermediate_size, 16,
      [&](std::int64_t begin, std::int64_t end, int thread) {
        float* gate_row = scratch.rows + 2 * stride * thread;
        float* up_row = gate_row + stride;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t e = groups.touched[item / intermediate_size];
          const std::int64_t i = item % intermediate_size;
          const MatrixView weight = args.gate_up[e];
          weight.decode_row(2 * i, gate_row);
          weight.decode_row(2 * i + 1, up_row);
          for (std::int64_t p = groups.begin[e]; p < groups.begin[e + 1]; ++p) {
            const std::int64_t pair = groups.pairs[p];
            const float* x = args.x[pair / top_k].data;
            const float gate = dot(gate_row, x, hidden_size) + args.gate_up_bias[e][2 * i];
            const float up = dot(up_row, x, hidden_size) + args.gate_up_bias[e][2 * i + 1];
            scratch.activated[pair * intermediate_size + i] =
                swiglu(gate, up, args.swiglu_alpha, args.swiglu_limit);
          }
        }
      });

  // Second matrix: one work item per (touched expert, hidden feature).
  context.pool.parallel_for(
      groups.num_touched * hidden_size, 16, [&](std::int64_t begin, std::int64_t end, int thread) {
        float* row = scratch.rows + 2 * stride * thread;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t e = groups.touched[item / hidden_size];
          const std::int64_t r = item % hidden_size;
          args.down[e].decode_row(r, row);
          for (std::int64_t p = groups.begin[e]; p < groups.begin[e + 1]; ++p) {
            const std::int64_t pair = groups.pairs[p];
            const float* activated = scratch.activated + pair * intermediate_size;
            scratch.projected[pair * hidden_size + r] =
                dot(row, activated, intermediate_size) + args.down_bias[e][r];
          }
        }
      });

  context.pool.parallel_for(num_tokens, 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* out = args.out[t].data;
      std::fill(out, out + hidden_size, 0.0F);
      for (std::int64_t k = 0; k < top_k; ++k) {
        const float weight = args.expert_weights[t][k];
        const float* y = scratch.projected + (t * top_k + k) * hidden_size;
        for (std::int64_t r = 0; r < hidden_size; ++r) out[r] += weight * y[r];
      }
    }
  });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "tokens grouped by expert, each weight row decoded to f32 once",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = [](const Problem&) { return std::string(); },
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::moe_experts
