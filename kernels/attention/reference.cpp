// reference: scores of all visible positions, one softmax (sums in float64), then the weighted sum,
// always in the order of positions, so that decoding and prefill give the same bits.
#include <algorithm>
#include <cmath>

#include "kernels/attention/attention.h"
#include "kernels/core/dot.h"
#include "kernels/core/thread_pool.h"

namespace moebench::attention {
namespace {

struct Scratch {
  float* vector;   // [head_dim]: one decoded key or value
  float* weights;  // [group, max_context]
  std::int64_t stride;
};

std::int64_t scratch_floats(std::int64_t head_dim, std::int64_t group, std::int64_t max_context) {
  return (head_dim + group * max_context + 15) / 16 * 16;
}

std::size_t workspace_bytes(const Problem& problem, int num_threads) {
  Workspace workspace;
  workspace.take<float>(scratch_floats(problem.head_dim, problem.num_heads / problem.num_kv_heads,
                                       problem.max_context) *
                        num_threads);
  return workspace.used();
}

// All query heads that share `kv_head`, for one token.
void attend(const Args& args, std::int64_t token, std::int64_t kv_head, float* scratch) {
  const KvLayerView& kv = args.kv;
  const std::int64_t group = args.queries.shape[1] / kv.num_kv_heads;
  const std::int64_t position = args.places.position[token];
  const std::int64_t first =
      args.window > 0 ? std::max<std::int64_t>(0, position - args.window + 1) : 0;
  const std::int64_t count = position - first + 1;
  const auto pages = args.places.page_tables[args.places.sequence[token]];
  const auto cached_row = [&](std::byte* base, std::int64_t j) {
    const std::int32_t page = pages[j / kv.page_size];
    return kv.row(base, page, j % kv.page_size, kv_head);
  };

  float* vector = scratch;
  float* weights = scratch + kv.head_dim;
  for (std::int64_t j = 0; j < count; ++j) {
    kv.decode(cached_row(kv.keys, first + j), vector);
    for (std::int64_t g = 0; g < group; ++g) {
      const float* query = args.queries[token][kv_head * group + g].data;
      weights[g * count + j] = dot(query, vector, kv.head_dim) * args.scale;
    }
  }
  for (std::int64_t g = 0; g < group; ++g) {
    float* row = weights + g * count;
    float largest = *std::max_element(row, row + count);
    double sum = 0;
    if (args.sinks.data != nullptr) {
      const float sink = args.sinks[kv_head * group + g];
      largest = std::max(largest, sink);
      sum = static_cast<double>(std::exp(sink - largest));
    }
    for (std::int64_t j = 0; j < count; ++j) {
      row[j] = std::exp(row[j] - largest);
      sum += static_cast<double>(row[j]);
    }
    const auto scale = static_cast<float>(1.0 / sum);
    for (std::int64_t j = 0; j < count; ++j) row[j] *= scale;
    float* out = args.out[token][kv_head * group + g].data;
    std::fill(out, out + kv.head_dim, 0.0F);
  }
  for (std::int64_t j = 0; j < count; ++j) {
    kv.decode(cached_row(kv.values, first + j), vector);
    for (std::int64_t g = 0; g < group; ++g) {
      const float weight = weights[g * count + j];
      float* out = args.out[token][kv_head * group + g].data;
      for (std::int64_t d = 0; d < kv.head_dim; ++d) out[d] += weight * vector[d];
    }
  }
}

void run(const Args& args, Context& context) {
  const std::int64_t num_kv_heads = args.kv.num_kv_heads;
  const std::int64_t floats =
      scratch_floats(args.kv.head_dim, args.queries.shape[1] / num_kv_heads, args.max_context);
  Workspace workspace(context.workspace);
  float* scratch = workspace.take<float>(floats * context.pool.num_threads());
  context.pool.parallel_for(args.queries.shape[0] * num_kv_heads, 1,
                            [&](std::int64_t begin, std::int64_t end, int thread) {
                              for (std::int64_t item = begin; item < end; ++item) {
                                attend(args, item / num_kv_heads, item % num_kv_heads,
                                       scratch + floats * thread);
                              }
                            });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "scores, one softmax, weighted sum, in the order of positions",
    .rounds = "activations: f32, softmax sums: f64",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = [](const Problem& problem) -> std::string {
      return problem.num_kv_heads > 0 && problem.num_heads % problem.num_kv_heads == 0
                 ? ""
                 : "num_heads must be a multiple of num_kv_heads";
    },
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace moebench::attention
