// What the host asks about GPUs, on a machine that has none: which GPUs a build runs on, libraries
// that are looked for at run time, and NVML against a library that answers like it.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "kernels/core/gpu_architectures.h"
#include "kernels/core/nvml.h"
#include "kernels/core/shared_library.h"
#include "kernels/core/trace.h"
#include "tests/support/fake_nvml.h"

namespace moebench::test {
TEST_CASE("architectures: code runs where its major version and suffix say") {
  using gpu::runs_on;
  CHECK(runs_on("90a-real", 9, 0));
  CHECK_FALSE(runs_on("90a-real", 10, 0));
  CHECK_FALSE(runs_on("90a-real", 8, 0));
  CHECK(runs_on("80-real", 8, 9));
  CHECK_FALSE(runs_on("80-real", 9, 0));
  CHECK_FALSE(runs_on("89-real", 8, 6));
  CHECK(runs_on("80-virtual", 12, 0));
  CHECK_FALSE(runs_on("90a-virtual", 10, 0));
  CHECK(runs_on("80", 12, 0));
  CHECK(runs_on("120a-real", 12, 0));
  CHECK_FALSE(runs_on("120a-real", 12, 1));
  CHECK(runs_on("100f-real", 10, 3));
  CHECK(runs_on("80-real,90a-real", 9, 0));
  CHECK_FALSE(runs_on("80-real,90a-real", 12, 0));
  CHECK(runs_on("native", 9, 0));
  CHECK_FALSE(runs_on("", 9, 0));
}

TEST_CASE("architectures: names are those of the compiler") {
  CHECK(gpu::architecture_names("80-real,90a-real") == "sm_80, sm_90a");
  CHECK(gpu::architecture_names("all-major") == "all-major");
}

TEST_CASE("shared library: one that is absent says so, and has no functions") {
  const SharedLibrary library({"libmoebench-absent.so.1"});
  CHECK_THAT(library.unavailable(), Catch::Contains("libmoebench-absent.so.1"));
  CHECK(library.path().empty());
  CHECK(library.function<void (*)()>("anything") == nullptr);
}

TEST_CASE("shared library: the chosen folder comes first, then the next name") {
  const LibraryFolder folder(MOEBENCH_FAKE_NVML);
  const SharedLibrary library({"libmoebench-absent.so.1", "libnvidia-ml.so.1"});
  CHECK(library.unavailable().empty());
  CHECK_THAT(library.path(), Catch::StartsWith(MOEBENCH_FAKE_NVML));
}

TEST_CASE("nvml: readings in plain units, and what is missing with its reason") {
  const LibraryFolder folder(MOEBENCH_FAKE_NVML);
  const gpu::Nvml nvml;
  REQUIRE(nvml.unavailable().empty());
  CHECK(nvml.driver_version() == "580.65.06");
  const gpu::NvmlReadings r = nvml.read("0000:1b:00.0");
  CHECK(r.name == "NVIDIA H200");
  CHECK(r.uuid == "GPU-1");
  CHECK(r.power_watts == 123.456);
  CHECK_FALSE(r.power_limit_watts.has_value());
  CHECK_FALSE(r.energy_joules.has_value());
  CHECK(r.sm_clock_mhz == 1980);
  CHECK(r.max_memory_clock_mhz == 3201);
  CHECK(r.temperature_celsius == 45);
  CHECK(r.throttle_reasons == "power cap, thermal (software)");
  CHECK(r.memory_total_bytes == 1000);
  CHECK(r.memory_used_bytes == 600);
  CHECK(r.ecc == true);
  CHECK(r.ecc_uncorrected_errors == 7);
  REQUIRE(r.missing.size() == 2);
  CHECK(r.missing[0] == "power limit: Not Supported");
  CHECK_THAT(r.missing[1], Catch::StartsWith("energy: "));
}

TEST_CASE("nvml: a GPU that it does not know has no readings, and a reason") {
  const LibraryFolder folder(MOEBENCH_FAKE_NVML);
  const gpu::NvmlReadings r = gpu::Nvml().read("0000:00:00.0");
  CHECK_FALSE(r.name.has_value());
  REQUIRE(r.missing.size() == 1);
  CHECK(r.missing[0] == "GPU 0000:00:00.0: Not Found");
}

TEST_CASE("trace: a range is harmless where no profiler listens") {
  const TraceRange outer("outer");
  const TraceRange inner("inner");
}

}  // namespace moebench::test
