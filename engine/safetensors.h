// The safetensors container: a JSON header of named tensors over raw little-endian bytes.
//
// Source: huggingface/safetensors, README.md "Format" and safetensors/src/tensor.rs. Checks are as
// strict as there: a header of at most 100 MB, known dtypes, shapes whose bytes equal their range,
// and ranges that neither overlap, nor leave holes, nor pass the end of the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;                // "BF16", "F32", "U8", ... as in the file
  std::vector<std::int64_t> shape;  // empty: a scalar
  std::span<const std::byte> data;  // inside the file's bytes; any alignment
};

// Entries in the order of their data. `where` names the file in errors, which are Error(kParse).
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::string_view where);

// "[32, 5760, 90, 16]"
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace moebench
