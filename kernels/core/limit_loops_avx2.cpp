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
  std::int64_t words[4];
  std::memcpy(words, &sums[0], sizeof(words));
  result_of_words = words[0] ^ words[1] ^ words[2] ^ words[3];
}

}  // namespace

const LimitLoops& avx2_limit_loops() {
  static constexpr LimitLoops kLoops = {multiply_add_loop<Avx2>, read_loop<Avx2>, avx2_bytes};
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
