// Calling NVML. Declarations and numbers are those of NVIDIA's "NVML API Reference Guide"; they are
// part of the library's stable interface.
#include "kernels/core/nvml.h"

#include <fmt/format.h>

#include <array>

namespace moebench::gpu {
namespace {

struct NvmlDevice;  // what nvmlDevice_t points to
using Handle = NvmlDevice*;
using Status = int;
constexpr Status kSuccess = 0;

struct Memory {  // nvmlMemory_t
  unsigned long long total, free, used;
};
constexpr int kClockSm = 1, kClockMemory = 2;  // nvmlClockType_t
constexpr int kTemperatureGpu = 0;
constexpr int kErrorUncorrected = 1, kCounterVolatile = 0;

std::string error_text(const SharedLibrary& library, Status status) {
  const auto text = library.function<const char* (*)(Status)>("nvmlErrorString");
  return text != nullptr ? text(status) : fmt::format("NVML error {}", status);
}

std::string throttle_text(unsigned long long reasons) {
  struct Reason {
    unsigned long long bit;
    const char* text;
  };
  constexpr std::array<Reason, 9> kReasons = {{{0x1, "idle"},
                                               {0x2, "application clocks"},
                                               {0x4, "power cap"},
                                               {0x8, "hardware slowdown"},
                                               {0x10, "sync boost"},
                                               {0x20, "thermal (software)"},
                                               {0x40, "thermal (hardware)"},
                                               {0x80, "power brake"},
                                               {0x100, "display clocks"}}};
  std::string text;
  for (const Reason& reason : kReasons) {
    if ((reasons & reason.bit) == 0) continue;
    text += text.empty() ? "" : ", ";
    text += reason.text;
    reasons &= ~reason.bit;
  }
  if (reasons != 0) text += fmt::format("{}others {:#x}", text.empty() ? "" : ", ", reasons);
  return text.empty() ? "none" : text;
}

// Asks one GPU, and notes what is not told.
class Asker {
 public:
  Asker(const SharedLibrary& library, Handle handle, std::vector<std::string>& missing)
      : library_(library), handle_(handle), missing_(missing) {}

  // The value that nvmlDevice<function>(handle, arguments..., &value) writes.
  template <class Value, class... Arguments>
  std::optional<Value> get(const char* what, const char* function, Arguments... arguments) {
    const auto call = library_.function<Status (*)(Handle, Arguments..., Value*)>(function);
    Value value{};
    if (answered(what, call != nullptr, call != nullptr ? call(handle_, arguments..., &value) : 0))
      return value;
    return std::nullopt;
  }
  std::optional<std::string> text(const char* what, const char* function) {
    const auto call = library_.function<Status (*)(Handle, char*, unsigned)>(function);
    std::array<char, 256> value{};
    const auto size = static_cast<unsigned>(value.size());
    if (answered(what, call != nullptr, call != nullptr ? call(handle_, value.data(), size) : 0))
      return std::string(value.data());
    return std::nullopt;
  }
  // The first of two values that are written: what is in force, before what will be.
  std::optional<bool> current_state(const char* what, const char* function) {
    const auto call = library_.function<Status (*)(Handle, int*, int*)>(function);
    int current = 0;
    int pending = 0;
    if (answered(what, call != nullptr, call != nullptr ? call(handle_, &current, &pending) : 0))
      return current != 0;
    return std::nullopt;
  }
  bool has(const char* function) const {
    return library_.function<void (*)()>(function) != nullptr;
  }

 private:
  bool answered(const char* what, bool known, Status status) {
    if (!known) {
      missing_.push_back(fmt::format("{}: this driver's NVML cannot tell", what));
    } else if (status != kSuccess) {
      missing_.push_back(fmt::format("{}: {}", what, error_text(library_, status)));
    }
    return known && status == kSuccess;
  }

