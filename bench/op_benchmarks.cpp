// Weights are rotated through more memory than any cache holds, since in a model nothing is read
// twice before everything else was read once. On the GPU calls are enqueued in batches between two
// events, so that what is timed is the device's work and not the way to it.
#include "bench/op_benchmarks.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include "engine/synthetic_checkpoint.h"
#include "kernels/attention/attention.h"
#include "kernels/attention/kv_layout.h"
#include "kernels/core/buffer.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"
#include "kernels/core/thread_pool.h"
#include "kernels/formats/encode_matrix.h"
#include "kernels/linear/linear.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/verify/operands.h"

namespace moebench {
namespace {

constexpr std::size_t kRotated = std::size_t{256} << 20;  // bytes of weights
constexpr double kMaxOpNmse = 1e-3;                       // against the reference
constexpr int kGpuBatch = 16;                             // calls between two events

// What one call does.
struct Work {
  double tokens = 0;
  double bytes = 0;       // of weights or cache that it must read
  double operations = 0;  // two per multiply-add
  double experts = 0;     // different ones that its tokens choose; 0 for other ops
};

// One variant on one problem, with everything it needs.
struct Prepared {
  std::string name;
  bool on_gpu = false;
  verify::Operands operands;
  std::vector<std::shared_ptr<void>> inputs;  // what the operands refer to
  std::function<void(std::int64_t iteration)> run;
  std::vector<float> got, want;
  Work work;

  explicit Prepared(std::string_view backend) : on_gpu(backend == "cuda"), operands(backend) {}

  // A copy of `value` that lives as long as this.
  template <class T>
  T& keep(T value) {
    auto kept = std::make_shared<T>(std::move(value));
    inputs.push_back(kept);
    return *kept;
  }
};

struct Bench {
  const OpBenchmarkOptions& options;
  ThreadPool& pool;
  MachineLimits limits;  // of the CPU
  int num_wrong = 0;
  std::unique_ptr<Prepared> prepared;  // of the benchmark under way: calibration calls it again
};

std::vector<float> random_floats(std::uint64_t seed, std::int64_t count) {
  RandomStream random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(2 * random.uniform() - 1);
  return values;
}

// A stack of matrices whose bytes are random codes with scales of a sensible size.
struct RotatedWeights {
  Buffer data, scales;
  std::vector<float> tensor_scales;
  MatrixStackView view;

