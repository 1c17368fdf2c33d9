// Buffer: move-only bytes, page-aligned and zeroed from the operating system, or from the GPU (aligned
// to 256, contents undefined).
//
// Anonymous mappings rather than new[]: large weights are then untouched until written (no peak
// from zeroing twice), and freed memory goes back to the system, so RSS can be predicted. Large
// ones ask for huge pages: streaming weights through 4 KiB ones costs a fifth of the bandwidth or
// more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace moebench {

enum class Place : std::uint8_t { kHost, kDevice };

class Buffer {
 public:
  Buffer() = default;
  // Throws Error(kOutOfMemory) with `purpose` in the message.
  explicit Buffer(std::size_t bytes, const char* purpose = "a buffer", Place place = Place::kHost);
  ~Buffer();
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        place_(other.place_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(place_, other.place_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  Place place() const { return place_; }
  std::span<std::byte> span() { return {data_, bytes_}; }

  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);  // page-aligned, so aligned for any T
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  Place place_ = Place::kHost;
};

}  // namespace moebench
