// Eight 32-bit lanes in one AVX2 register, as small functions named for what they do, and the
// pragmas that let a file use them without a compiler flag of its own.
//
// A file compiled with -mavx2 would also compile its copies of the standard library's inline
// functions with it, and the linker may pick those copies for the whole program, which then stops
// on a processor without AVX2. So only what stands between MOEBENCH_AVX2_BEGIN and _END is compiled
// for it; a file includes everything else first. No lambdas there: GCC does not pass the target on
// to all of their functions. (Google Highway does the same. Not used here: the
// version in Debian 12, 1.0.3, has no unsigned-by-signed byte products, which int8 kernels are made
// of.)
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#if defined(__clang__)
#define MOEBENCH_AVX2_BEGIN \
  _Pragma("clang attribute push(__attribute__((target(\"avx2,fma,f16c\"))), apply_to = function)")
#define MOEBENCH_AVX2_END _Pragma("clang attribute pop")
#else
#define MOEBENCH_AVX2_BEGIN _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma,f16c\")")
#define MOEBENCH_AVX2_END _Pragma("GCC pop_options")
#endif

MOEBENCH_AVX2_BEGIN
namespace moebench {

struct Avx2 {
  using F32 = __m256;   // 8 floats
  using I32 = __m256i;  // 8 int32, or 16 int16, or 32 bytes

