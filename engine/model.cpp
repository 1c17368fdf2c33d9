// gpt-oss, top to bottom.
//
// What follows runs on either backend: ops get views, of host memory or of the GPU's, and read what
// differs between two steps of one shape (tokens, positions, page tables) from memory only.
// Source: openai/gpt-oss, gpt_oss/torch/model.py, Transformer.forward.
#include "engine/model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <utility>

#include "engine/uploader.h"
#include "kernels/core/clock.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "kernels/core/trace.h"

namespace moebench {
namespace {

// What a graph took for each of its launches before driver 550 and CUDA 12.4 (PyTorch's manual,
// "CUDAGraph Trees"): an upper bound for the drivers that know CUDA 13.
constexpr std::size_t kGraphBytesPerLaunch = 64 << 10;
// Of the variants there are: two norms, four products, rope, the cache, attention in two, the
// router, experts in three.
constexpr std::int64_t kMostLaunchesPerLayer = 14;
constexpr std::int64_t kMostOtherLaunches = 12;  // embeddings, angles, the last norm, logits, draws

// The largest scratch of any op of the model at its limits. Throws Error(kUnsupported) if an op's
// variant cannot run what the model asks of it.
std::size_t workspace_needed(const ModelConfig& c, const WeightLayout& layout, const Plan& plan,
                             const ModelLimits& limits, int num_threads, const OpTable& ops) {
  std::size_t most = 0;
  visit_problems(c, layout, plan, limits,
                 [&](std::string_view op, auto member, const auto& problem) {
                   const auto& variant = *(ops.*member);
                   const std::string reason = variant.unsupported(problem);
                   require_or(ErrorCode::kUnsupported, reason.empty(), "use variant '{}' of {}: {}",
                              variant.name, op, reason);
                   most = std::max(most, variant.workspace_bytes(problem, num_threads));
                 });
  return most;
}

template <class V>
bool knows_bf16(const V& variant, const typename V::Args& args) {
  return variant.knows_bf16 != nullptr && variant.knows_bf16(args);
}

// Throws Error(kUnsupported) if a variant wants weights in another order of bytes than they have.
void check_layouts(const WeightLayout& layout, const OpTable& ops) {
  const auto check = [](std::string_view op, const auto& variant, const WeightPlacement& weight) {
    require_or(
        ErrorCode::kUnsupported, !variant.weight_layout || *variant.weight_layout == weight.layout,
        "use variant '{}' of {}: '{}' was not laid out for it", variant.name, op, weight.name);
  };
  check("linear", *ops.linear, layout.unembedding);
  for (const LayerPlacements& l : layout.layers) {
    for (const WeightPlacement* p : {&l.query, &l.key, &l.value, &l.attention_out}) {
      check("linear", *ops.linear, *p);
    }
    check("linear", *ops.router_linear, l.router);
    check("moe_experts", *ops.moe_experts, l.gate_up);
    check("moe_experts", *ops.moe_experts, l.down);
  }
}

}  // namespace

Model::Activations::Activations(Workspace& workspace, const ModelConfig& c, std::int64_t tokens) {
  const auto rows = [&](std::int64_t width) { return workspace.take<float>(tokens * width); };
  residual = rows(c.hidden_size);
  spare_residual = rows(c.hidden_size);
  normed = rows(c.hidden_size);
  query = rows(c.num_heads * c.head_dim);
  key = rows(c.num_kv_heads * c.head_dim);
  value = rows(c.num_kv_heads * c.head_dim);
  heads = rows((c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
  branch = rows(c.hidden_size);
  from_experts = rows(c.hidden_size);
  router_logits = rows(c.num_experts);
  expert_weights = rows(c.top_k);
  expert_ids = workspace.take<std::int32_t>(tokens * c.top_k);
  cos = rows(c.head_dim / 2);
  sin = rows(c.head_dim / 2);
}

Model::Memory Model::memory_needed(const ModelConfig& config, const WeightLayout& layout,
                                   const Plan& plan, const ModelLimits& limits, int num_threads) {
  return memory_needed(config, layout, plan, limits, num_threads, {layout.ops, layout.many_ops});
}

Model::Memory Model::memory_needed(const ModelConfig& config, const WeightLayout& layout,
                                   const Plan& plan, const ModelLimits& limits, int num_threads,
                                   const OpTables& ops) {
  Workspace measure;
  Activations(measure, config, limits.max_step_tokens);
  ModelLimits few = limits;
  few.max_step_tokens = std::min(few.max_step_tokens, kFewTokens);
  few.max_logit_rows = std::min(few.max_logit_rows, kFewTokens);
  std::size_t workspace = workspace_needed(config, layout, plan, few, num_threads, ops.few);
  if (limits.max_step_tokens > kFewTokens || limits.max_logit_rows > kFewTokens) {
    OpTable many = ops.many;
    for (const attention::Variant* of_tokens : {ops.many.attention, ops.few.attention}) {
      many.attention = of_tokens;  // the second of single ones: see attend
      workspace =
          std::max(workspace, workspace_needed(config, layout, plan, limits, num_threads, many));
    }
  }
  const std::int64_t launches = kMostLaunchesPerLayer * config.num_layers + kMostOtherLaunches;
  return {measure.used(), workspace,
          static_cast<std::size_t>(limits.max_logit_rows * config.vocab_size) * sizeof(float),
          plan.backend == PlanBackend::kCuda
              ? static_cast<std::size_t>(launches) * kGraphBytesPerLaunch
              : 0};
}

// A step that was met before, and its graph once it was met twice.
struct Model::CapturedStep {
  StepShape shape;
  const KvCache* cache;
  std::int64_t generation;  // of the inputs' block
  gpu::Graph graph;
};

// Times between ops: the clock's on the CPU, the device's own on the GPU.
class Model::OpClock {
 public:
  explicit OpClock(gpu::Stream stream) : stream_(stream) {}

  void begin(std::string_view op, std::int64_t layer) {
    times_.push_back({op, layer, 0});
    if (stream_ != nullptr) {
      events_.push_back(record());
    } else {
      start_ = std::chrono::steady_clock::now();
    }
  }
  void end() {
    if (stream_ != nullptr) {
      events_.push_back(record());
    } else {
      const std::chrono::duration<double, std::milli> time =
          std::chrono::steady_clock::now() - start_;
      times_.back().milliseconds = time.count();
    }
  }
  // After all was waited for.
  std::vector<OpTime> take() {
    for (std::size_t i = 0; i < times_.size() && stream_ != nullptr; ++i) {
      times_[i].milliseconds =
          gpu::device().milliseconds_between(events_[2 * i].get(), events_[2 * i + 1].get());
    }
    return std::move(times_);
  }

 private:
  gpu::Event record() {
    gpu::Event event(gpu::device().create_event());
    gpu::device().record_event(event.get(), stream_);
    return event;
  }

  gpu::Stream stream_;
  std::vector<OpTime> times_;
  std::vector<gpu::Event> events_;
  std::chrono::steady_clock::time_point start_;
};

Model::Model(std::shared_ptr<const Weights> weights, const ModelLimits& limits, ThreadPool& pool,
             const OpTables* ops)
    : weights_(std::move(weights)),
      limits_(limits),
      pool_(pool),
      ops_(ops != nullptr ? *ops : OpTables{weights_->layout.ops, weights_->layout.many_ops}),
      place_(weights_->plan.place()),
      rope_(make_rope_table(weights_->config.rope, weights_->config.head_dim)),
      context_{pool, {}},
      inputs_(place_) {
  require(limits.max_step_tokens > 0 && limits.max_logit_rows > 0 && limits.max_context > 0,
          "set up the model: limits must be positive (step {}, logit rows {}, context {})",
          limits.max_step_tokens, limits.max_logit_rows, limits.max_context);
  check_layouts(weights_->layout, ops_.few);
  check_layouts(weights_->layout, ops_.many);
  const Memory needed =
      memory_needed(config(), weights_->layout, weights_->plan, limits_, pool.num_threads(), ops_);
  activation_memory_ = Buffer(needed.activations, "activations", place_);
  workspace_memory_ = Buffer(needed.workspace, "the workspace of ops", place_);
  logit_memory_ = Buffer(needed.logits, "logits", place_);
  context_.workspace = workspace_memory_.span();
  Workspace workspace(activation_memory_.span());
  act_ = Activations(workspace, weights_->config, limits_.max_step_tokens);
  drawn_memory_ = Buffer(static_cast<std::size_t>(limits_.max_logit_rows) *
                             (sizeof(double) + 2 * sizeof(std::int32_t)),
                         "sampled tokens", place_);
  if (place_ == Place::kDevice) set_up_device();
}

void Model::set_up_device() {
  gpu::Device& device = gpu::device();
  stream_ = gpu::OwnedStream(device.create_stream());
  context_.stream = stream_.get();
  signal_memory_ = Buffer(kSignalBytes, "signals between blocks", place_);
  device.fill_zero(signal_memory_.data(), signal_memory_.size(), stream_.get());
  context_.signals = signal_memory_.span();
  logits_on_host_ = gpu::PinnedMemory(device.allocate_pinned(logit_memory_.size(), "logits"));
  for (Enqueued& step : enqueued_) {
    step.drawn = gpu::PinnedMemory(device.allocate_pinned(drawn_memory_.size(), "sampled tokens"));
    step.done = gpu::Event(device.create_event());
  }
  overlap_on_ = weights_->plan.overlaps;
  const std::int64_t half = config().head_dim / 2;
  const std::int64_t count = limits_.max_context * half;
  std::vector<float> table(static_cast<std::size_t>(2 * count));
  pool_.parallel_for(limits_.max_context, 64, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t p = begin; p < end; ++p) {
      float* cos = table.data() + p * half;
      rope_.fill(p, cos, cos + count);
    }
  });
  rope_memory_ = Buffer(table.size() * sizeof(float), "the rotary table", place_);
  Uploader(pool_).copy(rope_memory_.data(), std::as_bytes(std::span(table)));
}

Model::~Model() {
  if (!stream_) return;
  try {
    wait();  // memory must outlive what was enqueued
  } catch (const Error&) {
    // Whoever uses the device next sees what is wrong with it.
  }
}

Model::Memory Model::memory() const {
  std::size_t graphs = 0;
  for (const CapturedStep& c : captured_) {
    if (c.graph) graphs += gpu::device().graph_bytes(c.graph.get());
  }
  return {activation_memory_.size(), workspace_memory_.size(), logit_memory_.size(), graphs};
}

std::span<const std::byte> Model::activations() const {
  return {activation_memory_.data(), activation_memory_.size()};
}
std::span<const std::byte> Model::workspace() const {
  return {workspace_memory_.data(), workspace_memory_.size()};
}
std::span<const std::byte> Model::logits() const {
  return {logit_memory_.data(), logit_memory_.size()};
}

void Model::check(const Step& step) const {
  const auto count = static_cast<std::int64_t>(step.tokens.size());
  require(count > 0 && count <= limits_.max_step_tokens, "run a step of {} tokens (limit {})",
          count, limits_.max_step_tokens);
  require(
      step.positions.size() == step.tokens.size() && step.sequences.size() == step.tokens.size(),
      "run a step: {} tokens, {} positions, {} sequences", count, step.positions.size(),
      step.sequences.size());
  require(
      static_cast<std::int64_t>(step.logit_rows.size()) <= std::min(count, limits_.max_logit_rows),
      "run a step of {} tokens: {} rows of logits wanted (limit {})", count, step.logit_rows.size(),
      limits_.max_logit_rows);
  for (const std::int32_t row : step.logit_rows) {
    require(row >= 0 && row < count, "run a step: logits of token {} of {}", row, count);
  }
  const std::int64_t drawn =
      num_enqueued_ == 0
          ? 0
          : enqueued_[static_cast<std::size_t>((num_enqueued_ - 1) % kMostUnderWay)].num_rows;
  for (std::size_t t = 0; t < step.tokens.size(); ++t) {
    require(step.tokens[t] >= -drawn && step.tokens[t] < config().vocab_size,
            "run a step: token {} is outside the vocabulary of {}", step.tokens[t],
            config().vocab_size);
    require(step.positions[t] >= 0 && step.positions[t] < limits_.max_context,
            "run a step: position {} is outside the context of {}", step.positions[t],
            limits_.max_context);
  }
}

const OpTable& Model::ops(std::int64_t num_tokens) const {
  return num_tokens > kFewTokens ? ops_.many : ops_.few;
}

template <class V>
void Model::run(const char* op, const V& variant, const typename V::Args& args) {
  const TraceRange range(op, layer_);
  const std::int64_t begin_ns = tracer_.on_span ? steady_ns() : 0;
  if (clock_ != nullptr) clock_->begin(op, layer_);
  variant.run(args, context_);
  if (clock_ != nullptr) clock_->end();
  if (tracer_.on_span) trace(op, begin_ns);
}

void Model::trace(std::string_view name, std::int64_t begin_ns) const {
  const StepShape& shape = inputs_.shape();
  tracer_.on_span({name, layer_, shape.num_tokens, shape.num_sequences, begin_ns, steady_ns()});
}

bool Model::runs_at_once(const linear::Args& args) const {
  const auto in_format = [&](const linear::Args::Output& o) {
    return o.weight.data == nullptr || o.weight.format == args.weight.format;
  };
  return ops(args.x.shape[0]).linear->runs_several &&
         std::all_of(args.also.begin(), args.also.end(), in_format);
}

void Model::linear(const char* name, const linear::Args& args) {
  const linear::Variant& variant = *ops(args.x.shape[0]).linear;
  if (runs_at_once(args)) return run(name, variant, args);
  linear::Args one = args;
  one.also = {};
  run(name, variant, one);
  for (const linear::Args::Output& o : args.also) {
    if (o.weight.data == nullptr) continue;
    one.weight = o.weight;
    one.bias = o.bias;
    one.out = o.out;
    run(name, variant, one);
  }
}

bool Model::attends_in_bf16(const attention::Args& args) const {
  const std::int64_t n = args.queries.shape[0];
  const std::int64_t singles = num_singles();
  return (singles == 0 || knows_bf16(*ops_.few.attention, args)) &&
         (singles == n || knows_bf16(*ops(n).attention, args));
}

std::int64_t Model::num_singles() const {
  const StepShape& shape = inputs_.shape();
  return ops(shape.num_tokens).attention == ops_.few.attention ? 0 : shape.num_single;
}

void Model::attend(const attention::Args& args) {
  const std::int64_t n = args.queries.shape[0];
  const attention::Variant& of_step = *ops(n).attention;
  const auto attend_rows = [&](const attention::Variant& variant, std::int64_t first,
                               std::int64_t count) {
    if (count > 0) run("attention", variant, attention::tokens_of(args, first, count));
  };
  const std::int64_t singles = num_singles();
  attend_rows(*ops_.few.attention, 0, singles);
  attend_rows(of_step, singles, n - singles);
}

void Model::wait() {
  if (place_ == Place::kDevice) gpu::device().synchronize(stream_.get());
}

// `values` if the host can read them, else a copy.
template <class T, std::size_t Rank>
View<const T, Rank> Model::on_host(View<const T, Rank> values, std::vector<T>& copy) {
  if (place_ == Place::kHost) return values;
  copy.resize(static_cast<std::size_t>(values.size()));
  gpu::device().copy(copy.data(), values.data, copy.size() * sizeof(T), gpu::Copy::kToHost,
                     stream_.get());
  wait();
  return {copy.data(), values.shape};
}

void Model::observe(const Observer* observer, std::string_view name, std::int64_t layer,
                    View<const float, 2> values) {
  if (observer == nullptr || !observer->tensor) return;
  std::vector<float> copy;
  observer->tensor(name, layer, on_host(values, copy));
}

View<const float, 2> Model::forward(const Step& step, KvCache& cache, const Observer* observer) {
  check(step);
  const std::int64_t begin_ns = tracer_.on_span ? steady_ns() : 0;
  inputs_.pack(step, cache, {});
  compute(cache, observer);
  View<const float, 2> logits{logit_memory_.as<float>(),
                              {inputs_.shape().num_rows, config().vocab_size}};
  if (place_ == Place::kDevice) {
    auto* host = reinterpret_cast<float*>(logits_on_host_.get());
    gpu::device().copy(host, logits.data, static_cast<std::size_t>(logits.size()) * sizeof(float),
                       gpu::Copy::kToHost, stream_.get());
    logits.data = host;
    wait();
  }
  if (tracer_.on_span) trace("step", begin_ns);
  return logits;
}

Model::Drawn Model::drawn(std::byte* memory, std::int64_t rows) const {
  auto* log_probabilities = reinterpret_cast<double*>(memory);
  auto* tokens = reinterpret_cast<std::int32_t*>(log_probabilities + limits_.max_logit_rows);
  return {{log_probabilities, {rows}}, {tokens, {rows}}, {tokens + limits_.max_logit_rows, {rows}}};
}

std::int64_t Model::enqueue_step(const Step& step, KvCache& cache,
                                 std::span<const sample::RowParams> draws) {
  require(num_enqueued_ - num_finished_ < kMostUnderWay,
          "run a step: {} are under way (does another scheduler use this model?)", kMostUnderWay);
  check(step);
  const std::int64_t begin_ns = tracer_.on_span ? steady_ns() : 0;
  inputs_.pack(step, cache, draws);
  compute(cache, nullptr);
  const std::int64_t number = num_enqueued_++;
  Enqueued& enqueued = enqueued_[static_cast<std::size_t>(number % kMostUnderWay)];
  enqueued.num_rows = static_cast<std::int64_t>(draws.size());
  enqueued.begin_ns = begin_ns;
  if (place_ == Place::kDevice) {
    // Not by the step's graph: each of the two has a place of its own.
    gpu::Device& device = gpu::device();
    device.copy(enqueued.drawn.get(), drawn_memory_.data(),
                draws.empty() ? 0 : drawn_memory_.size(), gpu::Copy::kToHost, stream_.get());
    device.record_event(enqueued.done.get(), stream_.get());
  } else {
    take_draws(drawn_memory_.data(), enqueued);
  }
  return number;
}

std::span<const Model::Draw> Model::finish_step(std::int64_t number) {
  require(num_finished_ < num_enqueued_ && number == num_finished_,
          "finish step {}: of {} steps {} are finished (does another scheduler use this model?)",
          number, num_enqueued_, num_finished_);
  Enqueued& enqueued = enqueued_[static_cast<std::size_t>(num_finished_++ % kMostUnderWay)];
  if (place_ == Place::kDevice) {
    gpu::device().wait_for(enqueued.done.get());
    take_draws(enqueued.drawn.get(), enqueued);
  }
  if (enqueued.begin_ns > 0 && tracer_.on_span) trace("step", enqueued.begin_ns);
  return enqueued.draws;
}

void Model::take_draws(std::byte* memory, Enqueued& to) const {
  const Drawn result = drawn(memory, to.num_rows);
  to.draws.clear();
  for (std::int64_t r = 0; r < to.num_rows; ++r) {
    to.draws.push_back({result.tokens[r], result.status[r], result.log_probabilities[r]});
  }
}

std::vector<Model::OpTime> Model::time_ops(const Step& step, KvCache& cache) {
  OpClock clock(stream_.get());
  clock_ = &clock;
  try {
    forward(step, cache);
  } catch (...) {
    clock_ = nullptr;
    throw;
  }
  clock_ = nullptr;
  return clock.take();
}

double Model::time_step(const Step& step, KvCache& cache) {
  check(step);
  inputs_.pack(step, cache, {});
  if (place_ == Place::kHost) {
    const auto start = std::chrono::steady_clock::now();
    compute(cache, nullptr);
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
        .count();
  }
  gpu::Device& device = gpu::device();
  const gpu::Event begin(device.create_event());
  const gpu::Event end(device.create_event());
  device.record_event(begin.get(), stream_.get());
  compute(cache, nullptr);
  device.record_event(end.get(), stream_.get());
  wait();
  return device.milliseconds_between(begin.get(), end.get());
}

std::int64_t Model::num_graphs() const {
  return std::count_if(captured_.begin(), captured_.end(),
                       [](const CapturedStep& c) { return static_cast<bool>(c.graph); });
}

void Model::compute(KvCache& cache, const Observer* observer) {
  const StepShape& shape = inputs_.shape();
  const TraceRange range("step", shape.num_tokens);
  inputs_.upload(stream_.get());
  context_.tunes = weights_->plan.tunes;
  // Chunks of prompts seldom have the same shape twice, but steps that only decode do.
  const bool may_repeat =
      shape.num_tokens <= kFewTokens ||
      (shape.num_tokens == shape.num_sequences && shape.num_tokens <= kMostGraphTokens);
  const bool as_graph = place_ == Place::kDevice && graphs_on_ && observer == nullptr &&
                        clock_ == nullptr && !tracer_.on_span && may_repeat;
  if (!as_graph) {
    enqueue(cache, observer);
    return;
  }
  // Another block of inputs, and every address in the graphs of the last one is stale.
  std::erase_if(captured_,
                [&](const CapturedStep& c) { return c.generation != inputs_.generation(); });
  const auto known = std::find_if(captured_.begin(), captured_.end(), [&](const CapturedStep& c) {
    return c.shape == shape && c.cache == &cache;
  });
  if (known == captured_.end()) {
    // Each has memory of its own, and a server comes to many shapes. The last step may still run.
    if (captured_.size() == kMostGraphs) {
      wait();
      captured_.erase(captured_.begin());
    }
    // Not captured at once: the first run of a kernel may have to load it.
    captured_.push_back({shape, &cache, inputs_.generation(), {}});
    enqueue(cache, nullptr);
    return;
  }
  std::rotate(known, known + 1, captured_.end());  // in the order of their last use
  CapturedStep& step = captured_.back();
  gpu::Device& device = gpu::device();
  if (!step.graph) {
    context_.tunes = false;  // its kernels ran before, and nothing can be waited for
    device.begin_capture(stream_.get());
    try {
      enqueue(cache, nullptr);
    } catch (...) {
      gpu::Graph(device.end_capture(stream_.get()));
      throw;
    }
    step.graph = gpu::Graph(device.end_capture(stream_.get()));
  }
  device.launch_graph(step.graph.get(), stream_.get());
}

void Model::enqueue(KvCache& cache, const Observer* observer) {
  const ModelConfig& c = config();
  const StepShape& shape = inputs_.shape();
  const std::int64_t n = shape.num_tokens;
  const std::int64_t half = c.head_dim / 2;
  residual_ = act_.residual;
  is_normed_ = false;
  const View<float, 2> embedded{residual_, {n, c.hidden_size}};
  const View<float, 2> normed{act_.normed, {n, c.hidden_size}};
  const OpTable& table = ops(n);
  layer_ = -1;

  run("embedding", *table.embedding,
      {inputs_.tokens(), weights_->embedding, embedded,
       drawn(drawn_memory_.data(), limits_.max_logit_rows).tokens});
  observe(observer, "embed", -1, embedded);

  if (place_ == Place::kDevice) {
    const std::byte* memory = rope_memory_.data();
    for (float* out : {act_.cos, act_.sin}) {
      const MatrixView rows{Format::kF32, limits_.max_context, half, memory};
      run("embedding", *table.embedding, {inputs_.positions(), rows, {out, {n, half}}});
      memory += rope_memory_.size() / 2;
    }
  } else {
    for (std::int64_t t = 0; t < n; ++t) {
      rope_.fill(inputs_.positions()[t], act_.cos + t * half, act_.sin + t * half);
    }
  }

  for (layer_ = 0; layer_ < c.num_layers; ++layer_) run_layer(layer_, cache, observer);
  layer_ = -1;

  const rms_norm::Args final_norm = first_norm(c.num_layers);
  if (!std::exchange(is_normed_, false)) run("rms_norm", *table.rms_norm, final_norm);
  observe(observer, "resid_mlp", c.num_layers - 1, final_norm.x);
  observe(observer, "final_norm", -1, normed);

  // Gather the wanted rows (the branch buffer is free by now), then one product with the
  // unembedding.
  if (shape.num_rows == 0) return;
  const View<float, 2> wanted{act_.branch, {shape.num_rows, c.hidden_size}};
  const MatrixView rows{Format::kF32, n, c.hidden_size,
                        reinterpret_cast<const std::byte*>(act_.normed)};
  run("embedding", *table.embedding, {inputs_.logit_rows(), rows, wanted});
  const View<float, 2> logits{logit_memory_.as<float>(), {shape.num_rows, c.vocab_size}};
  linear("linear: unembedding", {wanted, weights_->unembedding, {}, logits});
  if (!shape.samples) return;
  const Drawn result = drawn(drawn_memory_.data(), shape.num_rows);
  run("sample", *table.sample,
      {logits, inputs_.draws(), result.tokens, result.log_probabilities, result.status});
}

fused::Norm Model::norm_before(View<const float, 2> addend, View<const float, 1> weight) {
  const View<const float, 2> before{residual_, addend.shape};
  residual_ = residual_ == act_.residual ? act_.spare_residual : act_.residual;
  return {before,
          addend,
          weight,
          static_cast<float>(config().rms_norm_epsilon),
          {residual_, addend.shape}};
}

void Model::run_layer(std::int64_t l, KvCache& cache, const Observer* observer) {
  run_attention(l, cache, observer);
  run_experts(l, cache, observer);
}

linear::Args Model::to_query_key_value(std::int64_t l) const {
  const ModelConfig& c = config();
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(l)];
  const std::int64_t n = inputs_.shape().num_tokens;
  const std::int64_t kv_size = c.num_kv_heads * c.head_dim;
  return {{act_.normed, {n, c.hidden_size}},
          w.query,
          w.query_bias,
          {act_.query, {n, c.num_heads * c.head_dim}},
          {{{w.key, w.key_bias, {act_.key, {n, kv_size}}},
            {w.value, w.value_bias, {act_.value, {n, kv_size}}}}}};
}

