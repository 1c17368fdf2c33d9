// cuda_rows_f32: for few tokens, where a linear layer is as fast as its weight can be read.
//
// A warp takes 4 rows: its lanes read 16 bytes of each at a time, the next ones before they use
// these, and add up products for up to 8 tokens while they have the decoded weights. Several warps
// share 4 rows, each taking its part of the columns in turns: so that there are enough blocks, and
// loads, for the whole GPU even if there are few rows. Their sums are added in order. x comes
// through the first-level cache, where the warps of a multiprocessor share it.
//
// Exact in f32 but for the order of the sum, which depends on the columns and the format alone, not
// on the batch.
#include "kernels/formats/f32_groups.cuh"
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kWarps = gpu::kMostSplits;
constexpr int kThreads = kWarps * gpu::kWarp;
constexpr int kRows = 4;        // of a warp
constexpr int kMostTokens = 8;  // of a block

// Block (rows, tokens): kWarps / splits times kRows rows.
template <Format kFormat, int kTokens>
__global__ void MOEBENCH_BOUNDS(kThreads, kTokens < 4 ? 4 : 3)
    multiply_rows(const float* x, Weight weight, const float* bias, float* out, int num_tokens,
                  int splits) {
  using Weights = gpu::DeviceFormat<kFormat>;
  MOEBENCH_SHARED(float, partial, [kWarps][kRows][kTokens]);
  const int warp = gpu::warp_id();
  const int first_row = static_cast<int>(blockIdx.x) * (kWarps / splits) * kRows;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  gpu::EncodedRow rows[kRows];  // beyond the last row: the last again
  MOEBENCH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const int row = first_row + warp / splits * kRows + r;
    rows[r] = encoded_row(weight, row < weight.rows ? row : weight.rows - 1);
  }
  const float* tokens[kTokens];
  MOEBENCH_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const int token = first_token + t;
    tokens[t] =
        x + static_cast<std::int64_t>(token < num_tokens ? token : num_tokens - 1) * weight.cols;
  }
  float sums[kRows][kTokens] = {};
  const int groups = weight.cols / Weights::kValues;
  const int stride = splits * gpu::kWarp;
  int group = warp % splits * gpu::kWarp + gpu::lane_id();
  gpu::RowGroup<kRows> next;
  if (group < groups) next = gpu::load_group<kFormat>(rows, group);
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  for (; group < groups; group += stride) {
    const gpu::RowGroup<kRows> now = next;
    if (group + stride < groups) next = gpu::load_group<kFormat>(rows, group + stride);
    gpu::multiply_group<kFormat>(now, tokens, group * Weights::kValues, sums);
  }
  MOEBENCH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    MOEBENCH_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const float sum = gpu::warp_sum(sums[r][t]);
      if (gpu::lane_id() == 0) partial[warp][r][t] = sum;
    }
  }
  gpu::sync_threads();
  const int r = static_cast<int>(threadIdx.x) / kTokens;
  const int token = first_token + static_cast<int>(threadIdx.x) % kTokens;
  const int row = first_row + r;
  if (r >= kWarps / splits * kRows || row >= weight.rows || token >= num_tokens) return;
  out[static_cast<std::int64_t>(token) * weight.rows + row] = gpu::finish_row<kFormat>(
      splits,
      [&](int split) {
        return partial[r / kRows * splits + split][r % kRows][token - first_token];
      },
      encoded_row(weight, row), bias == nullptr ? nullptr : bias + row);
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  const auto num_tokens = static_cast<int>(args.x.shape[0]);
  gpu::with_format(args.weight.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    const int splits = gpu::column_splits(weight.cols / gpu::DeviceFormat<kFormat>::kValues);
    const int rows = kWarps / splits * kRows;
    const auto start = [&](auto* kernel, int tokens) {
      gpu::launch(kernel,
                  {.grid = {static_cast<unsigned>((weight.rows + rows - 1) / rows),
                            static_cast<unsigned>((num_tokens + tokens - 1) / tokens)},
                   .block = kThreads,
                   .stream = context.stream,
                   .overlap_previous = true,
                   .shared_percent = gpu::shared_percent_beside_streams(num_tokens)},
                  "linear/cuda_rows_f32", args.x.data, weight, args.bias.data, args.out.data,
                  num_tokens, splits);
    };
    if (num_tokens == 1) return start(multiply_rows<kFormat, 1>, 1);
    if (num_tokens == 2) return start(multiply_rows<kFormat, 2>, 2);
    if (num_tokens <= 4) return start(multiply_rows<kFormat, 4>, 4);
    start(multiply_rows<kFormat, kMostTokens>, kMostTokens);
  });
}

}  // namespace

const Variant cuda_rows_f32 = {
    .name = "cuda_rows_f32",
    .backend = "cuda",
    .summary = "warps stream weight rows, 4 at a time, for up to 8 tokens",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported =
        [](const Problem& problem) {
          const std::string reason = gpu::unavailable();
          return reason.empty() ? groups_unsupported(problem) : reason;
        },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::linear
