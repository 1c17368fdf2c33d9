// kernels verify: every variant of every op against float64, and proof that it can fail.
#include <catch2/catch.hpp>
#include <set>
#include <string>

#include "kernels/core/cpu_features.h"
#include "kernels/core/thread_pool.h"
#include "kernels/linear/linear.h"
#include "kernels/verify/compare.h"
#include "kernels/verify/verify.h"

namespace moebench::test {

TEST_CASE("verify: every variant agrees with float64 on every shape and format") {
  ThreadPool pool(2);
#ifdef MOEBENCH_SANITIZE
  const std::uint64_t seed = 1;  // another finds no other address
#else
  const std::uint64_t seed = GENERATE(1U, 7U);
#endif
  const auto results = verify_variants({}, seed, pool);
  CHECK(results.size() > 100);
  const std::string lacking = avx2_unsupported();
  if (!lacking.empty()) WARN("the avx2 variants were not checked: " << lacking);
  std::set<std::string> checked;
  for (const VerifyResult& r : results) {
    INFO(r.op << " / " << r.variant << " / " << r.shape << " / " << r.format << ": " << r.reason);
    if (lacking.empty() || r.reason != lacking) CHECK(r.outcome == VerifyResult::Outcome::kPassed);
    checked.insert(r.op + " / " + r.variant);
  }
  for (const VariantInfo& info : list_variants()) {
    INFO(info.op << " / " << info.variant);
    CHECK(checked.count(info.op + " / " + info.variant) == 1);
    CHECK_FALSE(info.summary.empty());
    CHECK_FALSE(info.rounds.empty());
  }
}

TEST_CASE("verify: a wrong value, a NaN and an infinity fail and name the worst index") {
  VerifyResult r;
  r.bound = 1e-6;
  const std::vector<double> want = {1, 2, 3};
  SECTION("wrong value") {
    verify::compare(std::vector<float>{1, 2.1F, 3}, want, r);
    CHECK(r.worst_index == 1);
  }
  SECTION("NaN") {
    verify::compare(std::vector<float>{1, 2, std::nanf("")}, want, r);
    CHECK(r.worst_index == 2);
  }
  SECTION("infinity") {
    verify::compare(std::vector<float>{std::numeric_limits<float>::infinity(), 2, 3}, want, r);
    CHECK(r.worst_index == 0);
  }
  CHECK(r.outcome == VerifyResult::Outcome::kFailed);
  CHECK_FALSE(r.reason.empty());
}

TEST_CASE("verify: unknown names are refused with the nearest one") {
  ThreadPool pool(1);
  CHECK_THROWS_WITH(verify_variants({"atention", "", ""}, 1, pool),
                    Catch::Contains("did you mean 'attention'?"));
  CHECK_THROWS_WITH(verify_variants({"", "referense", ""}, 1, pool),
                    Catch::Contains("did you mean 'reference'?"));
}

}  // namespace moebench::test
