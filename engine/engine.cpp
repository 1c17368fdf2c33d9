// Putting an engine together.
#include "engine/engine.h"

#include <algorithm>
#include <numeric>

#include "kernels/core/error.h"
#include "kernels/core/resources.h"

namespace moebench {
namespace {

constexpr std::int64_t kDefaultContext = 4096;
// A GPU needs more tokens at once for every expert to have enough of them: on an H200 chunks of 512
// prefilled 20b at less than half the speed of 2048.
constexpr std::int64_t kStepTokens = 512;
constexpr std::int64_t kGpuStepTokens = 2048;

struct Sizes {
  ModelLimits limits;
  KvCacheOptions cache;
};

Sizes sizes_for(const ModelConfig& config, const Plan& plan, const EngineOptions& options) {
  require(options.max_batch > 0 && options.step_tokens >= 0,
          "set up the engine: max_batch {} must be positive and step_tokens {} not negative",
          options.max_batch, options.step_tokens);
  const std::int64_t step_tokens = options.step_tokens > 0              ? options.step_tokens
                                   : plan.backend == PlanBackend::kCuda ? kGpuStepTokens
                                                                        : kStepTokens;
  Sizes sizes;
  sizes.limits.max_context =
      options.max_context > 0 ? options.max_context : std::min(config.max_context, kDefaultContext);
  require(sizes.limits.max_context <= config.max_context,
          "set up the engine: a context of {} positions exceeds the model's {}",
          sizes.limits.max_context, config.max_context);
  sizes.limits.max_logit_rows = options.logit_rows > 0 ? options.logit_rows : options.max_batch;
  // A step must at least hold one token of every sequence.
  sizes.limits.max_step_tokens = std::max(step_tokens, options.max_batch);
  sizes.cache.format = plan.kv;
  sizes.cache.place = plan.place();
  sizes.cache.max_sequences = options.max_batch + 1;  // and one shared prefix
  sizes.cache.max_step = sizes.limits.max_step_tokens;
  sizes.cache.max_tokens = options.kv_tokens > 0
                               ? options.kv_tokens
                               : kv_tokens_for(sizes.limits.max_context, options.max_batch);
  return sizes;
}

}  // namespace

std::int64_t kv_tokens_for(std::int64_t context, std::int64_t sequences) {
  const std::int64_t page = KvCacheOptions{}.page_size;
  return sequences * ((context + page - 1) / page * page);
}

std::size_t MemoryBudget::total_weights() const {
  return std::accumulate(weights.begin(), weights.end(), std::size_t{0});
}

std::size_t MemoryBudget::total() const {
  return total_weights() + kv_cache + activations + workspace + logits + graphs;
}

const Tokenizer& Engine::require_tokenizer() const {
  require_or(ErrorCode::kUnsupported, tokenizer.has_value(),
             "use text with model {}: it has no tokenizer.json or *.tiktoken file",
             directory.string());
  return *tokenizer;
}

MemoryBudget Engine::memory() const {
  MemoryBudget budget;
  for (int g = 0; g < kNumWeightGroups; ++g) {
    budget.weights[static_cast<std::size_t>(g)] =
        weights->layout.bytes(static_cast<WeightGroup>(g));
  }
  const Model::Memory memory = model->memory();
  budget.kv_cache = cache->bytes();
  budget.activations = memory.activations;
  budget.workspace = memory.workspace;
  budget.logits = memory.logits;
  budget.graphs = memory.graphs;
  return budget;
}

std::vector<Engine::Range> Engine::host_ranges() const {
  std::vector<Range> ranges;
  for (const Weights::Range& range : weights->ranges) {
    ranges.push_back({std::string(weight_group_name(range.group)), range.bytes, range.mapped});
  }
  if (weights->plan.place() != Place::kHost) return ranges;
  ranges.push_back({"kv_cache", cache->memory()});
  ranges.push_back({"activations", model->activations()});
  ranges.push_back({"workspace", model->workspace()});
  ranges.push_back({"logits", model->logits()});
  return ranges;
}

Engine load_engine(const std::filesystem::path& model, const Plan& plan,
                   const EngineOptions& options, ThreadPool& pool) {
  Engine engine;
  engine.directory = resolve_model(model);
  engine.weights = Weights::load(engine.directory, plan, pool);
  // Without one, a model can still be timed and its logits looked at.
  if (Tokenizer::exists_in(engine.directory)) engine.tokenizer = Tokenizer::load(engine.directory);
  const Sizes sizes = sizes_for(engine.weights->config, plan, options);
  engine.model = std::make_unique<Model>(engine.weights, sizes.limits, pool);
  engine.cache = std::make_unique<KvCache>(engine.weights->config, sizes.cache);
  return engine;
}

Engine with_ops(const Engine& engine, const EngineOptions& options, const OpTables& ops,
                ThreadPool& pool) {
  Engine other;
  other.directory = engine.directory;
  other.tokenizer = engine.tokenizer;
  other.weights = engine.weights;
  const Sizes sizes = sizes_for(other.weights->config, other.weights->plan, options);
  other.model = std::make_unique<Model>(other.weights, sizes.limits, pool, &ops);
  other.cache = std::make_unique<KvCache>(other.weights->config, sizes.cache);
  return other;
}

MemoryBudget predict_memory(const std::filesystem::path& model, const Plan& plan,
                            const EngineOptions& options, int num_threads) {
  const std::filesystem::path directory = resolve_model(model);
  const ModelConfig config = load_model_config(directory);
  const Checkpoint checkpoint = Checkpoint::open(directory);
  return predict_memory(config, plan_weights(checkpoint, config, plan), plan, options, num_threads);
}

MemoryBudget predict_memory(const ModelConfig& config, const WeightLayout& layout, const Plan& plan,
                            const EngineOptions& options, int num_threads) {
  const Sizes sizes = sizes_for(config, plan, options);
  MemoryBudget budget;
  for (int g = 0; g < kNumWeightGroups; ++g) {
    budget.weights[static_cast<std::size_t>(g)] = layout.bytes(static_cast<WeightGroup>(g));
  }
  const Model::Memory memory =
      Model::memory_needed(config, layout, plan, sizes.limits, num_threads);
  budget.kv_cache = KvCache::bytes_needed(config, sizes.cache);
  budget.activations = memory.activations;
  budget.workspace = memory.workspace;
  budget.logits = memory.logits;
  budget.graphs = memory.graphs;
  return budget;
}

std::filesystem::path resolve_model(const std::filesystem::path& model) {
  if (model != "nano" || std::filesystem::exists(model / "config.json")) return model;
  return find_resource("datasets/nano/model");
}

}  // namespace moebench
