// The codecs: against independent implementations (tests/golden/formats.json), and by properties
// that hold for any input.
#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "kernels/core/float_types.h"
#include "kernels/core/thread_pool.h"
#include "kernels/formats/encode_matrix.h"
#include "kernels/formats/format.h"
#include "tests/support/encoded.h"
#include "tests/support/files.h"
#include "tests/support/hex.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

// The scale that element `col` of a row is stored under, and all values a code can stand for.
struct Grid {
  std::vector<float> codes;  // before scaling
  double scale;
};

Grid grid_of(const MatrixView& m, std::int64_t row, std::int64_t col) {
  const Codec& c = codec(m.format);
  const std::byte* scales = m.scales + static_cast<std::size_t>(row) * c.row_scale_bytes(m.cols);
  const auto block = static_cast<std::size_t>(col / c.block);
  const auto byte = [&] { return static_cast<std::uint8_t>(scales[block]); };
  const auto half = [&] { return to_float(load_unaligned<f16>(scales + 2 * block)); };
  Grid grid;
  const auto add_e4m3 = [&] {
    for (int code = 0; code < 256; ++code) {
      if ((code & 0x7f) == 0x7f) continue;
      grid.codes.push_back(fp8_e4m3_to_float(static_cast<std::uint8_t>(code)));
    }
  };
  const auto add_integers = [&](int low, int high) {
    for (int q = low; q <= high; ++q) grid.codes.push_back(static_cast<float>(q));
  };
  float scale = 1;
  switch (m.format) {
    case Format::kFp8E4m3:
      add_e4m3();
      scale = load_unaligned<float>(scales);
      break;
    case Format::kMxfp8:
      add_e4m3();
      scale = e8m0_to_float(byte());
      break;
    case Format::kMxfp4:
      grid.codes.assign(kE2m1Values.begin(), kE2m1Values.end());
      scale = e8m0_to_float(byte());
      break;
    case Format::kNvfp4:
      grid.codes.assign(kE2m1Values.begin(), kE2m1Values.end());
      scale = fp8_e4m3_to_float(byte()) * m.tensor_scale;
      break;
    case Format::kInt8:
      add_integers(-127, 127);
      scale = half();
      break;
    case Format::kInt4:
      add_integers(-8, 7);
      scale = half();
      break;
    default:
      FAIL("not a block format");
  }
  grid.scale = static_cast<double>(scale);
  return grid;
}

}  // namespace

TEST_CASE("formats: names and enumerators agree, and an unknown name suggests the nearest") {
  CHECK(codecs().size() == 9);
  for (std::size_t i = 0; i < codecs().size(); ++i) {
    const Codec& c = *codecs()[i];
    CHECK(static_cast<std::size_t>(c.format) == i);
    CHECK(&codec(c.format) == &c);
    CHECK(format_name(c.format) == c.name);
    CHECK(parse_format(c.name) == c.format);
    CHECK_FALSE(c.source.empty());
  }
  check_error([] { parse_format("fp8"); }, ErrorCode::kInvalidArgument,
              {"choose a format: no format 'fp8'; ", "known: f32, bf16, f16"});
  CHECK(message_of([] { parse_format("mxpf4"); }).find("did you mean 'mxfp4'?") !=
        std::string::npos);
}

TEST_CASE("formats: bytes per row, elements and scales") {
  const std::map<std::string, std::array<std::size_t, 2>> want = {
      {"f32", {11520, 0}},   {"bf16", {5760, 0}},     {"f16", {5760, 0}},
      {"int8", {2880, 180}}, {"fp8_e4m3", {2880, 4}}, {"mxfp8", {2880, 90}},
      {"int4", {1440, 180}}, {"mxfp4", {1440, 90}},   {"nvfp4", {1440, 180}}};
  for (const Codec* c : codecs()) {
    const auto [data, scales] = want.at(std::string(c->name));
    CHECK(c->row_data_bytes(2880) == data);
    CHECK(c->row_scale_bytes(2880) == scales);
    CHECK(row_bytes(c->format, 2880) == data + scales);
    CHECK(matrix_bytes(c->format, 5760, 2880) == 5760 * (data + scales));
  }
}

