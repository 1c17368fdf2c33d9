// Accuracy measured by other harnesses as records. Called by import_results.
//
//   lm-eval        results_<time>.json of lm-evaluation-harness, samples_<task>_<time>.jsonl
//   gpt_oss.evals  <eval>_<model>-<effort>_temp<T>_<time>.json, or its ..._allresults.json
//   simple-evals   <eval>_<model>.json
//
// The latter two do not say in the file what was asked: their names do.
#pragma once

#include <string>
#include <vector>

#include "bench/record.h"
#include "kernels/core/json_fields.h"

namespace moebench {

bool is_lm_eval(const Json& json);
bool is_simple_evals(const Json& json);

// A record per task and answer filter, of kind "task"; metrics: accuracy (acc, exact_match), per
// character (acc_norm) and byte (acc_bytes), bits_per_byte; what else there is, is left out. The
// interval is the normal one of lm-eval's standard error. Throws Error naming `where` and the key
// for scores that are no shares; a file of lm-eval without any known score gives no record. Details
// "lm_eval" name the task and the filter as the file does.
std::vector<Record> lm_eval_records(const Json& json, const std::string& where);

// The record of what one filter made of the samples of a file: no metrics yet, and of no known
// model, since they do not say.
Record lm_eval_samples_record(const std::string& task, const std::string& filter);

// One record; without an interval, since the files do not say how many questions there were.
Record simple_evals_record(const Json& json, const std::string& file, const std::string& where);

}  // namespace moebench
