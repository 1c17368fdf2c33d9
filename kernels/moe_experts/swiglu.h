// The activation of an expert, eight features at a time.
#pragma once

#include <cstdint>

#include "kernels/core/simd_math.h"

namespace moebench::moe_experts {

// gate_up: gate and up alternating, 2 * features floats. out: features floats. See moe_experts.h.
using Swiglu = void (*)(const float* gate_up, std::int64_t features, float alpha, float limit,
                        float* out);

template <class S>
typename S::F32 swiglu_of(typename S::F32 gate, typename S::F32 up, float alpha, float limit) {
  // The order of operands lets NaN through.
  const auto g = S::min(S::set(limit), gate);
  const auto c = S::max(S::set(-limit), S::min(S::set(limit), up));
  const auto one = S::set(1.0F);
  const auto sigmoid_below = S::add(one, exponential<S>(S::mul(g, S::set(-alpha))));
  return S::mul(S::div(g, sigmoid_below), S::add(c, one));
}

template <class S>
void swiglu(const float* gate_up, std::int64_t features, float alpha, float limit, float* out) {
  typename S::F32 gate;
  typename S::F32 up;
  std::int64_t i = 0;
  for (; i + 8 <= features; i += 8) {
    S::split_pairs(S::load(gate_up + 2 * i), S::load(gate_up + 2 * i + 8), &gate, &up);
    S::store(out + i, swiglu_of<S>(gate, up, alpha, limit));
  }
  if (i == features) return;
  float pairs[16] = {};
  float lanes[8];
  for (std::int64_t j = 2 * i; j < 2 * features; ++j) pairs[j - 2 * i] = gate_up[j];
  S::split_pairs(S::load(pairs), S::load(pairs + 8), &gate, &up);
  S::store(lanes, swiglu_of<S>(gate, up, alpha, limit));
  for (; i < features; ++i) out[i] = lanes[i % 8];
}

void avx2_swiglu(const float* gate_up, std::int64_t features, float alpha, float limit, float* out);
void portable_swiglu(const float* gate_up, std::int64_t features, float alpha, float limit,
                     float* out);

}  // namespace moebench::moe_experts
