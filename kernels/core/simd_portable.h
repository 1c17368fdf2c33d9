// Eight 32-bit lanes for any processor: the same functions as Avx2's, in two 16-byte vectors of the
// compiler's (SSE2 on any x86-64, NEON on any arm64, plain code elsewhere).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/core/float_types.h"

namespace moebench {

typedef float Float4 __attribute__((vector_size(16)));
typedef std::int32_t Int4 __attribute__((vector_size(16)));
typedef std::uint32_t Unsigned4 __attribute__((vector_size(16)));

struct Float8 {
  Float4 low, high;
};
struct Int8 {
  Int4 low, high;
};

struct Portable {
  using F32 = Float8;
  using I32 = Int8;

  // --- floats ---
  static F32 zero() { return set(0.0F); }
  static F32 set(float v) { return {Float4{v, v, v, v}, Float4{v, v, v, v}}; }
  static F32 load(const float* from) { return load_as<F32>(from); }
  static void store(float* to, F32 a) { std::memcpy(to, &a, sizeof(a)); }
  static F32 add(F32 a, F32 b) { return {a.low + b.low, a.high + b.high}; }
  static F32 sub(F32 a, F32 b) { return {a.low - b.low, a.high - b.high}; }
  static F32 mul(F32 a, F32 b) { return {a.low * b.low, a.high * b.high}; }
  static F32 div(F32 a, F32 b) { return {a.low / b.low, a.high / b.high}; }
  static F32 min(F32 a, F32 b) {  // b if either is NaN
    return {a.low < b.low ? a.low : b.low, a.high < b.high ? a.high : b.high};
  }
  static F32 max(F32 a, F32 b) {  // b if either is NaN
    return {a.low > b.low ? a.low : b.low, a.high > b.high ? a.high : b.high};
  }
  static F32 multiply_add(F32 a, F32 b, F32 c) {  // a * b + c, rounded twice
    return {a.low * b.low + c.low, a.high * b.high + c.high};
  }
  static F32 round(F32 a) {
    return each(a, [](float v) { return std::nearbyint(v); });
  }
  static float sum(F32 a) {  // in the order of Avx2::sum
    const Float4 half = a.low + a.high;
    return (half[0] + half[2]) + (half[1] + half[3]);
  }
  static float largest(F32 a) {
    const Float4 half = a.low > a.high ? a.low : a.high;
    return std::max(std::max(half[0], half[2]), std::max(half[1], half[3]));
  }
  // Lanes 0, 2, 4, ... and 1, 3, 5, ... of the sixteen in (a, b).
  static void split_pairs(F32 a, F32 b, F32* even, F32* odd) {
    *even = {Float4{a.low[0], a.low[2], a.high[0], a.high[2]},
             Float4{b.low[0], b.low[2], b.high[0], b.high[2]}};
    *odd = {Float4{a.low[1], a.low[3], a.high[1], a.high[3]},
            Float4{b.low[1], b.low[3], b.high[1], b.high[3]}};
  }

  // Eight rows of eight, `from_stride` floats apart, to the eight columns, `to_stride` apart.
  static void transpose(const float* from, std::int64_t from_stride, float* to,
                        std::int64_t to_stride) {
    for (int r = 0; r < 8; ++r) {
      for (int c = 0; c < 8; ++c) to[c * to_stride + r] = from[r * from_stride + c];
    }
  }

  // --- 32-bit integers ---
  static I32 load_words(const void* from) { return load_as<I32>(from); }
  static I32 set_words(std::int32_t v) { return {Int4{v, v, v, v}, Int4{v, v, v, v}}; }
  static I32 bit_and(I32 a, I32 b) { return {a.low & b.low, a.high & b.high}; }
  static I32 bit_or(I32 a, I32 b) { return {a.low | b.low, a.high | b.high}; }
  static I32 bit_xor(I32 a, I32 b) { return {a.low ^ b.low, a.high ^ b.high}; }
  static I32 greater(I32 a, I32 b) { return {a.low > b.low, a.high > b.high}; }
  static I32 max_words(I32 a, I32 b) {
    return {a.low > b.low ? a.low : b.low, a.high > b.high ? a.high : b.high};
  }
  static I32 add_words(I32 a, I32 b) { return {a.low + b.low, a.high + b.high}; }
  static I32 shift_left(I32 a, int n) {
    return {Int4(Unsigned4(a.low) << n), Int4(Unsigned4(a.high) << n)};
  }
  static I32 shift_right(I32 a, int n) {  // zeros come in
    return {Int4(Unsigned4(a.low) >> n), Int4(Unsigned4(a.high) >> n)};
  }
  static I32 shift_signed(I32 a, int n) { return {a.low >> n, a.high >> n}; }
  static F32 to_float(I32 a) {
    return {__builtin_convertvector(a.low, Float4), __builtin_convertvector(a.high, Float4)};
  }
  static I32 to_words(F32 a) {  // rounds, ties to even
    const F32 r = round(a);
    return {__builtin_convertvector(r.low, Int4), __builtin_convertvector(r.high, Int4)};
  }
  static F32 as_float(I32 a) { return std::bit_cast<F32>(a); }
  static I32 as_words(F32 a) { return std::bit_cast<I32>(a); }
  static F32 look_up(F32 table, I32 index) {  // table[index & 7] per lane
    float values[8];
    std::int32_t at[8];
    float result[8];
    std::memcpy(values, &table, sizeof(values));
    std::memcpy(at, &index, sizeof(at));
    for (int i = 0; i < 8; ++i) result[i] = values[at[i] & 7];
    return load(result);
  }

  // --- loads that widen: 8 elements to 8 lanes ---
  static I32 load_bytes(const void* from) { return widen<std::uint8_t>(from); }
  static I32 load_halves(const void* from) { return widen<std::uint16_t>(from); }
  static F32 load_f16(const void* from) {
    f16 values[8];
    float result[8];
    std::memcpy(values, from, sizeof(values));
    for (int i = 0; i < 8; ++i) result[i] = to_float(values[i]);
    return load(result);
  }
  static void prefetch(const void* at) { __builtin_prefetch(at); }

 private:
  template <class V>
  static V load_as(const void* from) {
    V value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static float to_float(f16 value) { return moebench::to_float(value); }
  template <class Element>
  static I32 widen(const void* from) {
    Element elements[8];
    std::int32_t result[8];
    std::memcpy(elements, from, sizeof(elements));
    for (int i = 0; i < 8; ++i) result[i] = elements[i];
    return load_words(result);
  }
  template <class Function>
  static F32 each(F32 a, Function function) {
    float values[8];
    store(values, a);
    for (float& v : values) v = function(v);
    return load(values);
  }
};

}  // namespace moebench
