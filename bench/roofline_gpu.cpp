// The GPU's ceilings: copies, reads, products by cuBLASLt, launches. Times are the device's own,
// between two events.
#include <algorithm>
#include <cstring>

#include "bench/environment.h"
#include "bench/roofline.h"
#include "bench/workloads.h"
#include "kernels/core/cublaslt.h"
#include "kernels/core/device.h"
#include "kernels/core/device_limits.h"
#include "kernels/core/error.h"
#include "kernels/core/float_types.h"
#include "kernels/core/random.h"

namespace moebench {
namespace {

constexpr int kCallsPerRound = 4;
constexpr std::size_t kTimesCpuBytes = 4;  // so that the largest L2 holds next to nothing of it

class GpuMeter {
 public:
  explicit GpuMeter(const RooflineOptions& options)
      : options_(options),
        device_(gpu::device()),
        stream_(device_.create_stream()),
        begin_(device_.create_event()),
        end_(device_.create_event()) {}

  // Seconds of work(), which enqueues.
  template <class Work>
  double seconds(const Work& work) {
    device_.record_event(begin_.get(), stream_.get());
    work();
    device_.record_event(end_.get(), stream_.get());
    device_.synchronize(stream_.get());
    return device_.milliseconds_between(begin_.get(), end_.get()) / 1e3;
  }

  // The median over rounds of units a second, each round of several calls.
  template <class Work>
  Metric rate(double units, const char* unit, const Work& call) {
    std::vector<double> samples;
    for (int round = 0; round <= options_.rounds; ++round) {
      const double took = seconds([&] {
        for (int i = 0; i < kCallsPerRound; ++i) call();
      });
      // An emulated device has no clock worth the name.
      if (round > 0) samples.push_back(kCallsPerRound * units / std::max(took, 1e-9));
    }
    return median_metric(std::move(samples), unit, "higher");
  }

  void measure_memory(MachineRates& m) {
    const std::size_t half = kTimesCpuBytes * options_.bytes / 2 / 16 * 16;
    const gpu::DeviceMemory memory(device_.allocate(2 * half, "measuring the bandwidth of memory"));
    const gpu::DeviceMemory sink(
        device_.allocate(sizeof(int), "measuring the bandwidth of memory"));
    device_.fill_zero(memory.get(), 2 * half, stream_.get());
    constexpr double kG = 1e9;
    m.rates["copy_gb_per_s"] = rate(2 * static_cast<double>(half) / kG, "GB/s", [&] {
      device_.copy(memory.get() + half, memory.get(), half, gpu::Copy::kOnDevice, stream_.get());
    });
    m.rates["read_gb_per_s"] = rate(2 * static_cast<double>(half) / kG, "GB/s", [&] {
      gpu::enqueue_read(memory.get(), 2 * half, device_.info().num_sms,
                        reinterpret_cast<int*>(sink.get()), stream_.get());
    });
  }

  // A graph of empty kernels, replayed.
  void measure_launches(MachineRates& m) {
    device_.begin_capture(stream_.get());
    for (int i = 0; i < options_.launches; ++i) gpu::enqueue_nothing(stream_.get());
    const gpu::Graph graph(device_.end_capture(stream_.get()));
    std::vector<double> samples;
    for (int round = 0; round <= options_.rounds; ++round) {
      const double took = seconds([&] { device_.launch_graph(graph.get(), stream_.get()); });
      if (round > 0) samples.push_back(1e6 * std::max(took, 1e-9) / options_.launches);
    }
    m.rates["launch_us"] = median_metric(std::move(samples), "us", "lower");
  }

  // Square products. The power that multipliers draw depends on the numbers, and the clock on the
  // power: zeros would be faster than any model.
  void measure_products(gpu::MatrixProduct::Type type, const char* name, MachineRates& m) {
    const std::int64_t n = options_.product_size;
    const gpu::MatrixProduct product{type, n, n, n, false};
    if (!gpu::cublaslt_unavailable().empty() || !gpu::cublaslt_unsupported(product).empty()) return;
    const bool fp8 = type == gpu::MatrixProduct::Type::kE4m3;
    const auto count = static_cast<std::size_t>(n * n);
    const std::size_t bytes = fp8 ? count : 2 * count;
    const gpu::DeviceMemory left = random_matrix(bytes, fp8);
    const gpu::DeviceMemory right = random_matrix(bytes, fp8);
    const gpu::DeviceMemory out(device_.allocate(count * sizeof(float), "measuring products"));
    const gpu::DeviceMemory workspace(
        device_.allocate(gpu::kCublasLtWorkspaceBytes, "measuring products"));
    const std::vector<float> ones(static_cast<std::size_t>(n), 1.0F);
    const gpu::DeviceMemory scales(device_.allocate(ones.size() * sizeof(float), "products"));
    device_.copy(scales.get(), ones.data(), ones.size() * sizeof(float), gpu::Copy::kToDevice,
                 stream_.get());
    device_.synchronize(stream_.get());
    gpu::MatrixProductOperands operands;
    operands.left = left.get();
    operands.right = right.get();
    operands.left_scales = operands.right_scales = reinterpret_cast<const float*>(scales.get());
    operands.out = reinterpret_cast<float*>(out.get());
    operands.workspace = workspace.get();
    const auto size = static_cast<double>(n);
    m.rates[name] = rate(2 * size * size * size / 1e9, "Gop/s",
                         [&] { gpu::cublaslt_multiply(product, operands, stream_.get()); });
  }

 private:
  // Numbers between -1 and 1, a stretch of them over and over.
  gpu::DeviceMemory random_matrix(std::size_t bytes, bool fp8) {
    std::vector<std::uint16_t> stretch(std::min<std::size_t>(bytes / 2, std::size_t{1} << 20));
    RandomStream random(1);
    for (std::uint16_t& word : stretch) {
      // E4M3 without the exponent's highest bit: below 2, and no NaN.
      const auto byte = [&] { return static_cast<std::uint16_t>(random.below(256) & 0xbf); };
      word = fp8 ? static_cast<std::uint16_t>(byte() | byte() << 8)
                 : to_bf16(static_cast<float>(2 * random.uniform() - 1)).bits;
    }
    gpu::DeviceMemory memory(device_.allocate(bytes, "measuring products"));
    for (std::size_t at = 0; at < bytes; at += stretch.size() * 2) {
      device_.copy(memory.get() + at, stretch.data(), std::min(stretch.size() * 2, bytes - at),
                   gpu::Copy::kToDevice, stream_.get());
    }
    device_.synchronize(stream_.get());
    return memory;
  }

  const RooflineOptions& options_;
  gpu::Device& device_;
  gpu::OwnedStream stream_;
  gpu::Event begin_, end_;
};

}  // namespace

MachineRates measure_gpu(const RooflineOptions& options) {
  GpuMeter meter(options);
  MachineRates m;
  m.load_average = read_environment().load_average;
  meter.measure_memory(m);
  meter.measure_launches(m);
  meter.measure_products(gpu::MatrixProduct::Type::kBf16, "bf16_gop_per_s", m);
  meter.measure_products(gpu::MatrixProduct::Type::kE4m3, "fp8_gop_per_s", m);
  m.measured = utc_now();
  return m;
}

}  // namespace moebench
