// Files that grow line by line and must survive a crash, a full disk and Ctrl-C: results and
// ledgers; and files that appear whole or not at all.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "kernels/core/json_fields.h"

namespace moebench {

// Appends lines. Each is one write, checked, so that a full disk is noticed at the first line it
// costs, and lines before it are whole.
class LineWriter {
 public:
  // Creates the file if need be, and its folder. If an earlier writer was cut off in the middle of
  // a line, that piece is removed first.
  explicit LineWriter(const std::filesystem::path& path);
  ~LineWriter();
  LineWriter(LineWriter&& other) noexcept;
  LineWriter& operator=(LineWriter&&) = delete;

  // `line` holds no newline. Throws Error(kIo) naming the file.
  void append(std::string_view line);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

// Calls visit(value, place) for each line of a file of JSON lines; none if there is no such file. A
// last line without its newline is left out: its writer was cut off.
void for_each_whole_json_line(const std::filesystem::path& path,
                              const std::function<void(const Json&, const std::string&)>& visit);

// Writes a whole file by way of a temporary one beside it, so that readers see the old content or
// the new. Throws Error(kIo) naming the file.
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

// One line of JSON; bytes that are not UTF-8 become U+FFFD.
std::string json_line(const OrderedJson& json);

}  // namespace moebench
