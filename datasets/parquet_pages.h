// From the bytes of a Parquet page to numbers and texts: codecs and encodings.
// Source: apache/parquet-format, Compression.md and Encodings.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moebench::parquet {

// The page of `unpacked_bytes` that `bytes` were packed from by a codec of parquet.thrift: none,
// Snappy, gzip or Zstandard. Throws Error(kUnsupported) naming another codec, Error(kParse) unless
// exactly that many bytes come out. Errors begin "read <where>: ".
std::string unpack(std::string_view bytes, std::int64_t codec, std::size_t unpacked_bytes,
                   std::string_view where);

// Takes from the front of `bytes`; Error(kParse) if there are fewer.
std::string_view take(std::string_view& bytes, std::size_t count, std::string_view where);
std::uint64_t take_little_endian(std::string_view& bytes, std::size_t count,
                                 std::string_view where);

// `count` numbers below 2^bit_width, as runs and bit-packed groups ("RLE/bit-packing hybrid").
std::vector<std::uint32_t> hybrid_values(std::string_view bytes, int bit_width, std::size_t count,
                                         std::string_view where);

// `count` numbers of DELTA_BINARY_PACKED, taken from the front of `bytes`.
std::vector<std::int64_t> take_deltas(std::string_view& bytes, std::size_t count,
                                      std::string_view where);

}  // namespace moebench::parquet
