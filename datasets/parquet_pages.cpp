// Snappy, gzip and Zstandard by their libraries; runs, bit-packed groups and deltas by hand.
#include "datasets/parquet_pages.h"

#include <snappy.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <bit>

#include "datasets/parquet_footer.h"
#include "datasets/varint.h"
#include "kernels/core/error.h"

namespace moebench::parquet {
namespace {

std::string codec_name(std::int64_t codec) {
  constexpr std::array<std::string_view, 8> kNames = {"none",   "Snappy", "gzip",      "LZO",
                                                      "Brotli", "LZ4",    "Zstandard", "LZ4_RAW"};
  const auto number = static_cast<std::size_t>(codec);
  return number < kNames.size() ? std::string(kNames[number]) : fmt::format("codec {}", codec);
}

// gzip, of one member or several. False unless exactly `out` comes out.
bool inflate_all(std::string_view bytes, std::string& out) {
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 32) != Z_OK) return false;  // 32: gzip or zlib, by its header
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  int code = Z_OK;
  while (true) {
    code = inflate(&stream, Z_FINISH);
    if (code != Z_STREAM_END || stream.avail_in == 0 || inflateReset(&stream) != Z_OK) break;
  }
  inflateEnd(&stream);
  return code == Z_STREAM_END && stream.avail_out == 0;
}

bool unpack_into(std::string_view bytes, std::int64_t codec, std::string& out) {
  switch (static_cast<Codec>(codec)) {
    case Codec::kSnappy: {
      std::size_t size = 0;
      return snappy::GetUncompressedLength(bytes.data(), bytes.size(), &size) &&
             size == out.size() && snappy::RawUncompress(bytes.data(), bytes.size(), out.data());
    }
    case Codec::kGzip:
      return inflate_all(bytes, out);
    case Codec::kZstd:
      return ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size()) == out.size();
    case Codec::kNone:
      break;
  }
  return false;
}

std::uint64_t take_varint(std::string_view& bytes, std::string_view where) {
  const auto next_byte = [&] {
    return static_cast<std::uint8_t>(take_little_endian(bytes, 1, where));
  };
  const std::optional<std::uint64_t> value = read_varint(next_byte);
  require_or(ErrorCode::kParse, value.has_value(), "read {}: a number is longer than 64 bits",
             where);
  return *value;
}

// Number `index` of those packed into `bytes`, lowest bits first; it must lie within them.
std::uint64_t packed_value(std::string_view bytes, int bit_width, std::size_t index) {
  std::uint64_t value = 0;
  std::size_t bit = index * static_cast<std::size_t>(bit_width);
  for (int done = 0; done < bit_width;) {
    const auto byte = static_cast<std::uint8_t>(bytes[bit / 8]);
    const int offset = static_cast<int>(bit % 8);
    const int count = std::min(8 - offset, bit_width - done);
    const std::uint64_t part = (std::uint64_t{byte} >> offset) & ((1U << count) - 1);
    value |= part << done;
    done += count;
    bit += static_cast<std::size_t>(count);
  }
  return value;
}

}  // namespace

std::string unpack(std::string_view bytes, std::int64_t codec, std::size_t unpacked_bytes,
                   std::string_view where) {
  const auto known = static_cast<Codec>(codec);
  const bool is_known = known == Codec::kNone || known == Codec::kSnappy || known == Codec::kGzip ||
                        known == Codec::kZstd;
  require_or(ErrorCode::kUnsupported, is_known,
             "read {}: it is packed by {} (none, Snappy, gzip and Zstandard can be read)", where,
             codec_name(codec));
  if (known == Codec::kNone || unpacked_bytes == 0) {
    require_or(ErrorCode::kParse, known != Codec::kNone || bytes.size() == unpacked_bytes,
               "read {}: a page of {} bytes is said to have {}", where, bytes.size(),
               unpacked_bytes);
    return std::string(bytes.substr(0, unpacked_bytes));
  }
  std::string out(unpacked_bytes, '\0');
  require_or(ErrorCode::kParse, unpack_into(bytes, codec, out),
             "read {}: {} bytes are not {} bytes packed by {}", where, bytes.size(), unpacked_bytes,
             codec_name(codec));
  return out;
}

