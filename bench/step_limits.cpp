// Counting what a workload touches, outside of its timed repetitions.
#include "bench/step_limits.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string_view>

#include "bench/kernel_times.h"
#include "evals/statistics.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr double kMs = 1e3;
constexpr double kG = 1e9;

// Sequences of the cache that go when this does.
struct Lease {
  KvCache& cache;
  std::vector<std::int32_t> sequences;

  explicit Lease(KvCache& of) : cache(of) {}
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease() {
    for (const std::int32_t s : sequences) cache.release(s);
  }
  std::int32_t create() {
    sequences.push_back(cache.create());
    return sequences.back();
  }
};

// The most tokens of one sequence that a step takes.
std::int64_t chunk_of(const Engine& engine) {
  return std::min(engine.model->limits().max_step_tokens, engine.cache->options().max_step);
}

void add_tokens(Step& step, std::span<const std::int32_t> tokens, std::int32_t sequence,
                std::int64_t begin, std::int64_t end) {
  for (std::int64_t position = begin; position < end; ++position) {
    step.tokens.push_back(tokens[static_cast<std::size_t>(position)]);
    step.positions.push_back(position);
    step.sequences.push_back(sequence);
  }
}

// Runs positions [begin, end) of a sequence in chunks, without logits; after_chunk(begin, end).
template <class AfterChunk>
void run_chunks(Engine& engine, std::span<const std::int32_t> tokens, std::int32_t sequence,
                std::int64_t begin, std::int64_t end, const Observer* observer,
                const AfterChunk& after_chunk) {
  Step step;
  for (std::int64_t done = begin; done < end;) {
    const std::int64_t next = std::min(end, done + chunk_of(engine));
    engine.cache->trim(sequence, done);
    engine.cache->grow(sequence, next);
    step.clear();
    add_tokens(step, tokens, sequence, done, next);
    engine.model->forward(step, *engine.cache, observer);
    after_chunk(done, next);
    done = next;
  }
}

// Collects the experts of every step it watches.
struct RoutingWatch {
  Routing chosen;
  Observer observer;

  explicit RoutingWatch(std::int64_t num_layers) : chosen(static_cast<std::size_t>(num_layers)) {
    observer.routing = [this](std::int64_t layer, View<const std::int32_t, 2> ids,
                              View<const float, 2>) {
      auto& of_layer = chosen[static_cast<std::size_t>(layer)];
      of_layer.insert(of_layer.end(), ids.data, ids.data + ids.size());
    };
  }
  RoutingWatch(const RoutingWatch&) = delete;
  RoutingWatch& operator=(const RoutingWatch&) = delete;
};

std::vector<OpCost> cost_of(const Engine& engine, const StepWork& work) {
  return step_cost(engine.model->config(), engine.weights->layout, engine.cache->options().format,
                   work);
}

Metric scaled(const Metric& metric, double factor, std::string unit) {
  Metric result = metric;
  result.value *= factor;
  result.unit = std::move(unit);
  for (double& sample : result.samples) sample *= factor;
  if (result.interval) {
    result.interval->low *= factor;
    result.interval->high *= factor;
  }
  return result;
}

OrderedJson to_json(const OpLimit& limit) {
  return {{"bytes", limit.cost.bytes()},
          {"operations", limit.cost.operations},
          {"precision", precision_name(limit.cost.precision)},
          {"limit_ms", limit.milliseconds},
          {"bound", limit.memory_bound ? "memory" : "arithmetic"}};
}

}  // namespace

std::vector<OpLimit> op_limits(std::span<const OpCost> costs, const Ceilings& ceilings) {
  double bytes = 0;
  for (const OpCost& cost : costs) bytes += cost.bytes();
  const double bytes_per_s = kG * ceilings.read_gb_per_s(bytes);
  std::vector<OpLimit> limits;
  for (const OpCost& cost : costs) {
    const double reading = cost.bytes() / bytes_per_s;
    const double peak = kG * ceilings.peak_gop_per_s(cost.precision);
    const double multiplying = peak > 0 ? cost.operations / peak : 0;
    limits.push_back({cost, kMs * std::max(reading, multiplying), reading >= multiplying});
  }
  return limits;
}

double total_milliseconds(std::span<const OpLimit> limits) {
  return std::accumulate(limits.begin(), limits.end(), 0.0,
                         [](double sum, const OpLimit& l) { return sum + l.milliseconds; });
}

Routing routing_of(Engine& engine, std::span<const std::int32_t> tokens, std::int64_t first) {
  const auto length = static_cast<std::int64_t>(tokens.size());
  require(first >= 0 && first <= length, "watch the routing of {} tokens from position {}", length,
          first);
  Lease lease(*engine.cache);
  const std::int32_t sequence = lease.create();
  const auto nothing = [](std::int64_t, std::int64_t) {};
  run_chunks(engine, tokens, sequence, 0, first, nullptr, nothing);
  RoutingWatch watch(engine.model->config().num_layers);
  run_chunks(engine, tokens, sequence, first, length, &watch.observer, nothing);
  return std::move(watch.chosen);
}

