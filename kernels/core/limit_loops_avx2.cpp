// The loops for processors with AVX2.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/core/cpu_features.h"
#include "kernels/core/error.h"
#include "kernels/core/simd_avx2.h"

#if defined(__x86_64__)
MOEBENCH_AVX2_BEGIN
#include "kernels/core/limit_loops.h"

namespace moebench {
namespace {

// The lanes of a sum, kept where the compiler cannot see that nobody wants it.
void keep(const Avx2::I32& sum) {
  std::int64_t words[4];
  std::memcpy(words, &sum, sizeof(words));
  result_of_words = words[0] ^ words[1] ^ words[2] ^ words[3];
}

void avx2_halves() {
  Avx2::I32 sums[kHalfChains];
  Avx2::I32 inputs[kHalfChains];
  for (int i = 0; i < kHalfChains; ++i) {
    sums[i] = Avx2::set_words(0);
    inputs[i] = Avx2::set_halves(static_cast<std::int16_t>(i + 1));
  }
  auto codes = Avx2::set_halves(3);
  for (std::int64_t r = 0; r < kRounds; ++r) {
    codes = Avx2::opaque(codes);
    for (int i = 0; i < kHalfChains; ++i) {
      sums[i] = Avx2::opaque(Avx2::add_words(sums[i], Avx2::dot_halves(codes, inputs[i])));
    }
  }
  for (int i = 1; i < kHalfChains; ++i) sums[0] = Avx2::add_words(sums[0], sums[i]);
  keep(sums[0]);
}

void avx2_bytes() {
  Avx2::I32 sums[kByteChains];
  for (auto& sum : sums) sum = Avx2::set_words(0);
  auto codes = Avx2::set_bytes(3);
  const auto inputs = Avx2::set_bytes(5);
  for (std::int64_t r = 0; r < kRounds; ++r) {
    for (auto& sum : sums) {
      auto halves = Avx2::dot_bytes(codes, inputs);
      for (int i = 1; i < 4; ++i) {
        codes = Avx2::opaque(codes);
        halves = Avx2::add_halves(halves, Avx2::dot_bytes(codes, inputs));
      }
      sum = Avx2::add_words(sum, Avx2::dot_halves(halves, Avx2::set_halves(1)));
    }
  }
  for (int i = 1; i < kByteChains; ++i) sums[0] = Avx2::add_words(sums[0], sums[i]);
  keep(sums[0]);
}

}  // namespace

const LimitLoops& avx2_limit_loops() {
  static constexpr LimitLoops kLoops = {multiply_add_loop<Avx2>, read_loop<Avx2>, avx2_halves,
                                        avx2_bytes};
  return kLoops;
}

}  // namespace moebench
MOEBENCH_AVX2_END
#else
#include "kernels/core/limit_loops.h"
namespace moebench {
const LimitLoops& avx2_limit_loops() {
  fail(ErrorCode::kUnsupported, "measure this machine: {}", avx2_unsupported());
}
}  // namespace moebench
#endif
