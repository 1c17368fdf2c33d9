// Parts of a router's product as integers (router_sums.h), and back.
#pragma once

#include "kernels/core/gpu.cuh"
#include "kernels/fused/router_sums.h"

namespace moebench::fused {

// A block's part, 2^22 or less, to 2^-32. NaN becomes a number here: the squares show it.
MOEBENCH_DEVICE std::uint64_t router_steps(float part) {
  constexpr float kMost = 4194304.0F;  // of 256 blocks the sum still is an integer of 64 bits
  const float bounded = fminf(fmaxf(part, -kMost), kMost) * 4294967296.0F;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(bounded));
}
MOEBENCH_DEVICE float of_router_steps(std::uint64_t steps) {
  return static_cast<float>(static_cast<std::int64_t>(steps)) * (1.0F / 4294967296.0F);
}

}  // namespace moebench::fused