  RotatedWeights(Format format, std::int64_t count, std::int64_t rows, std::int64_t cols,
                 std::optional<RowLayout> layout, ThreadPool& pool) {
    const Codec& c = codec(format);
    const RowLayout order = layout.value_or(RowLayout::kRowMajor);
    const auto all = static_cast<std::size_t>(count * stored_rows(order, rows));
    data = Buffer(all * c.row_data_bytes(cols), "weights to time");
    scales = Buffer(all * c.row_scale_bytes(cols), "weights to time");
    tensor_scales.assign(static_cast<std::size_t>(count), 1.0F);
    // One matrix encoded, and the others copies of it: encoding all of them would take longer than
    // the benchmark.
    const std::vector<float> values = random_floats(1, 64 * cols);
    const float scale = 1.0F / std::sqrt(static_cast<float>(cols));
    const std::size_t one_data = data.size() / static_cast<std::size_t>(count);
    const std::size_t one_scales = scales.size() / static_cast<std::size_t>(count);
    for (std::int64_t m = 0; m < count; ++m) {
      const auto at = static_cast<std::size_t>(m);
      if (m > 0) {
        std::copy_n(data.data(), one_data, data.data() + at * one_data);
        std::copy_n(scales.data(), one_scales, scales.data() + at * one_scales);
        tensor_scales[at] = tensor_scales[0];
        continue;
      }
      encode_matrix(
          c, rows, cols,
          [&](std::int64_t row, float* out) {
            const float* from = values.data() + row * 7 % 64 * cols;
            for (std::int64_t i = 0; i < cols; ++i) out[i] = from[i] * scale;
          },
          data.data(), scales.data(), tensor_scales.data(), "random weights", pool, order);
    }
    view = {format,        count,       rows,
            cols,          data.data(), scales.size() > 0 ? scales.data() : nullptr,
            tensor_scales, order};
  }
};

void set_rates(benchmark::State& state, const Bench& bench, const Work& work,
               double calls_per_second) {
  const double gb = work.bytes / 1e9 * calls_per_second;
  const double gop = work.operations / 1e9 * calls_per_second;
  const double fastest = std::max(bench.limits.int8_gop_per_s, bench.limits.f32_gflop_per_s);
  state.counters["tokens/s"] = work.tokens * calls_per_second;
  state.counters["GB/s"] = gb;
  state.counters["Gop/s"] = gop;
  if (work.experts > 0) state.counters["experts"] = work.experts;
  if (bench.prepared->on_gpu) return;  // its limits are measured by another command
  state.counters["%_of_read"] = 100 * gb / bench.limits.read_gb_per_s;
  state.counters["%_of_peak"] = 100 * gop / fastest;
}

double nmse_of(std::span<const float> got, std::span<const float> want) {
  double errors = 0;
  double squares = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    errors += d * d;
    squares += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return errors / squares;
}

// Times the prepared call, after comparing its output with the reference's.
void time_prepared(benchmark::State& state, Bench& bench) {
  Prepared& p = *bench.prepared;
  p.run(0);
  p.operands.fetch();
  const double nmse = nmse_of(p.got, p.want);
  if (!(nmse <= kMaxOpNmse)) {
    ++bench.num_wrong;
    state.SkipWithError(fmt::format("wrong: NMSE {:.1e} against reference", nmse).c_str());
    return;
  }
  std::int64_t iteration = 0;
  double seconds = 0;
  if (p.on_gpu) {
    gpu::Device& device = gpu::device();
    const gpu::Event begin(device.create_event());
    const gpu::Event end(device.create_event());
    for (auto _ : state) {
      device.record_event(begin.get(), nullptr);
      for (int i = 0; i < kGpuBatch; ++i) p.run(++iteration);
      device.record_event(end.get(), nullptr);
      device.synchronize(nullptr);
      const double took = device.milliseconds_between(begin.get(), end.get()) / 1e3;
      seconds += took;
      state.SetIterationTime(took / kGpuBatch);
    }
  } else {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    for (auto _ : state) p.run(++iteration);
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  set_rates(state, bench, p.work, static_cast<double>(iteration) / seconds);
}

// What `variant` is compared with: on the GPU the plainest variant there, since the CPU's reference
// would take minutes at these sizes. `kernels verify` compares that one with float64.
template <class V>
const V& plainest(std::span<const V* const> variants, const V& variant) {
  for (const V* candidate : variants) {
    if (candidate->backend == variant.backend) return *candidate;
  }
  return variant;
}

// Runs the reference once, then leaves the variant ready to run. `args(variant, iteration, out)`.
template <class V, class MakeArgs>
void finish(Prepared& p, std::span<const V* const> variants, const V& variant,
            const typename V::Problem& problem, ThreadPool& pool, const MakeArgs& args) {
  const V& reference = plainest(variants, variant);
  Context scratch = p.operands.context(reference, problem, pool);
  float* want = p.operands.out(p.want);
  reference.run(args(reference, 0, want), scratch);
  p.operands.fetch();
  float* got = p.operands.out(p.got);
  auto& context = p.keep(p.operands.context(variant, problem, pool));
  p.run = [&variant, &context, args, got](std::int64_t i) {
    variant.run(args(variant, i, got), context);
  };
}

std::unique_ptr<Prepared> prepare(const linear::Variant& variant, const linear::Problem& p,
                                  const Bench& bench) {
  ThreadPool& pool = bench.pool;
  auto prepared = std::make_unique<Prepared>(variant.backend);
  verify::Operands& o = prepared->operands;
  const std::size_t one = matrix_bytes(p.format, p.rows, p.cols);
  const auto count = static_cast<std::int64_t>(kRotated / one + 1);
  const linear::Variant& reference = plainest(linear::variants(), variant);
  const auto weights_for = [&](std::optional<RowLayout> layout, std::int64_t n) {
    const auto& weights = *prepared->keep(
        std::make_shared<RotatedWeights>(p.format, n, p.rows, p.cols, layout, pool));
    std::vector<MatrixView> matrices;
    const MatrixStackView there = o.in(weights.view);
    for (std::int64_t i = 0; i < n; ++i) {
      MatrixView matrix = weights.view[i];  // for its tensor scale, a number of the host's
      matrix.data = there.data + (matrix.data - weights.view.data);
      if (matrix.scales != nullptr) {
        matrix.scales = there.scales + (matrix.scales - weights.view.scales);
      }
      matrices.push_back(matrix);
    }
    return matrices;
  };
  const auto& rotated = prepared->keep(weights_for(variant.weight_layout, count));
  const auto& first = prepared->keep(weights_for(reference.weight_layout, 1));
  const float* x = o.in(prepared->keep(random_floats(2, p.num_tokens * p.cols)));
  prepared->want.resize(static_cast<std::size_t>(p.num_tokens * p.rows));
  prepared->got.resize(prepared->want.size());
  const auto tokens = static_cast<double>(p.num_tokens);
  prepared->work = {tokens, static_cast<double>(one),
                    2.0 * static_cast<double>(p.rows * p.cols) * tokens};
  finish(*prepared, linear::variants(), variant, p, pool,
         [=, &rotated, &first, &variant](const linear::Variant& v, std::int64_t i, float* out) {
           return linear::Args{
               {x, {p.num_tokens, p.cols}},
               &v == &variant ? rotated[static_cast<std::size_t>(i % count)] : first[0],
               {},
               {out, {p.num_tokens, p.rows}}};
         });
  return prepared;
}

constexpr std::int64_t kRoutings = 8;

// kRoutings lists of [num_tokens * top_k] expert ids: those that a model chose, from layers and
// places apart from each other; or even ones, each token drawing top_k different experts.
std::vector<std::vector<std::int32_t>> routings_for(const moe_experts::Problem& p,
                                                    const std::optional<RoutingTrace>& recorded) {
  std::vector<std::vector<std::int32_t>> routings;
  RandomStream random(6);
  for (std::int64_t r = 0; r < kRoutings; ++r) {
    if (recorded) {
      const auto num_layers = static_cast<std::int64_t>(recorded->layers.size());
      routings.push_back(recorded->window(r * num_layers / kRoutings,
                                          r * recorded->num_tokens / kRoutings, p.num_tokens));
      continue;
    }
    std::vector<std::int32_t>& ids = routings.emplace_back();
    for (std::int64_t t = 0; t < p.num_tokens; ++t) {
      std::vector<std::int32_t> left(static_cast<std::size_t>(p.num_experts));
      std::iota(left.begin(), left.end(), 0);
      for (std::int64_t k = 0; k < p.top_k; ++k) {
        const auto pick = random.below(static_cast<std::int64_t>(left.size()));
        ids.push_back(left[static_cast<std::size_t>(pick)]);
        left.erase(left.begin() + pick);
      }
    }
  }
  return routings;
}

std::unique_ptr<Prepared> prepare(const moe_experts::Variant& variant,
                                  const moe_experts::Problem& p, const Bench& bench) {
  ThreadPool& pool = bench.pool;
  auto prepared = std::make_unique<Prepared>(variant.backend);
  verify::Operands& o = prepared->operands;
  const std::int64_t wide = 2 * p.intermediate_size;
  moe_experts::Args common;
  common.x = {o.in(prepared->keep(random_floats(2, p.num_tokens * p.hidden_size))),
              {p.num_tokens, p.hidden_size}};
  common.expert_weights = {o.in(prepared->keep(random_floats(3, p.num_tokens * p.top_k))),
                           {p.num_tokens, p.top_k}};
  common.gate_up_bias = {o.in(prepared->keep(random_floats(4, p.num_experts * wide))),
                         {p.num_experts, wide}};
  common.down_bias = {o.in(prepared->keep(random_floats(5, p.num_experts * p.hidden_size))),
                      {p.num_experts, p.hidden_size}};
  // Several routings, so that no experts stay in a cache.
  std::vector<const std::int32_t*> routings;
  double touched = 0;
  for (std::vector<std::int32_t>& ids : routings_for(p, bench.options.routing)) {
    touched += static_cast<double>(distinct_experts(ids)) / kRoutings;
    routings.push_back(o.in(prepared->keep(std::move(ids))));
  }
  struct Matrices {
    MatrixStackView gate_up, down;
  };
  const auto weights_for = [&](std::optional<RowLayout> layout) -> Matrices {
    const auto& up = *prepared->keep(std::make_shared<RotatedWeights>(p.format, p.num_experts, wide,
                                                                      p.hidden_size, layout, pool));
    const auto& down = *prepared->keep(std::make_shared<RotatedWeights>(
        p.format, p.num_experts, p.hidden_size, p.intermediate_size, layout, pool));
    return {o.in(up.view), o.in(down.view)};
  };
  const moe_experts::Variant& reference = plainest(moe_experts::variants(), variant);
  const Matrices own = weights_for(variant.weight_layout);
  const Matrices plain =
      variant.weight_layout == reference.weight_layout ? own : weights_for(reference.weight_layout);
  prepared->want.resize(static_cast<std::size_t>(p.num_tokens * p.hidden_size));
  prepared->got.resize(prepared->want.size());
  const double expert_bytes =
      static_cast<double>(matrix_bytes(p.format, wide, p.hidden_size) +
                          matrix_bytes(p.format, p.hidden_size, p.intermediate_size));
  const auto tokens = static_cast<double>(p.num_tokens);
  prepared->work = {
      tokens, touched * expert_bytes,
      6.0 * static_cast<double>(p.hidden_size * p.intermediate_size * p.top_k) * tokens, touched};
  finish(
      *prepared, moe_experts::variants(), variant, p, pool,
      [=, &variant](const moe_experts::Variant& v, std::int64_t i, float* out) {
        moe_experts::Args a = common;
        a.expert_ids = {routings[static_cast<std::size_t>(i % kRoutings)], {p.num_tokens, p.top_k}};
        const Matrices& matrices = &v == &variant ? own : plain;
        a.gate_up = matrices.gate_up;
        a.down = matrices.down;
        a.out = {out, {p.num_tokens, p.hidden_size}};
        return a;
      });
  return prepared;
}

// The last `num_tokens` positions of one sequence; or, to decode, the last position each of as many
// sequences of the same length.
std::unique_ptr<Prepared> prepare(const attention::Variant& variant, const attention::Problem& p,
                                  const Bench& bench) {
  ThreadPool& pool = bench.pool;
  auto prepared = std::make_unique<Prepared>(variant.backend);
  verify::Operands& o = prepared->operands;
  constexpr std::int64_t kPageSize = 16;
  const std::int64_t sequences = bench.options.decode ? p.num_tokens : 1;
  const std::int64_t pages_per_sequence = (p.max_context + kPageSize - 1) / kPageSize;
  const std::int64_t num_pages = sequences * pages_per_sequence;
  KvLayerView kv = one_layer(p.kv_format, kPageSize, p.num_kv_heads, p.head_dim);
  const std::size_t half = half_page_bytes(kv);
  auto& memory =
      prepared->keep(std::vector<std::byte>(static_cast<std::size_t>(num_pages) * kv.page_stride));
  kv.keys = memory.data();
  kv.values = memory.data() + half;
  // Some vectors, encoded once, and the cache copies of them.
  constexpr std::int64_t kVectors = 64;
  const auto vectors = random_floats(7, kVectors * p.head_dim);
  std::vector<std::byte> encoded(kVectors * kv.row_bytes);
  const auto row = [&](std::int64_t i) {
    return &encoded[static_cast<std::size_t>(i % kVectors) * kv.row_bytes];
  };
  for (std::int64_t i = 0; i < kVectors; ++i) {
    kv.encode(row(i), &vectors[static_cast<std::size_t>(i * p.head_dim)]);
  }
  for (std::int64_t j = 0; j < num_pages * kPageSize; ++j) {
    for (std::int64_t h = 0; h < p.num_kv_heads; ++h) {
      const auto page = static_cast<std::int32_t>(j / kPageSize);
      std::copy_n(row(j * 5 + h), kv.row_bytes, kv.row(kv.keys, page, j % kPageSize, h));
      std::copy_n(row(j * 3 + h), kv.row_bytes, kv.row(kv.values, page, j % kPageSize, h));
    }
  }
  // Pages in the order in which sequences that are decoded together come to need them.
  std::vector<std::int32_t> tables;
  for (std::int64_t s = 0; s < sequences; ++s) {
    for (std::int64_t i = 0; i < pages_per_sequence; ++i) {
      tables.push_back(static_cast<std::int32_t>(i * sequences + s));
    }
  }
  std::vector<std::int32_t> positions(static_cast<std::size_t>(p.num_tokens),
                                      static_cast<std::int32_t>(p.max_context - 1));
  std::vector<std::int32_t> of_tokens(positions.size(), 0);
  if (bench.options.decode) {
    std::iota(of_tokens.begin(), of_tokens.end(), 0);
  } else {
    std::iota(positions.begin(), positions.end(),
              static_cast<std::int32_t>(p.max_context - p.num_tokens));
  }
  double visible = 0;
  for (const std::int64_t position : positions) {
    visible += static_cast<double>(p.window > 0 ? std::min(position + 1, p.window) : position + 1);
  }
  const std::int64_t queries = p.num_tokens / sequences;  // of a sequence
  const auto longest = static_cast<double>(
      p.window > 0 ? std::min(p.max_context, p.window + queries - 1) : p.max_context);
  // Windows of sequences that are decoded move from call to call, or the second-level cache would
  // hold all that is read.
  std::vector<const std::int32_t*> moved;
  const std::int64_t places = bench.options.decode && p.window > 0
                                  ? std::max<std::int64_t>(1, p.max_context / p.window)
                                  : 1;
  for (std::int64_t i = 0; i < places; ++i) {
    std::vector<std::int32_t> there = positions;
    for (std::int32_t& position : there) position -= static_cast<std::int32_t>(i * p.window);
    moved.push_back(o.in(prepared->keep(std::move(there))));
  }

  attention::Args common;
  common.queries = {o.in(prepared->keep(random_floats(8, p.num_tokens * p.num_heads * p.head_dim))),
                    {p.num_tokens, p.num_heads, p.head_dim}};
  common.kv = kv;
  common.kv.keys = o.out(memory);
  common.kv.values = common.kv.keys + half;
  common.places = {{moved[0], {p.num_tokens}},
                   {o.in(prepared->keep(std::move(of_tokens))), {p.num_tokens}},
                   {o.in(prepared->keep(std::move(tables))), {sequences, pages_per_sequence}}};
  common.sinks = {o.in(prepared->keep(random_floats(9, p.num_heads))), {p.num_heads}};
  common.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_dim)));
  common.window = p.window;
  common.max_context = p.max_context;
  prepared->want.resize(static_cast<std::size_t>(common.queries.size()));
  prepared->got.resize(prepared->want.size());
  prepared->work = {static_cast<double>(p.num_tokens),
                    longest * 2.0 * static_cast<double>(sequences * p.num_kv_heads) *
                        static_cast<double>(kv.row_bytes),
                    4.0 * visible * static_cast<double>(p.num_heads * p.head_dim)};
  finish(*prepared, attention::variants(), variant, p, pool,
         [=](const attention::Variant&, std::int64_t iteration, float* out) {
           attention::Args a = common;
           a.places.position.data = moved[static_cast<std::size_t>(iteration) % moved.size()];
           a.out = {out, {p.num_tokens, p.num_heads, p.head_dim}};
           return a;
         });
  return prepared;
}

