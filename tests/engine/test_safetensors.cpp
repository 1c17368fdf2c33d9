// The safetensors container: what a good file says, and that every kind of lie in a header is
// refused with the file, the tensor and the value.
#include <catch2/catch.hpp>
#include <cstring>

#include "engine/mapped_file.h"
#include "engine/safetensors.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::vector<SafetensorsEntry> parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "m.safetensors");
}

// CHECKs that a file of this header and `data_bytes` zeros is refused with all of `words`.
void check_refused(const std::string& header, std::size_t data_bytes,
                   std::initializer_list<std::string> words) {
  INFO("header: " << header);
  const std::string file = safetensors_bytes(header, std::string(data_bytes, '\0'));
  check_error([&] { parse(file); }, ErrorCode::kParse, words);
}

// One tensor "w" whose fields are given as JSON text.
std::string one_tensor(const std::string& dtype, const std::string& shape,
                       const std::string& offsets) {
  return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

}  // namespace

TEST_CASE("safetensors: tensors come in the order of their data, with the bytes of the file") {
  const std::string data = "abcdefghijklmnop";
  const std::string file = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},
          "second":{"dtype":"U8","shape":[4],"data_offsets":[12,16]},
          "first":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
          "empty":{"dtype":"F32","shape":[0,9],"data_offsets":[0,0]},
          "padded":{"dtype":"F64","shape":[2,0],"data_offsets":[16,16]}}   )",
      data);
  const auto entries = parse(file);
  REQUIRE(entries.size() == 4);
  CHECK(entries[0].name == "empty");
  CHECK(entries[1].name == "first");
  CHECK(entries[1].dtype == "BF16");
  CHECK(entries[1].shape == std::vector<std::int64_t>{2, 3});
  REQUIRE(entries[1].data.size() == 12);
  CHECK(std::memcmp(entries[1].data.data(), "abcdefghijkl", 12) == 0);
  CHECK(entries[2].name == "second");
  CHECK(std::memcmp(entries[2].data.data(), "mnop", 4) == 0);
  CHECK(entries[3].name == "padded");
  CHECK(entries[3].data.empty());
}

TEST_CASE("safetensors: a scalar has an empty shape, and half-byte dtypes count in bits") {
  const auto scalar = parse(safetensors_bytes(one_tensor(R"("F32")", "[]", "[0,4]"), "1234"));
  REQUIRE(scalar.size() == 1);
  CHECK(scalar[0].shape.empty());
  const auto halves = parse(safetensors_bytes(one_tensor(R"("F4")", "[3,2]", "[0,3]"), "abc"));
  CHECK(halves.at(0).data.size() == 3);
  check_refused(one_tensor(R"("F4")", "[3]", "[0,1]"), 1, {"'w'", "12 bits", "whole bytes"});
}

TEST_CASE("safetensors: a file cut anywhere is refused") {
  const std::string whole = safetensors_bytes(one_tensor(R"("F32")", "[2]", "[0,8]"), "01234567");
  REQUIRE(parse(whole).size() == 1);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    INFO("the first " << length << " bytes");
    check_error([&] { parse(whole.substr(0, length)); }, ErrorCode::kParse, {"m.safetensors"});
  }
  check_error([&] { parse(whole.substr(0, whole.size() - 1)); }, ErrorCode::kParse,
              {"'w'", "[0, 8]", "7 data bytes"});
}

TEST_CASE("safetensors: a header longer than the file is refused") {
  const auto with_length = [](std::uint64_t length, const std::string& rest) {
    return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + rest;
  };
  check_error([&] { parse(with_length(3, "{}")); }, ErrorCode::kParse,
              {"m.safetensors", "claims 3 bytes", "2 remain"});
  check_error([&] { parse(with_length(std::uint64_t{1} << 63, "{}")); }, ErrorCode::kParse,
              {"9223372036854775808"});
  // 8 + length wraps around to a small number.
  check_error([&] { parse(with_length(~std::uint64_t{0} - 5, "{}")); }, ErrorCode::kParse,
              {"18446744073709551610"});
}

TEST_CASE("safetensors: a header above 100 MB is refused before it is parsed") {
  // A sparse file: the claim is true, and still too much.
  const TemporaryDirectory directory;
  const auto path = directory.path() / "m.safetensors";
  const std::uint64_t length = 100'000'001;
  write_file(path, {reinterpret_cast<const char*>(&length), sizeof(length)});
  std::filesystem::resize_file(path, 8 + length);
  const MappedFile file(path);
  check_error([&] { parse_safetensors(file.bytes(), path.string()); }, ErrorCode::kParse,
              {path.string(), "100000001", "limit 100000000"});
}

