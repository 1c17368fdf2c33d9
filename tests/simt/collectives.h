// What the lanes of a warp, and the threads of a block, do together.
#pragma once

#include <cstdint>

#include "tests/simt/thread.h"

namespace moebench::simt {

// ---- Barriers -----------------------------------------------------------------------------------
// Barrier `id` of the block, for `threads` threads; 0: for all that have not ended.
void sync_block(int id, int threads, Where at);
void arrive_at_block(int id, int threads, Where at);
void sync_cluster(Where at);
void sync_warp(unsigned mask, Where at);

// ---- Collectives of a warp ----------------------------------------------------------------------
// Every lane of the mask comes with its operand, and the last to come runs `combine` for all.
// Nothing orders the lanes' memory: as in CUDA, that takes sync_warp.
using Combine = void (*)(void* const* operands, unsigned mask);
// What combines is the machine's, though it is compiled with a kernel: one lane reaches into the
// stacks of all, which are no memory of the device's.
#define MOEBENCH_OF_MACHINE __attribute__((no_sanitize("thread")))
void collective(unsigned mask, Combine combine, void* operand, Where at);

template <class T>
T shuffle_from(unsigned mask, T value, int source, Where at) {
  struct Operand {
    T given, received;
    int source;
  } mine{value, value, source};
  collective(
      mask,
      [](void* const* operands, unsigned lanes) MOEBENCH_OF_MACHINE {
        for (int lane = 0; lane < 32; ++lane) {
          if ((lanes >> lane & 1) == 0) continue;
          auto* to = static_cast<Operand*>(operands[lane]);
          if ((lanes >> to->source & 1) == 0) {
            fail("shuffle: lane %d reads lane %d, which is not in mask %08x", lane, to->source,
                 lanes);
          }
          to->received = static_cast<Operand*>(operands[to->source])->given;
        }
      },
      &mine, at);
  return mine.received;
}

// combine(a, b) over the values of the lanes, in their order; in every lane.
template <class T, class Merge>
T reduce(unsigned mask, T value, Merge, Where at) {
  collective(
      mask,
      [](void* const* operands, unsigned lanes) MOEBENCH_OF_MACHINE {
        const int first = __builtin_ctz(lanes);
        T result = *static_cast<T*>(operands[first]);
        for (int lane = first + 1; lane < 32; ++lane) {
          if (lanes >> lane & 1) result = Merge{}(result, *static_cast<T*>(operands[lane]));
        }
        for (int lane = first; lane < 32; ++lane) {
          if (lanes >> lane & 1) *static_cast<T*>(operands[lane]) = result;
        }
      },
      &value, at);
  return value;
}

// The lanes whose value is true.
inline unsigned vote(unsigned mask, bool value, Where at) {
  const unsigned mine = value ? 1U << current->lane : 0;
  return simt::reduce(
      mask, mine, [](unsigned a, unsigned b) { return a | b; }, at);
}

}  // namespace moebench::simt
