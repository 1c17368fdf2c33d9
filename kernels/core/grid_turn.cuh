// How the blocks of a launch that are all resident (LaunchConfig::cooperative) wait for each other
// without a fence, and without anything that has to be put back before the next launch.
//
// A word in device memory counts arrivals and is 0, or the highest bit alone, between two launches;
// the last arrival turns that bit over. So who arrives needs no answer, and launches of any size
// can follow each other. It orders nothing: what blocks write for each other must show by itself
// that it is there, as words that were zeros and are not any more. To wait for the turn first saves
// asking for such words too often.
//
// The bit before a launch, its turn, also says which of two places the launch writes. The other one
// it clears: the launch before used it, and has ended.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::gpu {

constexpr unsigned kGridTurn = 0x80000000U;

// 0 or 1, the same for all blocks: after the kernel before, and before this block arrives.
MOEBENCH_DEVICE unsigned grid_turn(const int* word) {
  return static_cast<unsigned>(load_relaxed(word)) / kGridTurn;
}
// By one thread of each block.
MOEBENCH_DEVICE void arrive_at_grid(int* word) {
  const unsigned others = gridDim.x - 1;
  atomic_add(word, static_cast<int>(blockIdx.x == 0 ? kGridTurn - others : 1U));
}
// Until all have arrived.
MOEBENCH_DEVICE void wait_for_grid(const int* word, unsigned turn) {
  while (grid_turn(word) == turn) spin_on();
}

// Whether words that others write meanwhile are there: none is zero any more.
MOEBENCH_DEVICE bool are_there(const uint4& words) {
  return words.x != 0 && words.y != 0 && words.z != 0 && words.w != 0;
}

// A float's bits as a word that is not 0, for the same number: zeros are negative.
MOEBENCH_DEVICE std::uint32_t shown(float value) {
  const std::uint32_t bits = bits_of(value);
  return bits == 0 ? 0x80000000U : bits;
}

}  // namespace moebench::gpu
