// The kernels by which a GPU's own limits are measured. Weak: programs without CUDA do not have
// them; ask for a device first (gpu::unavailable).
#pragma once

#include <cstddef>

#include "kernels/core/stream.h"

namespace moebench::gpu {

// Reads `bytes`, a multiple of 16, by as many blocks as keep the device busy. `sink` is an int that
// is written only so that the reading cannot be left out.
[[gnu::weak]] void enqueue_read(const void* data, std::size_t bytes, int num_sms, int* sink,
                                Stream stream);
// A kernel that does nothing: what a launch costs.
[[gnu::weak]] void enqueue_nothing(Stream stream);

}  // namespace moebench::gpu
