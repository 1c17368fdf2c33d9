// Putting the parts of a run together again: what `run --shard` and `eval --shard` did on several
// machines becomes the folder of one run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace moebench {

struct MergeOutcome {
  std::int64_t cases_total = 0;      // of the suite
  std::int64_t cases_ok = 0;         // with a good record
  std::vector<std::string> missing;  // labels of cases without any record
  std::vector<std::string> notes;    // what a reader should know

  bool complete() const { return cases_ok == cases_total; }
};

// Writes run.json, results.jsonl, ledgers, event logs and traces of `runs`, folders of runs of one
// suite, into `out_dir`. Of a case that several parts ran, the first good record counts (every part
// loads its plans). Parts of a task's questions become one record, scored over all answers; rates
// and energy of such a record are left out, since its parts ran on several machines. A case whose
// parts are not all there and good is a failed one that says which.
// Throws Error(kIo / kParse / kInvalidArgument) for folders that are none, for runs of different
// suites, models, plans or settings, and if `out_dir` holds a run.
MergeOutcome merge_runs(const std::vector<std::filesystem::path>& runs,
                        const std::filesystem::path& out_dir);

}  // namespace moebench
