// The tasks of a run in the files of lm-evaluation-harness, for the tools that read those.
//
//   <folder>/<model>__<plan>/results_<time>.json          scores of all tasks
//   <folder>/<model>__<plan>/samples_<task>_<time>.jsonl  each question with its answers
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "reports/run_results.h"

namespace moebench {

// Writes every task case of `run` that ended well and returns the files. Scores of generated
// answers are "exact_match,<extraction rule>", those of log-likelihood tasks "acc,none",
// "acc_norm,none" and "acc_bytes,none", with the clustered standard error ("..._stderr,...") where
// there is one. A task that a plan ran in several ways (efforts) is named for each: "nano_low".
// Texts that the ledger keeps back are not in the samples either. Throws Error(kInvalidArgument) if
// there is no such case.
std::vector<std::filesystem::path> export_lm_eval(const RunResults& run,
                                                  const std::filesystem::path& folder);

// What lm-eval makes of a model's or task's name where it becomes part of a path: its
// sanitize_model_name.
std::string lm_eval_file_name(std::string name);

}  // namespace moebench