  // --- floats ---
  static F32 zero() { return _mm256_setzero_ps(); }
  static F32 set(float value) { return _mm256_set1_ps(value); }
  static F32 load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, F32 a) { _mm256_storeu_ps(to, a); }
  static F32 add(F32 a, F32 b) { return _mm256_add_ps(a, b); }
  static F32 sub(F32 a, F32 b) { return _mm256_sub_ps(a, b); }
  static F32 mul(F32 a, F32 b) { return _mm256_mul_ps(a, b); }
  static F32 div(F32 a, F32 b) { return _mm256_div_ps(a, b); }
  static F32 min(F32 a, F32 b) { return _mm256_min_ps(a, b); }  // b if either is NaN
  static F32 max(F32 a, F32 b) { return _mm256_max_ps(a, b); }  // b if either is NaN
  static F32 multiply_add(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }  // a * b + c
  static F32 round(F32 a) {  // to the nearest integer, ties to even
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static float sum(F32 a) {  // (0 + 4) + (2 + 6), (1 + 5) + (3 + 7), then both
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
  }
  static float largest(F32 a) {
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_movehdup_ps(quarter)));
  }
  // Lanes 0, 2, 4, ... and 1, 3, 5, ... of the sixteen in (a, b).
  static void split_pairs(F32 a, F32 b, F32* even, F32* odd) {
    *even = middle_swapped(_mm256_shuffle_ps(a, b, 0x88));
    *odd = middle_swapped(_mm256_shuffle_ps(a, b, 0xdd));
  }
  // Quarters 0, 2, 1, 3: after an instruction that works on the two halves separately.
  static F32 middle_swapped(F32 a) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8));
  }

  // Eight rows of eight, `from_stride` floats apart, to the eight columns, `to_stride` apart.
  static void transpose(const float* from, std::int64_t from_stride, float* to,
                        std::int64_t to_stride) {
    F32 r[8];
    F32 pairs[8];
    for (int i = 0; i < 8; ++i) r[i] = load(from + i * from_stride);
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
      pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      r[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
      r[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
      r[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
      r[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      store(to + i * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
      store(to + (i + 4) * to_stride, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
  }

  // --- 32-bit integers ---
  static I32 load_words(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static void store_words(void* to, I32 a) { _mm256_storeu_si256(static_cast<__m256i*>(to), a); }
  static I32 set_words(std::int32_t value) { return _mm256_set1_epi32(value); }
  static I32 add_words(I32 a, I32 b) { return _mm256_add_epi32(a, b); }
  static I32 bit_and(I32 a, I32 b) { return _mm256_and_si256(a, b); }
  static I32 bit_or(I32 a, I32 b) { return _mm256_or_si256(a, b); }
  static I32 bit_xor(I32 a, I32 b) { return _mm256_xor_si256(a, b); }
  static I32 greater(I32 a, I32 b) { return _mm256_cmpgt_epi32(a, b); }  // all ones where a > b
  static I32 max_words(I32 a, I32 b) { return _mm256_max_epi32(a, b); }
  static I32 shift_left(I32 a, int n) { return _mm256_slli_epi32(a, n); }
  static I32 shift_right(I32 a, int n) { return _mm256_srli_epi32(a, n); }   // zeros come in
  static I32 shift_signed(I32 a, int n) { return _mm256_srai_epi32(a, n); }  // the sign comes in
  static F32 to_float(I32 a) { return _mm256_cvtepi32_ps(a); }
  static I32 to_words(F32 a) { return _mm256_cvtps_epi32(a); }  // rounds, ties to even
  static F32 as_float(I32 a) { return _mm256_castsi256_ps(a); }
  static I32 as_words(F32 a) { return _mm256_castps_si256(a); }
  // table[index & 7] per lane.
  static F32 look_up(F32 table, I32 index) { return _mm256_permutevar8x32_ps(table, index); }

  // --- loads that widen: 8 elements to 8 lanes ---
  static I32 load_bytes(const void* from) {  // unsigned
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
  }
  static I32 load_halves(const void* from) {  // unsigned 16-bit
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static F32 load_f16(const void* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }

  // --- bytes and int16: what int8 kernels are made of (no portable counterpart) ---
  static I32 set_bytes(std::int8_t value) { return _mm256_set1_epi8(value); }
  static I32 set_halves(std::int16_t value) { return _mm256_set1_epi16(value); }
  static I32 broadcast_word(const void* from) {
    std::int32_t word;
    std::memcpy(&word, from, sizeof(word));
    return _mm256_set1_epi32(word);
  }
  // The same 16 bytes in both halves, for look_up_bytes.
  static I32 byte_table(const std::uint8_t (&table)[16]) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  // table[index] for each byte; index < 16.
  static I32 look_up_bytes(I32 table, I32 index) { return _mm256_shuffle_epi8(table, index); }
  static I32 shift_right_halves(I32 a, int n) { return _mm256_srli_epi16(a, n); }
  static I32 shift_signed_halves(I32 a, int n) { return _mm256_srai_epi16(a, n); }
  static I32 shift_left_halves(I32 a, int n) { return _mm256_slli_epi16(a, n); }
  static F32 broadcast_float(const void* from) {
    float value;
    std::memcpy(&value, from, sizeof(value));
    return _mm256_set1_ps(value);
  }
  static I32 multiply_halves(I32 a, I32 b) { return _mm256_mullo_epi16(a, b); }  // wraps
  // The sums of words 0 to 3 and of words 4 to 7, as pairs of int16 that wrap.
  static void sum_word_halves(I32 a, std::int32_t* low, std::int32_t* high) {
    a = _mm256_add_epi16(a, _mm256_shuffle_epi32(a, 0x4e));
    a = _mm256_add_epi16(a, _mm256_shuffle_epi32(a, 0xb1));
    *low = _mm256_extract_epi32(a, 0);
    *high = _mm256_extract_epi32(a, 4);
  }
  // Two pairs of int16, added apart.
  static std::int32_t add_two_halves(std::int32_t a, std::int32_t b) {
    return _mm_cvtsi128_si32(_mm_add_epi16(_mm_cvtsi32_si128(a), _mm_cvtsi32_si128(b)));
  }
  static I32 sub_halves(I32 a, I32 b) { return _mm256_sub_epi16(a, b); }
  static I32 add_halves(I32 a, I32 b) { return _mm256_add_epi16(a, b); }
  // int16 lane i = a[2i] * b[2i] + a[2i+1] * b[2i+1], saturating; a unsigned bytes, b signed bytes.
  static I32 dot_bytes(I32 a, I32 b) { return _mm256_maddubs_epi16(a, b); }
  // int32 lane i = a[2i] * b[2i] + a[2i+1] * b[2i+1]; both int16.
  static I32 dot_halves(I32 a, I32 b) { return _mm256_madd_epi16(a, b); }
  // 32 int16 (in two registers, 16 consecutive each) to 32 signed bytes in order, saturating.
  static I32 pack_halves(I32 a, I32 b) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
  }
  // 16 int32 to 16 int16 in order, saturating.
  static I32 pack_words(I32 a, I32 b) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  }

  // The same value, of which the compiler now knows nothing. GCC would otherwise turn a chain of
  // integer additions into a tree, for which there are not registers enough.
  static I32 opaque(I32 a) {
    asm("" : "+x"(a));
    return a;
  }

  static void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T0); }
};

}  // namespace moebench
MOEBENCH_AVX2_END

#endif  // __x86_64__
