// One load of the weights; then, op by op, every candidate runs whole steps with it, taking turns.
#include "bench/autotune.h"

#include <algorithm>
#include <cmath>

#include "bench/build_info.h"
#include "bench/environment.h"
#include "bench/machine_cache.h"
#include "bench/workloads.h"
#include "engine/engine.h"
#include "evals/statistics.h"
#include "kernels/core/device.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/thread_pool.h"

namespace moebench {
namespace {

constexpr std::int64_t kChunk = 128;     // tokens of the prompt
constexpr std::int64_t kGpuChunk = 512;  // enough for every expert to have some
constexpr std::int64_t kDecoded = 8;
constexpr int kRounds = 3;
constexpr double kHopeless = 1.5;  // times the best one's time

// Everything that a choice depends on.
std::string key_of(const Plan& plan, const std::filesystem::path& directory, int threads) {
  const gpu::DeviceInfo gpu =
      plan.backend == PlanBackend::kCuda ? gpu::device().info() : gpu::DeviceInfo();
  const std::string text =
      fmt::format("{}|{}|{} {}|{}|{}|{}", read_environment().cpu, threads, gpu.name,
                  gpu.driver_version, std::string(build_info::kGitCommit), plan.canonical_text(),
                  read_text_file(directory / "config.json"));
  return hash_hex(content_hash(text));
}

// Fills in what the cache holds for `candidates`; false if it lacks an op or names one that is not
// among them.
bool take_cached(const Json& entry, const TuningCandidates& candidates, Plan& plan) {
  if (!entry.is_object()) return false;
  const auto is_one_of = [](std::string_view name, const std::vector<std::string>& names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const auto& [op, few] : candidates.few) {
    const auto it = entry.find(op);
    if (it == entry.end() || !it->is_string()) return false;
    const auto named = it->get<std::string>();
    if (!is_one_of(variant_for(named, false), few) ||
        !is_one_of(variant_for(named, true), candidates.many.at(op))) {
      return false;
    }
    plan.ops[op] = named;
  }
  return true;
}

// Without the oracle, which is not there to be fast, unless it is all there is.
std::vector<std::string> worth_timing(std::vector<std::string> names) {
  if (names.size() > 1) std::erase(names, "reference");
  return names;
}

// For which steps a variant is chosen: the CPU's for all of them, since weights lie in memory in
// one order; the GPU's for few tokens, and then for many.
enum class Steps { kAll, kFew, kMany };

double score(const StepTimes& times, Steps steps) {
  const double chunk = median(times.chunk_ms);
  const double token = median(times.token_ms);
  return steps == Steps::kFew ? token : steps == Steps::kMany ? chunk : std::sqrt(chunk * token);
}

OpTables with_variant(OpTables tables, std::string_view op, std::string_view variant, Steps steps) {
  if (steps != Steps::kMany) tables.few = with_variant(tables.few, op, variant);
  if (steps != Steps::kFew) tables.many = with_variant(tables.many, op, variant);
  return tables;
}

// The fastest of `names` for `op` in such steps.
std::string choose(std::string_view op, const std::vector<std::string>& names, Steps steps,
                   const OpTables& tables, const TimeSteps& time, std::string_view plan,
                   const std::function<void(std::string_view)>& report) {
  std::vector<StepTimes> times(names.size());
  std::vector<bool> hopeless(names.size());
  for (int round = 0; round <= kRounds; ++round) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!hopeless[i]) time(with_variant(tables, op, names[i], steps), times[i]);
    }
    if (round > 0) continue;
    // The first round warms up; its times only tell who need not run again.
    double best = score(times[0], steps);
    for (const StepTimes& t : times) best = std::min(best, score(t, steps));
    for (std::size_t i = 0; i < names.size(); ++i) {
      hopeless[i] = score(times[i], steps) > kHopeless * best;
      if (!hopeless[i]) times[i] = {};
    }
  }
  std::size_t best = 0;
  for (std::size_t i = 1; i < names.size(); ++i) {
    if (score(times[i], steps) < score(times[best], steps)) best = i;
  }
  std::string line = fmt::format("autotune {}: {}{}", plan, op,
                                 steps == Steps::kFew    ? " (few tokens)"
                                 : steps == Steps::kMany ? " (many tokens)"
                                                         : "");
  for (std::size_t i = 0; i < names.size(); ++i) {
    line += fmt::format("{} {}{}", i == 0 ? "" : ",", names[i], i == best ? " (chosen)" : "");
    line += score(times[i], steps) >= kCannotRunMs
                ? " cannot run here"
                : fmt::format(" {:.2f} + {:.2f} ms", median(times[i].chunk_ms),
                              median(times[i].token_ms));
  }
  report(line);
  return names[best];
}

