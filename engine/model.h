// The forward pass: tokens of several sequences in, logits of chosen tokens out; on the CPU or on
// the GPU, by the plan that the weights were loaded for.
//
// On the GPU a step is enqueued without waiting in between. Steps of few tokens are captured into a
// CUDA graph the second time their shape is met, and replayed from then on. The next step may be
// enqueued before the host has seen what the last one drew.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/op_choice.h"
#include "engine/rope_table.h"
#include "engine/step_inputs.h"
#include "engine/weights.h"
#include "kernels/core/buffer.h"
#include "kernels/core/view.h"
#include "kernels/fused/norm.h"

namespace moebench {

// What a probe or a test may look at while a step runs. Views are valid during the call only.
struct Observer {
  // "embed", "attn_norm", "q", "k", "v", "attn_heads", "resid_attn", "router_logits", "resid_mlp",
  // "final_norm"; `layer` is -1 outside layers; rows are the step's tokens.
  std::function<void(std::string_view name, std::int64_t layer, View<const float, 2>)> tensor;
  std::function<void(std::int64_t layer, View<const std::int32_t, 2> expert_ids,
                     View<const float, 2> expert_weights)>
      routing;
};

struct RequestResult;  // engine/scheduler.h

class Model {
 public:
  // Takes all memory a step needs with the variants that the weights were laid out for, or with
  // `ops` if given: those must be able to run this model's shapes and to read the weights as they
  // lie. Throws Error(kUnsupported) otherwise.
  Model(std::shared_ptr<const Weights> weights, const ModelLimits& limits, ThreadPool& pool,
        const OpTables* ops = nullptr);
  ~Model();

  // Runs one step. The cache must have room for every position (KvCache::grow). Returns the logits,
  // [logit_rows, vocab_size], in host memory, valid until the next call. Throws Error for tokens
  // outside the vocabulary and steps beyond the limits.
  View<const float, 2> forward(const Step& step, KvCache& cache,
                               const Observer* observer = nullptr);

  // Runs one step, in two halves, and draws a token from each row of logits, where they are. Two
  // steps may be under way, so that the host prepares one while the GPU computes the other: a token
  // -1 - r of the second is the one that row r of the first draws, whether or not that has been
  // finished. enqueue_step takes one entry of `draws` per row of step.logit_rows (see
  // kernels/sample/sample.h) and returns the step's number; finish_step waits for the older step,
  // which must have this number, and returns as many entries, valid until two more steps were
  // enqueued. On the CPU enqueue_step computes.
  struct Draw {
    std::int32_t token = 0;
    std::int32_t status = 0;
    double log_probability = 0;
  };
  static constexpr std::int64_t kMostUnderWay = 2;
  std::int64_t enqueue_step(const Step& step, KvCache& cache,
                            std::span<const sample::RowParams> draws);
  std::span<const Draw> finish_step(std::int64_t number);

  // Whether schedulers should enqueue a step before they finish the last: on the GPU if the plan
  // says so, unless this says otherwise, and not while the model is traced.
  void set_overlap(bool on) { overlap_on_ = on; }
  bool overlaps() const { return overlap_on_ && !tracer_.on_span; }

  // Where steps run, in the order they were enqueued; nullptr on the CPU.
  gpu::Stream stream() const { return stream_.get(); }

  // How long each op of one step takes, in the order they run: on the GPU between two events, with
  // graphs off.
  struct OpTime {
    std::string_view op;
    std::int64_t layer = -1;  // -1 outside layers
    double milliseconds = 0;
  };
  std::vector<OpTime> time_ops(const Step& step, KvCache& cache);

  // Runs one step and returns how many milliseconds it took: on the GPU between two events around
  // all that it enqueues, as a graph if it is one by now.
  double time_step(const Step& step, KvCache& cache);