bool Model::attends_at_once(std::int64_t l, KvCache& cache) const {
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(l)];
  const std::int64_t n = inputs_.shape().num_tokens;
  return moebench::attends_at_once(
      config(), ops(n), {w.query.format, w.key.format, w.value.format, w.attention_out.format},
      cache.layer(l).format, n);
}

bool Model::routes_ahead(std::int64_t l, KvCache& cache) const {
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(l)];
  const std::int64_t n = inputs_.shape().num_tokens;
  return moebench::routes_ahead(
      config(), ops(n), {w.query.format, w.key.format, w.value.format, w.attention_out.format},
      cache.layer(l).format, n, experts_problem(config(), w.gate_up.format, w.router.format, n));
}

rms_norm::Args Model::first_norm(std::int64_t l) {
  const ModelConfig& c = config();
  const bool is_final = l == c.num_layers;
  const View<float, 2> normed{act_.normed, {inputs_.shape().num_tokens, c.hidden_size}};
  rms_norm::Args norm{{residual_, normed.shape},
                      {l > 0 ? act_.from_experts : nullptr, normed.shape},
                      is_final ? weights_->final_norm
                               : weights_->layers[static_cast<std::size_t>(l)].attention_norm,
                      static_cast<float>(c.rms_norm_epsilon),
                      normed};
  if (is_final) return norm;
  const OpTable& table = ops(normed.shape[0]);
  if (knows_bf16(*table.rms_norm, norm) && knows_bf16(*table.linear, to_query_key_value(l))) {
    norm.rounded = {reinterpret_cast<bf16*>(act_.normed), normed.shape};
  }
  return norm;
}

