// What this machine can do at best, measured: the ceilings that kernels are held against.
#pragma once

#include <cstddef>

#include "kernels/core/buffer.h"
#include "kernels/core/precision.h"
#include "kernels/core/thread_pool.h"

namespace moebench {

// Loops that do one thing each, and a clock. Every function takes about `seconds`, or as long as
// one pass does, with all threads of the pool at once; GB = 1e9 bytes.
class LimitMeter {
 public:
  // Takes `bytes` of memory, which should exceed every cache.
  explicit LimitMeter(std::size_t bytes = std::size_t{512} << 20);

  std::size_t bytes() const { return memory_.size(); }

  // Streaming loads from the first `bytes`, each thread from a part of its own, over and over: from
  // memory if no cache holds them, else from that cache.
  double read_gb_per_s(ThreadPool& pool, std::size_t bytes, double seconds);
  // From one half of the memory to the other: bytes read and bytes written, both counted.
  double copy_gb_per_s(ThreadPool& pool, double seconds);
  // Multiply-adds in registers, two operations each, in 1e9 a second: kF32; kInt16, pairs of
  // products widened to 32 bits; kInt8, unsigned by signed bytes, widened after every fourth. 0
  // where kernels for this machine have no such instructions.
  double gop_per_s(ThreadPool& pool, Precision precision, double seconds);

 private:
  Buffer memory_;
};

struct MachineLimits {
  double read_gb_per_s = 0;
  double f32_gflop_per_s = 0;
  double int8_gop_per_s = 0;  // 0: no AVX2
};

// Takes about 6 * `seconds` and 512 MB for the moment. Medians, all threads of the pool at once.
MachineLimits measure_machine_limits(ThreadPool& pool, double seconds = 0.2);

}  // namespace moebench
