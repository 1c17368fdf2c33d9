// Plain text tables for terminals, and the same as GitHub markdown.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebench::cli {

class Table {
 public:
  // A column whose name begins with ">" is aligned to the right (the ">" is not printed).
  explicit Table(std::vector<std::string> columns);

  void add(std::vector<std::string> cells);
  std::string text() const;
  std::string markdown() const;

 private:
  std::vector<std::string> columns_;
  std::vector<bool> right_;
  std::vector<std::vector<std::string>> rows_;
};

// "1.23 GB", "45.6 MB": 1 GB = 1e9 bytes.
std::string format_bytes(double bytes);
// "45 s", "3 min 20 s"
std::string format_seconds(double seconds);
// "1,234,567"
std::string format_count(std::int64_t count);

}  // namespace moebench::cli
