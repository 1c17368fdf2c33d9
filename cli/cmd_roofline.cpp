// moebench roofline: the ceilings of this machine, and where they meet.
#include <fmt/core.h>

#include <ctime>
#include <memory>

#include "bench/machine_cache.h"
#include "bench/roofline.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "kernels/formats/format.h"

namespace moebench::cli {
namespace {

struct RooflineCommand {
  int threads = 0;
  std::string backend;
  bool refresh = false;
  bool json = false;
};

// "17.4 [17.2, 17.6]", or "-" where it was not measured.
std::string rate_cell(const MachineRates& rates, const std::string& name, double unit = 1) {
  const auto it = rates.rates.find(name);
  if (it == rates.rates.end()) return "-";
  const Metric& m = it->second;
  std::string cell = fmt::format("{:.1f}", m.value / unit);
  if (m.interval) {
    cell += fmt::format(" [{:.1f}, {:.1f}]", m.interval->low / unit, m.interval->high / unit);
  }
  return cell;
}

// "3 minutes ago" of a time like 2026-01-31T12:00:00Z.
std::string age_of(const std::string& measured) {
  std::tm utc{};
  if (strptime(measured.c_str(), "%Y-%m-%dT%H:%M:%SZ", &utc) == nullptr) return "some time ago";
  const double seconds = std::difftime(std::time(nullptr), timegm(&utc));
  if (seconds < 60) return "just now";
  if (seconds < 3600) return fmt::format("{:.0f} min ago", seconds / 60);
  if (seconds < 48 * 3600) return fmt::format("{:.0f} h ago", seconds / 3600);
  return fmt::format("{:.0f} days ago", seconds / (24 * 3600));
}

// Up to how many tokens on one weight reading it takes longer than multiplying by it: an operation
// count of two a token against the weight's bytes.
std::string tokens_to_ridge(Format format, double operations_per_byte) {
  const double bytes = static_cast<double>(row_bytes(format, 1024)) / 1024;
  return fmt::format("{:.0f}", operations_per_byte * bytes / 2);
}

// Where bytes and operations take equally long: to the left of it memory is the limit.
void print_ridges(const Ceilings& c, std::span<const std::pair<Precision, Format>> uses) {
  const double read = c.read.back().gb_per_s;
  Table table(
      {"multiplying in", ">peak, Gop/s", ">ridge, op/byte", "weights", ">tokens to reach it"});
  for (const auto& [precision, format] : uses) {
    const double peak = c.gop_per_s[static_cast<std::size_t>(precision)];
    if (!(peak > 0)) continue;
    table.add({std::string(precision_name(precision)), fmt::format("{:.0f}", peak),
               fmt::format("{:.1f}", peak / read), std::string(format_name(format)),
               tokens_to_ridge(format, peak / read)});
  }
  fmt::print(
      "Ridge point, {}: with fewer operations a byte than this, memory is the limit.\n"
      "A weight that is read once serves every token of a step that needs it, two operations "
      "each.\n{}\n",
      c.machine, table.text());
}

void print_header(const Roofline& roofline) {
  fmt::print("{}: {}\n", roofline.machine, roofline.conditions);
  for (const MachineRates& m : roofline.rates) {
    fmt::print("measured {} ({}), load {:.2f} before{}\n", m.measured, age_of(m.measured),
               m.load_average,
               roofline.rates.size() == 1 ? ""
               : m.threads == 1           ? ", 1 thread"
                                          : fmt::format(", {} threads", m.threads));
  }
  fmt::print("\n");
}

void print_cpu(const Roofline& roofline) {
  print_header(roofline);
  Table table(
      {">threads", ">read, GB/s", ">copy, GB/s", ">f32, Gop/s", ">int16, Gop/s", ">int8, Gop/s"});
  for (const MachineRates& m : roofline.rates) {
    table.add({std::to_string(m.threads), rate_cell(m, "read_gb_per_s"),
               rate_cell(m, "copy_gb_per_s"), rate_cell(m, "f32_gop_per_s"),
               rate_cell(m, "int16_gop_per_s"), rate_cell(m, "int8_gop_per_s")});
  }
  fmt::print("{}\n", table.text());
  const MachineRates& all = roofline.rates.back();
  std::vector<std::string> columns = {"read again and again"};
  std::vector<std::string> cells = {fmt::format("GB/s, {} threads", all.threads)};
  for (const MachineRates::Cached& c : all.cached) {
    columns.push_back(fmt::format(">{} MiB", c.bytes >> 20));
    cells.push_back(fmt::format("{:.1f}", c.read_gb_per_s.value));
  }
  Table cached(columns);
  cached.add(cells);
  fmt::print("{}\n", cached.text());
  constexpr std::pair<Precision, Format> kUses[] = {{Precision::kF32, Format::kBf16},
                                                    {Precision::kInt16, Format::kInt8},
                                                    {Precision::kInt8, Format::kMxfp4}};
  print_ridges(ceilings_of(roofline, all.threads), kUses);
}

void print_gpu(const Roofline& roofline) {
  print_header(roofline);
  const MachineRates& m = roofline.rates.front();
  Table table(
      {">read, GB/s", ">copy, GB/s", ">bf16, Top/s", ">fp8, Top/s", ">launch in a graph, us"});
  table.add({rate_cell(m, "read_gb_per_s"), rate_cell(m, "copy_gb_per_s"),
             rate_cell(m, "bf16_gop_per_s", 1e3), rate_cell(m, "fp8_gop_per_s", 1e3),
             rate_cell(m, "launch_us")});
  fmt::print("{}\n", table.text());
  constexpr std::pair<Precision, Format> kUses[] = {{Precision::kBf16, Format::kBf16},
                                                    {Precision::kBf16, Format::kMxfp4},
                                                    {Precision::kFp8, Format::kFp8E4m3}};
  print_ridges(ceilings_of(roofline, 0), kUses);
}

int run_roofline(const RooflineCommand& o) {
  RooflineOptions options;
  options.refresh = o.refresh;
  OrderedJson json = OrderedJson::object();
  if (o.backend != "cuda") {
    const std::vector<int> counts = doubling_up_to(o.threads > 0 ? o.threads : available_cpus());
    const Roofline roofline = cpu_roofline(counts, options);
    if (o.json) {
      json["cpu"] = to_json(roofline);
    } else {
      print_cpu(roofline);
    }
  }
  if (o.backend == "cuda" || (o.backend.empty() && gpu::unavailable().empty())) {
    const Roofline roofline = gpu_roofline(options);
    if (o.json) {
      json["cuda"] = to_json(roofline);
    } else {
      print_gpu(roofline);
    }
  }
  if (o.json) {
    fmt::print("{}\n", json.dump(2));
    return kExitOk;
  }
  const std::filesystem::path path = machine_cache_path("roofline.json");
  if (!path.empty()) fmt::print("kept in {} (--refresh measures again)\n", path.string());
  return kExitOk;
}

}  // namespace

void add_roofline(CLI::App& app, Action& action) {
  auto options = std::make_shared<RooflineCommand>();
  CLI::App* command =
      add_command(app, action, "roofline",
                  "The ceilings of this machine, measured: memory, arithmetic, and where they meet",
                  options, run_roofline);
  command
      ->add_option("-t,--threads", options->threads,
                   "Measure 1, 2, 4, ... up to N threads (0: one per CPU)")
      ->type_name("N")
      ->check(CLI::Range(0, 1024));
  command->add_option("--backend", options->backend, "cpu or cuda (default: what is there)")
      ->type_name("B")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command->add_flag("--refresh", options->refresh, "Measure again what is remembered");
  command->add_flag("--json", options->json, "As JSON, with the samples");
  add_examples(command, {"moebench roofline", "moebench roofline --threads 1 --refresh --json"});
}

}  // namespace moebench::cli
