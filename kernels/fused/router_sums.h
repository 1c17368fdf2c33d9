// The router's product by the launch in front of the experts': its blocks have some columns each of
// the row that the router's norm takes, and add what those give to sums that the experts' launch
// finds. So experts are known before the row is normalised, after one way to the second-level cache
// instead of two with a product between them.
//
// With v the row before its norm, and g the norm's weights: logit e is
//
//   scale(sum of v_c^2) * (sum over c of weight[e, c] g_c v_c) + bias[e]
//
// Sums are added to by many blocks, as integers: any order gives the same.
#pragma once

#include <cstdint>

namespace moebench::fused {

inline constexpr int kMostRouted = 128;         // experts
inline constexpr int kMostRoutingBlocks = 256;  // of the launch that adds

struct RouterSums {
  alignas(16) std::uint64_t products[kMostRouted];  // signed, in steps of 2^-32
  float squares[kMostRoutingBlocks];                // by block
};
// What the experts' signals begin with. Zeros are in the place that is the turn's, and the launch
// that reads it clears the other one.
struct RouterSignals {
  RouterSums sums[2];  // by the turn of the experts' grid
  int turn;

  // Of the experts' launch that comes next; on the host, between launches (grid_turn.cuh).
  RouterSums& next() { return sums[static_cast<unsigned>(turn) >> 31]; }
};

}  // namespace moebench::fused
