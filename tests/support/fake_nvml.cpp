// A library that answers like libnvidia-ml.so.1 for one GPU, at 0000:1b:00.0: some readings, one
// that it refuses (the power limit), one function that it lacks (energy), and old names.
#include <cstdio>
#include <cstring>

namespace {
int device = 0;
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
  *milliwatts = 123456;
  return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned*) { return kNotSupported; }
int nvmlDeviceGetClockInfo(void*, int type, unsigned* mhz) {
  *mhz = type == 1 ? 1980 : type == 2 ? 3201 : 0;
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
  *reasons = 0x4 | 0x20;
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
