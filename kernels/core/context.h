// What an op may use while it runs: threads, and scratch memory it declared beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/core/error.h"
#include "kernels/core/stream.h"

namespace moebench {

class ThreadPool;

// Of Context::signals: first those of experts, then those of attention, whose kernels take turns
// and leave words for the next of their kind.
inline constexpr std::size_t kExpertsSignalBytes = 112 << 10;
inline constexpr std::size_t kAttentionSignalBytes = 600 << 10;
inline constexpr std::size_t kSignalBytes = kExpertsSignalBytes + kAttentionSignalBytes;

struct Context {
  ThreadPool& pool;
  std::span<std::byte> workspace;  // at least workspace_bytes(problem), aligned to 256 bytes
  gpu::Stream stream = nullptr;    // of CUDA variants, whose workspace is the device's
  // Of CUDA variants whose blocks wait for each other: kSignalBytes of device memory that nothing
  // else uses, zeros before the first launch. Kernels leave it so that the next finds its way.
  std::span<std::byte> signals = {};
  // Variants with choices of their own make them now, by measuring: they may wait for the device.
  bool tunes = false;
};

// Hands out typed, 256-byte-aligned pieces of a workspace, in order. The same calls on a
// `Workspace{}` without memory measure how much is needed.
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(std::span<std::byte> memory) : memory_(memory), measuring_(false) {}

  template <class T>
  T* take(std::int64_t count) {
    const std::size_t begin = used_;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (measuring_) return nullptr;
    require(used_ <= memory_.size(), "workspace: {} bytes needed, {} given", used_, memory_.size());
    return reinterpret_cast<T*>(memory_.data() + begin);
  }

  std::size_t used() const { return used_; }

 private:
  static constexpr std::size_t kAlignment = 256;  // what the device's copy engines like best

  std::span<std::byte> memory_;
  std::size_t used_ = 0;
  bool measuring_ = true;
};

}  // namespace moebench