  // A stretch of time: of a step ("step"), or of one op of it, which lies within. Times as
  // RequestResult's. On the GPU an op's is the time to enqueue it, a step's ends when it is done.
  struct Span {
    std::string_view name;
    std::int64_t layer = -1;  // -1 outside layers, and of a step
    std::int64_t num_tokens = 0;
    std::int64_t num_sequences = 0;
    std::int64_t begin_ns = 0;
    std::int64_t end_ns = 0;
  };
  // Called at the end of every op and step, with the names of time_ops, and by the schedulers that
  // use this model at the end of every request. Graphs are not replayed meanwhile.
  struct Tracer {
    std::function<void(const Span&)> on_span;
    std::function<void(const RequestResult&)> on_request;
  };
  // From now on; {} ends it. Either both are set or none.
  void set_tracer(Tracer tracer) { tracer_ = std::move(tracer); }
  const Tracer& tracer() const { return tracer_; }

  // Steps of up to kFewTokens tokens, and of more if they only decode, are captured when their
  // shape comes a second time. As many shapes as this are kept, those used last.
  static constexpr std::size_t kMostGraphs = 32;
  static constexpr std::int64_t kMostGraphTokens = 2048;
  // Graphs are on unless this turns them off; without a GPU there are none.
  void set_graphs(bool on) { graphs_on_ = on; }
  std::int64_t num_graphs() const;

  const ModelConfig& config() const { return weights_->config; }
  const Weights& weights() const { return *weights_; }
  const std::shared_ptr<const Weights>& shared_weights() const { return weights_; }
  const ModelLimits& limits() const { return limits_; }
  ThreadPool& pool() const { return pool_; }

  // Bytes taken for activations, workspace, logits and, on the GPU, the graphs captured so far.
  struct Memory {
    std::size_t activations = 0;
    std::size_t workspace = 0;
    std::size_t logits = 0;
    std::size_t graphs = 0;
  };
  Memory memory() const;
  std::span<const std::byte> activations() const;
  std::span<const std::byte> workspace() const;
  std::span<const std::byte> logits() const;
  // Graphs: those of one shape of step, kGraphBytesPerLaunch for each launch. A step's shape is
  // its number of tokens, of logits and of pages, so a batch that shrinks has several; but drivers
  // since 550 take less for each than this.
  static Memory memory_needed(const ModelConfig& config, const WeightLayout& layout,
                              const Plan& plan, const ModelLimits& limits, int num_threads);

 private:
  // Intermediate results, each with room for max_step_tokens rows of the given width.
  struct Activations {
    float* residual = nullptr;        // hidden_size
    float* spare_residual = nullptr;  // hidden_size: see norm_before
    float* normed = nullptr;          // hidden_size
    float* query = nullptr;           // num_heads * head_dim
    float* key = nullptr;             // num_kv_heads * head_dim
    float* value = nullptr;           // num_kv_heads * head_dim
    // num_heads * head_dim, and 2 * num_kv_heads * head_dim more: before attention, which leaves
    // its results here, query, key and value of a token by one product.
    float* heads = nullptr;
    float* branch = nullptr;             // hidden_size: what attention adds to the residual
    float* from_experts = nullptr;       // hidden_size: what experts do, some of which read branch
    float* router_logits = nullptr;      // num_experts
    float* expert_weights = nullptr;     // top_k
    std::int32_t* expert_ids = nullptr;  // top_k
    float* cos = nullptr;                // head_dim / 2
    float* sin = nullptr;                // head_dim / 2

    Activations() = default;
    Activations(Workspace& workspace, const ModelConfig& config, std::int64_t tokens);
  };

  struct CapturedStep;
  class OpClock;

  static Memory memory_needed(const ModelConfig& config, const WeightLayout& layout,
                              const Plan& plan, const ModelLimits& limits, int num_threads,
                              const OpTables& ops);

