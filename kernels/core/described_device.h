// GPUs described by what their makers publish, so that a plan can be checked and its memory
// predicted on a machine that has none of them.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "kernels/core/device.h"

namespace moebench::gpu {

struct NamedDevice {
  std::string_view name;  // "h200"
  DeviceInfo info;
};
std::span<const NamedDevice> known_devices();
// Throws Error(kInvalidArgument) with the nearest name.
const DeviceInfo& known_device(std::string_view name);

// For as long as it lives, this thread plans for the described GPU: unavailable(), device_info()
// and needs_compute_capability() answer for it. Nothing runs there: device() stays the machine's
// own. In builds without CUDA, whose kernels are not there to be asked, unavailable() still says
// so.
class DescribedDevice {
 public:
  explicit DescribedDevice(const DeviceInfo& info);
  ~DescribedDevice();
  DescribedDevice(const DescribedDevice&) = delete;
  DescribedDevice& operator=(const DescribedDevice&) = delete;

 private:
  DeviceInfo info_;
  const DeviceInfo* before_;
};

// What this thread plans for, if it is described.
const DeviceInfo* described_device();

}  // namespace moebench::gpu
