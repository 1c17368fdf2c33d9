// The GPU's part of the roofline on the emulated device: every rate is there, and its kernels touch
// nothing but what they are given. What they reach is nobody's business here.
#include <catch2/catch.hpp>

#include "bench/roofline.h"
#include "kernels/core/device_limits.h"
#include "tests/simt/support.h"

namespace moebench::test {

TEST_CASE("device limits: the memory that is read may have any number of 16-byte words") {
  const gpu::OwnedStream stream(gpu::device().create_stream());
  for (const std::size_t words : {std::size_t{1}, std::size_t{513}, std::size_t{9000}}) {
    DeviceArray<std::uint32_t> data(std::vector<std::uint32_t>(4 * words, 1));
    DeviceArray<int> sink(std::vector<int>{0});
    gpu::enqueue_read(data.data(), 16 * words, 1, sink.data(), stream.get());
    gpu::device().synchronize(stream.get());
    CHECK(sink[0] == 0);
    CHECK(data[4 * words - 1] == 1);
  }
}

TEST_CASE("device limits: every rate is measured that the device can; the rest is left out") {
  RooflineOptions options;
  options.rounds = 2;
  options.bytes = 1 << 14;
  options.product_size = 16;
  options.launches = 3;
  const MachineRates m = measure_gpu(options);
  CHECK(m.threads == 0);
  for (const char* name : {"read_gb_per_s", "copy_gb_per_s", "launch_us"}) {
    INFO(name);
    CHECK(m.rates.at(name).value > 0);
    CHECK(m.rates.at(name).samples.size() == 2);
  }
  CHECK(m.rates.count("bf16_gop_per_s") == 0);  // without cuBLASLt
  const Ceilings c = ceilings_of({"emulated", "none", {m}}, 0);
  CHECK(c.machine == "emulated");
  CHECK(c.read_gb_per_s(1e9) > 0);
}

}  // namespace moebench::test
