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
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * gpu::kWarp;
constexpr int kRows = 4;        // of a warp
constexpr int kMostTokens = 8;  // of a block

// 16 bytes of each row, and their scales.
struct Group {
  uint4 bytes[kRows];
  std::uint32_t scales[kRows];
};

template <Format kFormat>
MOEBENCH_DEVICE Group load_group(const gpu::EncodedRow (&rows)[kRows], int group) {
  using Weights = gpu::DeviceFormat<kFormat>;
  Group g;
  MOEBENCH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    g.bytes[r] = gpu::load_streaming(rows[r].data + group * std::int64_t{16});
    g.scales[r] = Weights::load_scale(rows[r], group * Weights::kValues);
  }
  return g;
}

// A group's columns are used 8 at a time (4 if there are no more).
template <Format kFormat>
constexpr int kPiece =
    gpu::DeviceFormat<kFormat>::kValues < 8 ? gpu::DeviceFormat<kFormat>::kValues : 8;

// Adds the products of one piece of a group to sums. `x` is at the tokens' rows, `column` the
// piece's first.
template <Format kFormat, int kTokens>
MOEBENCH_DEVICE void multiply_piece(const Group& group, int piece, const float* const (&x)[kTokens],
                                    int column, float (&sums)[kRows][kTokens]) {
  using Weights = gpu::DeviceFormat<kFormat>;
  constexpr int kInWord = Weights::kValues / 4;
  constexpr int kWords = kPiece<kFormat> / kInWord;
  float weights[kRows][kPiece<kFormat>];
  MOEBENCH_UNROLL
  for (int r = 0; r < kRows; ++r) {
    MOEBENCH_UNROLL
    for (int w = 0; w < kWords; ++w) {
      const int word = piece * kWords + w;
      float of_word[kInWord];
      Weights::decode_word(gpu::word_of(group.bytes[r], word),
                           Weights::scale_of(group.scales[r], word), of_word);
      MOEBENCH_UNROLL
      for (int i = 0; i < kInWord; ++i) weights[r][w * kInWord + i] = of_word[i];
    }
  }
  MOEBENCH_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    MOEBENCH_UNROLL
    for (int i = 0; i < kPiece<kFormat>; i += 4) {
      const float4 xs = *reinterpret_cast<const float4*>(x[t] + column + i);
      MOEBENCH_UNROLL
      for (int r = 0; r < kRows; ++r) {
        sums[r][t] += weights[r][i] * xs.x;
        sums[r][t] += weights[r][i + 1] * xs.y;
        sums[r][t] += weights[r][i + 2] * xs.z;
        sums[r][t] += weights[r][i + 3] * xs.w;
      }
    }
  }
}

template <Format kFormat, int kTokens>
MOEBENCH_DEVICE void multiply_group(const Group& group, const float* const (&x)[kTokens],
                                    int column, float (&sums)[kRows][kTokens]) {
  constexpr int kPieces = gpu::DeviceFormat<kFormat>::kValues / kPiece<kFormat>;
  if constexpr (kTokens < 4) {
    MOEBENCH_UNROLL
    for (int piece = 0; piece < kPieces; ++piece) {
      multiply_piece<kFormat>(group, piece, x, column + piece * kPiece<kFormat>, sums);
    }
  } else {
    MOEBENCH_NO_UNROLL  // or else more is decoded ahead than there are registers for
        for (int piece = 0; piece < kPieces; ++piece) {
      multiply_piece<kFormat>(group, piece, x, column + piece * kPiece<kFormat>, sums);
    }
  }
}

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
  Group next;
  if (group < groups) next = load_group<kFormat>(rows, group);
  gpu::let_next_kernel_start();
  gpu::wait_for_previous_kernel();
  for (; group < groups; group += stride) {
    const Group now = next;
    if (group + stride < groups) next = load_group<kFormat>(rows, group + stride);
    multiply_group<kFormat, kTokens>(now, tokens, group * Weights::kValues, sums);
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
  float sum = 0;
  for (int split = 0; split < splits; ++split) {
    sum += partial[r / kRows * splits + split][r % kRows][token - first_token];
  }
  sum *= Weights::row_factor(encoded_row(weight, row));
  if (bias != nullptr) sum += bias[row];
  out[static_cast<std::int64_t>(token) * weight.rows + row] = sum;
}

// Warps that share rows: the more the better, as long as every lane has at least two groups.
int choose_splits(int groups) {
  int splits = kWarps;
  while (splits > 1 && groups < 2 * gpu::kWarp * splits) splits /= 2;
  return splits;
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  const auto num_tokens = static_cast<int>(args.x.shape[0]);
  gpu::with_format(args.weight.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    const int splits = choose_splits(weight.cols / gpu::DeviceFormat<kFormat>::kValues);
    const int rows = kWarps / splits * kRows;
    const auto start = [&](auto* kernel, int tokens) {
      gpu::launch(kernel,
                  {.grid = {static_cast<unsigned>((weight.rows + rows - 1) / rows),
                            static_cast<unsigned>((num_tokens + tokens - 1) / tokens)},
                   .block = kThreads,
                   .stream = context.stream,
                   .overlap_previous = true},
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
