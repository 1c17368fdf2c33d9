// Running a task: every item asked, every answer graded into the ledger, scores on top.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/sampling.h"
#include "evals/fidelity.h"
#include "evals/ledger.h"
#include "evals/statistics.h"
#include "evals/task.h"
#include "kernels/core/shard.h"

namespace moebench {

struct TaskSettings {
  ReasoningEffort effort = ReasoningEffort::kMedium;
  std::int64_t limit = 0;         // items, from the front; 0: all
  std::vector<std::size_t> only;  // indices of the items to ask, instead of `limit`; empty: no
  std::int64_t repeats = 1;
  std::int64_t max_tokens = 0;  // of one answer; 0: the task's own
  std::string protocol;         // of the task; "": its default
  bool include_items = false;   // texts into the ledger also where the dataset's authors object
  SamplingParams sampling;      // `seed` is combined with item and repeat for each answer
  Shard shard;                  // of the items within the limit: the part that is asked
};

struct TaskHooks {
  // Each new line, in the order of finishing. Lines given as `done` are not repeated.
  std::function<void(const LedgerLine&)> on_line;
  std::function<void(std::int64_t done, std::int64_t total)> on_progress;
  std::function<bool()> stop_requested;  // polled between steps; true ends with kInterrupted
};

// How many items are asked with this limit.
std::size_t num_asked(const TaskData& data, std::int64_t limit);

// Asks what `done` (from an earlier, interrupted run) does not answer yet, and returns all lines,
// the old ones first. The answers do not depend on what was done before, on batch or order.
// Throws Error(kInterrupted) if stop was requested; lines finished by then went to on_line.
std::vector<LedgerLine> run_task(Engine& engine, const Task& task, const TaskSettings& settings,
                                 const std::vector<LedgerLine>& done, const TaskHooks& hooks);

// Scores of a set of lines: the split into verdicts, and the share of correct answers with an
// interval clustered by item.
struct TaskScore {
  std::int64_t num_answers = 0;
  std::array<std::int64_t, kNumVerdicts> verdicts{};
  MeanEstimate accuracy;
  std::map<std::string, MeanEstimate> accuracy_by_category;
  // Of log-likelihood tasks: accuracy with log-probabilities divided by the length of each choice,
  // by "bytes" (lm-eval's acc_bytes), "characters" (its acc_norm) and "tokens".
  std::map<std::string, MeanEstimate> accuracy_by_normalisation;
  double mean_output_tokens = 0;
  double mean_reasoning_tokens = 0;
};
TaskScore score_lines(const std::vector<LedgerLine>& lines);

// The tokens that end an answer: harmony's, and what the checkpoint's configs name.
std::vector<std::int32_t> answer_stop_tokens(const Engine& engine);

// The seed of one answer's draws.
std::uint64_t answer_seed(std::uint64_t seed, std::string_view item, std::int64_t repeat);

// Greedy answers of `engine` to the first `items` items, as traces: the prompt, then its own words.
std::vector<Trace> make_traces(Engine& engine, const Task& task, ReasoningEffort effort,
                               std::int64_t items, std::int64_t max_tokens,
                               const std::function<bool()>& stop_requested);

// What became of an answer after the first token at which the plan would have gone another way.
struct DivergedAnswer {
  std::int64_t token = 0;  // of the answer, from 0
  LedgerLine reference;    // the trace
  LedgerLine plan;         // the same up to that token, and from it on the plan's own greedy words
  bool changed = false;    // another answer is read, or only one of them has one
};
OrderedJson to_json(const DivergedAnswer& answer);

// Follows every divergence in the first traces of `result`, which make_traces made with this
// `max_tokens` and compare_fidelity compared: the plan goes on where it would have. As many answers
// are generated as traces diverge. Texts are left out of the lines where the dataset's authors ask
// for it.
std::vector<DivergedAnswer> follow_divergences(Engine& plan, const Task& task,
                                               std::span<const Trace> traces,
                                               const FidelityResult& result,
                                               std::int64_t max_tokens,
                                               const std::function<bool()>& stop_requested);

}  // namespace moebench
