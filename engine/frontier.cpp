// The frontier by bisection: memory grows with the context.
#include "engine/frontier.h"

#include <algorithm>

#include "engine/synthetic_checkpoint.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

ModelOutline outline_shape(const std::string& name) {
  const SyntheticShape shape = shape_named(name);
  std::vector<SafetensorsEntry> entries;
  for (const TensorSpec& tensor : synthetic_tensors(shape, 0)) {
    entries.push_back({tensor.name, tensor.dtype, tensor.shape, {}});
  }
  const std::string where = "gpt-oss-" + name;
  return {where, parse_model_config(synthetic_config(shape), where),
          Checkpoint::of_headers(where, std::move(entries)), true};
}

}  // namespace

ModelOutline outline_model(const std::filesystem::path& model) {
  const bool is_shape = model == "20b" || model == "120b";
  if (is_shape && !std::filesystem::exists(model)) return outline_shape(model.string());
  const std::filesystem::path directory = resolve_model(model);
  return {directory.string(), load_model_config(directory), Checkpoint::open(directory), false};
}

std::vector<MemorySize> usual_memory_sizes() {
  return {{"16 GB laptop", 16e9, 0.75},
          {"24 GB GPU", 24e9, 0.95},
          {"48 GB GPU", 48e9, 0.95},
          {"80 GB GPU", 80e9, 0.95},
          {"141 GB GPU", 141e9, 0.95}};
}

MemorySize memory_size(double gigabytes) {
  require(gigabytes > 0 && gigabytes <= 1e6, "look at a memory of {} GB: expected 0 to 1,000,000",
          gigabytes);
  return {fmt::format("{:g} GB", gigabytes), gigabytes * 1e9, 0.95};
}

FrontierPoint longest_context(const ModelConfig& config, const WeightLayout& layout,
                              const Plan& plan, const EngineOptions& options, int num_threads,
                              std::int64_t batch, double usable_bytes) {
  const std::int64_t page = KvCacheOptions{}.page_size;
  const auto bytes_at = [&](std::int64_t context) {
    EngineOptions one = options;
    one.max_batch = batch;
    one.max_context = context;
    one.kv_tokens = 0;
    one.logit_rows = 0;
    return predict_memory(config, layout, plan, one, num_threads).total();
  };
  const auto fits = [&](std::int64_t context) {
    return static_cast<double>(bytes_at(context)) <= usable_bytes;
  };
  FrontierPoint point;
  point.batch = batch;
  const std::int64_t least = std::min(page, config.max_context);
  if (!fits(least)) {
    point.bytes = bytes_at(least);
    return point;
  }
  // In pages: `low` fits, `high` does not.
  std::int64_t low = 1;
  std::int64_t high = config.max_context / page + 1;
  if (fits(config.max_context)) {
    point.max_context = config.max_context;
  } else {
    while (high - low > 1) {
      const std::int64_t middle = low + (high - low) / 2;
      (fits(middle * page) ? low : high) = middle;
    }
    point.max_context = std::min(low * page, config.max_context);
  }
  point.bytes = bytes_at(point.max_context);
  return point;
}

std::vector<Frontier> feasibility_frontier(const ModelConfig& config, const WeightLayout& layout,
                                           const Plan& plan, int num_threads,
                                           const std::vector<MemorySize>& sizes) {
  std::size_t weights = 0;
  for (int g = 0; g < kNumWeightGroups; ++g) weights += layout.bytes(static_cast<WeightGroup>(g));
  std::vector<Frontier> all;
  for (const MemorySize& size : sizes) {
    Frontier frontier{size, static_cast<double>(weights) <= size.usable_bytes(), {}};
    for (const std::int64_t batch : kFrontierBatches) {
      frontier.points.push_back(
          longest_context(config, layout, plan, {}, num_threads, batch, size.usable_bytes()));
    }
    all.push_back(std::move(frontier));
  }
  return all;
}

OrderedJson to_json(const std::vector<Frontier>& frontier) {
  OrderedJson memories = OrderedJson::array();
  for (const Frontier& f : frontier) {
    OrderedJson contexts;
    for (const FrontierPoint& p : f.points) contexts[std::to_string(p.batch)] = p.max_context;
    memories.push_back({{"name", f.memory.name},
                        {"bytes", f.memory.bytes},
                        {"usable_bytes", f.memory.usable_bytes()},
                        {"weights_fit", f.weights_fit},
                        {"max_context", contexts}});
  }
  return {{"memories", memories}};
}

}  // namespace moebench
