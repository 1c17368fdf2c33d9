// reference: the codecs, row by row.
#include <algorithm>
#include <cmath>

#include "kernels/core/thread_pool.h"
#include "kernels/encode/encode.h"

namespace moebench::encode {
namespace {

struct Scratch {
  Sums* row_sums;  // [rows]: added in their order, whatever the number of threads
  float* values;   // [num_threads, 2, cols]
};

Scratch take_scratch(Workspace& workspace, std::int64_t rows, std::int64_t cols, int num_threads) {
  return {workspace.take<Sums>(rows), workspace.take<float>(num_threads * 2 * cols)};
}

Sums encode_row(const Args& args, std::int64_t row, float* values, float* decoded) {
  const std::int64_t cols = args.from.cols;
  args.from.decode_row(row, values);
  Sums sums;
  for (std::int64_t i = 0; i < cols; ++i) {
    if (!std::isfinite(values[i])) {
      ++sums.non_finite;
      continue;
    }
    const auto value = static_cast<double>(values[i]);
    sums.signal += value * value;
    sums.largest = std::max(sums.largest, std::fabs(value));
  }
  if (args.data == nullptr || sums.non_finite > 0) return sums;
  const Codec& c = codec(args.to);
  const auto at = static_cast<std::size_t>(row);
  std::byte* data = args.data + at * c.row_data_bytes(cols);
  std::byte* scales = args.scales + at * c.row_scale_bytes(cols);
  c.encode_row(values, cols, args.tensor_scale, data, scales);
  c.decode_row(data, scales, args.tensor_scale, cols, decoded);
  for (std::int64_t i = 0; i < cols; ++i) {
    if (!std::isfinite(decoded[i])) {
      ++sums.non_finite;
      continue;
    }
    const double difference = static_cast<double>(decoded[i]) - static_cast<double>(values[i]);
    sums.noise += difference * difference;
    sums.max_abs = std::max(sums.max_abs, std::fabs(difference));
  }
  return sums;
}

void run(const Args& args, Context& context) {
  const std::int64_t rows = args.from.rows;
  const std::int64_t cols = args.from.cols;
  Workspace workspace(context.workspace);
  const Scratch scratch = take_scratch(workspace, rows, cols, context.pool.num_threads());
  context.pool.parallel_for(rows, 16, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* values = scratch.values + thread * 2 * cols;
    for (std::int64_t r = begin; r < end; ++r) {
      scratch.row_sums[r] = encode_row(args, r, values, values + cols);
    }
  });
  *args.sums = {};
  for (std::int64_t r = 0; r < rows; ++r) {
    const Sums& row = scratch.row_sums[r];
    args.sums->signal += row.signal;
    args.sums->noise += row.noise;
    args.sums->max_abs = std::max(args.sums->max_abs, row.max_abs);
    args.sums->largest = std::max(args.sums->largest, row.largest);
    args.sums->non_finite += row.non_finite;
  }
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "the codecs, row by row",
    .rounds = "to the format; sums: f64",
    .max_nmse = [](const Problem&) { return 0.0; },
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = [](const Problem& problem) -> std::string {
      const std::int64_t block = std::max(codec(problem.from).block, codec(problem.to).block);
      return problem.cols % block == 0
                 ? ""
                 : fmt::format("{} columns are not a multiple of {}", problem.cols, block);
    },
    .workspace_bytes =
        [](const Problem& problem, int num_threads) {
          Workspace workspace;
          take_scratch(workspace, problem.rows, problem.cols, num_threads);
          return workspace.used();
        },
    .run = run,
};

}  // namespace moebench::encode