  const SharedLibrary& library_;
  Handle handle_;
  std::vector<std::string>& missing_;
};

template <class To, class From>
std::optional<To> as(const std::optional<From>& value) {
  return value.has_value() ? std::optional<To>(static_cast<To>(*value)) : std::nullopt;
}
std::optional<double> thousandths(std::optional<double> value) {
  return value.has_value() ? std::optional<double>(*value / 1000) : std::nullopt;
}

}  // namespace

Nvml::Nvml() : library_({"libnvidia-ml.so.1"}), unavailable_(library_.unavailable()) {
  if (!unavailable_.empty()) return;
  const auto init = library_.function<Status (*)()>("nvmlInit_v2");
  const Status status = init != nullptr ? init() : kSuccess;
  if (init == nullptr) unavailable_ = library_.path() + " has no nvmlInit_v2";
  if (status != kSuccess) unavailable_ = "nvmlInit_v2: " + error_text(library_, status);
}

Nvml::~Nvml() {
  if (!unavailable_.empty()) return;
  if (const auto shutdown = library_.function<Status (*)()>("nvmlShutdown")) shutdown();
}

std::optional<std::string> Nvml::driver_version() const {
  const auto call = library_.function<Status (*)(char*, unsigned)>("nvmlSystemGetDriverVersion");
  std::array<char, 81> value{};
  if (!unavailable_.empty() || call == nullptr ||
      call(value.data(), static_cast<unsigned>(value.size())) != kSuccess) {
    return std::nullopt;
  }
  return value.data();
}

NvmlReadings Nvml::read(const std::string& pci_bus_id) const {
  NvmlReadings r;
  if (!unavailable_.empty()) {
    r.missing.push_back(unavailable_);
    return r;
  }
  const auto find =
      library_.function<Status (*)(const char*, Handle*)>("nvmlDeviceGetHandleByPciBusId_v2");
  Handle handle = nullptr;
  const Status status = find != nullptr ? find(pci_bus_id.c_str(), &handle) : 0;
  if (find == nullptr || status != kSuccess) {
    r.missing.push_back(fmt::format(
        "GPU {}: {}", pci_bus_id,
        find == nullptr ? "this driver's NVML cannot find it" : error_text(library_, status)));
    return r;
  }
  Asker ask(library_, handle, r.missing);
  r.name = ask.text("name", "nvmlDeviceGetName");
  r.uuid = ask.text("UUID", "nvmlDeviceGetUUID");
  r.power_watts = thousandths(as<double>(ask.get<unsigned>("power", "nvmlDeviceGetPowerUsage")));
  r.power_limit_watts =
      thousandths(as<double>(ask.get<unsigned>("power limit", "nvmlDeviceGetEnforcedPowerLimit")));
  r.energy_joules = thousandths(
      as<double>(ask.get<unsigned long long>("energy", "nvmlDeviceGetTotalEnergyConsumption")));
  r.sm_clock_mhz = as<int>(ask.get<unsigned>("SM clock", "nvmlDeviceGetClockInfo", kClockSm));
  r.memory_clock_mhz =
      as<int>(ask.get<unsigned>("memory clock", "nvmlDeviceGetClockInfo", kClockMemory));
  r.max_sm_clock_mhz =
      as<int>(ask.get<unsigned>("highest SM clock", "nvmlDeviceGetMaxClockInfo", kClockSm));
  r.max_memory_clock_mhz =
      as<int>(ask.get<unsigned>("highest memory clock", "nvmlDeviceGetMaxClockInfo", kClockMemory));
  r.temperature_celsius =
      as<int>(ask.get<unsigned>("temperature", "nvmlDeviceGetTemperature", kTemperatureGpu));
  // Renamed in driver 535.
  const char* reasons = ask.has("nvmlDeviceGetCurrentClocksEventReasons")
                            ? "nvmlDeviceGetCurrentClocksEventReasons"
                            : "nvmlDeviceGetCurrentClocksThrottleReasons";
  if (const auto bits = ask.get<unsigned long long>("throttle reasons", reasons)) {
    r.throttle_reasons = throttle_text(*bits);
  }
  if (const auto memory = ask.get<Memory>("memory", "nvmlDeviceGetMemoryInfo")) {
    r.memory_total_bytes = static_cast<std::int64_t>(memory->total);
    r.memory_used_bytes = static_cast<std::int64_t>(memory->used);
  }
  r.ecc = ask.current_state("ECC", "nvmlDeviceGetEccMode");
  r.ecc_uncorrected_errors = as<std::int64_t>(ask.get<unsigned long long>(
      "ECC errors", "nvmlDeviceGetTotalEccErrors", kErrorUncorrected, kCounterVolatile));
  return r;
}

}  // namespace moebench::gpu