bool Model::begins_with_norm(std::int64_t l, KvCache& cache) const {
  if (l == config().num_layers) return true;
  const std::int64_t n = inputs_.shape().num_tokens;
  const linear::Args products = to_query_key_value(l);
  const MatrixView& query = products.weight;
  return !attends_at_once(l, cache) &&
         !(runs_at_once(products) &&
           normalises(ops(n), *ops(n).linear, {query.format, n, query.rows, query.cols}));
}

void Model::run_attention(std::int64_t l, KvCache& cache, const Observer* observer) {
  const ModelConfig& c = config();
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(l)];
  const std::int64_t n = inputs_.shape().num_tokens;
  const std::int64_t q_size = c.num_heads * c.head_dim;
  const std::int64_t kv_size = c.num_kv_heads * c.head_dim;
  const View<float, 2> normed{act_.normed, {n, c.hidden_size}};
  const View<float, 2> branch{act_.branch, {n, c.hidden_size}};
  const OpTable& table = ops(n);

  // What the layer before has to add arrives with the norm; a product that begins with the norm
  // does both, and some put keys and values into the cache. Attention may do all of it.
  const View<const float, 2> from_before{l > 0 ? act_.from_experts : nullptr, {n, c.hidden_size}};
  linear::Args to_attend = to_query_key_value(l);
  const View<const float, 2> cos{act_.cos, {n, c.head_dim / 2}};
  const View<const float, 2> sin{act_.sin, {n, c.head_dim / 2}};
  const View<float, 3> queries{act_.query, {n, c.num_heads, c.head_dim}};
  const View<float, 3> keys{act_.key, {n, c.num_kv_heads, c.head_dim}};
  const View<float, 3> values{act_.value, {n, c.num_kv_heads, c.head_dim}};
  kv_write::Args to_cache{keys, values, cache.layer(l), inputs_.places(cache.kind_of(l))};
  const bool sliding = cache.kind_of(l) == KvCache::kSliding;
  // What the page tables of this step can hold: it sizes the grid of split attention.
  const std::int64_t most_positions =
      std::min(limits_.max_context, inputs_.shape().table_pages * to_cache.kv.page_size);
  const View<float, 3> heads{act_.heads, {n, c.num_heads, c.head_dim}};
  attention::Args to_heads{queries,
                           to_cache.kv,
                           to_cache.places,
                           w.sinks,
                           static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim))),
                           sliding ? c.sliding_window : 0,
                           most_positions,
                           table.fuses,
                           heads};
  to_heads.num_single = inputs_.shape().num_single;
  if (observer == nullptr && attends_at_once(l, cache)) {
    to_heads.around = {norm_before(from_before, w.attention_norm),
                       {w.query, w.query_bias},
                       {w.key, w.key_bias},
                       {w.value, w.value_bias},
                       cos,
                       sin,
                       {w.attention_out, w.attention_out_bias},
                       branch};
    if (routes_ahead(l, cache)) to_heads.around.router = {w.router, w.ffn_norm};
    return run("attention", *table.attention, to_heads);
  }
  const bool kv_write_rotates = table.kv_write->runs_several && observer == nullptr;
  // Variants that compute one layer a launch do all three by one product, if they are one matrix,
  // and kv_write puts queries where attention looks for them.
  if (kv_write_rotates) to_cache.rotation = {queries, keys, cos, sin};
  if (kv_write_rotates && !table.linear->runs_several && w.query_key_value.data != nullptr) {
    const View<float, 2> joined{act_.heads, {n, q_size + 2 * kv_size}};
    to_attend.weight = w.query_key_value;
    to_attend.bias = w.query_key_value_bias;
    to_attend.out = joined;
    to_attend.also = {};
    to_cache.rotation.joined = joined;
  }
  bool is_cached = false;
  if (observer == nullptr && !begins_with_norm(l, cache)) {
    to_attend.norm = norm_before(from_before, w.attention_norm);
    const linear::Problem attend_problem{w.query.format, n,          w.query.rows,
                                         w.query.cols,   c.head_dim, to_cache.kv.format};
    is_cached = normalises(table, *table.linear, attend_problem);
    if (is_cached) to_attend.cached = {cos, sin, to_cache.kv, to_cache.places};
  } else {
    rms_norm::Args norm = first_norm(l);
    if (observer != nullptr) norm.rounded = {};
    to_attend.rounded = norm.rounded;
    if (!std::exchange(is_normed_, false)) run("rms_norm", *table.rms_norm, norm);
    if (l > 0) observe(observer, "resid_mlp", l - 1, norm.x);
    observe(observer, "attn_norm", l, normed);
  }
  linear("linear: query, key, value", to_attend);
  if (!is_cached && !kv_write_rotates) {
    run("rope", *table.rope, {queries, cos, sin});
    run("rope", *table.rope, {keys, cos, sin});
  }
  observe(observer, "q", l, {act_.query, {n, q_size}});
  observe(observer, "k", l, {act_.key, {n, kv_size}});
  observe(observer, "v", l, {act_.value, {n, kv_size}});
  linear::Args to_branch{
      {act_.heads, {n, q_size}}, w.attention_out, w.attention_out_bias, branch, {}};
  // What the next op would round to bf16 anyway is that already, where both know.
  if (observer == nullptr && attends_in_bf16(to_heads)) {
    if (!is_cached && knows_bf16(*table.kv_write, to_cache)) {
      to_cache.rotation.rounded_queries = {reinterpret_cast<bf16*>(act_.query), queries.shape};
      to_heads.rounded_queries = to_cache.rotation.rounded_queries;
    }
    if (knows_bf16(*table.linear, to_branch)) {
      to_heads.rounded = {reinterpret_cast<bf16*>(act_.heads), heads.shape};
      to_branch.rounded = {to_heads.rounded.data, to_branch.x.shape};
    }
  }
  if (!is_cached) run("kv_write", *table.kv_write, to_cache);
  attend(to_heads);
  observe(observer, "attn_heads", l, {act_.heads, {n, q_size}});
  linear("linear: attention out", to_branch);
}

