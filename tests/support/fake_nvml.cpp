// A library that answers like libnvidia-ml.so.1 for one GPU, at 0000:1b:00.0: some readings, one
// that it refuses (the power limit), one function that it lacks (energy), and old names.
//
// With FAKE_NVML_ENERGY it has the energy counter. A test changes what it says by fake_nvml_set
// (tests/support/fake_nvml.h).
#include <cstdio>
#include <cstring>

namespace {
int device = 0;
unsigned power_milliwatts = 123456;
int power_status = 0;
unsigned sm_clock_mhz = 1980;
unsigned long long throttle_reasons = 0x4 | 0x20;
[[maybe_unused]] unsigned long long energy_millijoules = 0;
constexpr int kNotSupported = 3;
constexpr int kNotFound = 6;

int write_text(const char* text, char* to, unsigned size) {
  std::snprintf(to, size, "%s", text);
  return 0;
}
}  // namespace

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int status) {
  return status == kNotSupported ? "Not Supported" : status == kNotFound ? "Not Found" : "?";
}
int nvmlSystemGetDriverVersion(char* to, unsigned size) {
  return write_text("580.65.06", to, size);
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* address, void** handle) {
  *handle = &device;
  return std::strcmp(address, "0000:1b:00.0") == 0 ? 0 : kNotFound;
}
int nvmlDeviceGetName(void*, char* to, unsigned size) {
  return write_text("NVIDIA H200", to, size);
}
int nvmlDeviceGetUUID(void*, char* to, unsigned size) { return write_text("GPU-1", to, size); }
int nvmlDeviceGetPowerUsage(void*, unsigned* milliwatts) {
  *milliwatts = power_milliwatts;
  return power_status;
}
#if defined(FAKE_NVML_ENERGY)
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
  *millijoules = energy_millijoules;
  return 0;
}
#endif
void fake_nvml_set(const char* what, unsigned long long value) {
  if (std::strcmp(what, "power") == 0) power_milliwatts = static_cast<unsigned>(value);
  if (std::strcmp(what, "power status") == 0) power_status = static_cast<int>(value);
  if (std::strcmp(what, "sm clock") == 0) sm_clock_mhz = static_cast<unsigned>(value);
  if (std::strcmp(what, "reasons") == 0) throttle_reasons = value;
  if (std::strcmp(what, "energy") == 0) energy_millijoules = value;
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned*) { return kNotSupported; }
int nvmlDeviceGetClockInfo(void*, int type, unsigned* mhz) {
  *mhz = type == 1 ? sm_clock_mhz : type == 2 ? 3201 : 0;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(void*, int type, unsigned* mhz) {
  return nvmlDeviceGetClockInfo(nullptr, type, mhz);
}
int nvmlDeviceGetTemperature(void*, int sensor, unsigned* degrees) {
  *degrees = sensor == 0 ? 45 : 0;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* reasons) {
  *reasons = throttle_reasons;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, unsigned long long* total_free_used) {
  total_free_used[0] = 1000;
  total_free_used[1] = 400;
  total_free_used[2] = 600;
  return 0;
}
int nvmlDeviceGetEccMode(void*, int* current, int* pending) {
  *current = 1;
  *pending = 0;
  return 0;
}
int nvmlDeviceGetTotalEccErrors(void*, int type, int counter, unsigned long long* errors) {
  *errors = type == 1 && counter == 0 ? 7 : 0;
  return 0;
}

}  // extern "C"
