// Finding the device that was linked in, or the one to plan for, and what every device asks of its
// arguments.
#include "kernels/core/device.h"

#include "kernels/core/described_device.h"
#include "kernels/core/error.h"

namespace moebench::gpu {
namespace {

// Empty, or why nothing can run on a device here.
std::string cannot_run() {
  if (linked_device == nullptr) {
    return "this moebench was built without CUDA (configure with -DMOEBENCH_CUDA=ON)";
  }
  return linked_device()->unavailable();
}

}  // namespace

Device& device() {
  const std::string reason = cannot_run();
  require_or(ErrorCode::kUnsupported, reason.empty(), "use the GPU: {}", reason);
  return *linked_device();
}

std::string unavailable() {
  // Without the kernels there is nobody to ask what they would need.
  return described_device() != nullptr && linked_device != nullptr ? "" : cannot_run();
}

const DeviceInfo& device_info() {
  const DeviceInfo* described = described_device();
  return described != nullptr ? *described : device().info();
}

std::string needs_compute_capability(int at_least) {
  std::string reason = unavailable();
  if (!reason.empty()) return reason;
  const DeviceInfo& info = device_info();
  const int has = info.compute_major * 10 + info.compute_minor;
  if (has >= at_least) return "";
  return fmt::format("{} has compute capability {}.{}, and {}.{} is needed", info.name,
                     info.compute_major, info.compute_minor, at_least / 10, at_least % 10);
}

std::string needs_wgmma() {
  std::string reason = needs_compute_capability(90);
  if (!reason.empty()) return reason;
  const DeviceInfo& info = device_info();
  if (info.compute_major == 9) return "";
  return fmt::format("wgmma is compute capability 9.x's alone; {} has {}.{}", info.name,
                     info.compute_major, info.compute_minor);
}

int shared_percent_for(std::size_t shared_bytes, int blocks) {
  constexpr std::size_t kOfBlock = 4 << 10;  // static, and the driver's
  const std::size_t bytes = static_cast<std::size_t>(blocks) * (shared_bytes + kOfBlock);
  const std::size_t most = std::max<std::size_t>(device_info().shared_bytes_per_block, 1);
  return static_cast<int>(std::min<std::size_t>(100, (100 * bytes + most - 1) / most));
}

void check_limits(const TiledMatrix& matrix) {
  const int tile_row_bytes = matrix.tile_columns * matrix.element_bytes;
  require(matrix.element_bytes == 1 || matrix.element_bytes == 2,
          "make a tensor map: elements of {} bytes (1 and 2 work)", matrix.element_bytes);
  require(reinterpret_cast<std::uintptr_t>(matrix.data) % 16 == 0 && matrix.row_bytes % 16 == 0,
          "make a tensor map: the matrix and its rows of {} bytes must be aligned to 16",
          matrix.row_bytes);
  require(matrix.rows > 0 && matrix.columns > 0 &&
              matrix.row_bytes >= matrix.columns * matrix.element_bytes,
          "make a tensor map: a matrix of {} x {} in rows of {} bytes", matrix.rows, matrix.columns,
          matrix.row_bytes);
  require(matrix.tile_rows >= 1 && matrix.tile_rows <= 256 && matrix.tile_columns >= 1 &&
              matrix.tile_columns <= 256 && tile_row_bytes % 16 == 0 &&
              (matrix.swizzle == 0 || tile_row_bytes == matrix.swizzle),
          "make a tensor map: a tile of {} x {} (at most 256 x 256, rows of a multiple of 16 "
          "bytes, of as many as the swizzle has)",
          matrix.tile_rows, matrix.tile_columns);
  require(matrix.swizzle == 0 || matrix.swizzle == 64 || matrix.swizzle == 128,
          "make a tensor map: a swizzle of {} bytes (128, 64 and 0 work)", matrix.swizzle);
}

}  // namespace moebench::gpu
