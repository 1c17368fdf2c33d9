// A checkpoint directory: all tensors of its safetensors files, mapped, by name.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/mapped_file.h"
#include "engine/safetensors.h"

namespace moebench {

class Checkpoint {
 public:
  // Opens the files that model.safetensors.index.json names, or, without an index, every
  // *.safetensors file of the directory. Throws Error(kIo / kParse) naming the file.
  static Checkpoint open(const std::filesystem::path& directory);

  // A checkpoint of headers only: `entries` without data, for what asks for shapes and no numbers.
  static Checkpoint of_headers(std::string name, std::vector<SafetensorsEntry> entries);

  // What was read of the files so far stops counting as resident until it is read again.
  void release() const;

  const std::filesystem::path& directory() const { return directory_; }

  // nullptr if there is no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;

  // The tensor, with one of `dtypes` and exactly `shape`, else an Error that says what was found.
  const SafetensorsEntry& require_tensor(std::string_view name,
                                         std::span<const std::string_view> dtypes,
                                         std::span<const std::int64_t> shape) const;

  const std::unordered_map<std::string, SafetensorsEntry>& tensors() const { return tensors_; }
  std::size_t num_tensors() const { return tensors_.size(); }

  // The file a tensor lies in, for error messages.
  std::string file_of(const SafetensorsEntry& tensor) const;

 private:
  std::filesystem::path directory_;
  std::vector<MappedFile> files_;
  std::unordered_map<std::string, SafetensorsEntry> tensors_;
};

}  // namespace moebench
