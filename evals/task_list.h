// The functions behind the table of tasks: each makes the tasks of one file.
#pragma once

#include <cstdint>
#include <vector>

#include "evals/task.h"

namespace moebench {

// Of an answer, where a protocol sets no bound of its own: the models' longest context.
inline constexpr std::int64_t kMaxTaskTokens = 131072;

std::vector<Task> nano_tasks();
std::vector<Task> gpqa_tasks();    // gpqa_diamond, gpqa_main, gpqa_extended
std::vector<Task> math_tasks();    // aime_2024, aime_2025, gsm8k, math_500
std::vector<Task> mmlu_tasks();    // mmlu, mmlu_pro
std::vector<Task> choice_tasks();  // by log-likelihood: arc_*, hellaswag, winogrande, boolq

}  // namespace moebench
