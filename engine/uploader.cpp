// Two pinned buffers, each with a stream of its own.
#include "engine/uploader.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

constexpr std::size_t kSlotBytes = std::size_t{16} << 20;
constexpr std::size_t kPiece = std::size_t{256} << 10;  // what one thread copies at a time

}  // namespace

Uploader::Uploader(ThreadPool& pool) : pool_(pool) {
  gpu::Device& device = gpu::device();
  for (Slot& slot : slots_) {
    slot.memory = gpu::PinnedMemory(device.allocate_pinned(kSlotBytes, "uploading weights"));
    slot.stream = gpu::OwnedStream(device.create_stream());
  }
}

Uploader::~Uploader() {
  try {
    finish();  // the buffers must outlive their copies
  } catch (const std::exception&) {
    // Whoever uses the device next sees what is wrong with it.
  }
}

void Uploader::copy(std::byte* to, std::span<const std::byte> from) {
  gpu::Device& device = gpu::device();
  while (!from.empty()) {
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % slots_.size();
    const std::size_t bytes = std::min(from.size(), kSlotBytes);
    device.synchronize(slot.stream.get());
    std::byte* pinned = slot.memory.get();
    const auto pieces = static_cast<std::int64_t>((bytes + kPiece - 1) / kPiece);
    pool_.parallel_for(pieces, 1, [&](std::int64_t begin, std::int64_t end, int) {
      const std::size_t first = static_cast<std::size_t>(begin) * kPiece;
      const std::size_t last = std::min(bytes, static_cast<std::size_t>(end) * kPiece);
      std::memcpy(pinned + first, from.data() + first, last - first);
    });
    device.copy(to, pinned, bytes, gpu::Copy::kToDevice, slot.stream.get());
    to += bytes;
    from = from.subspan(bytes);
  }
}

void Uploader::finish() {
  for (const Slot& slot : slots_) {
    if (slot.stream) gpu::device().synchronize(slot.stream.get());
  }
}

}  // namespace moebench
