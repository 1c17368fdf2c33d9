// Machine facts from a /proc and /sys made of files.
#include <catch2/catch.hpp>

#include "bench/host_details.h"
#include "tests/support/files.h"

namespace moebench::test {
namespace {

struct Host {
  TemporaryDirectory root;
  HostRoots roots{root.path() / "proc", root.path() / "sys"};

  void proc(const std::string& path, std::string_view text) { write(roots.proc / path, text); }
  void sys(const std::string& path, std::string_view text) { write(roots.sys / path, text); }

 private:
  static void write(const std::filesystem::path& path, std::string_view text) {
    std::filesystem::create_directories(path.parent_path());
    write_file(path, text);
  }
};

const IsolationAdvice& advice_on(const std::vector<IsolationAdvice>& all, const std::string& what) {
  for (const IsolationAdvice& one : all) {
    if (one.what == what) return one;
  }
  throw std::runtime_error("no advice on " + what);
}

}  // namespace

TEST_CASE("host details: what the files say") {
  Host host;
  host.sys("devices/system/node/node0/x", "");
  host.sys("devices/system/node/node1/x", "");
  host.sys("devices/system/node/possible", "0-1");
  host.sys("devices/system/cpu/smt/active", "1\n");
  host.sys("kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  host.sys("fs/cgroup/cpu.max", "150000 100000\n");
  host.sys("class/dmi/id/product_name", "Cloud VM\n");
  host.proc("sys/vm/nr_hugepages", "12\n");
  host.proc("cpuinfo", "model name : X\nflags : fpu avx2 hypervisor\n");
  const OrderedJson json = host_details(host.roots);
  CHECK(json.at("numa_nodes") == 2);
  CHECK(json.at("smt") == "on");
  CHECK(json.at("transparent_huge_pages") == "madvise");
  CHECK(json.at("cpu_quota") == 1.5);
  CHECK(json.at("huge_pages") == 12);
  CHECK(json.at("virtualisation") == "a virtual machine (Cloud VM)");
  for (const char* library : {"libc", "fmt", "nlohmann_json", "boost", "xxhash"}) {
    INFO(library);
    CHECK_THAT(json.at("libraries").at(library).get<std::string>(),
               Catch::Matches("[0-9]+\\.[0-9.]+"));
  }
}

TEST_CASE("host details: what cannot be read is not available, not zero") {
  const Host empty;
  const OrderedJson json = host_details(empty.roots);
  for (const char* number : {"numa_nodes", "huge_pages", "cpu_quota"}) {
    CHECK(json.at(number).is_null());
  }
  for (const char* text : {"smt", "transparent_huge_pages", "virtualisation"}) {
    CHECK(json.at(text) == "not available");
  }
}

TEST_CASE("host details: no quota, in both versions of control groups") {
  Host host;
  host.sys("fs/cgroup/cpu.max", "max 100000\n");
  CHECK_FALSE(cpu_quota(host.roots));
  Host old;
  old.sys("fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  old.sys("fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  CHECK_FALSE(cpu_quota(old.roots));
  old.sys("fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n");
  CHECK(cpu_quota(old.roots) == 2.5);
}

TEST_CASE("isolation advice: each finding says what would help") {
  Host host;
  host.sys("devices/system/cpu/smt/active", "1");
  host.sys("fs/cgroup/cpu.max", "150000 100000");
  host.sys("kernel/mm/transparent_hugepage/enabled", "always madvise [never]");
  const auto bad = isolation_advice(4, 4, host.roots);
  CHECK_FALSE(advice_on(bad, "SMT").good);
  CHECK_FALSE(advice_on(bad, "CPU quota").good);
  CHECK_THAT(advice_on(bad, "CPU quota").detail, Catch::Contains("1.50 CPUs for 4"));
  CHECK_FALSE(advice_on(bad, "huge pages").good);
  CHECK_THAT(advice_on(bad, "pinning").detail, Catch::Contains("taskset -c 1-3"));

  host.sys("devices/system/cpu/smt/active", "0");
  host.sys("fs/cgroup/cpu.max", "max 100000");
  host.sys("kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
  for (const IsolationAdvice& one : isolation_advice(2, 4, host.roots)) {
    INFO(one.what);
    CHECK(one.good);
  }
}

}  // namespace moebench::test
