// Host memory to the GPU at the speed of the bus: pieces go through two pinned buffers, one being
// filled (from a mapped file, whose pages are read meanwhile) while the other is copied.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "kernels/core/device.h"
#include "kernels/core/thread_pool.h"

namespace moebench {

class Uploader {
 public:
  explicit Uploader(ThreadPool& pool);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  // `from` may be reused as soon as this returns; `to` holds it after finish().
  void copy(std::byte* to, std::span<const std::byte> from);
  void finish();

 private:
  struct Slot {
    gpu::PinnedMemory memory;
    gpu::OwnedStream stream;
  };

  ThreadPool& pool_;
  std::array<Slot, 2> slots_;
  std::size_t next_ = 0;
};

}  // namespace moebench
