// Kernels of a step summed by op, on hand-made times, and recorded from a model with the fake
// CUPTI.
#include <catch2/catch.hpp>

#include "bench/kernel_times.h"
#include "tests/support/fake_cupti.h"
#include "tests/support/tiny_engine.h"

namespace moebench::test {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;

}  // namespace

TEST_CASE("kernel times: medians of runs by op and kernel, the longest first") {
  const std::vector<std::string> ops = {"attention", "moe_experts"};
  // Times in ms. The second op's kernel begins before the first op's last one ends.
  const auto run = [&](std::int64_t merge_ms) {
    StepKernels step;
    step.ops = ops;
    step.kernels = {{"split", 1, 0, 4 * kMillisecond},
                    {"merge", 1, 4 * kMillisecond, (4 + merge_ms) * kMillisecond},
                    {"experts", 2, 5 * kMillisecond, 15 * kMillisecond},
                    {"experts", 2, 16 * kMillisecond, 17 * kMillisecond},
                    {"zero", 0, 20 * kMillisecond, 21 * kMillisecond}};
    return step;
  };
  const std::vector<StepKernels> runs = {run(2), run(3), run(9)};
  const OrderedJson json = kernel_times_json(runs);
  const OrderedJson& kernels = json.at("kernels");
  REQUIRE(kernels.size() == 4);
  CHECK(kernels[0] == OrderedJson({{"op", "moe_experts"},
                                   {"kernel", "experts"},
                                   {"launches", 2.0},
                                   {"ms", 11.0},
                                   {"exposed_ms", 10.0}}));
  CHECK(kernels[1].at("kernel") == "split");
  CHECK(kernels[2].at("kernel") == "merge");
  CHECK(kernels[2].at("ms") == 3);  // of 2, 3 and 9
  CHECK(kernels[3].at("op") == "");
  CHECK(json.at("kernels_ms").at("attention") == 7);
  CHECK(json.at("kernels_ms").at("moe_experts") == 11);
  // 0-15 without a gap (the merge lies within), then 1 ms and 1 ms: 17 of 21.
  // What each adds to the ends before it: 4, the merge 2, 3 or 9, the experts what is left up to
  // 15 (9, 8 or 2) and 2 with a gap, the last 4 with another.
  CHECK(kernels[1].at("exposed_ms") == 4);
  CHECK(kernels[2].at("exposed_ms") == 3);
  CHECK(kernels[3].at("exposed_ms") == 4);
  CHECK(json.at("busy_ms") == 17);
  CHECK(json.at("span_ms") == 21);
}

TEST_CASE(
    "kernel times: nothing recorded is null, and a kernel that one run lacks counts 0 there") {
  CHECK(kernel_times_json({}).is_null());
  CHECK(kernel_times_json(std::vector<StepKernels>(2)).is_null());
  StepKernels one{{{"a", 1, 0, 2 * kMillisecond}}, {"op"}};
  StepKernels other{{{"a", 1, 0, 2 * kMillisecond}, {"b", 9, 0, 6 * kMillisecond}}, {"op"}};
  const OrderedJson json = kernel_times_json(std::vector{one, other, one});
  REQUIRE(json.at("kernels").size() == 2);
  CHECK(json.at("kernels")[1].at("kernel") == "b");
  CHECK(json.at("kernels")[1].at("ms") == 0);
  CHECK(json.at("kernels")[1].at("op") == "");  // a mark that no op has
}

TEST_CASE("kernel times: each op of a step marks what it launches") {
  const FakeCupti cupti;
  cupti.set("kernel at each mark", 1);
  Tiny tiny(2);
  const std::int32_t sequence = tiny.engine.cache->create();
  tiny.engine.cache->grow(sequence, 2);
  Step step;
  step.tokens = {1, 2};
  step.sequences = {sequence, sequence};
  step.positions = {0, 1};
  step.logit_rows = {1};
  gpu::KernelRecorder recorder;
  REQUIRE(recorder.unavailable().empty());
  const StepKernels run = record_kernels(recorder, *tiny.engine.model, step, *tiny.engine.cache);
  std::vector<std::string> ops;
  for (const Model::OpTime& time : tiny.engine.model->time_ops(step, *tiny.engine.cache)) {
    ops.emplace_back(time.op);
  }
  CHECK(run.ops == ops);
  // One at each mark; the last mark comes after the last op.
  REQUIRE(run.kernels.size() == ops.size() + 1);
  for (std::size_t i = 0; i < run.kernels.size(); ++i) CHECK(run.kernels[i].mark == i + 1);
  CHECK(cupti.num_marks() == 0);
  CHECK_FALSE(tiny.engine.model->tracer().on_span);  // as it was before
}

}  // namespace moebench::test
