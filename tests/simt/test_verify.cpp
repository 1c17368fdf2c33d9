// Every CUDA kernel on the SIMT machine against float64: each variant on every shape and format,
// and on small shapes in other orders of threads, or under ThreadSanitizer.
#include <catch2/catch.hpp>
#include <set>
#include <string>

#include "kernels/core/thread_pool.h"
#include "kernels/verify/verify.h"
#include "tests/simt/support.h"

namespace moebench::test {
namespace {

void check_passed(const std::vector<VerifyResult>& results) {
  CHECK_FALSE(results.empty());
  for (const VerifyResult& r : results) {
    INFO(r.op << " / " << r.variant << " / " << r.shape << " / " << r.format << ": " << r.reason);
    CHECK(r.outcome != VerifyResult::Outcome::kFailed);
  }
}

// Runs the small shapes of every variant for which `wanted` holds.
void check_small(bool (*wanted)(const VariantInfo&)) {
  ThreadPool pool(1);
  int count = 0;
  for (const VariantInfo& info : list_variants()) {
    if (info.backend != "cuda" || !wanted(info)) continue;
    ++count;
    check_passed(verify_variants({info.op, info.variant, "cuda", true}, 1, pool));
  }
  CHECK(count > 0);
}

}  // namespace

#if !defined(SIMT_TSAN)
// This alone takes as long as the release build and all its other tests: in a short run the small
// shapes below, which have the edges, must do.
#if !defined(MOEBENCH_SHORT_TESTS)
TEST_CASE("every CUDA variant agrees with float64 on every shape and format") {
  ThreadPool pool(1);
  check_passed(verify_variants({"", "", "cuda"}, 1, pool));
}
#endif

TEST_CASE("every CUDA variant agrees with float64 in other orders of threads") {
  // Each kernel's own tests have the other orders, too.
  const auto order =
      kShort ? simt::Order::kShuffled : GENERATE(simt::Order::kLifo, simt::Order::kShuffled);
  simt::Settings settings;
  settings.order = order;
  // Late is what the test above has.
  settings.asynchrony = simt::Asynchrony::kEarly;
  INFO(describe(settings));
  const WithSettings with(settings);
  check_small([](const VariantInfo&) { return true; });
}

TEST_CASE("every CUDA variant can run some of the small shapes") {
  ThreadPool pool(1);
  std::set<std::string> run, all;
  for (const VariantInfo& info : list_variants()) {
    if (info.backend == "cuda") all.insert(info.op + " / " + info.variant);
  }
  for (const VerifyResult& r : verify_variants({"", "", "cuda", true}, 1, pool)) {
    if (r.outcome == VerifyResult::Outcome::kPassed) run.insert(r.op + " / " + r.variant);
  }
  // Those need a library of NVIDIA's.
  for (const char* name : {"linear / cuda_cublaslt", "moe_experts / cuda_dequantise_cublaslt"}) {
    all.erase(name);
  }
  CHECK(run == all);
}
#else
// Without a race between any two threads. An order of threads costs ThreadSanitizer as much as
// there have been threads in the process: those that have the most are a test case of their own.
namespace {
bool is_one_launch(const VariantInfo& info) { return info.variant.starts_with("cuda_one_launch"); }
bool is_of_experts(const VariantInfo& info) { return info.op == "moe_experts"; }
}  // namespace

TEST_CASE("CUDA kernels have no data race: experts") {
  check_small([](const VariantInfo& info) { return is_of_experts(info) && !is_one_launch(info); });
}
TEST_CASE("CUDA kernels have no data race: in one launch") { check_small(is_one_launch); }
TEST_CASE("CUDA kernels have no data race: all other ops") {
  check_small([](const VariantInfo& info) { return !is_of_experts(info) && !is_one_launch(info); });
}
#endif

}  // namespace moebench::test
