// Running a variant of an op as strictly as its contract allows: scratch of exactly the size it
// asked for (so that the sanitizers see a byte too many), full of NaNs (so that nothing may count
// on zeros).
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "kernels/core/cpu_features.h"
#include "kernels/core/thread_pool.h"
#include "kernels/core/variant.h"

namespace moebench::test {

template <class V>
void run_op(const V& variant, const typename V::Problem& problem, const typename V::Args& args,
            int threads = 2) {
  constexpr std::align_val_t kAlignment{64};
  const auto release = [](std::byte* memory) { operator delete[](memory, kAlignment); };
  ThreadPool pool(threads);
  const std::size_t bytes = variant.workspace_bytes(problem, threads);
  const std::unique_ptr<std::byte[], decltype(release)> memory(
      static_cast<std::byte*>(operator new[](bytes, kAlignment)), release);
  std::memset(memory.get(), 0xff, bytes);
  Context context{pool, {memory.get(), bytes}};
  variant.run(args, context);
}

// Calls body(variant) in a section of its own for each variant that runs on this processor.
template <class V, class Body>
void for_each_cpu_variant(std::span<const V* const> variants, const Body& body) {
  for (const V* variant : variants) {
    if (variant->backend != "cpu") continue;
    if (variant->name.starts_with("avx2") && !cpu_has_avx2()) continue;
    DYNAMIC_SECTION("variant " << variant->name) { body(*variant); }
  }
}

// Fails unless sum (got - want)^2 <= bound * sum want^2: what a variant promises. NaN fails. Of few
// outputs the squares may happen to be small; then `energy`, what they are on average, counts.
inline void check_nmse(std::span<const float> got, std::span<const double> want, double bound,
                       double energy = 0) {
  REQUIRE(got.size() == want.size());
  double errors = 0, squares = 0, worst = -1;
  std::size_t worst_index = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(got[i]) - want[i]);
    errors += difference * difference;
    squares += want[i] * want[i];
    if (!(difference <= worst)) {
      worst = difference;
      worst_index = i;
    }
  }
  squares = std::max(squares, energy);
  INFO("error " << errors / squares << " of " << bound << "; worst at " << worst_index << ": got "
                << got[worst_index] << ", want " << want[worst_index]);
  CHECK(errors <= bound * squares);
}

}  // namespace moebench::test
