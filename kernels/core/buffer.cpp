// Buffer over mmap and the device's allocator.
#include "kernels/core/buffer.h"

#include <sys/mman.h>

#include "kernels/core/device.h"
#include "kernels/core/error.h"

namespace moebench {

Buffer::Buffer(std::size_t bytes, const char* purpose, Place place) : bytes_(bytes), place_(place) {
  if (bytes == 0) return;
  if (place == Place::kDevice) {
    data_ = gpu::device().allocate(bytes, purpose);
    return;
  }
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require_or(ErrorCode::kOutOfMemory, mapped != MAP_FAILED, "allocate {} bytes for {}", bytes,
             purpose);
  data_ = static_cast<std::byte*>(mapped);
  constexpr std::size_t kLarge = std::size_t{8} << 20;
  if (bytes >= kLarge) madvise(mapped, bytes, MADV_HUGEPAGE);  // a wish: errors do not matter
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if (place_ == Place::kDevice) {
    gpu::linked_device()->free(data_);
  } else {
    munmap(data_, bytes_);
  }
}

}  // namespace moebench
