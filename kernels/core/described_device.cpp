// The table of GPUs, and which of them a thread plans for.
#include "kernels/core/described_device.h"

#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench::gpu {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// The most dynamic shared memory of a block: CUDA C++ Programming Guide, "Technical Specifications
// per Compute Capability" (the opt-in maximum, 1 KB below the SM's where it can be shared).
std::size_t shared_bytes_per_block(int compute_capability) {
  switch (compute_capability) {
    case 80:
      return 163 << 10;
    case 90:
    case 100:
      return 227 << 10;
    default:  // 89, 120
      return 99 << 10;
  }
}

// `memory_mib` is what nvidia-smi shows in total; SMs and L2 are from NVIDIA's architecture papers.
NamedDevice describe(std::string_view name, const char* full_name, int compute_capability,
                     int num_sms, std::size_t memory_mib, std::size_t l2_mib) {
  NamedDevice device;
  device.name = name;
  device.info.name = full_name;
  device.info.compute_major = compute_capability / 10;
  device.info.compute_minor = compute_capability % 10;
  device.info.num_sms = num_sms;
  device.info.total_bytes = memory_mib * kMiB;
  device.info.l2_bytes = l2_mib * kMiB;
  device.info.shared_bytes_per_block = shared_bytes_per_block(compute_capability);
  return device;
}

thread_local const DeviceInfo* planned_for = nullptr;

}  // namespace

std::span<const NamedDevice> known_devices() {
  static const std::vector<NamedDevice> kAll = {
      describe("a100", "NVIDIA A100 80 GB", 80, 108, 81920, 40),
      describe("l4", "NVIDIA L4", 89, 58, 23034, 48),
      describe("rtx4090", "NVIDIA GeForce RTX 4090", 89, 128, 24564, 72),
      describe("h100", "NVIDIA H100 80 GB", 90, 132, 81559, 50),
      describe("h200", "NVIDIA H200", 90, 132, 143771, 50),
      describe("b200", "NVIDIA B200", 100, 148, 183359, 126),
      describe("rtx5090", "NVIDIA GeForce RTX 5090", 120, 170, 32607, 96)};
  return kAll;
}

const DeviceInfo& known_device(std::string_view name) {
  std::vector<std::string> names;
  for (const NamedDevice& device : known_devices()) {
    if (device.name == name) return device.info;
    names.emplace_back(device.name);
  }
  fail(ErrorCode::kInvalidArgument, "plan for a GPU: '{}' is not described here; {}", name,
       suggestion(name, names));
}

DescribedDevice::DescribedDevice(const DeviceInfo& info) : info_(info), before_(planned_for) {
  planned_for = &info_;
}

DescribedDevice::~DescribedDevice() { planned_for = before_; }

const DeviceInfo* described_device() { return planned_for; }

}  // namespace moebench::gpu
