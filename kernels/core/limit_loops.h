// Loops that do one thing each, as fast as a processor can.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace moebench {

struct LimitLoops {
  void (*multiply_adds)();                                 // kMultiplyAddOperations
  void (*read)(const std::byte* data, std::size_t bytes);  // bytes: a multiple of 128
  void (*halves)();                                        // kHalfOperations; may be null
  void (*bytes)();                                         // kByteOperations; may be null
};

const LimitLoops& avx2_limit_loops();

// Each file that includes this compiles it for another processor: nothing here may be shared by the
// linker.
namespace {

constexpr std::int64_t kRounds = 20000;
constexpr int kHalfChains = 6;
constexpr double kHalfOperations = 2.0 * 16 * kHalfChains * kRounds;
constexpr int kByteChains = 4;
constexpr double kByteOperations = 2.0 * 32 * 4 * kByteChains * kRounds;
constexpr int kChains = 10;  // latency times throughput of multiply-add, rounded up

// What a loop leaves behind, so that it is not optimised away.
[[maybe_unused]] volatile float result_of_floats;
[[maybe_unused]] volatile std::int64_t result_of_words;

template <class S>
void multiply_add_loop() {
  typename S::F32 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = S::set(static_cast<float>(i));
  const auto factor = S::set(0.999F);
  const auto term = S::set(0.001F);
  for (std::int64_t r = 0; r < kRounds; ++r) {
    for (auto& sum : sums) sum = S::multiply_add(sum, factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = S::add(sums[0], sums[i]);
  result_of_floats = S::sum(sums[0]);
}
constexpr double kMultiplyAddOperations = 2.0 * 8 * kChains * kRounds;

template <class S>
void read_loop(const std::byte* data, std::size_t bytes) {
  auto a = S::set_words(0);
  auto b = a;
  auto c = a;
  auto d = a;
  for (std::size_t i = 0; i < bytes; i += 128) {
    a = S::bit_xor(a, S::load_words(data + i));
    b = S::bit_xor(b, S::load_words(data + i + 32));
    c = S::bit_xor(c, S::load_words(data + i + 64));
    d = S::bit_xor(d, S::load_words(data + i + 96));
  }
  a = S::bit_xor(S::bit_xor(a, b), S::bit_xor(c, d));
  std::int64_t words[4];
  std::memcpy(words, &a, sizeof(words));
  result_of_words = words[0] ^ words[1] ^ words[2] ^ words[3];
}

}  // namespace
}  // namespace moebench