std::vector<double> touched_experts(std::span<const Routing> routings, std::int64_t begin,
                                    std::int64_t end, std::int64_t top_k) {
  require(!routings.empty(), "count the experts of a step: no routing is known");
  std::vector<double> touched;
  for (std::size_t layer = 0; layer < routings.front().size(); ++layer) {
    std::vector<std::int32_t> ids;
    for (const Routing& routing : routings) {
      const auto& all = routing.at(layer);
      require(end * top_k <= static_cast<std::int64_t>(all.size()),
              "count the experts of tokens {} to {}: {} are known", begin, end, all.size());
      ids.insert(ids.end(), all.begin() + begin * top_k, all.begin() + end * top_k);
    }
    std::sort(ids.begin(), ids.end());
    touched.push_back(static_cast<double>(std::unique(ids.begin(), ids.end()) - ids.begin()));
  }
  return touched;
}

void WorkloadLimit::add(const Engine& engine, const StepWork& work, const Ceilings& ceilings) {
  const std::vector<OpCost> costs = cost_of(engine, work);
  milliseconds += total_milliseconds(op_limits(costs, ceilings));
  for (const OpCost& cost : costs) bytes_read += cost.weight_bytes + cost.cache_bytes;
  const double mean =
      std::accumulate(work.touched_experts.begin(), work.touched_experts.end(), 0.0) /
      static_cast<double>(work.touched_experts.size());
  touched_mean += (mean - touched_mean) / static_cast<double>(++num_steps);
  tokens += static_cast<double>(work.num_tokens());
}

WorkloadLimit prefill_limit(Engine& engine, const Request& request, std::int64_t context,
                            const Ceilings& ceilings) {
  const std::int64_t top_k = engine.model->config().top_k;
  const auto length = static_cast<std::int64_t>(request.prompt.size());
  const Routing routing = routing_of(engine, request.prompt, context);
  WorkloadLimit limit;
  for (std::int64_t done = context; done < length;) {
    const std::int64_t end = std::min(length, done + chunk_of(engine));
    StepWork work{{{done, end - done}}, end == length ? 1 : 0, {}};
    work.touched_experts = touched_experts({&routing, 1}, done - context, end - context, top_k);
    limit.add(engine, work, ceilings);
    done = end;
  }
  return limit;
}

WorkloadLimit decode_limit(Engine& engine, std::span<const Request> requests,
                           std::span<const std::vector<std::int32_t>> outputs,
                           const Ceilings& ceilings) {
  require(!requests.empty() && requests.size() == outputs.size(),
          "find the limit of decoding: {} requests, {} answers", requests.size(), outputs.size());
  std::vector<Routing> routings;
  std::int64_t steps = -1;  // of the shortest answer: as long as all decode
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const std::vector<std::int32_t>& prompt = requests[i].prompt;
    const auto first = static_cast<std::int64_t>(prompt.size());
    std::vector<std::int32_t> fed = prompt;
    // The last token of an answer is never fed back.
    if (!outputs[i].empty()) fed.insert(fed.end(), outputs[i].begin(), outputs[i].end() - 1);
    const auto mine = static_cast<std::int64_t>(fed.size()) - first;
    steps = steps < 0 ? mine : std::min(steps, mine);
    routings.push_back(routing_of(engine, fed, first));
  }
  WorkloadLimit limit;
  for (std::int64_t s = 0; s < steps; ++s) {
    StepWork work;
    for (const Request& request : requests) {
      work.parts.push_back({static_cast<std::int64_t>(request.prompt.size()) + s, 1});
    }
    work.logit_rows = work.num_tokens();
    work.touched_experts = touched_experts(routings, s, s + 1, engine.model->config().top_k);
    limit.add(engine, work, ceilings);
  }
  return limit;
}

void add_limit_metrics(const WorkloadLimit& limit, const Ceilings& ceilings, Record& record) {
  const auto rate = record.metrics.find(rate_metric(record.kind));
  if (rate == record.metrics.end() || rate->second.absent || !(limit.milliseconds > 0)) return;
  const Metric measured = rate->second;
  const double at_best = kMs * limit.tokens / limit.milliseconds;
  const auto plain = [&](double value, const char* unit) {
    Metric metric;
    metric.value = value;
    metric.unit = unit;
    metric.count = limit.num_steps;
    return metric;
  };
  record.metrics["limit_tokens_per_second"] = plain(at_best, "tokens/s");
  record.metrics["percent_of_limit"] = scaled(measured, 100 / at_best, "%");
  record.metrics["read_gb_per_s"] = scaled(measured, limit.bytes_read / limit.tokens / kG, "GB/s");
  record.metrics["touched_experts_mean"] = plain(limit.touched_mean, "experts");
  record.details["ceilings"] = to_json(ceilings);
}

