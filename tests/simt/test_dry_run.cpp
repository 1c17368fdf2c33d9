// Plans for GPUs that are described: what is chosen, refused and predicted for them. Here the
// kernels are linked, as in a build with CUDA, and the machine's own device is the SIMT machine.
#include <catch2/catch.hpp>
#include <map>

#include "engine/engine.h"
#include "engine/op_choice.h"
#include "engine/step_cost.h"
#include "kernels/core/described_device.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

WeightLayout layout_of(const char* plan) {
  const auto directory = golden("gpt-oss-tiny-a");
  return plan_weights(Checkpoint::open(directory), load_model_config(directory), parse_plan(plan));
}

MemoryBudget predict(const char* plan, std::int64_t max_batch = 4) {
  EngineOptions options;
  options.max_batch = max_batch;
  options.max_context = 64;
  return predict_memory(golden("gpt-oss-tiny-a"), parse_plan(plan), options, 1);
}

}  // namespace

TEST_CASE("described devices: sizes as published, and the nearest name for a slip") {
  const gpu::DeviceInfo& h200 = gpu::known_device("h200");
  CHECK(h200.compute_major == 9);
  CHECK(h200.num_sms == 132);
  CHECK(h200.shared_bytes_per_block == 232448);
  CHECK(gpu::known_device("rtx4090").compute_minor == 9);
  CHECK(gpu::known_device("rtx5090").shared_bytes_per_block == 101376);
  for (const gpu::NamedDevice& device : gpu::known_devices()) {
    CAPTURE(device.name);
    CHECK(device.info.total_bytes > std::size_t{20} << 30);
    CHECK(device.info.total_bytes < std::size_t{200} << 30);
    CHECK_FALSE(device.info.emulated);
  }
  check_error([] { gpu::known_device("h20"); }, ErrorCode::kInvalidArgument, {"h200"});
}

TEST_CASE(
    "described devices: answers are theirs for as long as they live, and nothing runs there") {
  CHECK(gpu::device_info().emulated);
  {
    const gpu::DescribedDevice outer(gpu::known_device("a100"));
    CHECK(gpu::unavailable() == "");
    CHECK(gpu::device_info().num_sms == 108);
    CHECK(gpu::needs_compute_capability(80) == "");
    CHECK_THAT(gpu::needs_compute_capability(90),
               Catch::Contains("NVIDIA A100") && Catch::Contains("9.0 is needed"));
    {
      const gpu::DescribedDevice inner(gpu::known_device("h100"));
      CHECK(gpu::needs_compute_capability(90) == "");
    }
    CHECK(gpu::device_info().num_sms == 108);
    CHECK(gpu::device().info().emulated);
  }
  CHECK(gpu::device_info().emulated);
}

TEST_CASE("dry run: the part of an SM that is to be shared memory holds its blocks, and no more") {
  const gpu::DescribedDevice described(gpu::known_device("h200"));
  const std::size_t most = gpu::device_info().shared_bytes_per_block;  // 227 KiB
  REQUIRE(most == 232448);
  CHECK(gpu::shared_percent_for(0, 1) == 2);  // 4 KiB beside what the block asks for
  CHECK(gpu::shared_percent_for(82560, 1) == 38);
  CHECK(gpu::shared_percent_for(82560, 2) == 75);
  CHECK(gpu::shared_percent_for(most, 1) == 100);
  CHECK(gpu::shared_percent_for(most, 2) == 100);
  CHECK(gpu::shared_percent_beside_streams(1) == 100);
  CHECK(gpu::shared_percent_beside_streams(2) == -1);
}

