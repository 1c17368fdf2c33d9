// Energy from a powercap tree made of files.
#include <catch2/catch.hpp>

#include "bench/energy.h"
#include "bench/sample_watch.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

struct Powercap {
  TemporaryDirectory sys;
  std::filesystem::path path = sys.path() / "class/powercap";

  void zone(const std::string& folder, const std::string& name, const std::string& energy_uj,
            const std::string& range_uj = "262143328850") {
    const auto at = path / folder;
    std::filesystem::create_directories(at);
    write_file(at / "name", name + "\n");
    write_file(at / "energy_uj", energy_uj + "\n");
    if (!range_uj.empty()) write_file(at / "max_energy_range_uj", range_uj + "\n");
  }
};

}  // namespace

TEST_CASE("energy: packages and memory are added, their parts and the platform are not") {
  Powercap powercap;
  powercap.zone("intel-rapl:0", "package-0", "1000000");
  powercap.zone("intel-rapl:0:0", "core", "5000000");
  powercap.zone("intel-rapl:0:1", "dram", "2000000");
  powercap.zone("intel-rapl:1", "package-1", "0");
  powercap.zone("intel-rapl:2", "psys", "9000000");
  powercap.zone("intel-rapl-mmio:0", "package-0", "1000000");
  EnergyMeter meter(powercap.path);
  REQUIRE(meter.available());
  CHECK_THAT(meter.source(), Catch::Contains("package-0, dram, package-1"));
  meter.begin();
  powercap.zone("intel-rapl:0", "package-0", "4500000");
  powercap.zone("intel-rapl:0:0", "core", "9000000");
  powercap.zone("intel-rapl:0:1", "dram", "2250000");
  powercap.zone("intel-rapl:1", "package-1", "1000000");
  powercap.zone("intel-rapl:2", "psys", "99000000");
  const Energy energy = meter.end();
  REQUIRE(energy.joules);
  CHECK(*energy.joules == Approx(3.5 + 0.25 + 1));
}

TEST_CASE("energy: a counter that starts over goes on from its range") {
  Powercap powercap;
  powercap.zone("intel-rapl:0", "package-0", "262143000000");
  EnergyMeter meter(powercap.path);
  meter.begin();
  powercap.zone("intel-rapl:0", "package-0", "671150");
  REQUIRE(meter.end().joules);
  CHECK(*meter.end().joules == Approx(1.0));  // 262143.328850 - 262143.0 + 0.671150

  Powercap silent;
  silent.zone("intel-rapl:0", "package-0", "5", "");
  EnergyMeter second(silent.path);
  second.begin();
  silent.zone("intel-rapl:0", "package-0", "4", "");
  CHECK_FALSE(second.end().joules);
  CHECK_THAT(second.end().source, Catch::Contains("started over"));
}

TEST_CASE("energy: without a counter the answer is why, never 0") {
  const TemporaryDirectory folder;
  EnergyMeter none(folder.path() / "powercap");
  CHECK_FALSE(none.available());
  none.begin();
  CHECK_FALSE(none.end().joules);
  CHECK_THAT(none.end().source, Catch::Contains("not available") && Catch::Contains("intel-rapl"));

  Powercap broken;
  broken.zone("intel-rapl:0", "package-0", "not a number");
  CHECK_FALSE(EnergyMeter(broken.path).available());
  CHECK_THAT(EnergyMeter(broken.path).source(), Catch::Contains("holds no number"));

  Powercap vanishing;
  vanishing.zone("intel-rapl:0", "package-0", "1");
  EnergyMeter meter(vanishing.path);
  meter.begin();
  std::filesystem::remove(vanishing.path / "intel-rapl:0/energy_uj");
  CHECK_FALSE(meter.end().joules);
  CHECK_THAT(meter.end().source, Catch::Contains("energy_uj"));
}

TEST_CASE("sample watch: energy per token over the samples, and disturbances counted") {
  Powercap powercap;
  powercap.zone("intel-rapl:0", "package-0", "0");
  SampleWatch watch("", {powercap.sys.path() / "proc", powercap.sys.path()});
  for (const char* after : {"2000000", "5000000", "9000000"}) {  // 2, 3 and 4 J
    watch.begin();
    powercap.zone("intel-rapl:0", "package-0", after);
    watch.end();
  }
  REQUIRE(watch.joules());
  CHECK(*watch.joules() == Approx(9));
  Record record;
  watch.report(10, record);
  const Metric& metric = record.metrics.at("joules_per_token");
  CHECK_FALSE(metric.absent);
  CHECK(metric.value == Approx(0.3));
  CHECK(metric.samples.size() == 3);
  CHECK(metric.unit == "J/token");
  CHECK(record.metrics.at("disturbed_samples").count == 3);
  CHECK(record.details.at("disturbance").at("samples").size() == 3);

  Record without;
  SampleWatch blind("", {powercap.sys.path() / "proc", powercap.sys.path() / "none"});
  blind.begin();
  blind.end();
  blind.report(10, without);
  CHECK(without.metrics.at("joules_per_token").absent);
  CHECK_THAT(without.metrics.at("joules_per_token").interval_method,
             Catch::Contains("not available"));
}

}  // namespace moebench::test
