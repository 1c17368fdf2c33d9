// mmap, and reading small files whole.
#include "engine/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "kernels/core/error.h"

namespace moebench {
namespace {

// Closes on scope exit; a mapping outlives its descriptor.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

Descriptor open_for_reading(const std::filesystem::path& path, std::size_t& size) {
  Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  require_or(ErrorCode::kIo, file.fd >= 0, "open {}: {}", path.string(), std::strerror(errno));
  struct stat status {};
  require_or(ErrorCode::kIo, fstat(file.fd, &status) == 0, "read {}: {}", path.string(),
             std::strerror(errno));
  require_or(ErrorCode::kIo, S_ISREG(status.st_mode), "read {}: it is not a regular file",
             path.string());
  size = static_cast<std::size_t>(status.st_size);
  return Descriptor{std::exchange(file.fd, -1)};
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor file = open_for_reading(path, size_);
  if (size_ == 0) return;
  void* mapped = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  require_or(ErrorCode::kIo, mapped != MAP_FAILED, "map {} ({} bytes): {}", path.string(), size_,
             std::strerror(errno));
  data_ = static_cast<const std::byte*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(std::span<const std::byte> range) {
  // Whole pages inside the range only: a neighbour may share the first and last page.
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(range.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(range.data() + range.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::size_t size = 0;
  const Descriptor file = open_for_reading(path, size);
  require_or(ErrorCode::kIo, size <= max_bytes, "read {}: {} bytes, at most {} are accepted",
             path.string(), size, max_bytes);
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = read(file.fd, text.data() + done, size - done);
    require_or(ErrorCode::kIo, got >= 0, "read {}: {}", path.string(), std::strerror(errno));
    if (got == 0) break;  // the file shrank meanwhile
    done += static_cast<std::size_t>(got);
  }
  text.resize(done);
  return text;
}

}  // namespace moebench