// Registers a benchmark for each variant that is wanted and can run.
template <class V>
void add(Bench& bench, std::string_view op, std::span<const V* const> variants,
         const std::string& what, const typename V::Problem& problem) {
  const OpBenchmarkOptions& o = bench.options;
  for (const V* variant : variants) {
    if (!o.variant.empty() && o.variant != variant->name) continue;
    if (!o.backend.empty() && o.backend != variant->backend) continue;
    if (!variant->unsupported(problem).empty()) continue;
    // The oracle is not there to be fast: minutes for a number that nobody asks for.
    if (variant->name == "reference" && o.variant != "reference") continue;
    const std::string name = fmt::format("{}/{}/{}", op, variant->name, what);
    const auto time = [&bench, variant, problem, name](benchmark::State& state) {
      if (bench.prepared == nullptr || bench.prepared->name != name) {
        bench.prepared.reset();  // the last one's memory first
        bench.prepared = prepare(*variant, problem, bench);
        bench.prepared->name = name;
      }
      time_prepared(state, bench);
    };
    auto* registered = benchmark::RegisterBenchmark(name.c_str(), time);
    if (variant->backend == "cuda") {
      registered->UseManualTime();
    } else {
      registered->UseRealTime();
    }
    registered->Unit(benchmark::kMicrosecond)->MinTime(o.min_time_s)->Repetitions(o.repetitions);
  }
}

