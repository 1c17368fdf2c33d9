// Results of other tools as records, so that a report shows them beside ours.
//
//   llama-bench   -o json, a list, or -o jsonl, one object per line
//   vLLM          the file of `vllm bench serve --save-result`, or lines of such (--append-result)
//   lm-eval, gpt_oss.evals, simple-evals    scores of tasks: reports/import_scores.h
//   lm-eval, samples_*.jsonl                single answers: reports/import_samples.h
//
// Missing and extra keys are accepted, for they change from version to version; a key that is there
// must have its type. What a number counts is not checked: other tools take other prompts, and
// random ids route through other experts.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bench/record.h"
#include "evals/ledger.h"
#include "kernels/core/json_fields.h"

namespace moebench {

struct ImportedRun {
  OrderedJson description;  // as run.json, with what is known
  std::vector<Record> records;
  std::map<std::string, std::vector<LedgerLine>, std::less<>> answers;  // by case id
};

// Throws Error naming `where` for text that is no tool's, or holds no result.
ImportedRun import_results_text(std::string_view text, std::string_view where);
// The file's name names the run. Beside lm-eval's results_<time>.json, the samples of that time are
// the answers. Throws Error naming the file.
ImportedRun import_results(const std::filesystem::path& path);

}  // namespace moebench
