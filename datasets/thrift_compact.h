// Reading Thrift's compact protocol, in which Parquet keeps its metadata. Of untrusted bytes: no
// read leaves them, no list claims more than they could hold, nothing recurses deeper than 32.
//
//   reader.read_struct([&](int id, ThriftType type) {
//     if (id == 1) count = reader.integer(type);
//     return id == 1;  // false: skip the field
//   });
//
// Source: the Apache Thrift repository, doc/specs/thrift-compact-protocol.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/core/error.h"

namespace moebench {

// Numbers of the protocol. A boolean field is its type.
enum class ThriftType : std::uint8_t {
  kTrue = 1,
  kFalse,
  kByte,
  kI16,
  kI32,
  kI64,
  kDouble,
  kBinary,
  kList,
  kSet,
  kMap,
  kStruct,
};

class ThriftReader {
 public:
  // Errors are Error(kParse) and begin "read <where>: ".
  ThriftReader(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  std::size_t bytes_read() const { return at_; }

  // Calls visit(id, type) for every field; it reads the value with the functions below, or returns
  // false, and the value is skipped.
  template <class Visit>
  void read_struct(const Visit& visit) {
    int id = 0;
    ThriftType type{};
    while (next_field(id, type)) {
      if (!visit(id, type)) skip(type, 0);
    }
  }

  // Calls visit(type) for every element of a list, which it must read.
  template <class Visit>
  void read_list(ThriftType type, const Visit& visit) {
    expect(type, ThriftType::kList, "a list");
    const auto [size, element] = list_header();
    for (std::size_t i = 0; i < size; ++i) visit(element);
  }

  std::int64_t integer(ThriftType type);  // of any width
  bool boolean(ThriftType type);          // of a field, not of a list
  std::string_view text(ThriftType type);

 private:
  struct ListHeader {
    std::size_t size;
    ThriftType element;
  };

  bool next_field(int& id, ThriftType& type);
  ListHeader list_header();
  void skip(ThriftType type, int depth);
  void skip_element(ThriftType type, int depth);
  std::uint8_t byte();
  std::uint64_t varint();
  std::size_t size();  // a varint that the bytes left could hold elements for
  void expect(ThriftType got, ThriftType wanted, std::string_view what) const;

  std::string_view bytes_;
  std::string_view where_;
  std::size_t at_ = 0;
};

}  // namespace moebench
