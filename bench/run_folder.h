// What lies in the folder of a run, and reading it back.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "bench/record.h"

namespace moebench {

// Where a case's ledger lies in a run's folder.
std::filesystem::path ledger_path(const std::filesystem::path& out_dir, std::string_view case_id);

// Records of a run's folder; of several with one case id, the last.
std::vector<Record> read_records(const std::filesystem::path& out_dir);

}  // namespace moebench
