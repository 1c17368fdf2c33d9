// Measuring in turns, remembering, and reading ceilings off.
#include "bench/roofline.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "bench/build_info.h"
#include "bench/environment.h"
#include "bench/machine_cache.h"
#include "bench/workloads.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/machine_limits.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

constexpr std::string_view kFile = "roofline.json";
constexpr double kBusyLoad = 1;  // of one minute: somebody else was using the machine
constexpr std::size_t kCachedSizes[] = {std::size_t{1} << 20, std::size_t{4} << 20,
                                        std::size_t{16} << 20, std::size_t{64} << 20};

std::string peak_name(Precision precision) {
  return fmt::format("{}_gop_per_s", precision_name(precision));
}

OrderedJson to_json(const MachineRates& rates) {
  OrderedJson values = OrderedJson::object();
  for (const auto& [name, metric] : rates.rates) values[name] = moebench::to_json(metric);
  OrderedJson cached = OrderedJson::array();
  for (const MachineRates::Cached& c : rates.cached) {
    cached.push_back({{"bytes", c.bytes}, {"read_gb_per_s", moebench::to_json(c.read_gb_per_s)}});
  }
  return {{"threads", rates.threads},
          {"measured", rates.measured},
          {"load_average", rates.load_average},
          {"rates", values},
          {"cached", cached}};
}

Metric rate_from_json(const Json& json, const std::string& where) {
  Metric metric = metric_from_json(json, where);
  require(!metric.absent && metric.value > 0, "{}: a rate must be positive", where);
  return metric;
}

const Json& list_of(JsonFields& fields, std::string_view name) {
  const Json* list = fields.find(name);
  require(list != nullptr && list->is_array(), "{}: expected a list", fields.path(name));
  return *list;
}

MachineRates rates_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  MachineRates rates;
  rates.threads = in_range(fields.required<int>("threads"), 0, 1 << 20, fields.path("threads"));
  rates.measured = fields.required<std::string>("measured");
  rates.load_average = fields.required<double>("load_average");
  const Json* values = fields.find("rates");
  require(values != nullptr && values->is_object(), "{}: expected an object", fields.path("rates"));
  for (const auto& [name, metric] : values->items()) {
    rates.rates[name] = rate_from_json(metric, fields.path("rates"));
  }
  for (const Json& item : list_of(fields, "cached")) {
    JsonFields one(item, fields.path("cached"));
    MachineRates::Cached c;
    c.bytes = one.required<std::int64_t>("bytes");
    const Json* rate = one.find("read_gb_per_s");
    require(rate != nullptr, "{}: it is missing", one.path("read_gb_per_s"));
    c.read_gb_per_s = rate_from_json(*rate, one.path("read_gb_per_s"));
    require(c.bytes > (rates.cached.empty() ? 0 : rates.cached.back().bytes),
            "{}: sizes must ascend", one.path("bytes"));
    one.finish();
    rates.cached.push_back(std::move(c));
  }
  fields.finish();
  return rates;
}

double fastest_of(const Metric& rate) {
  return rate.samples.empty() ? rate.value
                              : *std::max_element(rate.samples.begin(), rate.samples.end());
}

// All rates in turns, so that a disturbance of some seconds meets each of them.
std::vector<MachineRates> measure_cpu(std::span<const int> threads,
                                      const RooflineOptions& options) {
  LimitMeter meter(options.bytes);
  std::vector<MachineRates> all(threads.size());
  std::vector<std::vector<double>> samples;  // in the order in which a round measures
  const Environment environment = read_environment();
  for (int round = 0; round <= options.rounds; ++round) {
    std::size_t at = 0;
    const auto take = [&](double rate) {
      if (samples.size() <= at) samples.emplace_back();
      if (round > 0) samples[at].push_back(rate);  // the first warms up
      ++at;
    };
    for (const int count : threads) {
      ThreadPool pool(count);
      take(meter.read_gb_per_s(pool, meter.bytes(), options.seconds));
      take(meter.copy_gb_per_s(pool, options.seconds));
      for (const Precision p : {Precision::kF32, Precision::kInt16, Precision::kInt8}) {
        take(meter.gop_per_s(pool, p, options.seconds));
      }
      for (const std::size_t bytes : kCachedSizes) {
        if (bytes < meter.bytes()) take(meter.read_gb_per_s(pool, bytes, options.seconds));
      }
    }
  }
  std::size_t at = 0;
  const auto next = [&](const char* unit) {
    return median_metric(std::move(samples[at++]), unit, "higher");
  };
  for (std::size_t i = 0; i < threads.size(); ++i) {
    MachineRates& m = all[i];
    m.threads = threads[i];
    m.measured = utc_now();
    m.load_average = environment.load_average;
    m.rates["read_gb_per_s"] = next("GB/s");
    m.rates["copy_gb_per_s"] = next("GB/s");
    for (const Precision p : {Precision::kF32, Precision::kInt16, Precision::kInt8}) {
      Metric peak = next("Gop/s");
      if (peak.value > 0) m.rates[peak_name(p)] = std::move(peak);
    }
    for (const std::size_t bytes : kCachedSizes) {
      if (bytes >= meter.bytes()) continue;
      m.cached.push_back({static_cast<std::int64_t>(bytes), next("GB/s")});
    }
  }
  return all;
}

