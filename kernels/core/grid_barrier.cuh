// A barrier over all blocks of a launch, which must all be resident (LaunchConfig::cooperative).
//
// Its word in device memory is 0, or the highest bit alone, between two uses; a use turns that bit
// over. So nothing has to be reset, launches of any size can follow each other, and who arrives
// needs no answer: the bit was read before, at a time that hides it.
//
// By one thread of each block: turn = grid_turn(word), after the kernel before if that uses the
// word, too; a barrier of the block; arrive_at_grid(word), with nothing of its own under way that
// it would wait for; wait_for_grid(word, turn); a barrier of the block.
#pragma once

#include "kernels/core/gpu.cuh"

namespace moebench::gpu {

constexpr unsigned kGridTurn = 0x80000000U;

// Until this block arrives it stays the same.
MOEBENCH_DEVICE unsigned grid_turn(const int* word) {
  return static_cast<unsigned>(load_relaxed(word)) & kGridTurn;
}
// What the block wrote until now is there for those who have waited.
MOEBENCH_DEVICE void arrive_at_grid(int* word) {
  const unsigned others = gridDim.x - 1;
  add_release(word, static_cast<int>(blockIdx.x == 0 ? kGridTurn - others : 1U));
}
MOEBENCH_DEVICE void wait_for_grid(const int* word, unsigned turn) {
  while ((static_cast<unsigned>(load_acquire(word)) & kGridTurn) == turn) spin_on();
}

}  // namespace moebench::gpu
