// From the folders of runs to report.json: one document that holds everything a page, a gate or
// another tool wants to know. report.schema.json describes it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench {

inline constexpr std::string_view kReportSchema = "moebench.report/1";

struct ReportOptions {
  std::string title;          // empty: made from the suites' names
  bool include_items = true;  // questions and transcripts
};

// Reads run.json, results.jsonl and the ledgers of each folder. Throws Error(kIo / kParse) naming
// the file that is missing or broken. Ledgers that a killed run left in the middle are fine.
OrderedJson build_report(const std::vector<std::filesystem::path>& runs,
                         const ReportOptions& options = {});

// Writes report.json and report.html into a run's folder, whole or not at all. Returns the path of
// the page.
std::filesystem::path write_report(const std::filesystem::path& run,
                                   const ReportOptions& options = {});

}  // namespace moebench