TEST_CASE("formats: stored codes decode to the values of independent implementations") {
  const Json matrices = read_json(golden("formats.json")).at("matrices");
  for (const auto& [name, matrix] : matrices.items()) {
    const auto rows = matrix.at("rows").get<std::int64_t>();
    const auto cols = matrix.at("cols").get<std::int64_t>();
    for (const auto& [format, want] : matrix.at("formats").items()) {
      INFO(name << " as " << format);
      const auto data = bytes_from_hex(want.at("data").get<std::string>());
      const auto scales = bytes_from_hex(want.at("scales").get<std::string>());
      MatrixView view{parse_format(format), rows, cols, data.data(), scales.data(), 1.0F};
      if (want.contains("tensor_scale")) {
        view.tensor_scale = floats_from_hex(want.at("tensor_scale").get<std::string>())[0];
      }
      REQUIRE(data.size() + scales.size() == matrix_bytes(view.format, rows, cols));
      std::vector<float> decoded(static_cast<std::size_t>(rows * cols));
      for (std::int64_t r = 0; r < rows; ++r) view.decode_row(r, decoded.data() + r * cols);
      CHECK(bits_of(decoded) == bits_of(floats_from_hex(want.at("decoded").get<std::string>())));
    }
  }
}

TEST_CASE("formats: numbers encode to the codes and scales of independent implementations") {
  const Json matrices = read_json(golden("formats.json")).at("matrices");
  int compared = 0;
  for (const auto& [name, matrix] : matrices.items()) {
    const auto rows = matrix.at("rows").get<std::int64_t>();
    const auto cols = matrix.at("cols").get<std::int64_t>();
    const auto values = floats_from_hex(matrix.at("values").get<std::string>());
    for (const auto& [format, want] : matrix.at("formats").items()) {
      INFO(name << " as " << format);
      const EncodedStack got(parse_format(format), 1, rows, cols, values);
      const auto data = bytes_from_hex(want.at("data").get<std::string>());
      const auto scales = bytes_from_hex(want.at("scales").get<std::string>());
      CHECK(std::ranges::equal(got.scales(), scales));
      ++compared;
      if (format != "int8" && format != "int4") {
        CHECK(std::ranges::equal(got.data(), data));
        continue;
      }
      // ggml rounds by another rule, with a scale that is not the one it stores: our codes differ,
      // and each must be at least as near.
      const auto theirs = floats_from_hex(want.at("decoded").get<std::string>());
      const auto ours = got.decoded();
      for (std::size_t i = 0; i < values.size(); ++i) {
        INFO("element " << i << ": " << values[i] << ", ours " << ours[i] << ", ggml's "
                        << theirs[i]);
        CHECK(std::fabs(ours[i] - values[i]) <= std::fabs(theirs[i] - values[i]));
      }
    }
  }
  CHECK(compared > 50);
}

TEST_CASE("formats: every element takes a nearest code under its stored scale") {
  for (const Format format : {Format::kFp8E4m3, Format::kInt8, Format::kInt4, Format::kMxfp8,
                              Format::kMxfp4, Format::kNvfp4}) {
    INFO(format_name(format));
    constexpr std::int64_t kRows = 24, kCols = 96;
    auto values = random_floats(kRows * kCols, 21);
    for (std::size_t i = 0; i < values.size(); ++i) {  // rows of very different size
      values[i] *= std::ldexp(1.0F, static_cast<int>(i / kCols) - 12);
    }
    const EncodedStack encoded(format, 1, kRows, kCols, values);
    const auto decoded = encoded.decoded();
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t col = 0; col < kCols; ++col) {
        const auto i = static_cast<std::size_t>(r * kCols + col);
        const auto want = static_cast<double>(values[i]);
        const Grid grid = grid_of(encoded.matrix(), r, col);
        double nearest = std::numeric_limits<double>::infinity();
        for (const float code : grid.codes) {
          nearest = std::min(nearest, std::fabs(static_cast<double>(code) * grid.scale - want));
        }
        // Dividing by the scale rounds: allow a float32 ulp of the value.
        const double got = std::fabs(static_cast<double>(decoded[i]) - want);
        if (!(got <= nearest + std::fabs(want) * 1.2e-7)) {
          FAIL("row " << r << ", column " << col << ": " << want << " became " << decoded[i]);
        }
      }
    }
  }
}