  void set_up_device();
  void check(const Step& step) const;
  // All ops of the step in inputs_, enqueued or run, as one graph or one by one.
  void compute(KvCache& cache, const Observer* observer);
  void enqueue(KvCache& cache, const Observer* observer);
  void run_layer(std::int64_t layer, KvCache& cache, const Observer* observer);
  // Its halves: each leaves in a buffer what it adds to the residual stream.
  void run_attention(std::int64_t layer, KvCache& cache, const Observer* observer);
  void run_experts(std::int64_t layer, KvCache& cache, const Observer* observer);
  // The products of its attention, of what act_.normed holds.
  linear::Args to_query_key_value(std::int64_t layer) const;
  bool attends_at_once(std::int64_t layer, KvCache& cache) const;
  bool routes_ahead(std::int64_t layer, KvCache& cache) const;
  // Its first norm (behind the last layer: the final one), and whether that is an op of its own;
  // its result is rounded to bf16 if the products would do that.
  rms_norm::Args first_norm(std::int64_t layer);
  bool begins_with_norm(std::int64_t layer, KvCache& cache) const;
  // A norm for the op that comes next to begin with. Many blocks of it read the residual stream, so
  // what it adds goes to another buffer, where the stream is from then on.
  fused::Norm norm_before(View<const float, 2> addend, View<const float, 1> weight);
  const OpTable& ops(std::int64_t num_tokens) const;
  template <class V>
  void run(const char* op, const V& variant, const typename V::Args& args);
  // All of args.also too: in one launch if the variant can.
  void linear(const char* name, const linear::Args& args);
  bool runs_at_once(const linear::Args& args) const;
  // Tokens at the beginning of a step that are the only ones of their sequences have nothing to
  // share: whatever the step's size, they take the variant for few tokens.
  void attend(const attention::Args& args);
  std::int64_t num_singles() const;  // that take another than the step's
  bool attends_in_bf16(const attention::Args& args) const;
  // Where drawn_memory_ (or a copy on the host) holds what the sample op wrote.
  struct Drawn {
    View<double, 1> log_probabilities;
    View<std::int32_t, 1> tokens, status;
  };
  Drawn drawn(std::byte* memory, std::int64_t rows) const;
  // A step that was enqueued.
  struct Enqueued {
    std::int64_t num_rows = 0;  // of draws
    std::int64_t begin_ns = 0;  // 0: not traced
    gpu::PinnedMemory drawn;    // of the GPU: a copy of drawn_memory_
    gpu::Event done;            // of the GPU: reached after that copy
    std::vector<Draw> draws;    // on the GPU once it is finished
  };
  void take_draws(std::byte* memory, Enqueued& to) const;
  void observe(const Observer* observer, std::string_view name, std::int64_t layer,
               View<const float, 2> values);
  template <class T, std::size_t Rank>
  View<const T, Rank> on_host(View<const T, Rank> values, std::vector<T>& copy);
  void wait();
  void trace(std::string_view name, std::int64_t begin_ns) const;

  std::shared_ptr<const Weights> weights_;
  ModelLimits limits_;
  ThreadPool& pool_;
  OpTables ops_;
  Place place_;
  RopeTable rope_;
  Buffer activation_memory_;
  Buffer workspace_memory_;
  Buffer logit_memory_;
  Buffer rope_memory_;                // of the GPU: cos, then sin, of every position
  Buffer signal_memory_;              // of the GPU: Context::signals
  Buffer drawn_memory_;               // log-probabilities, tokens and statuses of max_logit_rows
  gpu::PinnedMemory logits_on_host_;  // of the GPU
  std::array<Enqueued, kMostUnderWay> enqueued_;  // a slot for each number, in turn
  std::int64_t num_enqueued_ = 0;
  std::int64_t num_finished_ = 0;
  gpu::OwnedStream stream_;
  Context context_;
  Activations act_;
  float* residual_ = nullptr;  // act_.residual or act_.spare_residual
  bool is_normed_ = false;     // act_.normed holds what the next norm would give
  StepInputs inputs_;
  std::int64_t layer_ = -1;  // under way
  bool graphs_on_ = true;
  bool overlap_on_ = false;
  std::vector<CapturedStep> captured_;
  OpClock* clock_ = nullptr;
  Tracer tracer_;
};

}  // namespace moebench
