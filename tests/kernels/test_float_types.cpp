// Narrow float types: all codes, all midpoints, and random numbers against a search over all codes.
#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <vector>

#include "kernels/core/float_types.h"
#include "kernels/core/random.h"
#include "tests/support/files.h"
#include "tests/support/hex.h"

namespace moebench::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// One narrow type: its codes in order of rising magnitude are 0, 1, 2, ..., the sign bit on top.
struct Type {
  const char* name;
  std::uint32_t sign_bit;
  std::uint32_t largest_finite;  // code
  bool saturates;                // else: to the code after largest_finite, infinity
  float (*decode)(std::uint32_t code);
  std::uint32_t (*encode)(float value);
};

const std::vector<Type> kTypes = {
    {"bf16", 0x8000, 0x7f7f, false,
     [](std::uint32_t code) { return to_float(bf16{static_cast<std::uint16_t>(code)}); },
     [](float value) { return std::uint32_t{to_bf16(value).bits}; }},
    {"f16", 0x8000, 0x7bff, false,
     [](std::uint32_t code) { return to_float(f16{static_cast<std::uint16_t>(code)}); },
     [](float value) { return std::uint32_t{to_f16(value).bits}; }},
    {"fp8_e4m3", 0x80, 0x7e, true,
     [](std::uint32_t code) { return fp8_e4m3_to_float(static_cast<std::uint8_t>(code)); },
     [](float value) { return std::uint32_t{float_to_fp8_e4m3(value)}; }},
    {"e2m1", 0x8, 0x7, true, [](std::uint32_t code) { return kE2m1Values[code]; },
     [](float value) { return std::uint32_t{float_to_e2m1(value)}; }},
};

// All finite magnitudes of a type, rising.
std::vector<double> magnitudes(const Type& type) {
  std::vector<double> values;
  for (std::uint32_t code = 0; code <= type.largest_finite; ++code) {
    values.push_back(static_cast<double>(type.decode(code)));
  }
  return values;
}

bool same_bits(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

}  // namespace

TEST_CASE("float types: every finite code round-trips, and codes rise with magnitude") {
  for (const Type& type : kTypes) {
    INFO(type.name);
    for (std::uint32_t code = 0; code <= type.largest_finite; ++code) {
      const float value = type.decode(code);
      REQUIRE(type.encode(value) == code);
      REQUIRE(type.encode(-value) == (code | type.sign_bit));
      REQUIRE(same_bits(type.decode(code | type.sign_bit), -value));
      if (code > 0) REQUIRE(value > type.decode(code - 1));
    }
  }
}

TEST_CASE("float types: 16-bit infinities round-trip, and every NaN stays a NaN") {
  for (std::uint32_t code = 0; code < 65536; ++code) {
    for (const Type& type : {kTypes[0], kTypes[1]}) {
      if ((code & 0x7fff) <= type.largest_finite) continue;
      const float value = type.decode(code);
      if (std::isinf(value)) {
        REQUIRE((code & 0x7fff) == type.largest_finite + 1);
        REQUIRE(type.encode(value) == code);
      } else {
        REQUIRE(std::isnan(value));
        REQUIRE(std::isnan(type.decode(type.encode(value))));
      }
    }
  }
  CHECK(std::isnan(fp8_e4m3_to_float(0x7f)));
  CHECK(std::isnan(fp8_e4m3_to_float(0xff)));
  CHECK(float_to_fp8_e4m3(kNaN) == 0x7f);
  CHECK((float_to_e2m1(kNaN) & 7) == 7);
  // A signalling NaN whose payload lies in the lower half must not become infinity.
  CHECK(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7f800001U)))));
  CHECK(std::isnan(to_float(to_f16(std::bit_cast<float>(0x7f800001U)))));
}

TEST_CASE("float types: midpoints round to the even code, their neighbours to the nearer one") {
  for (const Type& type : kTypes) {
    INFO(type.name);
    const auto values = magnitudes(type);
    for (std::uint32_t code = 0; code < type.largest_finite; ++code) {
      const auto middle = static_cast<float>((values[code] + values[code + 1]) / 2);
      REQUIRE(static_cast<double>(middle) == (values[code] + values[code + 1]) / 2);  // exact
      REQUIRE(type.encode(middle) == (code % 2 == 0 ? code : code + 1));
      REQUIRE(type.encode(std::nextafter(middle, 0.0F)) == code);
      REQUIRE(type.encode(std::nextafter(middle, kInfinity)) == code + 1);
      REQUIRE(type.encode(-middle) == (type.sign_bit | (code % 2 == 0 ? code : code + 1)));
    }
  }
}

