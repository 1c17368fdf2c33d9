// From a file to the metrics of its perplexity.
#include "bench/perplexity_case.h"

#include <cmath>
#include <numbers>

#include "engine/mapped_file.h"
#include "evals/perplexity.h"
#include "kernels/core/hash.h"

namespace moebench {

void run_perplexity(Engine& engine, const PerplexityScenario& scenario, const WorkloadHooks& hooks,
                    Record& record) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 30;
  const std::string text = read_text_file(scenario.text, kMostBytes);
  PerplexitySettings settings;
  settings.window = scenario.window;
  settings.stride = scenario.stride;
  settings.prefix = text_start(engine.require_tokenizer());
  const PerplexityResult result =
      measure_perplexity(engine, text, settings, hooks.on_progress, hooks.stop_requested);

  // Both are increasing functions of the mean, and so are the ends of their intervals.
  const double bits = static_cast<double>(result.num_tokens) / std::numbers::ln2 /
                      static_cast<double>(result.num_bytes);
  const auto add = [&](const char* name, const char* unit, double value, double (*of)(double),
                       double factor) {
    Metric metric = plain_metric(value, unit, "lower", result.num_tokens);
    metric.interval_method = "a text of one block shows no error";
    if (const auto& nll = result.mean_nll_interval) {
      metric.interval = Interval{of(factor * nll->low), of(factor * nll->high), nll->level};
      metric.interval_method = "block_bootstrap";
    }
    record.metrics[name] = metric;
  };
  add(
      "perplexity", "per token", result.perplexity, [](double x) { return std::exp(x); }, 1);
  add(
      "bits_per_byte", "bits/byte", result.bits_per_byte, [](double x) { return x; }, bits);
  record.details["text"] = scenario.text;
  record.details["content_hashes"]["text"] = hash_hex(content_hash(text));
  record.details["window"] = result.window;
  record.details["stride"] = result.stride;
  record.details["windows"] = result.num_windows;
  record.details["tokens"] = result.num_tokens;
  record.details["bytes"] = result.num_bytes;
  record.details["prefix_token"] = settings.prefix ? OrderedJson(*settings.prefix) : OrderedJson();
  record.details["block_tokens"] = result.block;
  record.details["nll_by_block"] = result.nll_by_block;
}

}  // namespace moebench
