// What the CUDA variants of linear share: the weight as kernels see it, and which shapes they take.
#pragma once

#include <limits>
#include <string>

#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_decode.cuh"
#include "kernels/linear/linear.h"

namespace moebench::linear {

// A MatrixView, with the number of bytes of a row worked out.
struct Weight {
  const unsigned char* data;
  const unsigned char* scales;  // null if the format has none
  std::int64_t row_bytes;
  std::int64_t row_scale_bytes;
  float tensor_scale;
  int rows;
  int cols;
};

inline Weight device_weight(const MatrixView& view) {
  require(view.layout == RowLayout::kRowMajor, "run linear: weights are interleaved");
  const Codec& c = codec(view.format);
  return {reinterpret_cast<const unsigned char*>(view.data),
          reinterpret_cast<const unsigned char*>(view.scales),
          static_cast<std::int64_t>(c.row_data_bytes(view.cols)),
          static_cast<std::int64_t>(c.row_scale_bytes(view.cols)),
          view.tensor_scale,
          static_cast<int>(view.rows),
          static_cast<int>(view.cols)};
}

// The layers that one launch computes, of one x: a kernel parameter.
struct Part {
  Weight weight;
  const float* bias;  // null: none
  float* out;
  int first_block;  // of the blocks in x, where these share out the rows of all parts
};
struct Parts {
  Part part[3];
  int count;
  int rows;    // of all
  int blocks;  // likewise
};

inline bool has_bf16_weights(const Args& args) {
  const auto is_bf16 = [](const MatrixView& weight) {
    return weight.data == nullptr || weight.format == Format::kBf16;
  };
  return is_bf16(args.weight) && is_bf16(args.also[0].weight) && is_bf16(args.also[1].weight);
}

// Those of Args, if a block takes `rows_per_block` rows of a part.
inline Parts device_parts(const Args& args, std::int64_t rows_per_block) {
  Parts parts{};
  const auto add = [&](const MatrixView& weight, const View<const float, 1>& bias,
                       const View<float, 2>& out) {
    require(weight.format == args.weight.format && weight.cols == args.weight.cols,
            "run linear: layers that run together have one format and one number of columns");
    parts.part[parts.count++] = {device_weight(weight), bias.data, out.data, parts.blocks};
    parts.rows += static_cast<int>(weight.rows);
    parts.blocks += static_cast<int>((weight.rows + rows_per_block - 1) / rows_per_block);
  };
  add(args.weight, args.bias, args.out);
  for (const Args::Output& o : args.also) {
    if (o.weight.data != nullptr) add(o.weight, o.bias, o.out);
  }
  return parts;
}
MOEBENCH_DEVICE const Part& part_of_block(const Parts& parts, int block) {
  int p = 0;
  while (p + 1 < parts.count && block >= parts.part[p + 1].first_block) ++p;
  return parts.part[p];
}

MOEBENCH_DEVICE gpu::EncodedRow encoded_row(const Weight& weight, int row) {
  return {weight.data + row * weight.row_bytes,
          weight.scales == nullptr ? nullptr : weight.scales + row * weight.row_scale_bytes,
          weight.tensor_scale};
}

// What a thread reads of a row at once and decodes to bf16: at least 8 columns.
template <Format kFormat>
struct Run {
  static constexpr int kLoads = kFormat == Format::kF32 ? 2 : 1;  // of 16 bytes
  static constexpr int kValues = kLoads * gpu::DeviceFormat<kFormat>::kValues;
  static constexpr int kChunks = kValues / 8;  // 16 bytes of bf16 each

  uint4 bytes[kLoads];
  std::uint32_t scale;

  // Zeros if not `valid`.
  MOEBENCH_DEVICE void load(const gpu::EncodedRow& row, int run, bool valid) {
    scale = valid ? gpu::DeviceFormat<kFormat>::load_scale(row, run * kValues) : 0;
    MOEBENCH_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      bytes[i] = uint4{0, 0, 0, 0};
      if (valid) bytes[i] = gpu::load_streaming(row.data + (run * kLoads + i) * std::int64_t{16});
    }
  }

  MOEBENCH_DEVICE void decode(std::uint32_t (&pairs)[kValues / 2]) const {
    constexpr int kPairs = gpu::DeviceFormat<kFormat>::kValues / 2;
    MOEBENCH_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      std::uint32_t of_load[kPairs];
      gpu::DeviceFormat<kFormat>::decode_bf16(bytes[i], scale, of_load);
      MOEBENCH_UNROLL
      for (int p = 0; p < kPairs; ++p) pairs[i * kPairs + p] = of_load[p];
    }
  }
};

// 8 columns of x as pairs of bf16, in the order of decoded weights. Zeros if not `valid`.
template <Format kFormat>
MOEBENCH_DEVICE uint4 read_inputs(const float* x, bool valid) {
  if (!valid) return uint4{0, 0, 0, 0};
  const auto* from = reinterpret_cast<const float4*>(x);
  return gpu::pack_inputs<kFormat>(from[0], from[1]);
}

// Empty, or why kernels whose sizes are ints and whose grid has a row per 8 tokens cannot run it.
inline std::string sizes_unsupported(const Problem& problem) {
  constexpr std::int64_t kMostTokens = 8 * 65535;
  constexpr std::int64_t kMost = std::numeric_limits<int>::max() - 1024;
  if (problem.num_tokens > kMostTokens) {
    return fmt::format("at most {} tokens; there are {}", kMostTokens, problem.num_tokens);
  }
  if (problem.rows > kMost || problem.cols > kMost) {
    return fmt::format("at most {} rows and columns; it is {} x {}", kMost, problem.rows,
                       problem.cols);
  }
  return "";
}

// The same of kernels that read rows 16 bytes at a time.
inline std::string groups_unsupported(const Problem& problem) {
  if (problem.cols % 32 != 0) {
    return fmt::format("cols must be a multiple of 32; it is {}", problem.cols);
  }
  return sizes_unsupported(problem);
}

}  // namespace moebench::linear
