// Every CUDA kernel on the SIMT machine against float64: each variant on every shape and format,
// and on small shapes in other orders of threads, or under ThreadSanitizer.
#include <catch2/catch.hpp>
#include <set>

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

// Runs the small shapes of every op for which `wanted` holds.
void check_small(bool (*wanted)(const std::string& op)) {
  ThreadPool pool(1);
  std::set<std::string> ops;
  for (const VariantInfo& info : list_variants()) {
    if (info.backend == "cuda" && wanted(info.op)) ops.insert(info.op);
  }
  for (const std::string& op : ops) check_passed(verify_variants({op, "", "cuda", true}, 1, pool));
}

}  // namespace

#if !defined(__SANITIZE_THREAD__)
// Under ASan this alone takes as long as the release build and all its tests: there the small shapes
// below, which have the edges, must do.
#if !defined(__SANITIZE_ADDRESS__)
TEST_CASE("every CUDA variant agrees with float64 on every shape and format") {
  ThreadPool pool(1);
  check_passed(verify_variants({"", "", "cuda"}, 1, pool));
}
#endif

TEST_CASE("every CUDA variant agrees with float64 in other orders of threads") {
  const auto order = GENERATE(simt::Order::kLifo, simt::Order::kShuffled);
  simt::Settings settings;
  settings.order = order;
  // Late is what the test above has.
  settings.asynchrony = simt::Asynchrony::kEarly;
  INFO(describe(settings));
  const WithSettings with(settings);
  check_small([](const std::string&) { return true; });
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
namespace {
bool is_heavy(const std::string& op) { return op == "moe_experts" || op == "linear"; }
}  // namespace

// Without a race between any two threads; two test cases, so that they can run side by side.
TEST_CASE("CUDA kernels have no data race: linear, moe_experts") { check_small(is_heavy); }
TEST_CASE("CUDA kernels have no data race: all other ops") {
  check_small([](const std::string& op) { return !is_heavy(op); });
}
#endif

}  // namespace moebench::test
