// Every number in the header is untrusted.
#include "engine/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/float_types.h"
#include "kernels/core/json_fields.h"

namespace moebench {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian");

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // as huggingface/safetensors

struct Dtype {
  std::string_view name;
  std::uint64_t bits;
};
constexpr std::array<Dtype, 20> kDtypes = {
    {{"BOOL", 8},    {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},
     {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16}, {"F16", 16},    {"BF16", 16},
     {"I32", 32},    {"U32", 32}, {"F32", 32}, {"F64", 64},    {"I64", 64},
     {"U64", 64},    {"C64", 64}, {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}}};

std::uint64_t dtype_bits(const std::string& name, std::string_view where, std::string_view tensor) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.name == name) return dtype.bits;
  }
  fail(ErrorCode::kParse, "read {}: tensor '{}' has unknown dtype '{}'", where, tensor,
       name.substr(0, 40));
}

// Bytes of a tensor, or an error if the product overflows or is not whole bytes.
std::uint64_t tensor_bytes(const SafetensorsEntry& entry, std::string_view where) {
  std::uint64_t bits = dtype_bits(entry.dtype, where, entry.name);
  for (const std::int64_t extent : entry.shape) {
    std::uint64_t product = 0;
    require_or(ErrorCode::kParse,
               !__builtin_mul_overflow(bits, static_cast<std::uint64_t>(extent), &product),
               "read {}: tensor '{}': shape {} overflows", where, entry.name,
               shape_text(entry.shape));
    bits = product;
  }
  require_or(ErrorCode::kParse, bits % 8 == 0, "read {}: tensor '{}': {} bits are not whole bytes",
             where, entry.name, bits);
  return bits / 8;
}

}  // namespace

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> file,
                                                std::string_view where) {
  require_or(ErrorCode::kParse, file.size() >= 8,
             "read {}: {} bytes are too few for a safetensors file", where, file.size());
  const auto header_bytes = load_unaligned<std::uint64_t>(file.data());
  require_or(ErrorCode::kParse, header_bytes <= file.size() - 8 && header_bytes <= kMaxHeaderBytes,
             "read {}: the header claims {} bytes, but {} remain in the file (limit {}); it is "
             "truncated or not safetensors",
             where, header_bytes, file.size() - 8, kMaxHeaderBytes);
  const std::string_view header_text(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  const Json header = parse_json(header_text, fmt::format("{} (header)", where), 8);
  require_or(ErrorCode::kParse, header.is_object(), "read {}: the header is not a JSON object",
             where);
  const std::span<const std::byte> data = file.subspan(8 + header_bytes);

  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    SafetensorsEntry entry;
    entry.name = name;
    std::vector<std::int64_t> offsets;
    try {
      JsonFields fields(value, fmt::format("{}: tensor '{}'", where, name.substr(0, 200)));
      entry.dtype = fields.required<std::string>("dtype");
      entry.shape = fields.required<std::vector<std::int64_t>>("shape");
      offsets = fields.required<std::vector<std::int64_t>>("data_offsets");
    } catch (const Error& error) {
      fail(ErrorCode::kParse, "read {}", error.what());  // the file's fault, not the caller's
    }
    for (const std::int64_t extent : entry.shape) {
      require_or(ErrorCode::kParse, extent >= 0,
                 "read {}: tensor '{}': negative extent in shape {}", where, entry.name,
                 shape_text(entry.shape));
    }
    require_or(
        ErrorCode::kParse,
        offsets.size() == 2 && offsets[0] >= 0 && offsets[0] <= offsets[1] &&
            static_cast<std::uint64_t>(offsets[1]) <= data.size(),
        "read {}: tensor '{}': data_offsets {} do not lie within the {} data bytes; the file "
        "is truncated or damaged",
        where, entry.name, shape_text(offsets), data.size());
    const auto length = static_cast<std::uint64_t>(offsets[1] - offsets[0]);
    const std::uint64_t needed = tensor_bytes(entry, where);
    require_or(ErrorCode::kParse, length == needed,
               "read {}: tensor '{}': {} {} needs {} bytes, data_offsets {} give {}", where,
               entry.name, entry.dtype, shape_text(entry.shape), needed, shape_text(offsets),
               length);
    entry.data = data.subspan(static_cast<std::size_t>(offsets[0]), length);
    entries.push_back(std::move(entry));
  }

  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.data.data(), a.data.size()) < std::pair(b.data.data(), b.data.size());
  });
  const std::byte* end = data.data();
  for (const SafetensorsEntry& entry : entries) {
    require_or(ErrorCode::kParse, entry.data.data() >= end,
               "read {}: tensor '{}' overlaps the tensor before it", where, entry.name);
    require_or(ErrorCode::kParse, entry.data.data() == end,
               "read {}: {} bytes before tensor '{}' belong to no tensor", where,
               entry.data.data() - end, entry.name);
    end = entry.data.data() + entry.data.size();
  }
  require_or(ErrorCode::kParse, end == data.data() + data.size(),
             "read {}: {} bytes after the last tensor belong to no tensor", where,
             data.data() + data.size() - end);
  return entries;
}

}  // namespace moebench
