// Reading a run's folder.
#include "reports/run_results.h"

#include <algorithm>

#include "bench/run.h"
#include "bench/run_folder.h"
#include "engine/mapped_file.h"
#include "kernels/core/error.h"
#include "reports/import_results.h"

namespace moebench {

std::vector<LedgerLine> RunResults::answers(std::string_view case_id) const {
  const auto kept = kept_answers.find(case_id);
  return kept != kept_answers.end() ? kept->second : read_ledger(ledger_path(path, case_id));
}

RunResults read_run_results(const std::filesystem::path& path) {
  if (std::filesystem::is_regular_file(path)) {
    ImportedRun imported = import_results(path);
    imported.description["folder"] = path.filename().string();
    return {path, std::move(imported.description), std::move(imported.records),
            std::move(imported.answers)};
  }
  const std::filesystem::path file = path / "run.json";
  require_or(ErrorCode::kIo, std::filesystem::exists(file),
             "read the run {}: there is no run.json in it (a run's folder is what `moebench run "
             "--out` wrote)",
             path.string());
  const Json json = parse_json(read_text_file(file), file.string());
  JsonFields fields(json, file.string());
  const auto schema = fields.required<std::string>("schema");
  require(schema == kRunSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kRunSchema);
  RunResults run;
  run.path = path;
  run.description = OrderedJson::parse(json.dump());
  // The folder's own name: its place on a disk is nobody's business.
  run.description["folder"] = std::filesystem::weakly_canonical(path).filename().string();
  run.records = read_records(path);
  return run;
}

std::vector<RunResults> read_runs_in(const std::filesystem::path& path) {
  require_or(ErrorCode::kIo, std::filesystem::exists(path),
             "read the run {}: there is no such folder or file", path.string());
  std::vector<std::filesystem::path> folders;
  if (std::filesystem::is_directory(path) && !std::filesystem::exists(path / "run.json")) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      if (std::filesystem::exists(entry.path() / "run.json")) folders.push_back(entry.path());
    }
    std::sort(folders.begin(), folders.end());
  }
  if (folders.empty()) folders.push_back(path);
  std::vector<RunResults> runs;
  for (const std::filesystem::path& folder : folders) runs.push_back(read_run_results(folder));
  return runs;
}

}  // namespace moebench
