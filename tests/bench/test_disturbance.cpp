// Disturbance rules on counters made by hand, and readings of a /proc and /sys made of files.
#include <catch2/catch.hpp>

#include "bench/disturbance.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

// Two CPUs for `seconds`, 100 ticks a second.
MachineSnapshot snapshot(double seconds, double busy_s, double own_s, double steal_s = 0) {
  MachineSnapshot s;
  s.seconds = seconds;
  s.num_cpus = 2;
  s.busy_s = busy_s;
  s.own_s = own_s;
  s.steal_s = steal_s;
  return s;
}

std::vector<std::string> marks_of(const SampleConditions& sample) {
  return find_disturbances({sample}).at(0);
}

void write_tree(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  write_file(path, text);
}

}  // namespace

TEST_CASE("disturbance: shares are of all CPUs' time, own work taken off") {
  // 2 s on 2 CPUs are 4 CPU seconds. 3 were busy, 2.6 of them ours: others had 0.4, a tenth. The
  // hypervisor took 0.1, a fortieth.
  const SampleConditions c = conditions_between(snapshot(10, 50, 5, 1), snapshot(12, 53, 7.6, 1.1));
  CHECK(c.seconds == Approx(2));
  REQUIRE(c.others_share);
  CHECK(*c.others_share == Approx(0.1));
  CHECK(c.others_ticks == Approx(40));
  CHECK(*c.steal_share == Approx(0.025));
  CHECK(c.steal_ticks == Approx(10));
  CHECK(marks_of(c) == std::vector<std::string>{"steal", "others"});
}

TEST_CASE("disturbance: a quiet sample has no mark, nor one too short for the clock's ticks") {
  CHECK(marks_of(conditions_between(snapshot(0, 0, 0), snapshot(2, 4, 4))).empty());
  // A tick more of ours than of everybody's: counters are not read at one moment.
  const SampleConditions c = conditions_between(snapshot(0, 0, 0), snapshot(2, 3.9, 4));
  CHECK(*c.others_share == 0);
  // 3 ticks of 20: a large share, but the kernel counts no finer.
  CHECK(marks_of(conditions_between(snapshot(0, 0, 0), snapshot(0.1, 0.13, 0.10))).empty());
}

TEST_CASE("disturbance: without /proc/stat there are no shares, and no marks from them") {
  MachineSnapshot begin;
  MachineSnapshot end;
  end.seconds = 1;
  const SampleConditions c = conditions_between(begin, end);
  CHECK_FALSE(c.others_share);
  CHECK_FALSE(c.steal_share);
  CHECK(marks_of(c).empty());
  const OrderedJson json = disturbance_json({c});
  CHECK_FALSE(json.at("samples")[0].contains("others_share"));
}

TEST_CASE("disturbance: each rule marks what is over its limit and nothing else") {
  SampleConditions quiet;
  quiet.seconds = 1;
  const auto with = [&](auto change) {
    SampleConditions c = quiet;
    change(c);
    return marks_of(c);
  };
  using Marks = std::vector<std::string>;
  CHECK(with([](auto& c) { c.involuntary_switches = 199; }).empty());
  CHECK(with([](auto& c) { c.involuntary_switches = 200; }) == Marks{"preempted"});
  CHECK(with([](auto& c) { c.voluntary_switches = 100000; }).empty());
  CHECK(with([](auto& c) { c.major_faults = 1; }) == Marks{"major faults"});
  CHECK(with([](auto& c) { c.minor_faults = 256; }).empty());
  CHECK(with([](auto& c) { c.minor_faults = 257; }) == Marks{"minor faults"});
  CHECK(with([](auto& c) { c.gpu.emplace().throttle_reasons = "none"; }).empty());
  CHECK(with([](auto& c) { c.gpu.emplace().throttle_reasons = "idle"; }).empty());
  CHECK(with([](auto& c) { c.gpu.emplace().throttle_reasons = "power cap"; }) ==
        Marks{"throttled"});
}

TEST_CASE("disturbance: a clock is slow beside the fastest sample of the series") {
  std::vector<SampleConditions> samples(3);
  samples[0].cpu_mhz = 3000;
  samples[1].cpu_mhz = 2701;
  samples[2].cpu_mhz = 2600;
  samples[0].gpu.emplace().sm_clock_mhz = 1700;
  samples[1].gpu.emplace().sm_clock_mhz = 1980;
  samples[2].gpu.emplace().sm_clock_mhz = 1980;
  const auto marks = find_disturbances(samples);
  CHECK(marks[0] == std::vector<std::string>{"gpu clock"});
  CHECK(marks[1].empty());
  CHECK(marks[2] == std::vector<std::string>{"cpu clock"});
  const OrderedJson json = disturbance_json(samples);
  CHECK(json.at("disturbed_samples") == 2);
  CHECK(json.at("reasons") == OrderedJson{{"cpu clock", 1}, {"gpu clock", 1}});
  CHECK(json.at("samples").size() == 3);  // kept, all of them
  CHECK(json.at("samples")[2].at("disturbed")[0] == "cpu clock");
  CHECK_FALSE(json.at("samples")[1].contains("disturbed"));
}

TEST_CASE("disturbance: counters come from the files of /proc and /sys") {
  const TemporaryDirectory root;
  const HostRoots roots{root.path() / "proc", root.path() / "sys"};
  // user nice system idle iowait irq softirq steal guest guest_nice
  write_tree(roots.proc / "stat",
             "cpu  100 20 30 5000 7 4 6 50 9 9\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 77\n");
  write_tree(roots.proc / "loadavg", "1.25 0.50 0.10 1/100 999\n");
  for (const auto& [cpu, khz] : {std::pair{"cpu0", "3000000"}, {"cpu1", "2000000"}}) {
    write_tree(roots.sys / "devices/system/cpu" / cpu / "cpufreq/scaling_cur_freq", khz);
  }
  const MachineSnapshot s = read_machine(roots);
  CHECK(s.num_cpus == 2);
  REQUIRE(s.busy_s);
  CHECK(*s.busy_s * s.ticks_per_s == Approx(160));
  CHECK(*s.steal_s * s.ticks_per_s == Approx(50));
  CHECK(s.load_average == 1.25);
  CHECK(s.cpu_mhz == 2500);
  CHECK(s.own_s > 0);
  CHECK(s.minor_faults > 0);
  CHECK_FALSE(s.gpu);

  const MachineSnapshot none = read_machine({root.path() / "no", root.path() / "no"});
  CHECK_FALSE(none.busy_s);
  CHECK_FALSE(none.cpu_mhz);
  CHECK_FALSE(none.load_average);
  write_tree(roots.proc / "stat", "cpu  100 twenty\n");
  CHECK_FALSE(read_machine(roots).busy_s);
}

}  // namespace moebench::test