TEST_CASE("dry run: each GPU gets the variants that it can run") {
  const auto chosen_for = [](const char* device, const char* plan) {
    const gpu::DescribedDevice described(gpu::known_device(device));
    const WeightLayout layout = layout_of(plan);
    return std::pair(op_variant_names(layout.ops), op_variant_names(layout.many_ops));
  };
  const auto [few, many] = chosen_for("h200", "cuda");
  CHECK(few.at("linear") == "cuda_decode");
  CHECK(few.at("router") == "cuda_cluster");
  CHECK(many.at("router") == "cuda_warp");
  CHECK(many.at("linear") == "cuda_wgmma_bf16");
  CHECK(few.at("moe_experts") == "cuda_one_launch_stream_int8");
  CHECK(few.at("attention") == "cuda_one_launch_bf16");
  CHECK(chosen_for("h200", "backend=cuda,moe_experts=cuda_one_launch_fp8+cuda_grouped_fp8")
            .first.at("moe_experts") == "cuda_one_launch_fp8");
  // What may be faster on some machine is measured where `--autotune` asks for it.
  {
    const gpu::DescribedDevice described(gpu::known_device("h200"));
    const Plan plan = parse_plan("cuda");
    const std::filesystem::path directory = resolve_model("nano");
    const ModelConfig config = load_model_config(directory);
    const OpCandidates candidates = variants_to_choose_from(plan, config, layout_of("cuda"), false);
    for (const auto& [op, name] : {std::pair("attention", "cuda_one_launch_routed_bf16"),
                                   std::pair("moe_experts", "cuda_one_launch_blocks_fp8")}) {
      const std::vector<std::string>& names = candidates.at(op);
      CHECK(std::find(names.begin(), names.end(), name) != names.end());
    }
  }
  const auto [few_alike, many_alike] = chosen_for("h200", "cuda_invariant");
  CHECK(few_alike == many_alike);
  CHECK(few_alike.at("linear") == "cuda_chain_bf16");
  CHECK(few_alike.at("moe_experts") == "cuda_one_launch_chunks_fp8");
  CHECK(few_alike.at("attention") == "cuda_flash_splits_mma");
  CHECK(many.at("moe_experts") == "cuda_grouped_fp8");
  CHECK(many.at("attention") == "cuda_flash_wgmma");
  const auto router_product = [](const char* plan) {
    const gpu::DescribedDevice described(gpu::known_device("h200"));
    const WeightLayout layout = layout_of(plan);
    return std::pair(layout.ops.router_linear->name, layout.many_ops.router_linear->name);
  };
  const auto of_names = [](const char* few_name, const char* many_name) {
    return std::pair<std::string_view, std::string_view>(few_name, many_name);
  };
  CHECK(router_product("cuda") == of_names("cuda_rows_f32", "cuda_two_parts_bf16"));
  // Also if the other products are not its business.
  CHECK(router_product("backend=cuda,attention=int4").second == "cuda_two_parts_bf16");
  for (const char* plan : {"cuda_accurate", "cuda_invariant"}) {
    CHECK(router_product(plan) == of_names("cuda_rows_f32", "cuda_rows_f32"));
  }
  const auto [few_ampere, many_ampere] = chosen_for("a100", "cuda");  // no wgmma, no TMA
  CHECK(few_ampere.at("linear") == "cuda_rows_bf16");
  CHECK(few_ampere.at("router") == "cuda_warp");
  CHECK(many_ampere.at("linear") == "cuda_mma_bf16");
  const auto [few_alike_ampere, many_alike_ampere] = chosen_for("a100", "cuda_invariant");
  CHECK(few_alike_ampere == many_alike_ampere);
  CHECK(few_alike_ampere.at("linear") == "cuda_rows_bf16");
  CHECK(few_alike_ampere.at("moe_experts") == "cuda_direct_bf16");
  const auto [few_blackwell, many_blackwell] = chosen_for("b200", "cuda");  // wgmma is Hopper's
  CHECK(few_blackwell.at("linear") == "cuda_stream_bf16");
  CHECK(many_blackwell.at("linear") == "cuda_mma_bf16");
  const gpu::DescribedDevice described(gpu::known_device("a100"));
  check_error([] { layout_of("ops=fast,backend=cuda,linear=cuda_wgmma_bf16"); },
              ErrorCode::kUnsupported, {"A100"});
}

TEST_CASE("dry run: a step's bytes stand with the op whose launch reads them") {
  const ModelConfig config = load_model_config(golden("gpt-oss-tiny-a"));
  const auto costs = [&](const char* device, std::int64_t tokens,
                         const char* plan = "backend=cuda,fuse=yes") {
    const gpu::DescribedDevice described(gpu::known_device(device));
    StepWork work;
    work.parts.assign(static_cast<std::size_t>(tokens), {10, 1});
    work.logit_rows = tokens;
    work.touched_experts.assign(static_cast<std::size_t>(config.num_layers), 2.0);
    std::map<std::string, OpCost> by_op;
    for (const OpCost& cost : step_cost(config, layout_of(plan), Format::kF32, work)) {
      by_op[std::string(cost.op)] = cost;
    }
    return by_op;
  };
  const auto sum = [](const std::map<std::string, OpCost>& by_op) {
    double bytes = 0;
    for (const auto& [op, cost] : by_op) bytes += cost.bytes();
    return bytes;
  };
  const auto apart = costs("a100", 1);
  const auto fused = costs("h200", 1);
  CHECK(sum(fused) == Approx(sum(apart)));
  CHECK(apart.at("linear: router").weight_bytes > 0);
  CHECK(apart.at("kv_write").written_bytes > 0);
  CHECK(apart.count("router") == 0);
  CHECK(fused.count("linear: router") == 0);
  CHECK(fused.count("kv_write") == 0);
  CHECK(fused.at("linear: query, key, value").written_bytes == apart.at("kv_write").written_bytes);
  // One token's experts have the router in their launch; those of a few, a router that has the
  // norm.
  CHECK(fused.count("router") == 0);
  CHECK(fused.at("moe_experts").operations ==
        Approx(apart.at("moe_experts").operations + apart.at("linear: router").operations));
  const auto streams =
      costs("h200", 1, "backend=cuda,fuse=yes,moe_experts=cuda_one_launch_stream_int8");
  CHECK(streams.count("router") == 0);
  CHECK(streams.at("moe_experts").operations == fused.at("moe_experts").operations);
  const auto few = costs("h200", 5);
  CHECK(few.at("router").operations == 5 * apart.at("linear: router").operations);
  CHECK(few.at("router").precision == Precision::kF32);
  // Of the last norm alone, and of one more for each layer.
  const double norm = 4.0 * static_cast<double>(config.hidden_size);
  CHECK(fused.at("rms_norm").weight_bytes == norm);
  CHECK(costs("h200", 5).at("rms_norm").weight_bytes ==
        norm * static_cast<double>(1 + config.num_layers));
  // Experts of more tokens do the norm behind them: of the others, the first and the router's.
  const auto more = costs("h200", 17);
  CHECK(more.at("rms_norm").weight_bytes == norm * static_cast<double>(1 + config.num_layers));
  CHECK(more.at("moe_experts").weight_bytes - few.at("moe_experts").weight_bytes ==
        Approx(norm * static_cast<double>(config.num_layers)));
}

