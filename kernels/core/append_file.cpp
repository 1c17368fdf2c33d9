// POSIX files, with every result checked.
#include "kernels/core/append_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "kernels/core/error.h"

namespace moebench {
namespace {

void write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    require_or(ErrorCode::kIo, written > 0, "write {}: {}", path.string(), std::strerror(errno));
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void make_folder_of(const std::filesystem::path& path) {
  if (!path.has_parent_path()) return;
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  require_or(ErrorCode::kIo, !error, "make the folder {}: {}", path.parent_path().string(),
             error.message());
}

std::string read_all(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  require_or(ErrorCode::kIo, stream.good(), "open {}: it cannot be read", path.string());
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace

LineWriter::LineWriter(const std::filesystem::path& path) : path_(path) {
  make_folder_of(path);
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) {
    const std::string content = read_all(path);
    const std::size_t whole = content.find_last_of('\n') + 1;  // 0 if there is no newline
    if (whole < content.size()) {
      std::error_code error;
      std::filesystem::resize_file(path, whole, error);
      require_or(ErrorCode::kIo, !error, "repair {}: {}", path.string(), error.message());
    }
  }
  fd_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  require_or(ErrorCode::kIo, fd_ >= 0, "open {} for writing: {}", path.string(),
             std::strerror(errno));
}

LineWriter::~LineWriter() {
  if (fd_ >= 0) close(fd_);
}

LineWriter::LineWriter(LineWriter&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

void LineWriter::append(std::string_view line) {
  std::string bytes(line);
  bytes += '\n';
  write_all(fd_, bytes, path_);
}

void for_each_whole_json_line(const std::filesystem::path& path,
                              const std::function<void(const Json&, const std::string&)>& visit) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  std::string content = read_all(path);
  content.resize(content.find_last_of('\n') + 1);
  constexpr int kMaxDepth = 32;
  for_each_json_line(content, path.string(), kMaxDepth, visit);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  make_folder_of(path);
  const std::filesystem::path temporary = path.string() + ".part";
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  require_or(ErrorCode::kIo, fd >= 0, "open {} for writing: {}", temporary.string(),
             std::strerror(errno));
  try {
    write_all(fd, content, temporary);
  } catch (...) {
    close(fd);
    unlink(temporary.c_str());
    throw;
  }
  require_or(ErrorCode::kIo, close(fd) == 0, "write {}: {}", temporary.string(),
             std::strerror(errno));
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  require_or(ErrorCode::kIo, !error, "write {}: {}", path.string(), error.message());
}

std::string json_line(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace moebench
