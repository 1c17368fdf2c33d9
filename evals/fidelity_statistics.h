// What the positions of a fidelity comparison say together: the statistics that llama-perplexity
// prints, under its names, and the divergence by channel and by position of the answer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/tokenizer.h"
#include "evals/fidelity.h"

namespace moebench {

struct NamedStatistic {
  std::string name;  // "Mean PPL(Q)", "99.9%   KLD", "RMS Δp", ...
  double value = 0;
  // Standard error, by trace where llama-perplexity's is by position, since the positions of a
  // trace depend on each other; nothing for one trace, and where values do not differ.
  std::optional<double> standard_error;
};

// The rows of `llama-perplexity --kl-divergence`, in its order; PPL(base) and p(base) are the
// reference's. Ratios, differences and roots have their errors by the delta method. Δp is that of
// the trace's own next token, plan less reference, as a share.
// Source: llama.cpp, tools/perplexity/perplexity.cpp, kl_divergence.
std::vector<NamedStatistic> llama_statistics(const FidelityResult& result);

struct KlGroup {
  std::string name;
  MeanEstimate mean_kl;  // interval by trace, not below 0
};

// By label of each position (label_by_position[i] belongs to kl_by_position[i]), in the order in
// which labels appear.
std::vector<KlGroup> kl_by_label(const FidelityResult& result,
                                 const std::vector<std::string>& label_by_position);

// For each counted position the harmony channel that its next token is content of, "analysis" or
// "final"; "markers" for the tokens between contents. For traces of answers; a tokenizer without
// harmony's special tokens is Error(kUnsupported).
std::vector<std::string> channel_by_position(const Tokenizer& tokenizer,
                                             const std::vector<Trace>& traces);

// Tokens [from, to) of all answers, counted from each answer's first.
struct KlStage {
  std::int64_t from = 0;
  std::int64_t to = 0;
  MeanEstimate mean_kl;  // as in KlGroup
};

// How far a plan is at each stage of an answer. Stages double, since most happens early: [0, 1),
// [1, 3), [3, 7), ...
std::vector<KlStage> kl_by_stage(const FidelityResult& result, const std::vector<Trace>& traces);

}  // namespace moebench
