// Fidelity: how far a plan's output distribution is from the reference's, on known token sequences.
//
// Both models are fed the same tokens (teacher forcing) and compared position by position: no
// sampling noise, so a few thousand positions tell what accuracy needs a hundred thousand for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "evals/statistics.h"

namespace moebench {

// A sequence to compare on. Only positions that predict tokens[first..] count: the model's own
// words, not the prompt.
struct Trace {
  std::string id;
  std::vector<std::int32_t> tokens;
  std::int64_t first = 1;  // index of the first counted token, >= 1
};

struct FidelityResult {
  std::int64_t num_traces = 0;
  std::int64_t num_positions = 0;

  // KL(reference || plan) of the next-token distributions, in nats, per position.
  MeanEstimate mean_kl;  // as mean_kl_estimate
  double median_kl = 0;
  double p90_kl = 0;
  double p99_kl = 0;
  double max_kl = 0;

  // Share of positions where both agree on the most probable token.
  MeanEstimate top1_agreement;

  // Mean over positions of |p_plan - p_reference| of the trace's own next token.
  double mean_abs_delta_p = 0;
  // exp of the mean negative log-probability of the trace under each.
  double reference_perplexity = 0;
  double plan_perplexity = 0;

  // Share of (position, layer) where the set of chosen experts differs; then by layer.
  double router_flip_rate = 0;
  std::vector<double> router_flip_rate_by_layer;

  // Half the sum over experts of |weight under the plan - weight under the reference|, an expert
  // that was not chosen having none: what share of the gates' mass lies elsewhere. Mean over
  // positions and layers, as mean_kl_estimate; then by layer. A flip between two experts that
  // hardly count moves little, and weights may move without a flip.
  MeanEstimate gate_mass_moved;
  std::vector<double> gate_mass_moved_by_layer;

  // Per trace: the first counted token (0 = the first of the answer) at which the most probable
  // tokens differ; -1 if they never do.
  std::vector<std::int64_t> first_divergence;
  // Per trace: what the plan finds most probable there; -1 if they never differ.
  std::vector<std::int32_t> diverged_to;

  // Of all positions, trace after trace: the divergence, the log-probabilities of the trace's own
  // next token, and the number of the trace.
  std::vector<double> kl_by_position;
  std::vector<double> reference_log_probabilities;
  std::vector<double> plan_log_probabilities;
  std::vector<std::int64_t> trace_by_position;
};

// The mean of divergences (or of other quantities of 0 or more), of which those of one trace depend
// on each other. From 20 traces on the
// interval is that of drawing whole traces with replacement ("bootstrap_by_trace"): a few positions
// hold most of a divergence, and the t interval ("clustered_t", with fewer) would be symmetric. Not
// below 0; none where every divergence is 0.
MeanEstimate mean_kl_estimate(const std::vector<double>& kl,
                              const std::vector<std::int64_t>& traces);

// Both engines must run the same model. Throws Error(kInvalidArgument) if their vocabularies or
// layers differ, or if a logit is not finite.
FidelityResult compare_fidelity(Engine& reference, Engine& plan, const std::vector<Trace>& traces);

// Traces as a file holds them: one JSON object per line, {"id", "tokens", "first"}.
std::vector<Trace> load_traces(const std::filesystem::path& path);
std::string traces_text(const std::vector<Trace>& traces);

}  // namespace moebench
