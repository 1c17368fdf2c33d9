// Weights are rotated through more memory than any cache holds, since in a model nothing is read
// twice before everything else was read once.
#include "bench/op_benchmarks.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "engine/synthetic_checkpoint.h"
#include "kernels/attention/attention.h"
#include "kernels/core/buffer.h"
#include "kernels/core/error.h"
#include "kernels/core/random.h"
#include "kernels/linear/linear.h"
#include "kernels/moe_experts/moe_experts.h"

namespace moebench {
namespace {

constexpr std::size_t kRotated = std::size_t{256} << 20;  // bytes of weights
constexpr double kMaxNmse = 1e-3;                         // against the reference

struct Bench {
  const OpBenchmarkOptions& options;
  ThreadPool& pool;
  MachineLimits limits;
  int num_wrong = 0;
};

std::vector<float> random_floats(std::uint64_t seed, std::int64_t count) {
  RandomStream random(seed);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) v = static_cast<float>(2 * random.uniform() - 1);
  return values;
}

// A stack of matrices whose bytes are random codes with scales of a sensible size.
struct Weights {
  Buffer data, scales;
  std::vector<float> tensor_scales;
  MatrixStackView view;

  Weights(Format format, std::int64_t count, std::int64_t rows, std::int64_t cols,
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

// What one call does.
struct Work {
  double tokens = 0;
  double bytes = 0;       // of weights or cache that it must read
  double operations = 0;  // two per multiply-add
};

void set_rates(benchmark::State& state, const Bench& bench, const Work& work,
               double calls_per_second) {
  const double gb = work.bytes / 1e9 * calls_per_second;
  const double gop = work.operations / 1e9 * calls_per_second;
  const double fastest = std::max(bench.limits.int8_gop_per_s, bench.limits.f32_gflop_per_s);
  state.counters["tokens/s"] = work.tokens * calls_per_second;
  state.counters["GB/s"] = gb;
  state.counters["Gop/s"] = gop;
  state.counters["%_of_read"] = 100 * gb / bench.limits.read_gb_per_s;
  state.counters["%_of_peak"] = 100 * gop / fastest;
}

template <class V>
Context make_context(const V& variant, const typename V::Problem& problem, ThreadPool& pool,
                     Buffer& workspace) {
  workspace = Buffer(variant.workspace_bytes(problem, pool.num_threads()), "scratch");
  return {pool, workspace.span()};
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

// Times run(iteration), after comparing `got` with `want`.
template <class Run>
void time_checked(benchmark::State& state, Bench& bench, std::span<const float> got,
                  std::span<const float> want, const Work& work, const Run& run) {
  run(0);
  const double nmse = nmse_of(got, want);
  if (!(nmse <= kMaxNmse)) {
    ++bench.num_wrong;
    state.SkipWithError(fmt::format("wrong: NMSE {:.1e} against reference", nmse).c_str());
    return;
  }
  std::int64_t iteration = 0;
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  for (auto _ : state) run(++iteration);
  const std::chrono::duration<double> took = Clock::now() - begin;
  set_rates(state, bench, work, static_cast<double>(iteration) / took.count());
}

void time_linear(benchmark::State& state, Bench& bench, const linear::Variant& variant,
                 const linear::Problem& p) {
  const std::size_t one = matrix_bytes(p.format, p.rows, p.cols);
  const auto count = static_cast<std::int64_t>(kRotated / one + 1);
  const Weights weights(p.format, count, p.rows, p.cols, variant.weight_layout, bench.pool);
  const auto x = random_floats(2, p.num_tokens * p.cols);
  std::vector<float> out(static_cast<std::size_t>(p.num_tokens * p.rows));
  std::vector<float> want(out.size());
  const auto args = [&](std::int64_t i, std::vector<float>& to) {
    return linear::Args{{x.data(), {p.num_tokens, p.cols}},
                        weights.view[i % count],
                        {},
                        {to.data(), {p.num_tokens, p.rows}}};
  };
  Buffer workspace;
  Context reference = make_context(linear::reference, p, bench.pool, workspace);
  linear::reference.run(args(0, want), reference);
  Context context = make_context(variant, p, bench.pool, workspace);
  const auto tokens = static_cast<double>(p.num_tokens);
  time_checked(
      state, bench, out, want,
      {tokens, static_cast<double>(one), 2.0 * static_cast<double>(p.rows * p.cols) * tokens},
      [&](std::int64_t i) { variant.run(args(i, out), context); });
}

void time_experts(benchmark::State& state, Bench& bench, const moe_experts::Variant& variant,
                  const moe_experts::Problem& p) {
  const std::int64_t wide = 2 * p.intermediate_size;
  const Weights gate_up(p.format, p.num_experts, wide, p.hidden_size, variant.weight_layout,
                        bench.pool);
  const Weights down(p.format, p.num_experts, p.hidden_size, p.intermediate_size,
                     variant.weight_layout, bench.pool);
  const auto x = random_floats(2, p.num_tokens * p.hidden_size);
  const auto expert_weights = random_floats(3, p.num_tokens * p.top_k);
  const auto wide_bias = random_floats(4, p.num_experts * wide);
  const auto down_bias = random_floats(5, p.num_experts * p.hidden_size);
  // Several routings, so that no experts stay in a cache.
  constexpr std::int64_t kRoutings = 8;
  std::vector<std::vector<std::int32_t>> routings;
  double touched = 0;
  RandomStream random(6);
  for (std::int64_t r = 0; r < kRoutings; ++r) {
    std::vector<std::int32_t> ids;
    std::vector<bool> used(static_cast<std::size_t>(p.num_experts));
    for (std::int64_t t = 0; t < p.num_tokens; ++t) {
      std::vector<std::int32_t> left(static_cast<std::size_t>(p.num_experts));
      for (std::size_t e = 0; e < left.size(); ++e) left[e] = static_cast<std::int32_t>(e);
      for (std::int64_t k = 0; k < p.top_k; ++k) {
        const auto pick = random.below(static_cast<std::int64_t>(left.size()));
        ids.push_back(left[static_cast<std::size_t>(pick)]);
        used[static_cast<std::size_t>(ids.back())] = true;
        left.erase(left.begin() + pick);
      }
    }
    touched += static_cast<double>(std::count(used.begin(), used.end(), true)) / kRoutings;
    routings.push_back(std::move(ids));
  }
  std::vector<float> out(static_cast<std::size_t>(p.num_tokens * p.hidden_size));
  std::vector<float> want(out.size());
  const auto args = [&](std::int64_t i, std::vector<float>& to) {
    moe_experts::Args a;
    a.x = {x.data(), {p.num_tokens, p.hidden_size}};
    a.expert_ids = {routings[static_cast<std::size_t>(i % kRoutings)].data(),
                    {p.num_tokens, p.top_k}};
    a.expert_weights = {expert_weights.data(), {p.num_tokens, p.top_k}};
    a.gate_up = gate_up.view;
    a.gate_up_bias = {wide_bias.data(), {p.num_experts, wide}};
    a.down = down.view;
    a.down_bias = {down_bias.data(), {p.num_experts, p.hidden_size}};
    a.out = {to.data(), {p.num_tokens, p.hidden_size}};
    return a;
  };
  Buffer workspace;
  Context reference = make_context(moe_experts::reference, p, bench.pool, workspace);
  moe_experts::reference.run(args(0, want), reference);
  Context context = make_context(variant, p, bench.pool, workspace);
  const double expert_bytes =
      static_cast<double>(matrix_bytes(p.format, wide, p.hidden_size) +
                          matrix_bytes(p.format, p.hidden_size, p.intermediate_size));
  const auto tokens = static_cast<double>(p.num_tokens);
  const double operations =
      6.0 * static_cast<double>(p.hidden_size * p.intermediate_size * p.top_k) * tokens;
  time_checked(state, bench, out, want, {tokens, touched * expert_bytes, operations},
               [&](std::int64_t i) { variant.run(args(i, out), context); });
}

// One sequence whose last `num_tokens` positions are computed.
void time_attention(benchmark::State& state, Bench& bench, const attention::Variant& variant,
                    const attention::Problem& p) {
  constexpr std::int64_t kPageSize = 16;
  const std::int64_t num_pages = (p.max_context + kPageSize - 1) / kPageSize;
  KvLayerView kv;
  kv.format = p.kv_format;
  kv.page_size = kPageSize;
  kv.num_kv_heads = p.num_kv_heads;
  kv.head_dim = p.head_dim;
  kv.row_bytes = (row_bytes(p.kv_format, p.head_dim) + 3) / 4 * 4;
  const std::size_t half = static_cast<std::size_t>(kPageSize * p.num_kv_heads) * kv.row_bytes;
  kv.page_stride = 2 * half;
  Buffer memory(static_cast<std::size_t>(num_pages) * kv.page_stride, "a cache to time");
  kv.keys = memory.data();
  kv.values = memory.data() + half;
  const auto vectors = random_floats(7, 64 * p.head_dim);
  std::vector<std::int32_t> pages;
  for (std::int64_t i = 0; i < num_pages; ++i) pages.push_back(static_cast<std::int32_t>(i));
  for (std::int64_t j = 0; j < num_pages * kPageSize; ++j) {
    for (std::int64_t h = 0; h < p.num_kv_heads; ++h) {
      const auto page = static_cast<std::int32_t>(j / kPageSize);
      kv.encode(kv.row(kv.keys, page, j % kPageSize, h),
                &vectors[static_cast<std::size_t>((j * 5 + h) % 64 * p.head_dim)]);
      kv.encode(kv.row(kv.values, page, j % kPageSize, h),
                &vectors[static_cast<std::size_t>((j * 3 + h) % 64 * p.head_dim)]);
    }
  }
  const auto queries = random_floats(8, p.num_tokens * p.num_heads * p.head_dim);
  const auto sinks = random_floats(9, p.num_heads);
  std::vector<std::int64_t> positions;
  for (std::int64_t t = 0; t < p.num_tokens; ++t) {
    positions.push_back(p.max_context - p.num_tokens + t);
  }
  const std::vector<std::int32_t> sequences(positions.size(), 0);
  const std::vector<std::span<const std::int32_t>> tables = {pages};
  std::vector<float> out(queries.size());
  std::vector<float> want(queries.size());
  const auto args = [&](std::vector<float>& to) {
    attention::Args a;
    a.queries = {queries.data(), {p.num_tokens, p.num_heads, p.head_dim}};
    a.kv = kv;
    a.places = {positions, sequences, tables};
    a.sinks = {sinks.data(), {p.num_heads}};
    a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_dim)));
    a.window = p.window;
    a.max_context = p.max_context;
    a.out = {to.data(), {p.num_tokens, p.num_heads, p.head_dim}};
    return a;
  };
  Buffer workspace;
  Context reference = make_context(attention::reference, p, bench.pool, workspace);
  attention::reference.run(args(want), reference);
  Context context = make_context(variant, p, bench.pool, workspace);
  double visible = 0;
  for (const std::int64_t position : positions) {
    visible += static_cast<double>(p.window > 0 ? std::min(position + 1, p.window) : position + 1);
  }
  const double longest = static_cast<double>(
      p.window > 0 ? std::min(p.max_context, p.window + p.num_tokens - 1) : p.max_context);
  time_checked(
      state, bench, out, want,
      {static_cast<double>(p.num_tokens),
       longest * 2.0 * static_cast<double>(p.num_kv_heads) * static_cast<double>(kv.row_bytes),
       4.0 * visible * static_cast<double>(p.num_heads * p.head_dim)},
      [&](std::int64_t) { variant.run(args(out), context); });
}

// Registers `time(state, bench, variant, problem)` for each variant that is wanted and can run.
template <class V, class Time>
void add(Bench& bench, std::string_view op, std::span<const V* const> variants,
         const std::string& what, const typename V::Problem& problem, Time time) {
  const OpBenchmarkOptions& o = bench.options;
  for (const V* variant : variants) {
    if (!o.variant.empty() && o.variant != variant->name) continue;
    if (!o.backend.empty() && o.backend != variant->backend) continue;
    if (!variant->unsupported(problem).empty()) continue;
    // The oracle is not there to be fast: minutes for a number that nobody asks for.
    if (variant->name == "reference" && o.variant != "reference") continue;
    benchmark::RegisterBenchmark(fmt::format("{}/{}/{}", op, variant->name, what).c_str(),
                                 [&bench, variant, problem, time](benchmark::State& state) {
                                   time(state, bench, *variant, problem);
                                 })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond)
        ->MinTime(o.min_time_s)
        ->Repetitions(o.repetitions);
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
            {f, tokens, rows, s.hidden_size}, time_linear);
      }
    }
    if (wanted("moe_experts")) {
      for (const Format f : formats({Format::kMxfp4})) {
        add(bench, "moe_experts", moe_experts::variants(),
            name(f, fmt::format("{}x{}of{}", s.top_k, s.hidden_size, s.num_experts)),
            {f, tokens, s.hidden_size, s.intermediate_size, s.num_experts, s.top_k}, time_experts);
      }
    }
    if (wanted("attention")) {
      for (const Format f : formats({Format::kF32, Format::kBf16})) {
        for (const std::int64_t context : o.contexts) {
          if (context < tokens) continue;
          for (const std::int64_t window : {std::int64_t{0}, s.sliding_window}) {
            add(bench, "attention", attention::variants(),
                name(f,
                     fmt::format("ctx{}{}", context, window > 0 ? fmt::format("w{}", window) : "")),
                {f, tokens, s.num_heads, s.num_kv_heads, s.head_dim, window, context},
                time_attention);
          }
        }
      }
    }
  }
}

}  // namespace

int run_op_benchmarks(const OpBenchmarkOptions& options) {
  ThreadPool pool(options.threads);
  Bench bench{options, pool, measure_machine_limits(pool)};
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
