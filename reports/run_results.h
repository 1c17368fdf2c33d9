// What a run's folder holds, read back: the description, the records, and where answers lie.
#pragma once

#include <filesystem>
#include <map>
#include <string_view>
#include <vector>

#include "bench/record.h"
#include "evals/ledger.h"
#include "kernels/core/json_fields.h"

namespace moebench {

struct RunResults {
  std::filesystem::path path;
  OrderedJson description;  // run.json, and "folder": the folder's own name
  std::vector<Record> records;
  // Of a run that is no folder (reports/history.h, or another tool's), by case id.
  std::map<std::string, std::vector<LedgerLine>, std::less<>> kept_answers = {};

  // The answers of a task case of this run.
  std::vector<LedgerLine> answers(std::string_view case_id) const;
};

// `path` may also be a file of another tool's results (reports/import_results.h). Throws Error(kIo
// / kParse / kInvalidArgument) naming the file that is missing, broken or of another version. Files
// that a killed run left in the middle of a line are fine.
RunResults read_run_results(const std::filesystem::path& path);

// The run in `path`; or, if it is a folder without run.json, the runs in the folders in it, by
// name.
std::vector<RunResults> read_runs_in(const std::filesystem::path& path);

}  // namespace moebench
