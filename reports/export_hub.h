// A run's accuracy as the Hugging Face Hub reads it from model repositories: `model-index` for a
// model card's YAML header, and files for `.eval_results/`.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "reports/run_results.h"

namespace moebench {

// A text in double quotes, as YAML and JSON have it in common.
std::string yaml_text(std::string_view text);

// All task cases of `plan` (empty: the run has only one plan of tasks; else
// Error(kInvalidArgument) names them) as a `model-index` block: an entry per case, accuracy in per
// cent; interval, plan, effort and protocol stand in the metric's args.
// Source: huggingface_hub, "Model Cards: model-index"; hub-docs, modelcard.md.
std::string model_index_yaml(const RunResults& run, const std::string& plan = "");

struct HubFile {
  std::string name;  // "gpqa_diamond_high.yaml"
  std::string text;
};

// The cases of `plan` whose dataset is known to be on the Hub, a file each: a list of one result,
// accuracy in per cent, as its `notes` say with plan, effort and interval. None is no error.
// Source: hub-docs, eval-results.md (marked as work in progress there).
std::vector<HubFile> eval_results_yaml(const RunResults& run, const std::string& plan = "");

}  // namespace moebench