// A chunk of a prompt, then single tokens.
void time_steps(Engine& engine, std::span<const std::int32_t> tokens, StepTimes& times) {
  KvCache& cache = *engine.cache;
  struct Lease {
    KvCache& cache;
    std::int32_t sequence;
    ~Lease() { cache.release(sequence); }
  } lease{cache, cache.create()};
  const auto total = static_cast<std::int64_t>(tokens.size());
  Step step;
  for (std::int64_t done = 0; done < total;) {
    const bool is_chunk = done == 0;
    const std::int64_t end = is_chunk ? total - kDecoded : done + 1;
    cache.trim(lease.sequence, done);
    cache.grow(lease.sequence, end);
    step.clear();
    for (; done < end; ++done) {
      step.tokens.push_back(tokens[static_cast<std::size_t>(done)]);
      step.positions.push_back(done);
      step.sequences.push_back(lease.sequence);
    }
    step.logit_rows.push_back(static_cast<std::int32_t>(step.tokens.size()) - 1);
    (is_chunk ? times.chunk_ms : times.token_ms).push_back(engine.model->time_step(step, cache));
  }
}

bool uses_cublaslt(const Plan& plan) {
  return std::any_of(plan.ops.begin(), plan.ops.end(), [](const auto& op) {
    return op.second.find("cublaslt") != std::string::npos;
  });
}

}  // namespace

Plan choose_by_measuring(const Plan& plan, const TuningCandidates& candidates, OpTables tables,
                         const TimeSteps& time,
                         const std::function<void(std::string_view)>& report) {
  Plan tuned = plan;
  // Two variants that are invariant each are not so together.
  const bool apart = plan.backend == PlanBackend::kCuda && plan.family != OpFamily::kInvariant;
  for (const auto& candidate : candidates.few) {
    const std::string& op = candidate.first;
    const auto pick = [&](const std::vector<std::string>& names, Steps steps) {
      const std::vector<std::string> timed = worth_timing(names);
      const std::string best = timed.size() < 2
                                   ? names.front()
                                   : choose(op, timed, steps, tables, time, plan.name, report);
      tables = with_variant(tables, op, best, steps);
      return best;
    };
    std::string best = pick(candidate.second, apart ? Steps::kFew : Steps::kAll);
    if (apart) {
      const std::string for_many = pick(candidates.many.at(op), Steps::kMany);
      if (for_many != best) best += "+" + for_many;
    }
    tuned.ops[op] = best;
  }
  return tuned;
}

Plan autotune(const Plan& plan, const std::filesystem::path& model, int threads,
              const std::function<void(std::string_view)>& report) {
  if (plan.family == OpFamily::kReference) return plan;
  const std::filesystem::path directory = resolve_model(model);
  const ModelConfig config = load_model_config(directory);
  const WeightLayout layout = plan_weights(Checkpoint::open(directory), config, plan);
  const TuningCandidates candidates = {variants_to_choose_from(plan, config, layout, false),
                                       variants_to_choose_from(plan, config, layout, true)};
  const OpTables tables = {layout.ops, layout.many_ops};
  Plan tuned = plan;
  tuned.tunes = uses_cublaslt(plan);
  const auto is_open = [](const OpCandidates& all) {  // whether there is anything to choose between
    return std::any_of(all.begin(), all.end(),
                       [](const auto& op) { return worth_timing(op.second).size() > 1; });
  };
  if (!is_open(candidates.few) && !is_open(candidates.many)) {
    return choose_by_measuring(tuned, candidates, tables, {}, report);
  }
  ThreadPool pool(threads);
  const std::filesystem::path path = machine_cache_path("autotune.json");
  const std::string key = key_of(plan, directory, pool.num_threads());
  Json cache = read_machine_cache(path);
  if (cache.contains(key) && take_cached(cache[key], candidates, tuned)) {
    report(fmt::format("autotune {}: taken from {}", plan.name, path.string()));
    return tuned;
  }

  const std::int64_t chunk = plan.backend == PlanBackend::kCuda ? kGpuChunk : kChunk;
  EngineOptions options;
  options.max_batch = 1;
  options.max_context = std::min(config.max_context, chunk + kDecoded);
  options.step_tokens = chunk;
  Engine engine = load_engine(directory, tuned, options, pool);
  const std::vector<std::int32_t> tokens =
      cut_prompt(make_prompt_source(engine), options.max_context, 0);
  const auto time = [&](const OpTables& with, StepTimes& times) {
    try {
      Engine candidate = with_ops(engine, options, with, pool);
      time_steps(candidate, tokens, times);
    } catch (const Error& error) {  // not at these many tokens
      if (error.code() != ErrorCode::kUnsupported) throw;
      times.chunk_ms.push_back(kCannotRunMs);
      times.token_ms.push_back(kCannotRunMs);
    }
  };
  tuned = choose_by_measuring(tuned, candidates, tables, time, report);
  if (path.empty()) return tuned;
  cache[key] = tuned.ops;
  const std::string problem = write_machine_cache(path, cache);  // if any, measured again next time
  if (!problem.empty()) report(fmt::format("autotune: the choice is not remembered: {}", problem));
  return tuned;
}

}  // namespace moebench