// What is remembered under `key`: nothing if it cannot be read.
Roofline remembered(const Json& cache, const std::string& key) {
  const auto it = cache.find(key);
  if (it == cache.end()) return {};
  try {
    return roofline_from_json(*it, std::string(kFile));
  } catch (const Error&) {
    return {};
  }
}

// The rates for `wanted` threads under a key that holds all they depend on; what is missing comes
// from measure(missing).
Roofline look_up(const std::string& machine, const std::string& conditions,
                 std::span<const int> wanted, const RooflineOptions& options,
                 const std::function<std::vector<MachineRates>(std::span<const int>)>& measure) {
  const std::filesystem::path path = machine_cache_path(kFile);
  const std::string key = hash_hex(content_hash(
      fmt::format("{}|{}|{}", machine, conditions, std::string(build_info::kGitCommit))));
  Json cache = read_machine_cache(path);
  Roofline known;
  if (!options.refresh) known = remembered(cache, key);
  known.machine = machine;
  known.conditions = conditions;
  const auto find = [&](int count) {
    return std::find_if(known.rates.begin(), known.rates.end(),
                        [&](const MachineRates& m) { return m.threads == count; });
  };
  // What was measured beside other work is measured again when the machine is calmer.
  const double load = read_environment().load_average;
  const auto disturbed = [&](const MachineRates& m) {
    return m.load_average > kBusyLoad && load < m.load_average / 2;
  };
  std::vector<int> missing;
  for (const int count : wanted) {
    const auto found = find(count);
    if (found != known.rates.end() && !disturbed(*found)) continue;
    if (found != known.rates.end()) known.rates.erase(found);
    missing.push_back(count);
  }
  if (!missing.empty()) {
    for (MachineRates& m : measure(missing)) known.rates.push_back(std::move(m));
    std::sort(known.rates.begin(), known.rates.end(),
              [](const MachineRates& a, const MachineRates& b) { return a.threads < b.threads; });
    cache[key] = Json::parse(moebench::to_json(known).dump());
    write_machine_cache(path, cache);  // if it cannot be, it is measured again next time
  }
  Roofline result = known;
  std::erase_if(result.rates, [&](const MachineRates& m) {
    return std::find(wanted.begin(), wanted.end(), m.threads) == wanted.end();
  });
  return result;
}

}  // namespace

double MachineRates::fastest(const std::string& name) const {
  const auto it = rates.find(name);
  return it == rates.end() ? 0 : fastest_of(it->second);
}

OrderedJson to_json(const Roofline& roofline) {
  OrderedJson rates = OrderedJson::array();
  for (const MachineRates& m : roofline.rates) rates.push_back(to_json(m));
  return {{"machine", roofline.machine}, {"conditions", roofline.conditions}, {"rates", rates}};
}

Roofline roofline_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  Roofline roofline;
  roofline.machine = fields.required<std::string>("machine");
  roofline.conditions = fields.required<std::string>("conditions");
  for (const Json& item : list_of(fields, "rates")) {
    roofline.rates.push_back(rates_from_json(item, fields.path("rates")));
  }
  fields.finish();
  return roofline;
}

std::vector<int> doubling_up_to(int most) {
  std::vector<int> counts;
  for (int n = 1; n < most; n *= 2) counts.push_back(n);
  counts.push_back(most);
  return counts;
}

Roofline cpu_roofline(std::span<const int> threads, const RooflineOptions& options) {
  const Environment e = read_environment();
  return look_up(e.cpu,
                 fmt::format("microcode {}, governor {}, {} of {} CPUs usable", e.microcode,
                             e.governor, e.usable_cpus, e.logical_cpus),
                 threads, options,
                 [&](std::span<const int> missing) { return measure_cpu(missing, options); });
}