void add_all(Bench& bench) {
  const OpBenchmarkOptions& o = bench.options;
  const SyntheticShape s = shape_named(o.shape);
  const auto wanted = [&](std::string_view op) { return o.op.empty() || o.op == op; };
  const auto formats = [&](std::vector<Format> shipped) {
    return o.formats.empty() ? shipped : o.formats;
  };
  for (const std::int64_t tokens : o.tokens) {
    const auto name = [&](Format format, std::string_view shape) {
      return fmt::format("{}/{}/t{}", format_name(format), shape, tokens);
    };
    if (wanted("linear")) {
      for (const Format f : formats({Format::kBf16, Format::kInt8, Format::kMxfp4})) {
        const std::int64_t rows = s.num_heads * s.head_dim;
        add(bench, "linear", linear::variants(), name(f, fmt::format("{}x{}", rows, s.hidden_size)),
            {f, tokens, rows, s.hidden_size});
      }
    }
    if (wanted("moe_experts")) {
      for (const Format f : formats({Format::kMxfp4})) {
        add(bench, "moe_experts", moe_experts::variants(),
            name(f, fmt::format("{}x{}of{}{}", s.top_k, s.hidden_size, s.num_experts,
                                o.routing ? "_recorded" : "")),
            {f, tokens, s.hidden_size, s.intermediate_size, s.num_experts, s.top_k});
      }
    }
    if (wanted("attention")) {
      for (const Format f : formats({Format::kF32, Format::kBf16})) {
        for (const std::int64_t context : o.contexts) {
          if (context < tokens && !o.decode) continue;
          for (const std::int64_t window : {std::int64_t{0}, s.sliding_window}) {
            add(bench, "attention", attention::variants(),
                name(f, fmt::format("{}{}{}", o.decode ? "decode" : "ctx", context,
                                    window > 0 ? fmt::format("w{}", window) : "")),
                {f, tokens, s.num_heads, s.num_kv_heads, s.head_dim, window, context});
          }
        }
      }
    }
  }
}

}  // namespace

