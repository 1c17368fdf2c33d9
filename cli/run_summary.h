// Running a suite from a command: progress while it goes, the table and the report at the end.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bench/run.h"

namespace moebench::cli {

// Runs, writes the report and prints the summary table. Returns the exit code: 0 if every case is
// ok, 2 otherwise.
int run_and_report(const Suite& suite, RunOptions options);

// One row per (model, plan), one column per scenario that occurs.
std::string summary_table(const std::vector<Record>& records);

// To standard output: one JSON array of records.
void print_as_json(const std::vector<Record>& records);

// To standard error: a line for each benchmark that failed. Returns the exit code: 0 if none did, 2
// otherwise.
int report_failures(const std::vector<Record>& records);

// "moebench-out/<name>-<UTC time>"
std::filesystem::path default_out_dir(const std::string& name);

}  // namespace moebench::cli
