// moebench doctor: what this machine can do, and what is missing.
#include <fmt/core.h>

#include <memory>

#include "bench/energy.h"
#include "bench/environment.h"
#include "bench/host_details.h"
#include "cli/command.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "evals/task.h"
#include "kernels/core/append_file.h"
#include "kernels/core/cupti.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/nvml.h"
#include "kernels/core/shared_library.h"
#include "kernels/core/thread_pool.h"
#include "kernels/verify/verify.h"

namespace moebench::cli {
namespace {

struct DoctorOptions {
  bool json = false;
};

struct Finding {
  enum class Level { kGood, kNote, kProblem } level;
  std::string what;
  std::string detail;  // the value, and for notes and problems what would help
};

// Runs `check` and turns an Error into a problem.
template <class Check>
Finding attempt(const std::string& what, Check check) {
  try {
    return {Finding::Level::kGood, what, check()};
  } catch (const Error& error) {
    return {Finding::Level::kProblem, what, error.what()};
  }
}

// "13.1" of 130101, as cuBLAS counts its versions and CUPTI that of its interface.
std::string ten_thousands(std::size_t version) {
  return fmt::format("{}.{}", version / 10000, version / 100 % 100);
}

// What NVML tells of the GPU now, "120 W of 700 W, SM clock 1980 of 1980 MHz, ...".
std::string describe(const gpu::NvmlReadings& r) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  const auto add_of = [&](const char* name, auto value, auto highest, const char* unit) {
    if (value.has_value() && highest.has_value()) {
      add(fmt::format("{}{:.0f} of {:.0f} {}", name, static_cast<double>(*value),
                      static_cast<double>(*highest), unit));
    }
  };
  add_of("", r.power_watts, r.power_limit_watts, "W");
  add_of("SM clock ", r.sm_clock_mhz, r.max_sm_clock_mhz, "MHz");
  add_of("memory clock ", r.memory_clock_mhz, r.max_memory_clock_mhz, "MHz");
  if (r.temperature_celsius.has_value()) add(fmt::format("{} degrees", *r.temperature_celsius));
  if (r.throttle_reasons.has_value()) add("throttled by: " + *r.throttle_reasons);
  if (r.ecc.has_value()) add(*r.ecc ? "ECC on" : "ECC off");
  if (r.ecc_uncorrected_errors.has_value()) {
    add(fmt::format("{} uncorrected memory errors", *r.ecc_uncorrected_errors));
  }
  for (const std::string& missing : r.missing) add("not available: " + missing);
  return text;
}

// What CUDA plans need, and what they can do without. A machine without a GPU is a good machine, so
// nothing that is absent is a problem; a GPU that is there and fails is one.
void examine_gpu(const Environment& e, std::vector<Finding>& findings) {
  using Level = Finding::Level;
  const auto add = [&](bool good, const char* what, const std::string& detail) {
    findings.push_back({good ? Level::kGood : Level::kNote, what, detail});
  };
  const bool built = e.cuda != "none";
  const bool wgmma = e.cuda.find("90a") != std::string::npos;
  add(built && wgmma, "CUDA kernels",
      !built  ? "none: this build runs CPU plans only (install the CUDA toolkit and configure with "
                "-DMOEBENCH_CUDA=ON)"
      : wgmma ? e.cuda
              : e.cuda + "; those that use wgmma need 90a among CMAKE_CUDA_ARCHITECTURES");
  const std::string reason = gpu::unavailable();
  if (reason.empty()) {
    findings.push_back(attempt("GPU", [] {
      const gpu::DeviceInfo& info = gpu::device().info();
      const auto free_bytes = static_cast<double>(gpu::device().free_bytes());
      return fmt::format("{}, compute capability {}.{}, {} SMs, {} of {} free, {}", info.name,
                         info.compute_major, info.compute_minor, info.num_sms,
                         format_bytes(free_bytes),
                         format_bytes(static_cast<double>(info.total_bytes)), info.uuid);
    }));
    add(true, "NVIDIA driver",
        fmt::format("{}, for CUDA {} (this moebench: {})", e.gpu->driver, e.gpu->cuda_driver,
                    e.gpu->cuda_runtime));
  } else {
    add(false, "GPU", reason);
  }
  if (!built) return;

  const SharedLibrary cublas({"libcublasLt.so.13", "libcublasLt.so.12"});
  const auto cublas_version = cublas.function<std::size_t (*)()>("cublasLtGetVersion");
  add(cublas_version != nullptr, "cuBLASLt",
      cublas_version != nullptr
          ? fmt::format("{} in {}", ten_thousands(cublas_version()), cublas.path())
          : cublas.unavailable() +
                " (install it, or name its folder in MOEBENCH_CUDA_LIBS; other "
                "variants do without)");
  const gpu::Nvml nvml;
  add(nvml.unavailable().empty(), "NVML",
      !nvml.unavailable().empty()
          ? nvml.unavailable() + " (comes with the driver; without it no power and no clocks)"
      : reason.empty() ? describe(nvml.read(gpu::device().info().pci_bus_id))
                       : "driver " + nvml.driver_version().value_or("not available"));
  const gpu::Cupti cupti = gpu::find_cupti();
  add(cupti.unavailable.empty(), "CUPTI",
      cupti.unavailable.empty()
          ? fmt::format("{} in {}", ten_thousands(static_cast<std::size_t>(cupti.api_version)),
                        cupti.path)
          : cupti.unavailable + " (comes with the toolkit; without it no counters)");
}

std::vector<Finding> examine(const Environment& e) {
  using Level = Finding::Level;
  std::vector<Finding> findings;
  findings.push_back({Level::kGood, "processor", e.cpu});
  findings.push_back(
      {e.cpu_features.find("avx2") != std::string::npos ? Level::kGood : Level::kNote,
       "instructions", e.cpu_features.empty() ? "none of AVX2 and later" : e.cpu_features});
  findings.push_back({e.usable_cpus == e.logical_cpus ? Level::kGood : Level::kNote, "CPUs",
                      fmt::format("{} usable of {}", e.usable_cpus, e.logical_cpus)});
  findings.push_back({Level::kGood, "memory", format_bytes(static_cast<double>(e.memory_bytes))});
  findings.push_back({Level::kGood, "system", e.os});
  findings.push_back(
      {e.build_type == "Release" ? Level::kGood : Level::kNote, "build",
       fmt::format(
           "moebench {}, {}, {}, commit {}{}", e.version, e.compiler, e.build_type, e.git_commit,
           e.build_type == "Release" ? "" : " (times mean little: build with --preset release)")});
  findings.push_back(
      {e.governor == "performance" || e.governor == "not available" ? Level::kGood : Level::kNote,
       "frequency governor",
       e.governor == "performance" || e.governor == "not available"
           ? e.governor
           : e.governor + " (times vary less under 'performance')"});
  findings.push_back(
      {e.load_average < 0.5 ? Level::kGood : Level::kNote, "load",
       fmt::format("{:.2f}{}", e.load_average,
                   e.load_average < 0.5 ? "" : " (others are using the CPUs; times will vary)")});
  for (const IsolationAdvice& advice : isolation_advice(e.usable_cpus, e.logical_cpus)) {
    findings.push_back({advice.good ? Level::kGood : Level::kNote, advice.what, advice.detail});
  }
  const EnergyMeter meter;
  findings.push_back({meter.available() ? Level::kGood : Level::kNote, "energy", meter.source()});
  examine_gpu(e, findings);
  findings.push_back(attempt("model nano", [] {
    const std::filesystem::path directory = resolve_model("nano");
    const WeightLayout layout =
        plan_weights(Checkpoint::open(directory), load_model_config(directory), Plan{});
    return fmt::format("{} parameters in {}", format_count(layout.parameters()),
                       directory.string());
  }));
  findings.push_back(attempt("questions of nano", [] {
    return fmt::format("{} items", find_task("nano").load().items.size());
  }));
  findings.push_back(attempt("kernels", [] {
    ThreadPool pool(0);
    const auto results = verify_variants({}, 1, pool);
    std::size_t failed = 0;
    std::size_t skipped = 0;
    for (const VerifyResult& r : results) {
      failed += r.outcome == VerifyResult::Outcome::kFailed ? 1 : 0;
      skipped += r.outcome == VerifyResult::Outcome::kSkipped ? 1 : 0;
    }
    require(failed == 0, "{} of {} checks failed (see moebench kernels verify)", failed,
            results.size());
    return fmt::format("all {} checks passed{}", results.size() - skipped,
                       skipped == 0 ? "" : fmt::format(", {} skipped", skipped));
  }));
  findings.push_back(attempt("writing here", [] {
    const std::filesystem::path probe = "moebench-doctor-probe";
    write_file_atomically(probe, "probe");
    std::filesystem::remove(probe);
    const auto space = std::filesystem::space(".");
    return fmt::format("{} free", format_bytes(static_cast<double>(space.available)));
  }));
  return findings;
}

int run_doctor(const DoctorOptions& options) {
  const std::vector<Finding> findings = examine(read_environment());
  bool healthy = true;
  OrderedJson json = OrderedJson::array();
  for (const Finding& f : findings) {
    const bool problem = f.level == Finding::Level::kProblem;
    const char* mark = problem ? "missing" : f.level == Finding::Level::kNote ? "note" : "ok";
    healthy = healthy && !problem;
    if (options.json) {
      json.push_back({{"what", f.what}, {"level", mark}, {"detail", f.detail}});
    } else {
      fmt::print("{:<8} {:<20} {}\n", mark, f.what, f.detail);
    }
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  return healthy ? kExitOk : kExitFailed;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = add_command(
      app, action, "doctor", "What this machine can do, and what is missing", options, run_doctor);
  command->add_flag("--json", options->json, "As JSON");
  add_examples(command, {"moebench doctor"});
}

}  // namespace moebench::cli
