// What the CUDA variants of moe_experts share: the experts' weights as kernels see them, the
// activation, and which shapes they take.
#pragma once

#include <limits>
#include <string>

#include "kernels/core/gpu.cuh"
#include "kernels/formats/device_decode.cuh"
#include "kernels/moe_experts/moe_experts.h"

namespace moebench::moe_experts {

// A MatrixView, with the number of bytes of a row worked out.
struct EncodedMatrix {
  const unsigned char* data;
  const unsigned char* scales;
  std::int64_t row_bytes;
  std::int64_t row_scale_bytes;
  float tensor_scale;
  int rows;
  int cols;
};

inline EncodedMatrix encoded_matrix(const MatrixView& view) {
  const Codec& c = codec(view.format);
  return {reinterpret_cast<const unsigned char*>(view.data),
          reinterpret_cast<const unsigned char*>(view.scales),
          static_cast<std::int64_t>(c.row_data_bytes(view.cols)),
          static_cast<std::int64_t>(c.row_scale_bytes(view.cols)),
          view.tensor_scale,
          static_cast<int>(view.rows),
          static_cast<int>(view.cols)};
}

MOEBENCH_DEVICE gpu::EncodedRow row_of(const EncodedMatrix& matrix, int row) {
  return {matrix.data + row * matrix.row_bytes,
          matrix.scales == nullptr ? nullptr : matrix.scales + row * matrix.row_scale_bytes,
          matrix.tensor_scale};
}

// Where the bf16 of a column lies in a row that is in the order of pack_inputs.
template <Format kFormat>
MOEBENCH_HOST_DEVICE int input_position(int column) {
  if (gpu::DeviceFormat<kFormat>::kValues != 32) return column;
  return column / 8 * 8 + column % 4 * 2 + column % 8 / 4;
}

// The inputs of 8 columns from `column` on: floats, or bf16 that are in the order already.
template <Format kFormat>
MOEBENCH_DEVICE uint4 load_inputs(const float* row, int column) {
  const auto* from = reinterpret_cast<const float4*>(row + column);
  return gpu::pack_inputs<kFormat>(from[0], from[1]);
}
template <Format kFormat>
MOEBENCH_DEVICE uint4 load_inputs(const std::uint16_t* row, int column) {
  return *reinterpret_cast<const uint4*>(row + column);
}

// The weights of all experts.
struct Stack {
  EncodedMatrix first;
  const float* tensor_scales;  // one per expert; null: all 1
};

inline Stack device_stack(const MatrixStackView& view) {
  return {encoded_matrix({view.format, view.rows, view.cols, view.data, view.scales}),
          view.tensor_scales.empty() ? nullptr : view.tensor_scales.data()};
}

MOEBENCH_DEVICE EncodedMatrix matrix_of(const Stack& stack, int expert) {
  EncodedMatrix matrix = stack.first;
  const std::int64_t row = static_cast<std::int64_t>(expert) * matrix.rows;
  matrix.data += row * matrix.row_bytes;
  if (matrix.scales != nullptr) matrix.scales += row * matrix.row_scale_bytes;
  if (stack.tensor_scales != nullptr) matrix.tensor_scale = stack.tensor_scales[expert];
  return matrix;
}

MOEBENCH_DEVICE float swiglu(float gate, float up, float alpha, float limit) {
  const float g = fminf(gate, limit);
  const float c = fmaxf(fminf(up, limit), -limit);
  return g / (1.0F + expf(-alpha * g)) * (c + 1.0F);
}

// The error of variants that round inputs, weights and activations to bf16: less if the format's
// weights are bf16 numbers anyway. int4 also has its scales rounded. SwiGLU makes more of an error
// where its slope is steep.
inline double bf16_max_nmse(const Problem& problem) {
  switch (problem.format) {
    case Format::kInt4:
      return 2e-4;
    case Format::kF32:
    case Format::kF16:
    case Format::kInt8:
    case Format::kNvfp4:
      return 1e-4;
    default:
      return 5e-5;
  }
}

// Sizes in elements, as kernels count them.
struct Sizes {
  int num_tokens;
  int top_k;
  int num_pairs;  // of a token and an expert it selected
  int num_experts;
  int hidden_size;
  int intermediate_size;
};

inline Sizes sizes_of(const Args& args) {
  return {static_cast<int>(args.x.shape[0]),        static_cast<int>(args.expert_ids.shape[1]),
          static_cast<int>(args.expert_ids.size()), static_cast<int>(args.gate_up.count),
          static_cast<int>(args.x.shape[1]),        static_cast<int>(args.down.cols)};
}

// Empty, or why kernels that read rows 16 bytes at a time cannot run the problem.
inline std::string unsupported_shape(const Problem& problem) {
  if (problem.hidden_size % 32 != 0) {
    return fmt::format("hidden_size must be a multiple of 32; it is {}", problem.hidden_size);
  }
  if (problem.intermediate_size % 32 != 0) {
    return fmt::format("intermediate_size must be a multiple of 32; it is {}",
                       problem.intermediate_size);
  }
  if (problem.num_tokens * problem.top_k > std::numeric_limits<int>::max()) {
    return fmt::format("at most 2^31 - 1 pairs of a token and an expert; it is {} x {}",
                       problem.num_tokens, problem.top_k);
  }
  return "";
}

}  // namespace moebench::moe_experts
