// moebench model info: a model's shapes, what a plan takes, and how long a context fits where.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <memory>

#include "bench/environment.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "engine/engine.h"
#include "engine/frontier.h"
#include "kernels/core/described_device.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"

namespace moebench::cli {
namespace {

struct InfoOptions {
  std::string model;
  std::vector<std::string> plans;
  std::string device;            // that CUDA plans are for, by its name; empty: this machine's
  std::vector<double> memories;  // GB, beside the usual ones
  int threads = 0;
  bool json = false;
};

constexpr double kUsableOfGpu = 0.95;
constexpr double kUsableOfHost = 0.9;

// The GPU that a CUDA plan is for: described, or this machine's. Throws Error(kUnsupported) without
// either. None for plans of the CPU.
std::optional<gpu::DeviceInfo> device_of(const Plan& plan, const std::string& name) {
  if (plan.backend != PlanBackend::kCuda) {
    require_or(ErrorCode::kUsage, name.empty(),
               "describe plan {}: it runs on the CPU, and --device is for CUDA plans", plan.name);
    return std::nullopt;
  }
  if (!name.empty()) return gpu::known_device(name);
  const std::string reason = gpu::unavailable();
  std::vector<std::string_view> names;
  for (const gpu::NamedDevice& device : gpu::known_devices()) names.push_back(device.name);
  require_or(ErrorCode::kUnsupported, reason.empty(),
             "describe plan {} for this machine: {}; --device names a GPU to predict it for: {}",
             plan.name, reason, fmt::join(names, ", "));
  return gpu::device_info();
}

OrderedJson device_json(const gpu::DeviceInfo& device, const MemoryBudget& budget) {
  const double usable = static_cast<double>(device.total_bytes) * kUsableOfGpu;
  OrderedJson json = {
      {"name", device.name},
      {"compute_capability", fmt::format("{}.{}", device.compute_major, device.compute_minor)},
      {"num_sms", device.num_sms},
      {"memory_bytes", device.total_bytes},
      {"usable_bytes", usable},
      {"fits", static_cast<double>(budget.total()) <= usable}};
  const std::string missing = gpu::linked_device()->has_no_kernels_for(device);
  if (!missing.empty()) json["no_kernels"] = missing;
  return json;
}

OrderedJson info_json(const ModelOutline& model, const WeightLayout& layout, const Plan& plan,
                      const MemoryBudget& budget, const std::vector<Frontier>& frontier) {
  const ModelConfig& config = model.config;
  OrderedJson groups;
  for (int g = 0; g < kNumWeightGroups; ++g) {
    groups[std::string(weight_group_name(static_cast<WeightGroup>(g)))] =
        budget.weights[static_cast<std::size_t>(g)];
  }
  return {{"model", model.name},
          {"family", config.family},
          {"hash", model.only_shape ? OrderedJson() : OrderedJson(checkpoint_hash(model.name))},
          {"parameters", layout.parameters()},
          {"num_layers", config.num_layers},
          {"hidden_size", config.hidden_size},
          {"intermediate_size", config.intermediate_size},
          {"num_heads", config.num_heads},
          {"num_kv_heads", config.num_kv_heads},
          {"head_dim", config.head_dim},
          {"num_experts", config.num_experts},
          {"top_k", config.top_k},
          {"vocab_size", config.vocab_size},
          {"sliding_window", config.sliding_window},
          {"sliding_layers", config.num_sliding_layers()},
          {"max_context", config.max_context},
          {"plan", OrderedJson(plan_to_json(plan))},
          {"weights_bytes", groups},
          {"weights_bytes_total", budget.total_weights()},
          {"kv_cache_bytes", budget.kv_cache},
          {"activation_bytes", budget.activations},
          {"workspace_bytes", budget.workspace},
          {"logits_bytes", budget.logits},
          {"graphs_bytes", budget.graphs},
          {"total_bytes", budget.total()},
          {"variants", op_variant_names(layout.ops)},
          {"variants_for_many_tokens", op_variant_names(layout.many_ops)},
          {"frontier", to_json(frontier)}};
}

void print_model(const ModelOutline& model, const WeightLayout& layout) {
  const ModelConfig& config = model.config;
  fmt::print("{}{}: {} parameters, {} layers, {} experts of which {} per token, vocabulary {}\n",
             model.name, model.only_shape ? " (its shape; there is no checkpoint here)" : "",
             format_count(layout.parameters()), config.num_layers, config.num_experts, config.top_k,
             format_count(config.vocab_size));
  fmt::print(
      "attention: {} query heads on {} key/value heads of {}, window {} in {} of {} layers, "
      "context {}\n",
      config.num_heads, config.num_kv_heads, config.head_dim, config.sliding_window,
      config.num_sliding_layers(), config.num_layers, format_count(config.max_context));
}

// Bytes by category for one sequence of 4096 positions (or the model's context).
void print_budget(const Plan& plan, const std::optional<gpu::DeviceInfo>& device,
                  const MemoryBudget& budget) {
  fmt::print("\nplan {}: {}\n", plan.name, plan.describe());
  if (device) {
    fmt::print("GPU: {}, compute capability {}.{}, {} SMs, {}\n", device->name,
               device->compute_major, device->compute_minor, device->num_sms,
               format_bytes(static_cast<double>(device->total_bytes)));
    const std::string missing = gpu::linked_device()->has_no_kernels_for(*device);
    if (!missing.empty()) fmt::print("to run it there: {}\n", missing);
  }
  fmt::print("\n");
  Table table({"memory", ">bytes", ">share"});
  const auto add = [&](std::string_view name, std::size_t bytes) {
    table.add({std::string(name), format_bytes(static_cast<double>(bytes)),
               fmt::format("{:.1f} %", 100.0 * static_cast<double>(bytes) /
                                           static_cast<double>(budget.total()))});
  };
  for (int g = 0; g < kNumWeightGroups; ++g) {
    add(weight_group_name(static_cast<WeightGroup>(g)),
        budget.weights[static_cast<std::size_t>(g)]);
  }
  add("KV cache (one sequence)", budget.kv_cache);
  add("activations, workspace, logits", budget.activations + budget.workspace + budget.logits);
  if (budget.graphs > 0) add("CUDA graphs", budget.graphs);
  add("total", budget.total());
  fmt::print("{}\n", table.text());
}

// The longest context by memory and batch.
void print_frontier(const std::vector<Frontier>& frontier) {
  std::vector<std::string> columns = {"longest context in", ">usable", "the weights"};
  for (const std::int64_t batch : kFrontierBatches) {
    columns.push_back(batch == 1 ? ">1 sequence" : fmt::format(">{} sequences", batch));
  }
  Table table(columns);
  for (const Frontier& f : frontier) {
    std::vector<std::string> cells = {f.memory.name, format_bytes(f.memory.usable_bytes()),
                                      f.weights_fit ? "fit" : "do not fit"};
    for (const FrontierPoint& p : f.points) {
      cells.push_back(p.max_context > 0 ? format_count(p.max_context) : "-");
    }
    table.add(cells);
  }
  fmt::print("{}", table.text());
}

// Memories to fit into: the GPU that the plan is for, since another's variants may differ, or the
// usual ones and this machine's.
std::vector<MemorySize> memories_for(const InfoOptions& options,
                                     const std::optional<gpu::DeviceInfo>& device) {
  std::vector<MemorySize> memories;
  if (device) {
    memories.push_back({device->name, static_cast<double>(device->total_bytes), kUsableOfGpu});
  } else {
    memories = usual_memory_sizes();
  }
  for (const double gigabytes : options.memories) memories.push_back(memory_size(gigabytes));
  if (!device) {
    memories.push_back(
        {"this machine", static_cast<double>(read_environment().memory_bytes), kUsableOfHost});
  }
  return memories;
}

int run_info(const InfoOptions& options) {
  const ModelOutline model = outline_model(options.model);
  std::vector<std::string> plans = options.plans;
  if (plans.empty()) plans.push_back(options.device.empty() ? "reference" : "cuda");
  EngineOptions one_sequence;
  one_sequence.max_batch = 1;
  const int threads = options.threads == 0 ? available_cpus() : options.threads;
  OrderedJson list = OrderedJson::array();
  for (const std::string& name : plans) {
    const Plan plan = parse_plan(name);
    const std::optional<gpu::DeviceInfo> device = device_of(plan, options.device);
    std::optional<gpu::DescribedDevice> described;
    if (!options.device.empty()) described.emplace(*device);
    const WeightLayout layout = plan_weights(model.checkpoint, model.config, plan);
    const MemoryBudget budget = predict_memory(model.config, layout, plan, one_sequence, threads);
    const auto frontier =
        feasibility_frontier(model.config, layout, plan, threads, memories_for(options, device));
    if (options.json) {
      list.push_back(info_json(model, layout, plan, budget, frontier));
      if (device) list.back()["device"] = device_json(*device, budget);
      continue;
    }
    if (name == plans.front()) print_model(model, layout);
    print_budget(plan, device, budget);
    print_frontier(frontier);
  }
  // One plan is an object, as it always was.
  if (options.json) fmt::print("{}\n", (list.size() == 1 ? list.front() : list).dump(2));
  return kExitOk;
}

}  // namespace

void add_model_info(CLI::App& model, Action& action) {
  auto info = std::make_shared<InfoOptions>();
  CLI::App* command = add_command(
      model, action, "info", "Parameters, bytes by group, and what fits where", info, run_info);
  command
      ->add_option("--model", info->model,
                   "Model directory, nano, or the shape of gpt-oss-20b or -120b by name: 20b, 120b")
      ->type_name("DIR|20b|120b")
      ->required();
  command
      ->add_option("--plan", info->plans,
                   std::string(kPlanHelp) +
                       " (default reference, or cuda with --device); "
                       "repeatable")
      ->type_name("P")
      ->check(is_plan());
  command
      ->add_option("--device", info->device,
                   "A GPU to predict CUDA plans for, which need not be here: h200, l4, ...")
      ->type_name("GPU")
      ->check(read_by([](const std::string& name) { gpu::known_device(name); }));
  command->add_option("--memory", info->memories, "Also look at a memory of so many GB; repeatable")
      ->type_name("GB")
      ->check(CLI::Range(0.001, 1e6));
  add_threads_option(command, info->threads);
  command->add_flag("--json", info->json,
                    "As JSON: an object, or a list of them for several plans");
  add_examples(command, {"moebench model info --model nano",
                         "moebench model info --model 120b --plan fast --plan kv=fp8_e4m3",
                         "moebench model info --model 20b --plan cuda --device h200"});
}

}  // namespace moebench::cli
