// Rooflines: what is measured is remembered, and ceilings are read off as they are defined.
#include <catch2/catch.hpp>
#include <cstdlib>

#include "bench/roofline.h"
#include "kernels/core/append_file.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// Quick and small, with a memory in a folder of the test's own.
struct Measuring {
  TemporaryDirectory folder;
  RooflineOptions options;

  Measuring() {
    setenv("XDG_CACHE_HOME", folder.path().c_str(), 1);
    options.rounds = 2;
    options.seconds = 1e-4;
    options.bytes = std::size_t{6} << 20;
  }
  ~Measuring() { unsetenv("XDG_CACHE_HOME"); }

  Roofline measure(std::vector<int> threads) { return cpu_roofline(threads, options); }
  std::filesystem::path file() const { return folder.path() / "moebench" / "roofline.json"; }
};

Metric rate_of(std::vector<double> samples) {
  Metric metric;
  metric.unit = "GB/s";
  metric.value = samples.front();
  metric.samples = std::move(samples);
  return metric;
}

// Memory reads 20 GB/s (21 at best), the cache 100 at 1 MB and 60 at 4 MB.
Roofline by_hand() {
  MachineRates m;
  m.threads = 2;
  m.measured = "2026-01-31T12:00:00Z";
  m.rates["read_gb_per_s"] = rate_of({20, 21, 19});
  m.rates["f32_gop_per_s"] = rate_of({200});
  m.rates["int8_gop_per_s"] = rate_of({500, 550});
  m.cached = {{1'000'000, rate_of({100})}, {4'000'000, rate_of({60})}, {9'000'000, rate_of({5})}};
  return {"a cpu", "none", {m}};
}

}  // namespace

TEST_CASE("roofline: numbers of threads double up to the most there are") {
  CHECK(doubling_up_to(1) == std::vector<int>{1});
  CHECK(doubling_up_to(2) == std::vector<int>{1, 2});
  CHECK(doubling_up_to(6) == std::vector<int>{1, 2, 4, 6});
  CHECK(doubling_up_to(8) == std::vector<int>{1, 2, 4, 8});
}

TEST_CASE("roofline: every rate is positive, has its samples, and comes once per thread count") {
  Measuring here;
  const Roofline roofline = here.measure({1, 2});
  REQUIRE(roofline.rates.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const MachineRates& m = roofline.rates[i];
    CHECK(m.threads == static_cast<int>(i) + 1);
    CHECK(m.measured.size() == 20);
    for (const char* name : {"read_gb_per_s", "copy_gb_per_s", "f32_gop_per_s"}) {
      INFO(name);
      const Metric& rate = m.rates.at(name);
      CHECK(rate.value > 0);
      CHECK(rate.samples.size() == 2);
      CHECK(rate.better == "higher");
    }
    REQUIRE(m.cached.size() == 2);  // sizes below the 6 MiB that stand for memory
    CHECK(m.cached[0].bytes == 1 << 20);
    CHECK(m.cached[1].bytes == 4 << 20);
  }
}

TEST_CASE("roofline: what was measured is remembered, by number of threads, until refreshed") {
  Measuring here;
  const Roofline first = here.measure({1});
  const auto samples = [](const Roofline& r, std::size_t i) {
    return r.rates.at(i).rates.at("read_gb_per_s").samples;
  };
  CHECK(samples(here.measure({1}), 0) == samples(first, 0));
  const Roofline both = here.measure({1, 2});  // only the second is measured
  CHECK(samples(both, 0) == samples(first, 0));
  const Roofline second = here.measure({2});
  REQUIRE(second.rates.size() == 1);
  CHECK(second.rates[0].threads == 2);
  CHECK(samples(second, 0) == samples(both, 1));
  here.options.refresh = true;
  CHECK(samples(here.measure({1}), 0) != samples(first, 0));
}

TEST_CASE("roofline: a damaged memory is measured anew and mended") {
  Measuring here;
  here.measure({1});
  const Json good = read_json(here.file());
  const std::string key = good.begin().key();
  Json missing = good;
  missing[key].erase("rates");
  Json negative = good;
  negative[key]["rates"][0]["rates"]["read_gb_per_s"]["value"] = -1;
  Json unknown = good;
  unknown[key]["rates"][0]["extra"] = 1;
  for (const std::string& content : {std::string(), std::string("[1]"), std::string("{\"x\": "),
                                     missing.dump(), negative.dump(), unknown.dump()}) {
    write_file(here.file(), content);
    CHECK(here.measure({1}).rates.at(0).rates.at("read_gb_per_s").value > 0);
    CHECK_NOTHROW(roofline_from_json(read_json(here.file())[key], "the file"));
  }
}

TEST_CASE("roofline: what a busy machine measured is measured again on a calm one") {
  Measuring here;
  here.measure({1});
  Json busy = read_json(here.file());
  Json& rates = busy.begin().value()["rates"][0];
  rates["load_average"] = 1e6;
  rates["measured"] = "2026-01-31T12:00:00Z";
  write_file(here.file(), busy.dump());
  CHECK(here.measure({1}).rates.at(0).measured != "2026-01-31T12:00:00Z");
}

TEST_CASE("roofline: JSON and back is the same") {
  const Roofline roofline = by_hand();
  const OrderedJson json = to_json(roofline);
  const Roofline again = roofline_from_json(Json::parse(json.dump()), "it");
  CHECK(to_json(again) == json);
}

TEST_CASE("ceilings: the fastest round, by precision; what is missing has the machine's best") {
  const Ceilings c = ceilings_of(by_hand(), 2);
  CHECK(c.machine == "a cpu, 2 threads");
  CHECK(c.peak_gop_per_s(Precision::kF32) == 200);
  CHECK(c.peak_gop_per_s(Precision::kInt8) == 550);
  CHECK(c.peak_gop_per_s(Precision::kInt16) == 550);  // not measured
  check_error([] { ceilings_of(by_hand(), 3); }, ErrorCode::kInvalidArgument,
              {"a cpu", "3 threads"});
  const OrderedJson json = to_json(c);
  CHECK(to_json(ceilings_from_json(Json::parse(json.dump()), "it")) == json);
}

TEST_CASE("ceilings: reading slows with the bytes read, from the caches to memory") {
  const Ceilings c = ceilings_of(by_hand(), 2);
  CHECK(c.read_gb_per_s(1) == 100);
  CHECK(c.read_gb_per_s(1e6) == 100);
  CHECK(c.read_gb_per_s(2e6) == Approx(80));  // half way from 1 to 4 MB by the logarithm
  CHECK(c.read_gb_per_s(4e6) == Approx(60));
  CHECK(c.read_gb_per_s(9e6) == Approx(21));  // the disturbed 5 cannot be slower than memory
  CHECK(c.read_gb_per_s(1e12) == 21);
}

}  // namespace moebench::test
