// What this machine can do at best, measured: the ceilings that kernels are held against.
#pragma once

#include "kernels/core/thread_pool.h"

namespace moebench {

struct MachineLimits {
  double read_gb_per_s = 0;    // streaming loads from memory beyond every cache; GB = 1e9 bytes
  double f32_gflop_per_s = 0;  // fused multiply-adds in registers, two operations each
  double int8_gop_per_s = 0;   // unsigned by signed bytes, widened after every fourth; 0: no AVX2
};

// Takes about 6 * `seconds` and 512 MB for the moment. Medians, all threads of the pool at once.
MachineLimits measure_machine_limits(ThreadPool& pool, double seconds = 0.2);

}  // namespace moebench