std::string_view take(std::string_view& bytes, std::size_t count, std::string_view where) {
  require_or(ErrorCode::kParse, count <= bytes.size(),
             "read {}: a page ends too early: {} bytes are wanted where {} are left", where, count,
             bytes.size());
  const std::string_view front = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return front;
}

std::uint64_t take_little_endian(std::string_view& bytes, std::size_t count,
                                 std::string_view where) {
  std::uint64_t value = 0;
  int shift = 0;
  for (const char c : take(bytes, count, where)) {
    value |= std::uint64_t{static_cast<std::uint8_t>(c)} << shift;
    shift += 8;
  }
  return value;
}

std::vector<std::uint32_t> hybrid_values(std::string_view bytes, int bit_width, std::size_t count,
                                         std::string_view where) {
  require_or(ErrorCode::kParse, bit_width >= 0 && bit_width <= 32,
             "read {}: numbers of {} bits (at most 32)", where, bit_width);
  const auto width = static_cast<std::size_t>(bit_width);
  std::vector<std::uint32_t> values;
  while (values.size() < count) {
    const std::uint64_t header = take_varint(bytes, where);
    const std::size_t wanted = count - values.size();
    if ((header & 1) == 0) {
      const std::uint64_t value = take_little_endian(bytes, (width + 7) / 8, where);
      require_or(ErrorCode::kParse, value >> width == 0, "read {}: {} does not have {} bits", where,
                 value, bit_width);
      const std::uint64_t run = std::min<std::uint64_t>(header >> 1, wanted);
      values.insert(values.end(), static_cast<std::size_t>(run), static_cast<std::uint32_t>(value));
      continue;
    }
    // Groups of eight; those at the end may have been left out by the writer, as nobody wants them.
    const std::uint64_t in_groups = std::min<std::uint64_t>(header >> 1, count) * 8;
    const std::size_t number = std::min(wanted, static_cast<std::size_t>(in_groups));
    const auto stored = std::min<std::uint64_t>(in_groups / 8 * width, bytes.size());
    const std::string_view packed = take(bytes, static_cast<std::size_t>(stored), where);
    require_or(ErrorCode::kParse, number * width <= packed.size() * 8,
               "read {}: a page ends within its bit-packed numbers", where);
    for (std::size_t i = 0; i < number; ++i) {
      values.push_back(static_cast<std::uint32_t>(packed_value(packed, bit_width, i)));
    }
  }
  return values;
}

std::vector<std::int64_t> take_deltas(std::string_view& bytes, std::size_t count,
                                      std::string_view where) {
  const std::uint64_t block = take_varint(bytes, where);
  const std::uint64_t num_parts = take_varint(bytes, where);
  const std::uint64_t total = take_varint(bytes, where);
  std::uint64_t value = from_zigzag(take_varint(bytes, where));
  const bool is_sound = block > 0 && block <= 65536 && block % 128 == 0 && num_parts > 0 &&
                        block % num_parts == 0 && block / num_parts % 32 == 0;
  require_or(ErrorCode::kParse, is_sound, "read {}: delta blocks of {} numbers in {} parts", where,
             block, num_parts);
  require_or(ErrorCode::kParse, total == count, "read {}: {} deltas where {} are wanted", where,
             total, count);
  const auto in_part = static_cast<std::size_t>(block / num_parts);
  std::vector<std::int64_t> values;
  if (count > 0) values.push_back(static_cast<std::int64_t>(value));
  while (values.size() < count) {
    const std::uint64_t least = from_zigzag(take_varint(bytes, where));
    const std::string_view widths = take(bytes, static_cast<std::size_t>(num_parts), where);
    for (std::size_t part = 0; part < widths.size() && values.size() < count; ++part) {
      const int width = static_cast<std::uint8_t>(widths[part]);
      require_or(ErrorCode::kParse, width <= 64, "read {}: deltas of {} bits (at most 64)", where,
                 width);
      const std::string_view packed =
          take(bytes, in_part * static_cast<std::size_t>(width) / 8, where);
      for (std::size_t i = 0; i < in_part && values.size() < count; ++i) {
        // Differences wrap around, by the format's definition.
        value += least + packed_value(packed, width, i);
        values.push_back(static_cast<std::int64_t>(value));
      }
    }
  }
  return values;
}

}  // namespace moebench::parquet