TEST_CASE("formats: encoding what was decoded changes nothing") {
  // Not fp8_e4m3 and nvfp4: their f32 scale is a quotient, and comes out an ulp different.
  for (const Format format : {Format::kF32, Format::kBf16, Format::kF16, Format::kInt8,
                              Format::kInt4, Format::kMxfp8, Format::kMxfp4}) {
    INFO(format_name(format));
    const EncodedStack once(format, 1, 32, 64, random_floats(32 * 64, 22));
    const auto decoded = once.decoded();
    const EncodedStack twice(format, 1, 32, 64, decoded);
    CHECK(bits_of(twice.decoded()) == bits_of(decoded));
    CHECK(twice.error().noise == 0);
    CHECK(twice.error().sqnr_db() == std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("formats: zeros stay zeros, in a whole matrix of them and beside other numbers") {
  for (const Codec* c : codecs()) {
    INFO(c->name);
    const EncodedStack zeros(c->format, 1, 2, 64, std::vector<float>(128, 0.0F));
    for (const float value : zeros.decoded()) CHECK(value == 0.0F);
    auto values = random_floats(64, 23);
    values[5] = values[40] = 0.0F;
    const auto decoded = EncodedStack(c->format, 1, 1, 64, values).decoded();
    CHECK(decoded[5] == 0.0F);
    CHECK(decoded[40] == 0.0F);
  }
}

TEST_CASE("formats: blocks of huge, tiny and subnormal numbers stay finite and of the right size") {
  for (const Codec* c : codecs()) {
    for (const float size : {1e38F, 3e38F, 1e30F, 1e-30F, 1e-38F, 1e-44F}) {
      INFO(c->name << ", block of " << size);
      auto values = random_floats(64, 24);
      for (float& value : values) value = std::clamp(value, -1.0F, 1.0F) * size;
      if (size >= 65520.0F && c->format == Format::kF16) {
        CHECK_THROWS_AS(EncodedStack(c->format, 1, 1, 64, values), Error);
        continue;
      }
      const auto decoded = EncodedStack(c->format, 1, 1, 64, values).decoded();
      for (std::size_t i = 0; i < values.size(); ++i) {
        REQUIRE(std::isfinite(decoded[i]));
        // E2M1 rounds 5.1 up to 6; no step of the others is that wide.
        REQUIRE(static_cast<double>(std::fabs(decoded[i])) <= 1.2 * static_cast<double>(size));
        REQUIRE(!(decoded[i] * values[i] < 0));  // no sign turns
      }
    }
  }
}

TEST_CASE("formats: float16 scales saturate instead of becoming infinite") {
  std::vector<float> values(32, 1e30F);
  values[1] = -1e30F;
  const auto int8 = EncodedStack(Format::kInt8, 1, 1, 32, values).decoded();
  CHECK(int8[0] == 127 * 65504.0F);
  CHECK(int8[1] == -127 * 65504.0F);
  const auto int4 = EncodedStack(Format::kInt4, 1, 1, 32, values).decoded();
  CHECK(int4[0] == 8 * 65504.0F);
  CHECK(int4[1] == -7 * 65504.0F);
}

TEST_CASE("formats: a number that is not finite is refused, naming tensor, row, column and value") {
  for (const Codec* c : codecs()) {
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
      auto values = random_floats(3 * 64, 25);
      values[2 * 64 + 17] = bad;
      check_error([&] { EncodedStack(c->format, 1, 3, 64, values); }, ErrorCode::kInvalidArgument,
                  {fmt::format("encode a test as {}: row 2, column 17 holds {}", c->name, bad)});
    }
  }
}

TEST_CASE("formats: a number the format can only hold as infinity is refused") {
  auto values = random_floats(64, 26);
  values[9] = 65520.0F;
  check_error([&] { EncodedStack(Format::kF16, 1, 1, 64, values); }, ErrorCode::kInvalidArgument,
              {"encode a test as f16: row 0, column 9 holds 65520"});
  values[9] = 65519.0F;
  CHECK(EncodedStack(Format::kF16, 1, 1, 64, values).decoded()[9] == 65504.0F);
  values[9] = std::numeric_limits<float>::max();
  check_error([&] { EncodedStack(Format::kBf16, 1, 1, 64, values); }, ErrorCode::kInvalidArgument,
              {"encode a test as bf16: row 0, column 9 holds 3.4028235e+38"});
}

TEST_CASE("formats: columns that are not whole blocks are refused") {
  for (const Codec* c : codecs()) {
    for (const std::int64_t cols : {c->block - 1, c->block + 1, 3 * c->block / 2}) {
      if (cols == 0 || cols % c->block == 0) continue;
      check_error([&] { EncodedStack(c->format, 1, 1, cols, random_floats(cols, 27)); },
                  ErrorCode::kInvalidArgument,
                  {fmt::format("encode a test as {}: {} columns are not a multiple of {}", c->name,
                               cols, c->block)});
    }
  }
}

TEST_CASE("formats: codes and reported errors do not depend on the number of threads") {
  constexpr std::int64_t kRows = 101, kCols = 96;
  const auto values = random_floats(kRows * kCols, 28);
  const auto read_row = [&](std::int64_t row, float* out) {
    std::copy_n(values.data() + row * kCols, kCols, out);
  };
  for (const Codec* c : codecs()) {
    INFO(c->name);
    const EncodedStack want(c->format, 1, kRows, kCols, values);  // one thread
    for (const int threads : {2, 5}) {
      ThreadPool pool(threads);
      std::vector<std::byte> data(want.data().size()), scales(want.scales().size());
      float tensor_scale = 0;
      const EncodingError error = encode_matrix(*c, kRows, kCols, read_row, data.data(),
                                                scales.data(), &tensor_scale, "a test", pool);
      CHECK(std::ranges::equal(data, want.data()));
      CHECK(std::ranges::equal(scales, want.scales()));
      CHECK(tensor_scale == want.matrix().tensor_scale);
      CHECK(error.noise == want.error().noise);
      CHECK(error.signal == want.error().signal);
      CHECK(error.max_abs == want.error().max_abs);
      CHECK(error.count == kRows * kCols);
    }
  }
}

TEST_CASE("formats: the reported error is the one of the decoded numbers") {
  for (const Codec* c : codecs()) {
    const auto values = random_floats(16 * 64, 29);
    const EncodedStack encoded(c->format, 2, 8, 64, values);
    const auto decoded = encoded.decoded();
    double signal = 0, noise = 0, largest = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double difference = static_cast<double>(decoded[i]) - static_cast<double>(values[i]);
      signal += static_cast<double>(values[i]) * static_cast<double>(values[i]);
      noise += difference * difference;
      largest = std::max(largest, std::fabs(difference));
    }
    INFO(c->name);
    CHECK(encoded.error().count == 16 * 64);
    CHECK(encoded.error().signal == Approx(signal).epsilon(1e-12));
    CHECK(encoded.error().noise == Approx(noise).epsilon(1e-12));
    CHECK(encoded.error().max_abs == largest);
    if (noise > 0) CHECK(encoded.error().sqnr_db() == Approx(10 * std::log10(signal / noise)));
  }
}

TEST_CASE("formats: signal to noise of normal numbers is what each format is known for") {
  // Decibels, roughly 6 per bit of precision; finer blocks gain one or two.
  const std::map<std::string, std::array<double, 2>> want = {
      {"bf16", {52, 58}}, {"f16", {70, 76}},  {"fp8_e4m3", {30, 33}}, {"mxfp8", {29, 33}},
      {"int8", {42, 48}}, {"int4", {17, 22}}, {"mxfp4", {16, 20}},    {"nvfp4", {18, 22}}};
  const auto values = random_floats(64 * 2880, 30, 0.02);
  for (const auto& [name, range] : want) {
    const double sqnr = EncodedStack(parse_format(name), 1, 64, 2880, values).error().sqnr_db();
    INFO(name << ": " << sqnr << " dB");
    CHECK(sqnr >= range[0]);
    CHECK(sqnr <= range[1]);
  }
}

TEST_CASE("formats: slices and stacks are the same rows, and a slice past the end is refused") {
  for (const Codec* c : codecs()) {
    INFO(c->name);
    const auto values = random_floats(3 * 8 * 64, 31);
    const EncodedStack encoded(c->format, 3, 8, 64, values);
    const auto decoded = encoded.decoded();
    std::vector<float> row(64);
    for (std::int64_t m = 0; m < 3; ++m) {
      const MatrixView part = encoded.stack()[m].slice(2, 5);
      CHECK(part.rows == 5);
      for (std::int64_t r = 0; r < 5; ++r) {
        part.decode_row(r, row.data());
        CHECK(std::equal(row.begin(), row.end(), decoded.begin() + (m * 8 + 2 + r) * 64));
      }
    }
    const MatrixView matrix = encoded.matrix();
    CHECK(matrix.slice(8, 0).rows == 0);
    CHECK(message_of([&] { matrix.slice(4, 5); }) == "slice a matrix: rows [4, 9) of 8");
    CHECK_THROWS_AS(matrix.slice(-1, 2), Error);
    CHECK_THROWS_AS(matrix.slice(1, -1), Error);
  }
}

TEST_CASE("formats: interleaved rows decode to the same numbers, and tails are zeros") {
  ThreadPool pool(2);
  for (const Codec* c : codecs()) {
    for (const std::int64_t rows : {1, 7, 8, 9, 24, 37}) {
      INFO(c->name << ", " << rows << " rows");
      constexpr std::int64_t kCols = 96;
      const EncodedStack plain(c->format, 2, rows, kCols, random_floats(2 * rows * kCols, 22));
      const EncodedStack encoded(c->format, 2, rows, kCols, random_floats(2 * rows * kCols, 22),
                                 RowLayout::kInterleaved);
      CHECK(encoded.decoded() == plain.decoded());
      // Reordering an encoded matrix gives the bytes of encoding it in that order.
      const auto padded = static_cast<std::size_t>(stored_rows(RowLayout::kInterleaved, rows));
      std::vector<std::byte> data(padded * c->row_data_bytes(kCols), std::byte{0xff});
      std::vector<std::byte> scales(padded * c->row_scale_bytes(kCols), std::byte{0xff});
      interleave_rows(plain.stack()[1], data.data(), scales.data(), pool);
      CHECK(std::equal(data.begin(), data.end(), encoded.data().begin() + long(data.size())));
      CHECK(
          std::equal(scales.begin(), scales.end(), encoded.scales().begin() + long(scales.size())));
      CHECK(padded * row_bytes(c->format, kCols) ==
            matrix_bytes(c->format, rows, kCols, RowLayout::kInterleaved));
    }
  }
}

TEST_CASE("formats: the interleaved order is 4 bytes of each of 8 rows, by hand") {
  ThreadPool pool(1);
  std::vector<std::byte> plain(8 * 32);
  for (std::size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i);
  std::vector<std::byte> plain_scales(8 * 2);
  for (std::size_t i = 0; i < 16; ++i) plain_scales[i] = static_cast<std::byte>(0x80 + i);
  const MatrixView from{Format::kInt8, 8, 32, plain.data(), plain_scales.data()};
  std::vector<std::byte> data(plain.size());
  std::vector<std::byte> scales(plain_scales.size());
  interleave_rows(from, data.data(), scales.data(), pool);
  for (std::size_t unit = 0; unit < 8; ++unit) {
    for (std::size_t row = 0; row < 8; ++row) {
      for (std::size_t b = 0; b < 4; ++b) {
        CHECK(data[(unit * 8 + row) * 4 + b] == plain[row * 32 + unit * 4 + b]);
      }
    }
  }
  CHECK(scales == plain_scales);  // one block: one scale of two bytes for each row, in order
}

TEST_CASE("formats: what cannot be interleaved or cut is refused") {
  ThreadPool pool(1);
  CHECK(interleave_unsupported(Format::kBf16, 2).empty());
  CHECK_FALSE(interleave_unsupported(Format::kBf16, 3).empty());
  CHECK(interleave_unsupported(Format::kF32, 3).empty());
  const EncodedStack stack(Format::kInt8, 1, 16, 32, random_floats(16 * 32, 23),
                           RowLayout::kInterleaved);
  const MatrixView matrix = stack.matrix();
  check_error([&] { matrix.slice(4, 4); }, ErrorCode::kInvalidArgument, {"row 4", "8"});
  std::vector<float> a(32), b(32);
  matrix.decode_row(11, a.data());
  matrix.slice(8, 8).decode_row(3, b.data());
  CHECK(a == b);
  std::vector<std::byte> to(matrix_bytes(Format::kInt8, 16, 32));
  check_error([&] { interleave_rows(matrix, to.data(), to.data(), pool); },
              ErrorCode::kInvalidArgument, {"interleaved already"});
}

}  // namespace moebench::test