TEST_CASE("dry run: all bytes of attention's half of a layer stand with attention that does it") {
  const auto directory = resolve_model("nano");
  const ModelConfig config = load_model_config(directory);
  const std::string formats = GENERATE("kv=bf16", "kv=fp8_e4m3,attention=fp8_e4m3");
  INFO(formats);
  const auto costs = [&](const char* attention, std::int64_t tokens) {
    Plan plan = parse_plan("backend=cuda," + formats);
    plan.ops["attention"] = attention;
    StepWork work;
    work.parts.assign(static_cast<std::size_t>(tokens), {10, 1});
    work.logit_rows = tokens;
    work.touched_experts.assign(static_cast<std::size_t>(config.num_layers), 2.0);
    std::map<std::string, OpCost> by_op;
    const WeightLayout layout = plan_weights(Checkpoint::open(directory), config, plan);
    for (const OpCost& cost : step_cost(config, layout, plan.kv, work)) {
      by_op[std::string(cost.op)] = cost;
    }
    return by_op;
  };
  const auto apart = costs("cuda_decode_stream_mma", 1);
  const auto at_once = costs("cuda_one_launch_bf16", 1);
  double more = 0;
  for (const char* op : {"linear: query, key, value", "linear: attention out", "kv_write"}) {
    CHECK(at_once.count(op) == 0);
    more += apart.at(op).bytes();
  }
  const double norms = apart.at("rms_norm").bytes() - at_once.at("rms_norm").bytes();
  CHECK(norms == 4.0 * static_cast<double>(config.hidden_size * config.num_layers));
  CHECK(at_once.at("attention").bytes() == Approx(apart.at("attention").bytes() + more + norms));
  // The router's product counts where it is done.
  const auto routed = costs("cuda_one_launch_routed_bf16", 1);
  const double router = routed.at("attention").bytes() - at_once.at("attention").bytes();
  CHECK(router >=
        2.0 * static_cast<double>(config.num_layers * config.num_experts * config.hidden_size));
  CHECK(at_once.at("moe_experts").bytes() - routed.at("moe_experts").bytes() == Approx(router));
  CHECK(costs("cuda_one_launch_bf16", 2).at("attention").bytes() ==
        costs("cuda_decode_stream_mma", 2).at("attention").bytes());
}

TEST_CASE("dry run: memory is that of an engine there, with one shape's graph") {
  // The SIMT machine is of Hopper's kind: what is predicted for it is what an engine takes.
  ThreadPool pool(1);
  EngineOptions options;
  options.max_batch = 4;
  options.max_context = 64;
  const Engine engine =
      load_engine(golden("gpt-oss-tiny-a"), parse_plan("cuda_int4"), options, pool);
  const MemoryBudget taken = engine.memory();
  const MemoryBudget here = predict("cuda_int4");
  CHECK(here.total() - here.graphs == taken.total());
  CHECK(taken.graphs == 0);  // none was captured, and the SIMT machine's take nothing

  const gpu::DescribedDevice described(gpu::known_device("h100"));
  const MemoryBudget there = predict("cuda_int4");
  CHECK(there.weights == here.weights);
  CHECK(there.kv_cache == here.kv_cache);
  CHECK(there.activations == here.activations);
  // 64 KiB for each of at most 14 launches in each of the golden model's layers, and 12 besides.
  const auto layers =
      static_cast<std::size_t>(load_model_config(golden("gpt-oss-tiny-a")).num_layers);
  CHECK(there.graphs == (14 * layers + 12) * 65536);
  CHECK(predict("int4").graphs == 0);
}

}  // namespace moebench::test
