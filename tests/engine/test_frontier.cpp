// The frontier against arithmetic done by hand on the published shapes.
#include <catch2/catch.hpp>

#include "engine/frontier.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

WeightLayout layout_of(const ModelOutline& model, const Plan& plan) {
  return plan_weights(model.checkpoint, model.config, plan);
}

}  // namespace

TEST_CASE("frontier: the shapes of gpt-oss need no checkpoint, and have the published sizes") {
  const ModelOutline small = outline_model("20b");
  CHECK(small.only_shape);
  // 20.9 and 116.8 billion parameters: model card of gpt-oss, table 1.
  CHECK(static_cast<double>(layout_of(small, {}).parameters()) == Approx(20.91e9).epsilon(0.001));
  const ModelOutline large = outline_model("120b");
  CHECK(static_cast<double>(layout_of(large, {}).parameters()) == Approx(116.83e9).epsilon(0.001));
  // Checkpoint sizes of the same table: 12.8 and 60.8 GiB.
  const auto gib = [](const ModelOutline& model) {
    const MemoryBudget budget =
        predict_memory(model.config, layout_of(model, {}), {}, EngineOptions{}, 1);
    return static_cast<double>(budget.total_weights()) / (1 << 30);
  };
  CHECK(gib(small) == Approx(12.8).epsilon(0.01));
  CHECK(gib(large) == Approx(60.8).epsilon(0.01));
}

TEST_CASE("frontier: a context more costs full layers only, a window never more than itself") {
  const ModelOutline model = outline_model("20b");
  const Plan plan;  // f32 cache
  const WeightLayout layout = layout_of(model, plan);
  const auto kv = [&](std::int64_t batch, std::int64_t context) {
    EngineOptions options;
    options.max_batch = batch;
    options.max_context = context;
    return static_cast<std::int64_t>(
        predict_memory(model.config, layout, plan, options, 1).kv_cache);
  };
  // One position of one layer: keys and values of 8 heads of 64 floats. 12 of 24 layers are full.
  constexpr std::int64_t kPosition = 2 * 8 * 64 * 4;
  CHECK(kv(1, 8192) - kv(1, 4096) == 12 * 4096 * kPosition);
  CHECK(kv(8, 65536) - kv(8, 32768) == 8 * 12 * 32768 * kPosition);
}

TEST_CASE("frontier: the longest context fits, and a page more does not") {
  const ModelOutline model = outline_model("20b");
  const Plan plan = parse_plan("kv=bf16");
  const WeightLayout layout = layout_of(model, plan);
  const auto bytes = [&](std::int64_t batch, std::int64_t context) {
    EngineOptions options;
    options.max_batch = batch;
    options.max_context = context;
    return static_cast<double>(predict_memory(model.config, layout, plan, options, 2).total());
  };
  const double usable = memory_size(24).usable_bytes();
  CHECK(usable == Approx(22.8e9));
  for (const std::int64_t batch : kFrontierBatches) {
    const FrontierPoint p = longest_context(model.config, layout, plan, {}, 2, batch, usable);
    INFO(batch << " sequences of " << p.max_context);
    REQUIRE(p.max_context > 0);
    CHECK(bytes(batch, p.max_context) <= usable);
    CHECK(static_cast<double>(p.bytes) == bytes(batch, p.max_context));
    if (p.max_context < model.config.max_context) {
      CHECK(p.max_context % 16 == 0);
      CHECK(bytes(batch, p.max_context + 16) > usable);
    }
  }
  // By hand, roughly: 22.8 GB less 13.8 GB of weights, over 12 layers of 2 * 8 * 64 * 2 bytes.
  const FrontierPoint one = longest_context(model.config, layout, plan, {}, 2, 1, usable);
  CHECK(one.max_context == 131072);
  const FrontierPoint many = longest_context(model.config, layout, plan, {}, 2, 32, usable);
  CHECK(static_cast<double>(many.max_context) == Approx(9e9 / 32 / 24576).epsilon(0.15));
}

TEST_CASE("frontier: what does not fit has no context, and its weights say so") {
  const ModelOutline model = outline_model("120b");
  const auto frontier =
      feasibility_frontier(model.config, layout_of(model, {}), {}, 2, usual_memory_sizes());
  REQUIRE(frontier.size() == 5);
  CHECK(frontier[0].memory.name == "16 GB laptop");
  CHECK_FALSE(frontier[0].weights_fit);
  for (const FrontierPoint& p : frontier[0].points) {
    CHECK(p.max_context == 0);
    CHECK(p.bytes > 60'000'000'000U);
  }
  CHECK(frontier[3].weights_fit);  // 65 GB in 76 of 80 GB
  CHECK(frontier[3].points[0].max_context > 0);
  const OrderedJson json = to_json(frontier);
  CHECK(json.at("memories")[0].at("max_context").at("128") == 0);
  CHECK(json.at("memories")[4].at("weights_fit") == true);
}

TEST_CASE("frontier: a directory is read, and a memory of nothing is refused") {
  const ModelOutline tiny = outline_model(golden("gpt-oss-tiny-a"));
  CHECK_FALSE(tiny.only_shape);
  CHECK(tiny.config.num_layers == 4);
  check_error([] { memory_size(0); }, ErrorCode::kInvalidArgument, {"0 GB"});
  check_error([] { outline_model("21b"); }, ErrorCode::kIo, {"21b"});
}

}  // namespace moebench::test
