// cuda_tiled_f32: the plain one. A block computes a tile of 64 tokens by 64 rows: x and decoded
// weights pass through shared memory 32 columns at a time, and a thread adds up 4 x 4 outputs.
//
// Each output is one sum over columns in order: it does not depend on the batch.
#include "kernels/linear/weight.cuh"

namespace moebench::linear {
namespace {

constexpr int kTile = 64;  // tokens, and rows, of a block
constexpr int kCols = 32;  // columns that are in shared memory
constexpr int kThreads = 256;
constexpr int kMine = 4;                // tokens, and rows, of a thread
constexpr int kStride = kTile + 4;      // floats between columns: rows of 16 bytes, fewer conflicts
constexpr int kAcross = kTile / kMine;  // threads in each direction

bool is_float(Format format) {
  return format == Format::kF32 || format == Format::kBf16 || format == Format::kF16;
}

// Any element of a format without scales.
template <Format kFormat>
MOEBENCH_DEVICE float element(const gpu::EncodedRow& row, int column) {
  if constexpr (kFormat == Format::kF32) {
    return reinterpret_cast<const float*>(row.data)[column];
  } else {
    const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(row.data)[column];
    return kFormat == Format::kBf16 ? gpu::bf16_to_float(bits) : gpu::f16_to_float(bits);
  }
}

// kWholeGroups: columns are a multiple of 32. Threads next to each other take different rows, so
// that they write to different banks.
template <Format kFormat, bool kWholeGroups>
MOEBENCH_DEVICE void decode_tile(const Weight& weight, int first_row, int first_column,
                                 float (&tile)[kCols][kStride]) {
  constexpr int kValues = kWholeGroups ? gpu::DeviceFormat<kFormat>::kValues : 1;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kCols / kValues; i += kThreads) {
    const int r = i % kTile;
    const int c = i / kTile * kValues;
    const int column = first_column + c;
    float values[kValues] = {};
    if (first_row + r < weight.rows && column < weight.cols) {
      const gpu::EncodedRow row = encoded_row(weight, first_row + r);
      if constexpr (kWholeGroups) {
        const uint4 bytes = gpu::load_streaming(row.data + column / kValues * std::int64_t{16});
        gpu::DeviceFormat<kFormat>::decode(bytes, column, row, values);
      } else {
        values[0] = element<kFormat>(row, column);
      }
    }
    MOEBENCH_UNROLL
    for (int v = 0; v < kValues; ++v) tile[c + v][r] = values[v];
  }
}

// Block (row tile, token tile).
template <Format kFormat, bool kWholeGroups>
__global__ void MOEBENCH_BOUNDS(kThreads)
    multiply_tile(const float* x, Weight weight, const float* bias, float* out, int num_tokens) {
  MOEBENCH_SHARED(float, x_tile, [kCols][kStride]);
  MOEBENCH_SHARED(float, weight_tile, [kCols][kStride]);
  const int first_row = static_cast<int>(blockIdx.x) * kTile;
  const int first_token = static_cast<int>(blockIdx.y) * kTile;
  const int my_row = static_cast<int>(threadIdx.x) % kAcross * kMine;
  const int my_token = static_cast<int>(threadIdx.x) / kAcross * kMine;
  float sums[kMine][kMine] = {};  // [token][row]
  for (int first_column = 0; first_column < weight.cols; first_column += kCols) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kCols; i += kThreads) {
      const int token = first_token + i / kCols;
      const int column = first_column + i % kCols;
      x_tile[i % kCols][i / kCols] =
          token < num_tokens && column < weight.cols
              ? x[static_cast<std::int64_t>(token) * weight.cols + column]
              : 0.0F;
    }
    decode_tile<kFormat, kWholeGroups>(weight, first_row, first_column, weight_tile);
    gpu::sync_threads();
    MOEBENCH_UNROLL
    for (int c = 0; c < kCols; ++c) {
      const float4 xs = *reinterpret_cast<const float4*>(&x_tile[c][my_token]);
      const float4 ws = *reinterpret_cast<const float4*>(&weight_tile[c][my_row]);
      const float token_values[kMine] = {xs.x, xs.y, xs.z, xs.w};
      const float row_values[kMine] = {ws.x, ws.y, ws.z, ws.w};
      MOEBENCH_UNROLL
      for (int t = 0; t < kMine; ++t) {
        MOEBENCH_UNROLL
        for (int r = 0; r < kMine; ++r) sums[t][r] += token_values[t] * row_values[r];
      }
    }
    gpu::sync_threads();  // the tiles are overwritten next
  }
  MOEBENCH_UNROLL
  for (int t = 0; t < kMine; ++t) {
    const int token = first_token + my_token + t;
    if (token >= num_tokens) break;
    MOEBENCH_UNROLL
    for (int r = 0; r < kMine; ++r) {
      const int row = first_row + my_row + r;
      if (row >= weight.rows) break;
      out[static_cast<std::int64_t>(token) * weight.rows + row] =
          sums[t][r] + (bias != nullptr ? bias[row] : 0.0F);
    }
  }
}

std::string unsupported(const Problem& problem) {
  std::string reason = gpu::unavailable();
  if (!reason.empty()) return reason;
  return is_float(problem.format) ? sizes_unsupported(problem) : groups_unsupported(problem);
}

void run(const Args& args, Context& context) {
  const Weight weight = device_weight(args.weight);
  const auto num_tokens = static_cast<int>(args.x.shape[0]);
  const auto tiles = [](int count) { return static_cast<unsigned>((count + kTile - 1) / kTile); };
  const auto start = [&](auto* kernel) {
    gpu::launch(kernel,
                {.grid = {tiles(weight.rows), tiles(num_tokens)},
                 .block = kThreads,
                 .stream = context.stream},
                "linear/cuda_tiled_f32", args.x.data, weight, args.bias.data, args.out.data,
                num_tokens);
  };
  gpu::with_format(args.weight.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    if constexpr (kFormat == Format::kF32 || kFormat == Format::kBf16 || kFormat == Format::kF16) {
      if (weight.cols % 32 != 0) return start(multiply_tile<kFormat, false>);
    }
    start(multiply_tile<kFormat, true>);
  });
}

}  // namespace

const Variant cuda_tiled_f32 = {
    .name = "cuda_tiled_f32",
    .backend = "cuda",
    .summary = "tiles of 64 tokens by 64 rows in shared memory, every weight decoded to f32",
    .rounds = "activations: f32, accumulate: f32",
    .max_nmse = [](const Problem&) { return 1e-11; },
    .unsupported = unsupported,
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_LINEAR_CUDA_VARIANTS)

}  // namespace moebench::linear
