// cuda_rows: a thread decodes 16 bytes of a row.
//
// Nothing is computed but the decoding, so that a gather of f32 rows (a table of angles by
// position) is an embedding too. Its rows may have any number of columns: where they are not whole
// groups of 16 bytes, a thread copies one number.
#include "kernels/core/gpu.cuh"
#include "kernels/embedding/embedding.h"
#include "kernels/formats/device_decode.cuh"

namespace moebench::embedding {
namespace {

constexpr int kThreads = 128;

struct Table {
  const unsigned char* data;
  const unsigned char* scales;
  std::int64_t row_data;  // bytes
  std::int64_t row_scales;
  float tensor_scale;
};

__device__ std::int64_t row_of(std::int32_t token, const std::int32_t* drawn) {
  return token < 0 ? drawn[-1 - token] : token;
}

// Block (token, part of its row).
template <Format kFormat>
__global__ void MOEBENCH_BOUNDS(kThreads)
    decode_rows(const std::int32_t* tokens, const std::int32_t* drawn, Table table, float* out,
                int hidden_size) {
  using Decoder = gpu::DeviceFormat<kFormat>;
  constexpr int kValues = Decoder::kValues;
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * kValues;
  if (column >= hidden_size) return;
  const std::int64_t token = row_of(tokens[blockIdx.x], drawn);
  const gpu::EncodedRow row{table.data + token * table.row_data,
                            table.scales + token * table.row_scales, table.tensor_scale};
  float values[kValues];
  Decoder::decode(gpu::load_streaming(row.data + static_cast<std::int64_t>(column / kValues) * 16),
                  column, row, values);
  out += static_cast<std::int64_t>(blockIdx.x) * hidden_size + column;
  MOEBENCH_UNROLL
  for (int i = 0; i < kValues; i += 4) {
    *reinterpret_cast<float4*>(out + i) =
        float4{values[i], values[i + 1], values[i + 2], values[i + 3]};
  }
}

// The same of f32 rows of any size, at any address.
__global__ void MOEBENCH_BOUNDS(kThreads)
    copy_rows(const std::int32_t* tokens, const std::int32_t* drawn, const float* table, float* out,
              int hidden_size) {
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (column >= hidden_size) return;
  const std::int64_t token = row_of(tokens[blockIdx.x], drawn);
  out[static_cast<std::int64_t>(blockIdx.x) * hidden_size + column] =
      table[token * hidden_size + column];
}

gpu::LaunchConfig launch_config(std::int64_t num_tokens, std::int64_t threads_per_row,
                                gpu::Stream stream) {
  return {.grid = {static_cast<unsigned>(num_tokens),
                   static_cast<unsigned>((threads_per_row + kThreads - 1) / kThreads)},
          .block = kThreads,
          .stream = stream};
}

bool is_aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

void run(const Args& args, Context& context) {
  const MatrixView& table = args.table;
  const std::int64_t num_tokens = args.tokens.shape[0];
  const auto hidden_size = static_cast<int>(table.cols);
  const bool in_groups = table.cols % 4 == 0 && is_aligned(table.data) && is_aligned(args.out.data);
  if (table.format == Format::kF32 && !in_groups) {
    gpu::launch(copy_rows, launch_config(num_tokens, table.cols, context.stream),
                "embedding/cuda_rows", args.tokens.data, args.drawn.data,
                reinterpret_cast<const float*>(table.data), args.out.data, hidden_size);
    return;
  }
  const Codec& c = codec(table.format);
  const Table rows{reinterpret_cast<const unsigned char*>(table.data),
                   reinterpret_cast<const unsigned char*>(table.scales),
                   static_cast<std::int64_t>(c.row_data_bytes(table.cols)),
                   static_cast<std::int64_t>(c.row_scale_bytes(table.cols)), table.tensor_scale};
  gpu::with_format(table.format, [&](auto format) {
    constexpr Format kFormat = decltype(format)::value;
    gpu::launch(
        decode_rows<kFormat>,
        launch_config(num_tokens, table.cols / gpu::DeviceFormat<kFormat>::kValues, context.stream),
        "embedding/cuda_rows", args.tokens.data, args.drawn.data, rows, args.out.data, hidden_size);
  });
}

}  // namespace

const Variant cuda_rows = {
    .name = "cuda_rows",
    .backend = "cuda",
    .summary = "one thread for 16 bytes of a row",
    .rounds = "nothing",
    .max_nmse = [](const Problem&) { return 0.0; },
    .weight_layout = RowLayout::kRowMajor,
    .unsupported = [](const Problem& problem) -> std::string {
      if (problem.format != Format::kF32 && problem.hidden_size % 32 != 0) {
        return fmt::format("hidden_size {} is not a multiple of 32", problem.hidden_size);
      }
      return gpu::unavailable();
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

MOEBENCH_DEFINE_CUDA_VARIANTS(MOEBENCH_EMBEDDING_CUDA_VARIANTS)

}  // namespace moebench::embedding
