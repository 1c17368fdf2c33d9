// One load of the weights; then, op by op, every candidate runs whole steps with it, taking turns.
#include "bench/autotune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "bench/build_info.h"
#include "bench/environment.h"
#include "bench/workloads.h"
#include "engine/engine.h"
#include "engine/op_choice.h"
#include "engine/scoring.h"
#include "evals/statistics.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

constexpr std::int64_t kChunk = 128;  // tokens of the prompt
constexpr std::int64_t kDecoded = 8;
constexpr int kRounds = 3;
constexpr double kHopeless = 1.5;  // times the best one's time

std::filesystem::path cache_file() {
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder != nullptr && *folder != '\0') {
    return std::filesystem::path(folder) / "moebench" / "autotune.json";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::filesystem::path(home) / ".cache" / "moebench" / "autotune.json";
  }
  return {};
}

// An unreadable file is an empty one: it is only a memory of measurements.
Json read_cache(const std::filesystem::path& path) {
  if (path.empty() || !std::filesystem::exists(path)) return Json::object();
  try {
    Json cache = parse_json(read_text_file(path, 1 << 20), path.string(), 4);
    return cache.is_object() ? cache : Json::object();
  } catch (const Error&) {
    return Json::object();
  }
}

// Everything that a choice depends on.
std::string key_of(const Plan& plan, const std::filesystem::path& directory, int threads) {
  const std::string text = fmt::format("{}|{}|{}|{}|{}", read_environment().cpu, threads,
                                       std::string(build_info::kGitCommit), plan.canonical_text(),
                                       read_text_file(directory / "config.json"));
  return hash_hex(content_hash(text));
}

// Fills in what the cache holds for `choices`; false if it lacks an op or names one that is not
// among them.
bool take_cached(const Json& entry, const std::map<std::string, std::vector<std::string>>& choices,
                 Plan& plan) {
  if (!entry.is_object()) return false;
  for (const auto& [op, names] : choices) {
    const auto it = entry.find(op);
    if (it == entry.end() || !it->is_string()) return false;
    const auto name = it->get<std::string>();
    if (std::find(names.begin(), names.end(), name) == names.end()) return false;
    plan.ops[op] = name;
  }
  return true;
}

// Without the oracle, which is not there to be fast, unless it is all there is.
std::vector<std::string> worth_timing(std::vector<std::string> names) {
  if (names.size() > 1) std::erase(names, "reference");
  return names;
}

// Seconds of a chunk and of a decoded token.
struct StepTimes {
  std::vector<double> chunk, token;
  double score() const { return std::sqrt(median(chunk) * median(token)); }
};

void time_steps(Engine& engine, std::span<const std::int32_t> tokens, StepTimes& times) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::time_point since) {
    return std::chrono::duration<double>(Clock::now() - since).count();
  };
  SequenceScorer scorer(*engine.model, *engine.cache, tokens,
                        static_cast<std::int64_t>(tokens.size()) - kDecoded);
  auto begin = Clock::now();
  while (scorer.position() < static_cast<std::int64_t>(tokens.size()) - kDecoded) {
    scorer.advance(std::min(scorer.max_chunk(), static_cast<std::int64_t>(tokens.size()) -
                                                    kDecoded - scorer.position()));
  }
  times.chunk.push_back(seconds(begin));
  while (!scorer.done()) {
    begin = Clock::now();
    scorer.advance(1);
    times.token.push_back(seconds(begin));
  }
}

}  // namespace

Plan autotune(const Plan& plan, const std::filesystem::path& model, int threads,
              const std::function<void(std::string_view)>& report) {
  if (plan.family == OpFamily::kReference) return plan;
  const std::filesystem::path directory = resolve_model(model);
  const ModelConfig config = load_model_config(directory);
  const auto choices = variants_to_choose_from(
      plan, config, plan_weights(Checkpoint::open(directory), config, plan));
  Plan tuned = plan;
  bool is_open = false;  // whether there is anything to choose between
  for (const auto& [op, names] : choices) {
    tuned.ops[op] = names.front();
    is_open = is_open || worth_timing(names).size() > 1;
  }
  if (!is_open) return tuned;
  ThreadPool pool(threads);
  const std::filesystem::path path = cache_file();
  const std::string key = key_of(plan, directory, pool.num_threads());
  Json cache = read_cache(path);
  if (cache.contains(key) && take_cached(cache[key], choices, tuned)) {
    report(fmt::format("autotune {}: taken from {}", plan.name, path.string()));
    return tuned;
  }

  EngineOptions options;
  options.max_batch = 1;
  options.max_context = std::min(config.max_context, kChunk + kDecoded);
  options.step_tokens = kChunk;
  options.logit_rows = kChunk;  // it bounds the chunks of a scored sequence
  Engine engine = load_engine(directory, plan, options, pool);
  const std::vector<std::int32_t> tokens =
      cut_prompt(make_prompt_source(engine), options.max_context, 0);
  OpTable ops = engine.weights->layout.ops;
  for (const auto& [op, names] : choices) {
    const std::vector<std::string> timed = worth_timing(names);
    if (timed.size() < 2) continue;
    std::vector<StepTimes> times(timed.size());
    std::vector<bool> hopeless(timed.size());
    for (int round = 0; round <= kRounds; ++round) {
      for (std::size_t i = 0; i < timed.size(); ++i) {
        if (hopeless[i]) continue;
        Engine candidate = with_ops(engine, options, with_variant(ops, op, timed[i]), pool);
        time_steps(candidate, tokens, times[i]);
      }
      if (round > 0) continue;
      // The first round warms up; its times only tell who need not run again.
      double best = times[0].score();
      for (const StepTimes& t : times) best = std::min(best, t.score());
      for (std::size_t i = 0; i < timed.size(); ++i) {
        hopeless[i] = times[i].score() > kHopeless * best;
        if (!hopeless[i]) times[i] = {};
      }
    }
    std::size_t best = 0;
    for (std::size_t i = 1; i < timed.size(); ++i) {
      if (times[i].score() < times[best].score()) best = i;
    }
    tuned.ops[op] = timed[best];
    ops = with_variant(ops, op, timed[best]);
    std::string line = fmt::format("autotune {}: {}", plan.name, op);
    for (std::size_t i = 0; i < timed.size(); ++i) {
      line += fmt::format("{} {}{} {:.2f} + {:.2f} ms", i == 0 ? "" : ",", timed[i],
                          i == best ? " (chosen)" : "", 1e3 * median(times[i].chunk),
                          1e3 * median(times[i].token));
    }
    report(line);
  }
  if (path.empty()) return tuned;
  cache[key] = tuned.ops;
  try {
    std::filesystem::create_directories(path.parent_path());
    write_file_atomically(path, cache.dump(1));
  } catch (const std::exception& error) {  // measured again next time
    report(fmt::format("autotune: the choice is not remembered: {}", error.what()));
  }
  return tuned;
}

}  // namespace moebench
