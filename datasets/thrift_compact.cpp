// Fields, lists and numbers of Thrift's compact protocol.
#include "datasets/thrift_compact.h"

#include "datasets/varint.h"

namespace moebench {
namespace {

constexpr int kMaxMetadataDepth = 32;

}  // namespace

std::uint8_t ThriftReader::byte() {
  require_or(ErrorCode::kParse, at_ < bytes_.size(), "read {}: its metadata ends too early",
             where_);
  return static_cast<std::uint8_t>(bytes_[at_++]);
}

std::uint64_t ThriftReader::varint() {
  const std::optional<std::uint64_t> value = read_varint([&] { return byte(); });
  require_or(ErrorCode::kParse, value.has_value(),
             "read {}: a number of its metadata is longer than 64 bits", where_);
  return *value;
}

std::size_t ThriftReader::size() {
  const std::uint64_t value = varint();
  require_or(ErrorCode::kParse, value <= bytes_.size() - at_,
             "read {}: its metadata claims {} elements where {} bytes are left", where_, value,
             bytes_.size() - at_);
  return static_cast<std::size_t>(value);
}

void ThriftReader::expect(ThriftType got, ThriftType wanted, std::string_view what) const {
  require_or(ErrorCode::kParse, got == wanted, "read {}: its metadata has type {} in place of {}",
             where_, static_cast<int>(got), what);
}

bool ThriftReader::next_field(int& id, ThriftType& type) {
  const std::uint8_t header = byte();
  if (header == 0) return false;
  const int delta = header >> 4;
  const std::int64_t next =
      delta != 0 ? id + delta : static_cast<std::int64_t>(from_zigzag(varint()));
  require_or(ErrorCode::kParse, next >= 0 && next <= 0x7fff,
             "read {}: its metadata has a field number {}", where_, next);
  id = static_cast<int>(next);
  type = static_cast<ThriftType>(header & 0xf);
  return true;
}

ThriftReader::ListHeader ThriftReader::list_header() {
  const std::uint8_t header = byte();
  std::size_t count = header >> 4;
  if (count == 15) count = size();
  return {count, static_cast<ThriftType>(header & 0xf)};
}

std::int64_t ThriftReader::integer(ThriftType type) {
  if (type == ThriftType::kByte) return static_cast<std::int8_t>(byte());
  const bool is_integer =
      type == ThriftType::kI16 || type == ThriftType::kI32 || type == ThriftType::kI64;
  expect(type, is_integer ? type : ThriftType::kI64, "an integer");
  return static_cast<std::int64_t>(from_zigzag(varint()));
}

bool ThriftReader::boolean(ThriftType type) {
  if (type == ThriftType::kFalse) return false;
  expect(type, ThriftType::kTrue, "a boolean");
  return true;
}

std::string_view ThriftReader::text(ThriftType type) {
  expect(type, ThriftType::kBinary, "text");
  const std::size_t length = size();
  at_ += length;
  return bytes_.substr(at_ - length, length);
}

// Where a field is a boolean its type is its value; an element of a list takes a byte.
void ThriftReader::skip_element(ThriftType type, int depth) {
  if (type == ThriftType::kTrue || type == ThriftType::kFalse) {
    byte();
  } else {
    skip(type, depth);
  }
}

void ThriftReader::skip(ThriftType type, int depth) {
  require_or(ErrorCode::kParse, depth < kMaxMetadataDepth,
             "read {}: its metadata is nested deeper than {}", where_, kMaxMetadataDepth);
  switch (type) {
    case ThriftType::kTrue:
    case ThriftType::kFalse:
      return;
    case ThriftType::kByte:
      byte();
      return;
    case ThriftType::kI16:
    case ThriftType::kI32:
    case ThriftType::kI64:
      varint();
      return;
    case ThriftType::kDouble:
      for (int i = 0; i < 8; ++i) byte();
      return;
    case ThriftType::kBinary:
      text(type);
      return;
    case ThriftType::kList:
    case ThriftType::kSet: {
      const ListHeader list = list_header();
      for (std::size_t i = 0; i < list.size; ++i) skip_element(list.element, depth + 1);
      return;
    }
    case ThriftType::kMap: {
      const std::size_t count = size();
      if (count == 0) return;
      const std::uint8_t types = byte();
      for (std::size_t i = 0; i < count; ++i) {
        skip_element(static_cast<ThriftType>(types >> 4), depth + 1);
        skip_element(static_cast<ThriftType>(types & 0xf), depth + 1);
      }
      return;
    }
    case ThriftType::kStruct: {
      int id = 0;
      ThriftType field{};
      while (next_field(id, field)) skip(field, depth + 1);
      return;
    }
  }
  fail(ErrorCode::kParse, "read {}: its metadata has an unknown type {}", where_,
       static_cast<int>(type));
}

}  // namespace moebench
