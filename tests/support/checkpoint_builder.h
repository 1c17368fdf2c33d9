// Writes checkpoints for tests: damaged safetensors files, edited copies of real checkpoints, and
// synthetic ones (engine/synthetic_checkpoint.h).
//
// A checkpoint is a list of TensorSpec; a test edits the list (drops, renames, retypes) and writes
// it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <ostream>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/synthetic_checkpoint.h"
#include "kernels/core/float_types.h"
#include "kernels/core/json_fields.h"
#include "tests/support/files.h"

namespace moebench::test {

// A tensor whose bytes are at hand.
inline TensorSpec tensor_of_bytes(std::string name, std::string dtype,
                                  std::vector<std::int64_t> shape, std::string bytes) {
  return {std::move(name), std::move(dtype), std::move(shape),
          [bytes = std::move(bytes)](std::ostream& out) {
            out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
          }};
}

// The same numbers as "F32", "BF16" or "F16".
inline TensorSpec tensor_of_floats(std::string name, const std::string& dtype,
                                   std::vector<std::int64_t> shape, std::span<const float> values) {
  std::string bytes;
  const auto append = [&](auto value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  for (const float value : values) {
    if (dtype == "F32") append(value);
    if (dtype == "BF16") append(to_bf16(value));
    if (dtype == "F16") append(to_f16(value));
  }
  return tensor_of_bytes(std::move(name), dtype, std::move(shape), std::move(bytes));
}

// --- Files --------------------------------------------------------------------------------------

// A safetensors file as one string, from a header taken as it is: for damaged files.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  const auto length = static_cast<std::uint64_t>(header.size());
  std::string file(reinterpret_cast<const char*>(&length), sizeof(length));
  return file.append(header).append(data);
}

// --- Editing a checkpoint that exists -----------------------------------------------------------

// Its tensors in order of name. They keep the files mapped, and copy nothing.
inline TensorSpecs read_tensors(const std::filesystem::path& directory) {
  const auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open(directory));
  TensorSpecs tensors;
  for (const auto& [name, entry] : checkpoint->tensors()) {
    const auto data = entry.data;
    tensors.push_back({name, entry.dtype, entry.shape, [checkpoint, data](std::ostream& out) {
                         out.write(reinterpret_cast<const char*>(data.data()),
                                   static_cast<std::streamsize>(data.size()));
                       }});
  }
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; });
  return tensors;
}

inline TensorSpec& find_tensor(TensorSpecs& tensors, std::string_view name) {
  for (TensorSpec& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::logic_error("no tensor " + std::string(name));
}

inline void drop_tensor(TensorSpecs& tensors, std::string_view name) {
  find_tensor(tensors, name);
  std::erase_if(tensors, [&](const TensorSpec& tensor) { return tensor.name == name; });
}

// The numbers of a BF16, F16 or F32 tensor.
inline std::vector<float> floats_of(const TensorSpec& tensor) {
  std::ostringstream out;
  tensor.write(out);
  const std::string bytes = out.str();
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype == "F32") values[i] = load_unaligned<float>(bytes.data() + 4 * i);
    if (tensor.dtype == "BF16") values[i] = to_float(load_unaligned<bf16>(bytes.data() + 2 * i));
    if (tensor.dtype == "F16") values[i] = to_float(load_unaligned<f16>(bytes.data() + 2 * i));
  }
  return values;
}

// A whole checkpoint directory. Equal shapes and seeds give equal bytes.
inline void write_synthetic_checkpoint(const std::filesystem::path& directory,
                                       const SyntheticShape& shape, std::uint64_t seed = 1,
                                       std::size_t num_shards = 1) {
  write_checkpoint(directory, synthetic_config(shape), synthetic_tensors(shape, seed), num_shards);
}

}  // namespace moebench::test
