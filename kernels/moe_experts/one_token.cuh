// The sizes of one token's MXFP4 experts, and how rows are dealt out to the blocks of a launch:
// what the variants share whose blocks have a multiprocessor each.
#pragma once

#include "kernels/core/device.h"
#include "kernels/moe_experts/digits.cuh"
#include "kernels/moe_experts/experts.cuh"

namespace moebench::moe_experts {

constexpr int kMostPairs = 4;  // experts of the token
constexpr int kSteps = 24;
constexpr int kStepColumns = 128;
constexpr int kMostCols = kSteps * kStepColumns;
constexpr int kUnits = kMostCols / 8;            // of 8 columns
constexpr int kBlocks = kUnits / 4;              // of 32
constexpr int kUnitRows = 2;                     // in which rows are dealt out
constexpr int kMostScaleBytes = kMostCols / 32;  // of a row

// Columns 8 unit .. 8 unit + 7 of a row of `cols` floats; zeros past its end.
struct Inputs {
  float x[8];
};
MOEBENCH_DEVICE Inputs load_inputs(const float* row, int cols, int unit) {
  if (8 * unit >= cols) return {};
  const auto* from = reinterpret_cast<const float4*>(row + 8 * unit);
  const float4 a = from[0];
  const float4 b = from[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

// The block's share of `rows` rows. In 32 bits: a division of 64 takes a hundred instructions, and
// what blocks hold is far less.
struct Share {
  int begin;
  int end;
  MOEBENCH_DEVICE explicit Share(int rows, int unit = kUnitRows) {
    const auto units = static_cast<unsigned>(rows / unit);
    begin = static_cast<int>(units * blockIdx.x / gridDim.x) * unit;
    end = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x) * unit;
  }
};
// The most that a block has, of as many blocks as the device has multiprocessors.
inline std::int64_t most_rows_of_block(std::int64_t rows, int unit) {
  const std::int64_t num_sms = gpu::device_info().num_sms;
  return ((rows + unit - 1) / unit + num_sms - 1) / num_sms * unit;
}

}  // namespace moebench::moe_experts
