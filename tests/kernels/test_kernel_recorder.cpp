// Kernels by name, time and mark, from a library that answers like CUPTI.
#include <catch2/catch.hpp>

#include "kernels/core/cupti_records.h"
#include "kernels/core/error.h"
#include "kernels/core/kernel_recorder.h"
#include "tests/support/fake_cupti.h"

namespace moebench::test {

using gpu::KernelRecorder;
using gpu::KernelTime;

TEST_CASE("kernel names: demangled, without the parameters, with what tells instances apart") {
  using gpu::short_kernel_name;
  CHECK(short_kernel_name("_ZN8moebench4stepEv") == "moebench::step");
  CHECK(short_kernel_name("_ZN8moebench4rowsILi8EEEvPKfi") == "moebench::rows<8>");
  CHECK(short_kernel_name("_ZN8moebench12_GLOBAL__N_14rowsEPKfi") ==
        "moebench::(anonymous namespace)::rows");
  // An enumerator as a template argument is written with parentheses.
  CHECK(short_kernel_name("_Z1fIL4Kind1EEvPi") == "f<(Kind)1>");
  CHECK(short_kernel_name("a_c_function") == "a_c_function");
  CHECK(short_kernel_name("") == "");
  CHECK(short_kernel_name(nullptr) == "?");
}

TEST_CASE("kernel recorder: kernels carry the mark that was set when they were launched") {
  const FakeCupti cupti;
  KernelRecorder recorder;
  REQUIRE(recorder.unavailable().empty());
  cupti.launch("_Z6beforev", 1, 2);  // nobody records yet
  recorder.start();
  cupti.launch("_Z8unmarkedv", 5000, 6000);
  recorder.mark(7);
  cupti.launch("_Z1av", 1000, 2000);
  cupti.launch("_Z1bv", 3000, 3500);
  recorder.mark(9);
  cupti.launch("_Z1av", 2000, 4000);
  recorder.mark(0);
  cupti.launch("_Z4lastv", 9000, 9001);
  cupti.launch("_Z7no_timev", 0, 0);      // CUPTI could not tell
  cupti.launch("_Z9backwardsv", 50, 40);  // nonsense
  const std::vector<KernelTime> kernels = recorder.stop();
  REQUIRE(kernels.size() == 5);
  const auto check = [&](std::size_t i, const char* name, std::uint64_t mark, std::int64_t begin,
                         std::int64_t end) {
    INFO(i);
    CHECK(kernels[i].name == name);
    CHECK(kernels[i].mark == mark);
    CHECK(kernels[i].begin_ns == begin);
    CHECK(kernels[i].end_ns == end);
  };
  check(0, "a", 7, 1000, 2000);
  check(1, "a", 9, 2000, 4000);
  check(2, "b", 7, 3000, 3500);
  check(3, "unmarked", 0, 5000, 6000);
  check(4, "last", 0, 9000, 9001);
  CHECK(recorder.num_dropped() == 2);
  CHECK(cupti.num_marks() == 0);
  CHECK(cupti.num_enabled() == 0);
}

TEST_CASE("kernel recorder: more records than one buffer holds") {
  const FakeCupti cupti;
  KernelRecorder recorder;
  recorder.start();
  recorder.mark(1);
  constexpr int kMany = 60'000;  // some 13 MB of records, in buffers of 4 MiB
  for (int i = 0; i < kMany; ++i) {
    const auto begin = static_cast<std::uint64_t>(i) * 10 + 1;
    cupti.launch("_Z1av", begin, begin + 5);
  }
  const auto kernels = recorder.stop();
  REQUIRE(kernels.size() == kMany);
  CHECK(kernels.front().begin_ns == 1);
  CHECK(kernels.back().begin_ns == (kMany - 1) * 10 + 1);
  CHECK(kernels.back().mark == 1);
}

TEST_CASE("kernel recorder: it can be used again, one at a time") {
  const FakeCupti cupti;
  KernelRecorder first;
  first.start();
  KernelRecorder second;
  CHECK_THROWS_AS(second.start(), Error);
  CHECK_THROWS_AS(second.stop(), Error);
  CHECK_THROWS_AS(second.mark(1), Error);
  cupti.launch("_Z1av", 1, 2);
  CHECK(first.stop().size() == 1);
  second.start();
  CHECK(second.stop().empty());
  {
    KernelRecorder forgotten;
    forgotten.start();
    forgotten.mark(3);
  }
  CHECK(cupti.num_marks() == 0);
  CHECK(cupti.num_enabled() == 0);
  first.start();
  CHECK(first.stop().empty());
}

TEST_CASE("kernel recorder: what CUPTI refuses is an error with its words, and all is off again") {
  const FakeCupti cupti;
  cupti.set("refuse kind", gpu::cupti::kKindConcurrentKernel);
  KernelRecorder recorder;
  try {
    recorder.start();
    FAIL("it started");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kDevice);
    CHECK_THAT(error.what(), Catch::Contains("cuptiActivityEnable") &&
                                 Catch::Contains("CUPTI_ERROR_NOT_INITIALIZED"));
  }
  CHECK(cupti.num_enabled() == 0);
  cupti.set("refuse kind", -1);
  recorder.start();
  CHECK(recorder.stop().empty());
}

TEST_CASE("kernel recorder: a library that is no CUPTI is named with what it lacks") {
  const LibraryFolder folder(kNoCupti);
  const KernelRecorder recorder;
  CHECK_THAT(recorder.unavailable(), Catch::Contains("libcupti.so.13") &&
                                         Catch::Contains("cuptiActivityRegisterCallbacks"));
}

}  // namespace moebench::test