namespace {

// A real one: on the tests' emulated GPU no profiler sees anything.
bool on_gpu(const Engine& engine) {
  return engine.weights->plan.backend == PlanBackend::kCuda && !gpu::device().info().emulated;
}

// What CUPTI tells of the step's kernels, or why it tells nothing: a profiler that fails costs its
// numbers, and not the case. Only if it is wanted: what CUPTI, once it is attached, costs the cases
// that the same process times afterwards has not been measured.
void add_kernels(Model& model, const Step& step, KvCache& cache, OrderedJson& result) {
  constexpr int kRuns = 3;
  const char* wanted = std::getenv("MOEBENCH_KERNEL_TIMES");
  if (wanted == nullptr || std::string_view(wanted) != "1") {
    result["kernels_unavailable"] = "not asked for: MOEBENCH_KERNEL_TIMES=1 records them by CUPTI";
    return;
  }
  gpu::KernelRecorder recorder;
  std::string unavailable = recorder.unavailable();
  try {
    std::vector<StepKernels> runs;
    for (int run = 0; unavailable.empty() && run < kRuns; ++run) {
      runs.push_back(record_kernels(recorder, model, step, cache));
    }
    std::vector<StepKernels> in_use;
    for (int run = 0; unavailable.empty() && run < kRuns; ++run) {
      in_use.push_back(record_kernels_in_use(recorder, model, step, cache));
    }
    const OrderedJson times = kernel_times_json(runs);
    if (unavailable.empty() && times.is_null()) unavailable = "CUPTI recorded no kernel";
    if (!times.is_null()) {
      result.update(times);
      result["in_use"] = kernel_times_json(in_use);
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kDevice) throw;
    unavailable = error.what();
  }
  if (!unavailable.empty()) result["kernels_unavailable"] = unavailable;
}

}  // namespace

OrderedJson time_by_op(Engine& engine, std::span<const Request> requests, bool decode,
                       const Ceilings* ceilings) {
  constexpr int kWarmUps = 2;  // the second of which captures a graph, where there are graphs
  constexpr int kRuns = 5;
  Model& model = *engine.model;
  Lease lease(*engine.cache);
  Step timed;
  StepWork work;
  for (const Request& request : requests) {
    const auto length = static_cast<std::int64_t>(request.prompt.size());
    const std::int32_t sequence = lease.create();
    // Of a prompt the last chunk, which sees the most; of decoding the last token.
    const std::int64_t from =
        decode ? length - 1 : std::max<std::int64_t>(0, length - chunk_of(engine));
    run_chunks(engine, request.prompt, sequence, 0, from, nullptr,
               [](std::int64_t, std::int64_t) {});
    engine.cache->trim(sequence, from);
    engine.cache->grow(sequence, length);
    add_tokens(timed, request.prompt, sequence, from, length);
    timed.logit_rows.push_back(static_cast<std::int32_t>(timed.tokens.size()) - 1);
    work.parts.push_back({from, length - from});
  }
  work.logit_rows = static_cast<std::int64_t>(requests.size());
  for (int i = 0; i < kWarmUps; ++i) model.forward(timed, *engine.cache);
  std::map<std::string, std::vector<double>> by_op;
  std::vector<double> steps;
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    model.forward(timed, *engine.cache);
    const std::chrono::duration<double, std::milli> whole =
        std::chrono::steady_clock::now() - begin;
    steps.push_back(whole.count());
    std::map<std::string, double> sums;
    for (const Model::OpTime& time : model.time_ops(timed, *engine.cache)) {
      sums[std::string(time.op)] += time.milliseconds;
    }
    for (const auto& [op, milliseconds] : sums) by_op[op].push_back(milliseconds);
  }
  OrderedJson ops = OrderedJson::object();
  double total = 0;  // of the medians, so that what is drawn adds up
  for (const auto& [op, milliseconds] : by_op) {
    ops[op] = median(milliseconds);
    total += median(milliseconds);
  }
  OrderedJson result = {
      {"step", fmt::format("{} tokens of {} sequences", timed.tokens.size(), requests.size())},
      {"step_ms", median(steps)},
      {"total_ms", total},
      {"unexplained_ms", median(steps) - total},
      {"ms", ops}};
  if (on_gpu(engine)) add_kernels(model, timed, *engine.cache, result);
  if (ceilings == nullptr) return result;
  RoutingWatch watch(model.config().num_layers);
  model.forward(timed, *engine.cache, &watch.observer);
  work.touched_experts =
      touched_experts({&watch.chosen, 1}, 0, work.num_tokens(), model.config().top_k);
  const std::vector<OpLimit> limits = op_limits(cost_of(engine, work), *ceilings);
  OrderedJson by_name = OrderedJson::object();
  for (const OpLimit& limit : limits) by_name[std::string(limit.cost.op)] = to_json(limit);
  result["limit_ms"] = total_milliseconds(limits);
  result["touched_experts"] = work.touched_experts;
  result["limits"] = by_name;
  return result;
}

}  // namespace moebench
