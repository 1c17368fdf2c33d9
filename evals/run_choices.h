// Log-likelihood tasks: which continuation does the model find most probable?
#pragma once

#include <span>
#include <vector>

#include "engine/engine.h"
#include "evals/run_task.h"

namespace moebench {

// Whether the items are scored by the likelihood of their options.
bool is_choice_task(const TaskData& data);

// The log-probability of `option.continuation` after `option.context`, in nats, without any chat
// format. Tokens are those of the two texts together, of which the context's own come first; spaces
// that end the context count to the continuation. A text longer than the model's context loses its
// beginning. Throws Error(kInvalidArgument) if nothing comes before the continuation.
// Source: lm-evaluation-harness, TemplateLM._encode_pair and HFLM._loglikelihood_tokens.
OptionScore score_option(Engine& engine, const ScoredOption& option);

// The items of these indices, one line each; the answer is the option of highest log-probability.
// See run_task for the rest. Repeats are refused: they would all be the same.
std::vector<LedgerLine> run_choices(Engine& engine, const Task& task, const TaskData& data,
                                    std::span<const std::size_t> indices,
                                    const TaskSettings& settings,
                                    const std::vector<LedgerLine>& done, const TaskHooks& hooks);

}  // namespace moebench