int run_op_benchmarks(const OpBenchmarkOptions& options) {
  if (options.routing) {
    const SyntheticShape shape = shape_named(options.shape);
    require(
        options.routing->num_experts == shape.num_experts && options.routing->top_k == shape.top_k,
        "time kernels on a recorded routing: it chooses {} of {} experts, shape {} has {} of {}",
        options.routing->top_k, options.routing->num_experts, options.shape, shape.top_k,
        shape.num_experts);
  }
  ThreadPool pool(options.threads);
  Bench bench{options, pool, measure_machine_limits(pool), 0, nullptr};
  benchmark::AddCustomContext("threads", fmt::format("{}", pool.num_threads()));
  benchmark::AddCustomContext("read_gb_per_s", fmt::format("{:.1f}", bench.limits.read_gb_per_s));
  benchmark::AddCustomContext("f32_gflop_per_s",
                              fmt::format("{:.1f}", bench.limits.f32_gflop_per_s));
  benchmark::AddCustomContext("int8_gop_per_s", fmt::format("{:.1f}", bench.limits.int8_gop_per_s));
  add_all(bench);
  std::vector<std::string> words = {"moebench"};
  if (!options.out.empty()) {
    words.push_back("--benchmark_out=" + options.out);
    words.emplace_back("--benchmark_out_format=json");
  }
  words.emplace_back(options.json ? "--benchmark_format=json"
                                  : "--benchmark_counters_tabular=true");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  auto argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  require(ran > 0, "time kernels: no variant fits (see moebench kernels list)");
  return bench.num_wrong;
}

}  // namespace moebench
