// Every CUDA kernel on the SIMT machine: each variant against float64, on every shape and format.
#include <catch2/catch.hpp>

#include "kernels/verify/verify.h"

namespace moebench::test {

TEST_CASE("every CUDA variant agrees with float64 on every shape and format") {
  ThreadPool pool(1);
  const auto results = verify_variants({"", "", "cuda"}, 1, pool);
  CHECK_FALSE(results.empty());
  for (const VerifyResult& r : results) {
    INFO(r.op << " / " << r.variant << " / " << r.shape << " / " << r.format << ": " << r.reason);
    CHECK(r.outcome != VerifyResult::Outcome::kFailed);
  }
}

}  // namespace moebench::test