Roofline gpu_roofline(const RooflineOptions& options) {
  gpu::device();  // throws if there is none
  const Environment e = read_environment();
  const GpuEnvironment gpu = e.gpu.value_or(GpuEnvironment{});
  constexpr int kGpu[] = {0};
  return look_up(
      gpu.name, fmt::format("driver {}, CUDA {}, {}", gpu.driver, gpu.cuda_runtime, gpu.uuid), kGpu,
      options,
      [&](std::span<const int>) { return std::vector<MachineRates>{measure_gpu(options)}; });
}

double Ceilings::read_gb_per_s(double bytes) const {
  require(!read.empty(), "ask how fast {} reads: it was not measured", machine);
  if (bytes <= read.front().bytes) return read.front().gb_per_s;
  for (std::size_t i = 1; i < read.size(); ++i) {
    const Read& low = read[i - 1];
    const Read& high = read[i];
    if (bytes > high.bytes) continue;
    const double share = std::log(bytes / low.bytes) / std::log(high.bytes / low.bytes);
    return low.gb_per_s + share * (high.gb_per_s - low.gb_per_s);
  }
  return read.back().gb_per_s;
}

double Ceilings::peak_gop_per_s(Precision precision) const {
  const double peak = gop_per_s[static_cast<std::size_t>(precision)];
  return peak > 0 ? peak : *std::max_element(gop_per_s.begin(), gop_per_s.end());
}

Ceilings ceilings_of(const Roofline& roofline, int threads) {
  const auto rates = std::find_if(roofline.rates.begin(), roofline.rates.end(),
                                  [&](const MachineRates& m) { return m.threads == threads; });
  require(rates != roofline.rates.end(), "look up the ceilings of {}: not measured with {} threads",
          roofline.machine, threads);
  Ceilings c;
  c.machine = threads > 0 ? fmt::format("{}, {} thread{}", roofline.machine, threads,
                                        threads == 1 ? "" : "s")
                          : roofline.machine;
  c.measured = rates->measured;
  const double memory = rates->fastest("read_gb_per_s");
  for (const MachineRates::Cached& cached : rates->cached) {
    // A cache is not slower than memory: what says so was disturbed.
    c.read.push_back(
        {static_cast<double>(cached.bytes), std::max(memory, fastest_of(cached.read_gb_per_s))});
  }
  // The size beyond which only memory counts: a multiple of the last set that was tried.
  constexpr double kBeyond = 2;
  c.read.push_back({c.read.empty() ? 1 : kBeyond * c.read.back().bytes, memory});
  for (std::size_t p = 0; p < c.gop_per_s.size(); ++p) {
    c.gop_per_s[p] = rates->fastest(peak_name(static_cast<Precision>(p)));
  }
  return c;
}

namespace {

template <class Measure>
std::optional<Ceilings> unless_out_of_memory(const Measure& measure) {
  try {
    return measure();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    return std::nullopt;
  }
}

}  // namespace

std::optional<Ceilings> cpu_ceilings(int threads) {
  const int count = threads > 0 ? threads : available_cpus();
  return unless_out_of_memory([&] { return ceilings_of(cpu_roofline({&count, 1}), count); });
}

std::optional<Ceilings> gpu_ceilings() {
  return unless_out_of_memory([] { return ceilings_of(gpu_roofline(), 0); });
}

OrderedJson to_json(const Ceilings& c) {
  OrderedJson read = OrderedJson::array();
  for (const Ceilings::Read& r : c.read) {
    read.push_back({{"bytes", r.bytes}, {"gb_per_s", r.gb_per_s}});
  }
  OrderedJson peaks = OrderedJson::object();
  for (std::size_t p = 0; p < c.gop_per_s.size(); ++p) {
    if (c.gop_per_s[p] > 0) peaks[std::string(kPrecisionNames[p])] = c.gop_per_s[p];
  }
  return {{"machine", c.machine}, {"measured", c.measured}, {"read", read}, {"gop_per_s", peaks}};
}

Ceilings ceilings_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  Ceilings c;
  c.machine = fields.required<std::string>("machine");
  c.measured = fields.required<std::string>("measured");
  for (const Json& item : list_of(fields, "read")) {
    JsonFields one(item, fields.path("read"));
    c.read.push_back({one.required<double>("bytes"), one.required<double>("gb_per_s")});
    one.finish();
  }
  const Json* peaks = fields.find("gop_per_s");
  require(peaks != nullptr, "{}: it is missing", fields.path("gop_per_s"));
  JsonFields by_name(*peaks, fields.path("gop_per_s"));
  for (std::size_t p = 0; p < c.gop_per_s.size(); ++p) {
    c.gop_per_s[p] = by_name.optional<double>(kPrecisionNames[p], 0.0);
  }
  by_name.finish();
  fields.finish();
  return c;
}

}  // namespace moebench