void Model::run_experts(std::int64_t l, KvCache& cache, const Observer* observer) {
  const ModelConfig& c = config();
  const LayerWeights& w = weights_->layers[static_cast<std::size_t>(l)];
  const std::int64_t n = inputs_.shape().num_tokens;
  const auto epsilon = static_cast<float>(c.rms_norm_epsilon);
  const View<float, 2> normed{act_.normed, {n, c.hidden_size}};
  const View<float, 2> branch{act_.branch, {n, c.hidden_size}};
  const OpTable& table = ops(n);

  // A router that begins with the norm does all up to the choice; experts that do, all of the rest
  // of the layer.
  const View<float, 2> router_logits{act_.router_logits, {n, c.num_experts}};
  const View<std::int32_t, 2> expert_ids{act_.expert_ids, {n, c.top_k}};
  const View<float, 2> expert_weights{act_.expert_weights, {n, c.top_k}};
  moe_experts::Args to_experts{normed,
                               expert_ids,
                               expert_weights,
                               w.gate_up,
                               w.gate_up_bias,
                               w.down,
                               w.down_bias,
                               static_cast<float>(c.swiglu_alpha),
                               static_cast<float>(c.swiglu_limit),
                               {act_.from_experts, {n, c.hidden_size}}};
  if (observer == nullptr && normalises(table, *table.moe_experts,
                                        experts_problem(c, w.gate_up.format, w.router.format, n))) {
    to_experts.route = {norm_before(branch, w.ffn_norm), w.router, w.router_bias,
                        routes_ahead(l, cache)};
    run("moe_experts", *table.moe_experts, to_experts);
    return;
  }
  router::Args to_route{router_logits, expert_ids, expert_weights};
  if (observer == nullptr &&
      normalises(table, *table.router, router_problem(c, w.router.format, n))) {
    to_route.product = {norm_before(branch, w.ffn_norm), normed, w.router, w.router_bias};
  } else {
    const View<float, 2> before_experts{residual_, {n, c.hidden_size}};
    run("rms_norm", *table.rms_norm, {before_experts, branch, w.ffn_norm, epsilon, normed});
    observe(observer, "resid_attn", l, before_experts);
    run("linear: router", *table.router_linear, {normed, w.router, w.router_bias, router_logits});
    observe(observer, "router_logits", l, router_logits);
  }
  run("router", *table.router, to_route);
  if (observer != nullptr && observer->routing) {
    std::vector<std::int32_t> ids;
    std::vector<float> weights;
    observer->routing(l, on_host(View<const std::int32_t, 2>(expert_ids), ids),
                      on_host(View<const float, 2>(expert_weights), weights));
  }
  // The next norm, if it is an op of its own.
  if (observer == nullptr && begins_with_norm(l + 1, cache) &&
      ends_with_norm(table, *table.moe_experts,
                     experts_problem(c, w.gate_up.format, w.router.format, n))) {
    const rms_norm::Args norm = first_norm(l + 1);
    to_experts.behind = {norm.x, norm.weight, norm.epsilon, norm.out, norm.rounded};
    is_normed_ = true;
  }
  run("moe_experts", *table.moe_experts, to_experts);
}

}  // namespace moebench
