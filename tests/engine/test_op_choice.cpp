// Which variants a plan gets: by name, or by family.
#include <catch2/catch.hpp>

#include "engine/op_choice.h"
#include "kernels/core/cpu_features.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

WeightLayout layout_of(const SyntheticShape& shape, const Plan& plan) {
  TemporaryDirectory directory;
  write_synthetic_checkpoint(directory.path(), shape);
  const Checkpoint checkpoint = Checkpoint::open(directory.path());
  return plan_weights(checkpoint, load_model_config(directory.path()), plan);
}

}  // namespace

TEST_CASE("op choice: the reference family is the reference everywhere, and nothing is reordered") {
  const WeightLayout layout = layout_of({}, parse_plan("reference"));
  for (const auto& [op, variant] : op_variant_names(layout.ops)) CHECK(variant == "reference");
  layout.for_each([](const WeightPlacement& p) {
    CHECK(p.layout == RowLayout::kRowMajor);
    CHECK(p.mapped);
  });
}

TEST_CASE("op choice: a CUDA plan without a GPU is refused, and says what is missing") {
  CHECK_THROWS_WITH(layout_of({}, parse_plan("cuda")),
                    Catch::Contains("none of plan 'cuda' can run this model") &&
                        Catch::Contains("built without CUDA"));
}

TEST_CASE("op choice: steps of few tokens and of many may take different variants") {
  const WeightLayout layout = layout_of({}, parse_plan("router=reference+one_pass"));
  CHECK(op_variant_names(layout.ops).at("router") == "reference");
  CHECK(op_variant_names(layout.many_ops).at("router") == "one_pass");
  CHECK(layout.ops.router_linear == layout.ops.linear);
}

TEST_CASE("op choice: a family is the first of its list that an op has") {
  const bool avx2 = cpu_has_avx2();
  const auto fast = op_variant_names(layout_of({}, parse_plan("fast")).ops);
  CHECK(fast.at("linear") == (avx2 ? "avx2_int8" : "portable_f32"));
  CHECK(fast.at("moe_experts") == (avx2 ? "avx2_int8" : "portable_f32"));
  CHECK(fast.at("attention") == (avx2 ? "avx2_f32" : "portable_f32"));
  CHECK(fast.at("router") == "one_pass");
  CHECK(fast.at("kv_write") == "reference");
  const auto accurate = op_variant_names(layout_of({}, parse_plan("accurate")).ops);
  CHECK(accurate.at("linear") == (avx2 ? "avx2_int15" : "portable_f32"));
  CHECK(accurate.at("rms_norm") == (avx2 ? "avx2_f32" : "portable_f32"));
}

TEST_CASE("op choice: matrices are laid out for the variant that reads them") {
  const WeightLayout layout = layout_of({}, parse_plan("ops=fast,linear=reference"));
  CHECK(layout.embedding.layout == RowLayout::kRowMajor);
  CHECK(layout.unembedding.layout == RowLayout::kRowMajor);
  CHECK(layout.layers[0].query.mapped);
  CHECK(layout.layers[0].gate_up.layout == RowLayout::kInterleaved);
  CHECK_FALSE(layout.layers[0].gate_up.mapped);
}

TEST_CASE("op choice: an op takes the next of the family where the first cannot run") {
  SyntheticShape shape;
  shape.head_dim = 24;  // not whole vectors of 16, which no variant asks for
  CHECK(op_variant_names(layout_of(shape, parse_plan("fast")).ops).at("rope") != "reference");
  shape.head_dim = 20;  // not whole vectors of 8
  const auto ops = op_variant_names(layout_of(shape, parse_plan("fast")).ops);
  CHECK(ops.at("attention") == "reference");
  CHECK(ops.at("rope") == (cpu_has_avx2() ? "avx2_f32" : "portable_f32"));
}

TEST_CASE("op choice: a variant that is named must exist and run") {
  Plan plan;
  plan.ops["router"] = "nope";
  check_error([&] { layout_of({}, plan); }, ErrorCode::kInvalidArgument,
              {"router", "'nope'", "reference"});
  SyntheticShape shape;
  shape.head_dim = 20;
  plan.ops = {{"attention", "portable_f32"}};
  check_error([&] { layout_of(shape, plan); }, ErrorCode::kUnsupported,
              {"attention", "'portable_f32'", "head_dim 20"});
}

}  // namespace moebench::test
