// Energy and disturbance of a GPU, from a library that answers like NVML.
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "bench/sample_watch.h"
#include "kernels/core/error.h"
#include "tests/support/fake_nvml.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

// No powercap, no /proc: what is measured is the GPU alone.
struct Nowhere {
  TemporaryDirectory folder;
  HostRoots roots() const { return {folder.path() / "proc", folder.path() / "sys"}; }
};

}  // namespace

TEST_CASE("gpu energy: by the counter of the driver, in joules") {
  const FakeNvml nvml(true);
  const Nowhere nowhere;
  nvml.set("energy", 5'000'000);
  const gpu::Nvml driver;
  EnergyMeter meter(nowhere.folder.path(), &driver, kFakeGpu);
  REQUIRE(meter.available());
  CHECK_THAT(meter.source(), Catch::Contains("GPU (NVML's counter)"));
  meter.begin();
  nvml.set("energy", 5'002'500);
  const Energy energy = meter.end();
  REQUIRE(energy.joules);
  CHECK(*energy.joules == Approx(2.5));
}

TEST_CASE("gpu energy: without a counter, by the power at both ends and the time between") {
  const FakeNvml nvml(false);
  const Nowhere nowhere;
  const gpu::Nvml driver;
  EnergyMeter meter(nowhere.folder.path(), &driver, kFakeGpu);
  CHECK_THAT(meter.source(), Catch::Contains("power at both ends"));
  nvml.set("power", 100'000);
  const auto before = std::chrono::steady_clock::now();
  meter.begin();
  const auto begun = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  nvml.set("power", 200'000);
  const auto ending = std::chrono::steady_clock::now();
  const Energy energy = meter.end();
  const auto after = std::chrono::steady_clock::now();
  REQUIRE(energy.joules);
  // 150 W on average, over a time that lies between these.
  CHECK(*energy.joules >= 150 * std::chrono::duration<double>(ending - begun).count());
  CHECK(*energy.joules <= 150 * std::chrono::duration<double>(after - before).count());
}

TEST_CASE("gpu energy: a GPU that stops telling, or that nobody knows, has none, and not 0") {
  const FakeNvml nvml(false);
  const Nowhere nowhere;
  const gpu::Nvml driver;
  EnergyMeter meter(nowhere.folder.path(), &driver, kFakeGpu);
  meter.begin();
  nvml.set("power status", 3);
  CHECK_FALSE(meter.end().joules);
  CHECK_THAT(meter.end().source, Catch::Contains("stopped telling its power"));

  EnergyMeter stranger(nowhere.folder.path(), &driver, "0000:00:00.0");
  CHECK_FALSE(stranger.available());
  CHECK_THAT(stranger.source(),
             Catch::Contains("GPU: not available") && Catch::Contains("Not Found"));
}

TEST_CASE("gpu watch: clocks that fall and throttling mark samples; energy stands beside them") {
  const FakeNvml nvml(true);
  const Nowhere nowhere;
  nvml.set("reasons", 0x1);  // idle is no reason
  SampleWatch watch(kFakeGpu, nowhere.roots());
  const auto sample = [&](unsigned clock, unsigned long long reasons, unsigned long long energy) {
    watch.begin();
    nvml.set("sm clock", clock);
    nvml.set("reasons", reasons);
    nvml.set("energy", energy);
    watch.end();
  };
  sample(1980, 0x1, 1000);
  sample(1800, 0x0, 3000);  // 9 % below the fastest
  sample(1700, 0x0, 6000);  // 14 %
  sample(1980, 0x8, 10000);
  Record record;
  watch.report(10, record);
  CHECK(record.metrics.at("disturbed_samples").value == 2);
  const OrderedJson& disturbance = record.details.at("disturbance");
  CHECK(disturbance.at("reasons") == OrderedJson({{"gpu clock", 1}, {"throttled", 1}}));
  const OrderedJson& samples = disturbance.at("samples");
  REQUIRE(samples.size() == 4);
  CHECK_FALSE(samples[1].contains("disturbed"));
  CHECK(samples[2].at("disturbed") == OrderedJson({"gpu clock"}));
  CHECK(samples[3].at("gpu_throttle_reasons") == "hardware slowdown");
  CHECK(samples[0].at("gpu_power_watts") == Approx(123.456));
  // 1, 2, 3 and 4 J for 10 tokens each.
  CHECK(record.metrics.at("joules_per_token").value == Approx(0.25));
  Record load;
  watch.report_load(50, load);
  CHECK(load.metrics.at("joules_per_token").value == Approx(10.0 / 50));
  CHECK(load.metrics.at("disturbed_samples").count == 4);
}

TEST_CASE("gpu watch: conditions survive the way from one process to another") {
  const FakeNvml nvml(true);
  const Nowhere nowhere;
  nvml.set("reasons", 0x4);
  const MachineReader machine(kFakeGpu, nowhere.roots());
  const SampleConditions told = conditions_between(machine.read(), machine.read());
  const SampleConditions heard = conditions_from_json(Json::parse(to_json(told).dump()), "a block");
  CHECK(to_json(heard) == to_json(told));
  REQUIRE(heard.gpu);
  CHECK(heard.gpu->sm_clock_mhz == 1980);
  CHECK(find_disturbances({heard}).at(0) == std::vector<std::string>{"throttled"});
}

TEST_CASE("conditions: what another program says may be anything, and is refused with its place") {
  for (const char* text : {"3", "{}", R"({"seconds": "long"})", R"({"seconds": 1, "cpu_mhz": []})",
                           R"({"seconds": 1, "minor_faults": 1e300})",
                           R"({"seconds": 1, "gpu_sm_clock_mhz": 99999999999})"}) {
    INFO(text);
    CHECK_THROWS_AS(conditions_from_json(Json::parse(text), "a block"), Error);
  }
  CHECK_NOTHROW(conditions_from_json(Json::parse(R"({"seconds": 1, "new": {}})"), "a block"));
}

}  // namespace moebench::test
