// A row that a block normalises: what cuda_block and the ops that begin with a norm share, so that
// all have the same bits.
//
// kRowThreads threads hold up to kHeld values each. All loads of the row are in flight before the
// first is used: at few tokens their latency is most of the time. The sum of squares is added in an
// order that depends on the row's size alone.
#pragma once

#include <initializer_list>

#include "kernels/core/error.h"
#include "kernels/core/gpu.cuh"
#include "kernels/fused/norm.h"

namespace moebench::fused {

constexpr int kRowThreads = 256;
constexpr int kHeld = 16;  // values of a thread in registers
constexpr int kMostHeld = kRowThreads * kHeld;

// kWidth neighbouring values: 4 where rows are multiples of 16 bytes, else 1.
template <int kWidth>
struct Values {
  float v[kWidth];
};
template <int kWidth>
MOEBENCH_DEVICE Values<kWidth> load(const float* from) {
  if constexpr (kWidth == 1) {
    return {{*from}};
  } else {
    const float4 four = *reinterpret_cast<const float4*>(from);
    return {{four.x, four.y, four.z, four.w}};
  }
}
template <int kWidth>
MOEBENCH_DEVICE void store(float* to, const Values<kWidth>& values) {
  if constexpr (kWidth == 1) {
    *to = values.v[0];
  } else {
    *reinterpret_cast<float4*>(to) = float4{values.v[0], values.v[1], values.v[2], values.v[3]};
  }
}
// Rounded to bf16.
template <int kWidth>
MOEBENCH_DEVICE void store(std::uint16_t* to, const Values<kWidth>& values) {
  if constexpr (kWidth == 1) {
    *to = gpu::float_to_bf16(values.v[0]);
  } else {
    *reinterpret_cast<uint2*>(to) = {gpu::pack_bf16(values.v[0], values.v[1]),
                                     gpu::pack_bf16(values.v[2], values.v[3])};
  }
}
template <int kWidth>
MOEBENCH_DEVICE void add(Values<kWidth>& to, const Values<kWidth>& values) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kWidth; ++i) to.v[i] += values.v[i];
}
template <int kWidth>
MOEBENCH_DEVICE void add_squares(float& sum, const Values<kWidth>& values) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kWidth; ++i) sum += values.v[i] * values.v[i];
}
template <int kWidth>
MOEBENCH_DEVICE Values<kWidth> normalised(Values<kWidth> values, float scale,
                                          const Values<kWidth>& weight) {
  MOEBENCH_UNROLL
  for (int i = 0; i < kWidth; ++i) values.v[i] = weight.v[i] * (values.v[i] * scale);
  return values;
}
// By what a row is multiplied whose squares have this sum.
MOEBENCH_DEVICE float row_scale(float squares, int size, float epsilon) {
  return 1.0F / sqrtf(squares / static_cast<float>(size) + epsilon);
}

// A thread's part of a row: values at(0), at(1), ... and as many again behind each as the width.
// Values past the row's end are zeros.
template <int kWidth>
struct RowPart {
  static constexpr int kLoads = kHeld / kWidth;
  static constexpr int kStride = kRowThreads * kWidth;

  Values<kWidth> weights[kLoads];
  Values<kWidth> held[kLoads];

  MOEBENCH_DEVICE static int at(int h) {
    return static_cast<int>(threadIdx.x) * kWidth + h * kStride;
  }
  // Weights come from memory, further than what the kernel before leaves: they can start before it
  // ends.
  MOEBENCH_DEVICE void load_weights(const float* weight, int size) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      weights[h] = {};
      if (at(h) < size) weights[h] = load<kWidth>(weight + at(h));
    }
  }
  // x + addend, if there is one.
  MOEBENCH_DEVICE void load_row(const float* x, const float* addend, int size) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      held[h] = {};
      if (at(h) < size) held[h] = load<kWidth>(x + at(h));
    }
    if (addend == nullptr) return;
    Values<kWidth> added[kLoads];
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      added[h] = {};
      if (at(h) < size) added[h] = load<kWidth>(addend + at(h));
    }
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      if (at(h) < size) add(held[h], added[h]);
    }
  }
  template <class To>  // float, or the bits of bf16
  MOEBENCH_DEVICE void store_row(To* to, int size) const {
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) {
      if (at(h) < size) store(to + at(h), held[h]);
    }
  }
  MOEBENCH_DEVICE float squares() const {
    float sum = 0;
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) add_squares(sum, held[h]);
    return sum;
  }
  // In the place of what was held.
  MOEBENCH_DEVICE void normalise(float scale) {
    MOEBENCH_UNROLL
    for (int h = 0; h < kLoads; ++h) held[h] = normalised(held[h], scale, weights[h]);
  }
};

// Calls store(unit, first, second) for every unit of 8 neighbouring columns of the row that
// kRowThreads threads hold together, in one of the two threads that hold it. Whole warps.
template <class Store>
MOEBENCH_DEVICE void for_each_unit(const RowPart<4>& row, int units, Store&& store) {
  using Row = RowPart<4>;
  MOEBENCH_UNROLL
  for (int h = 0; h < Row::kLoads; ++h) {
    const auto& mine = row.held[h].v;
    float next[4];
    MOEBENCH_UNROLL
    for (int i = 0; i < 4; ++i) next[i] = gpu::shuffle_xor(gpu::kAllLanes, mine[i], 1);
    const int unit = Row::at(h) / 8;
    if (threadIdx.x % 2 == 0 && unit < units) {
      store(unit, float4{mine[0], mine[1], mine[2], mine[3]},
            float4{next[0], next[1], next[2], next[3]});
    }
  }
}

// A Norm as kernels take it.
struct DeviceNorm {
  const float* x;
  const float* addend;  // null: none
  const float* weight;  // null: no norm is asked for
  float epsilon;
  float* sum;
};
inline DeviceNorm device_norm(const Norm& norm) {
  return {norm.x.data, norm.addend.data, norm.weight.data, norm.epsilon, norm.sum.data};
}

// On the host: rows that are read four values at a time.
inline void check_aligned(std::initializer_list<const float*> rows) {
  for (const float* row : rows) {
    require(reinterpret_cast<std::uintptr_t>(row) % 16 == 0,
            "begin an op with its norm: rows must be aligned to 16 bytes");
  }
}

}  // namespace moebench::fused
