// A library that is looked for when it is needed, so that the program starts, and starts fast,
// where it is absent: NVIDIA's, which come with a driver or a toolkit.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace moebench {

class SharedLibrary {
 public:
  // Opens the first of `names` ("libcublasLt.so.13") that is found: in the folder that
  // MOEBENCH_CUDA_LIBS names, where the system's loader looks, or in a toolkit at /usr/local/cuda.
  // Never throws: see unavailable().
  explicit SharedLibrary(const std::vector<std::string>& names);
  ~SharedLibrary();
  SharedLibrary(SharedLibrary&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)),
        unavailable_(std::move(other.unavailable_)) {}
  SharedLibrary& operator=(SharedLibrary&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(unavailable_, other.unavailable_);
    return *this;
  }
  SharedLibrary(const SharedLibrary&) = delete;
  SharedLibrary& operator=(const SharedLibrary&) = delete;

  // Empty, or why it was not opened.
  const std::string& unavailable() const { return unavailable_; }
  // The file that was opened.
  std::string path() const;

  // The function of that name, null if the library lacks it: `library.function<int (*)(int)>("f")`.
  template <class Pointer>
  Pointer function(const char* name) const {
    return reinterpret_cast<Pointer>(symbol(name));
  }

 private:
  void* symbol(const char* name) const;

  void* handle_ = nullptr;
  std::string unavailable_;
};

}  // namespace moebench