TEST_CASE("safetensors: a header that is not an object of tensors is refused") {
  check_refused("", 0, {"m.safetensors (header)"});
  check_refused("[]", 0, {"not a JSON object"});
  check_refused("{\"w\":", 0, {"m.safetensors (header)"});
  check_refused("{\"w\":3}", 0, {"expected an object", "3"});
  check_refused("{\"w\":{},\"w\":{}}", 0, {"'w'", "twice"});
  check_refused("{\"\xff\":{}}", 0, {"m.safetensors (header)"});
  const std::string deep = "{\"w\":" + std::string(100, '[') + std::string(100, ']') + "}";
  check_refused(deep, 0, {"nested deeper than 8"});
}

TEST_CASE("safetensors: a field that is missing or of a wrong type names tensor, field and value") {
  check_refused(R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1, {"'w'", "'dtype' is missing"});
  check_refused(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1, {"'w'", "'shape'"});
  check_refused(R"({"w":{"dtype":"U8","shape":[1]}})", 1, {"'w'", "'data_offsets'"});
  check_refused(one_tensor("8", "[1]", "[0,1]"), 1, {"'w'", "dtype", "8"});
  check_refused(one_tensor(R"("U9")", "[1]", "[0,1]"), 1, {"'w'", "unknown dtype 'U9'"});
  check_refused(one_tensor(R"("U8")", "1", "[0,1]"), 1, {"'w'", "shape", "1"});
  check_refused(one_tensor(R"("U8")", "[1.5]", "[0,1]"), 1, {"'w'", "shape[0]", "1.5"});
  check_refused(one_tensor(R"("U8")", R"(["1"])", "[0,1]"), 1, {"'w'", "shape[0]"});
  check_refused(one_tensor(R"("U8")", "[1]", "[0]"), 1, {"'w'", "data_offsets [0]"});
  check_refused(one_tensor(R"("U8")", "[1]", "[0,1,1]"), 1, {"'w'", "[0, 1, 1]"});
}

TEST_CASE("safetensors: numbers that wrap around 63 or 64 bits are refused") {
  check_refused(one_tensor(R"("U8")", "[9223372036854775808]", "[0,1]"), 1,
                {"'w'", "shape[0]", "9223372036854775808"});
  check_refused(one_tensor(R"("U8")", "[-1]", "[0,1]"), 1, {"'w'", "negative", "[-1]"});
  // 2^32 * 2^32 elements would be 0 modulo 2^64, and 2^61 elements of 64 bits too.
  check_refused(one_tensor(R"("U8")", "[4294967296,4294967296]", "[0,0]"), 0,
                {"'w'", "[4294967296, 4294967296]", "overflows"});
  check_refused(one_tensor(R"("F64")", "[2305843009213693952]", "[0,0]"), 0, {"'w'", "overflows"});
  check_refused(one_tensor(R"("U8")", "[1]", "[0,9223372036854775808]"), 1,
                {"'w'", "9223372036854775808"});
  check_refused(one_tensor(R"("U8")", "[1]", "[9223372036854775806,9223372036854775807]"), 1,
                {"'w'", "9223372036854775807"});
  check_refused(one_tensor(R"("U8")", "[1]", "[-1,0]"), 1, {"'w'", "[-1, 0]"});
  check_refused(one_tensor(R"("U8")", "[1]", "[1,0]"), 1, {"'w'", "[1, 0]"});
  check_refused(one_tensor(R"("U8")", "[2]", "[0,2]"), 1, {"'w'", "[0, 2]", "1 data bytes"});
}

TEST_CASE("safetensors: a shape must need exactly the bytes of its range") {
  check_refused(one_tensor(R"("BF16")", "[2,3]", "[0,11]"), 11,
                {"'w'", "BF16 [2, 3]", "12 bytes", "give 11"});
  check_refused(one_tensor(R"("F32")", "[2,3]", "[0,12]"), 12, {"'w'", "24 bytes", "give 12"});
  check_refused(one_tensor(R"("F32")", "[0]", "[0,4]"), 4, {"'w'", "0 bytes", "give 4"});
}

TEST_CASE("safetensors: overlapping tensors, holes and bytes at the end are refused") {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  REQUIRE(parse(safetensors_bytes(two("[0,4]", "[4,8]"), "01234567")).size() == 2);
  check_refused(two("[0,4]", "[3,7]"), 7, {"'b'", "overlaps"});
  check_refused(two("[2,6]", "[0,4]"), 6, {"'a'", "overlaps"});
  check_refused(two("[0,4]", "[0,4]"), 4, {"'b'", "overlaps"});
  check_refused(two("[0,4]", "[6,10]"), 10, {"2 bytes before", "'b'"});
  check_refused(two("[1,5]", "[5,9]"), 9, {"1 bytes before", "'a'"});
  check_refused(two("[0,4]", "[4,8]"), 11, {"3 bytes after"});
}

}  // namespace moebench::test