TEST_CASE("float types: beyond the largest value they saturate, or overflow to infinity") {
  for (const Type& type : kTypes) {
    INFO(type.name);
    const float largest = type.decode(type.largest_finite);
    const std::uint32_t beyond = type.largest_finite + (type.saturates ? 0 : 1);
    for (const float value : {kInfinity, std::numeric_limits<float>::max()}) {
      CHECK(type.encode(value) == beyond);
      CHECK(type.encode(-value) == (beyond | type.sign_bit));
    }
    CHECK(type.encode(std::nextafter(largest, kInfinity)) == type.largest_finite);
  }
  CHECK(to_f16(65519.996F).bits == 0x7bff);  // just under half a step past 65504
  CHECK(to_f16(65520.0F).bits == 0x7c00);    // the tie goes to the even code: infinity
  CHECK(float_to_fp8_e4m3(464.0F) == 0x7e);
  CHECK(float_to_e2m1(1000.0F) == 7);
}

TEST_CASE("float types: zeros keep their sign, and what is below half the smallest code is zero") {
  for (const Type& type : kTypes) {
    INFO(type.name);
    CHECK(type.encode(0.0F) == 0);
    CHECK(type.encode(-0.0F) == type.sign_bit);
    const float smallest = type.decode(1);
    if (type.name != std::string("bf16")) {  // whose smallest is near float32's own
      CHECK(type.encode(smallest / 2) == 0);
      CHECK(type.encode(std::nextafter(smallest / 2, 1.0F)) == 1);
    }
    CHECK(type.encode(std::numeric_limits<float>::denorm_min()) == 0);
    CHECK(type.encode(-std::numeric_limits<float>::denorm_min()) == type.sign_bit);
  }
}

TEST_CASE("float types: random floats encode to a nearest value, by search over all codes") {
  RandomStream random(11);
  for (const Type& type : kTypes) {
    const auto values = magnitudes(type);
    for (int i = 0; i < 20000; ++i) {
      // Any exponent that matters: from well under the smallest code to the largest.
      const double top = std::log2(values.back());
      const double bottom = std::max(std::log2(values[1]) - 3, -148.0);
      const auto value = static_cast<float>(std::exp2(bottom + (top - bottom) * random.uniform()) *
                                            (random.uniform() < 0.5 ? -1 : 1));
      const auto magnitude = std::fabs(static_cast<double>(value));
      const auto above = std::lower_bound(values.begin(), values.end(), magnitude);
      double nearest = above == values.end() ? kInfinity : *above - magnitude;
      if (above != values.begin()) nearest = std::min(nearest, magnitude - *(above - 1));
      const std::uint32_t code = type.encode(value);
      INFO(type.name << " of " << value);
      REQUIRE(std::fabs(static_cast<double>(type.decode(code)) - static_cast<double>(value)) ==
              nearest);
    }
  }
}

TEST_CASE("float types: codes and values agree with ml_dtypes and numpy") {
  const Json golden = read_json(test::golden("formats.json")).at("elements");
  for (const Type& type : kTypes) {
    INFO(type.name);
    const Json& element = golden.at(type.name);
    const auto values = floats_from_hex(element.at("encode_values").get<std::string>());
    const auto hex = element.at("encode_codes").get<std::string>();
    const std::size_t digits = hex.size() / values.size();
    REQUIRE(values.size() > 50);
    for (std::size_t i = 0; i < values.size(); ++i) {
      INFO("value " << values[i]);
      CHECK(type.encode(values[i]) == std::stoul(hex.substr(digits * i, digits), nullptr, 16));
    }
    if (!element.contains("decoded")) continue;
    const auto decoded = floats_from_hex(element.at("decoded").get<std::string>());
    for (std::uint32_t code = 0; code < decoded.size(); ++code) {
      const float got = type.decode(code);
      CHECK((std::isnan(decoded[code]) ? std::isnan(got) : same_bits(got, decoded[code])));
    }
  }
}

TEST_CASE("e8m0: every code is its power of two, and 255 is NaN") {
  const auto want =
      floats_from_hex(read_json(golden("formats.json")).at("e8m0_decoded").get<std::string>());
  REQUIRE(want.size() == 255);
  for (int code = 0; code < 255; ++code) {
    const float got = e8m0_to_float(static_cast<std::uint8_t>(code));
    CHECK(got == std::ldexp(1.0F, code - 127));
    CHECK(got == want[static_cast<std::size_t>(code)]);
  }
  CHECK(std::isnan(e8m0_to_float(255)));
}

TEST_CASE("e8m0: the shared scale is 2^(floor(log2 max) - emax), clamped to what a byte holds") {
  for (const int emax : {2, 8}) {
    for (int exponent = -149; exponent <= 127; ++exponent) {
      const float power = std::ldexp(1.0F, exponent);
      // Subnormal maxima are all below 2^-126: code 0 for any element type.
      const int want = std::clamp(exponent - emax, -127, 127) + 127;
      CHECK(e8m0_scale_for(power, emax) == want);
      CHECK(e8m0_scale_for(std::nextafter(power * 1.999F, 0.0F), emax) == want);
    }
    CHECK(e8m0_scale_for(0.0F, emax) == 0);
    CHECK(e8m0_scale_for(std::numeric_limits<float>::max(), emax) == 254 - emax);
  }
}

}  // namespace moebench::test
