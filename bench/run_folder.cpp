// See run_folder.h.
#include "bench/run_folder.h"

#include <map>
#include <string>
#include <utility>

#include "kernels/core/append_file.h"

namespace moebench {

std::filesystem::path ledger_path(const std::filesystem::path& out_dir, std::string_view case_id) {
  return out_dir / "ledger" / fmt::format("{}.jsonl", case_id);
}

std::vector<Record> read_records(const std::filesystem::path& out_dir) {
  std::vector<Record> records;
  std::map<std::string, std::size_t> place;
  for_each_whole_json_line(
      out_dir / "results.jsonl", [&](const Json& json, const std::string& where) {
        Record record = record_from_json(json, where);
        const auto [it, inserted] = place.try_emplace(record.case_id, records.size());
        if (inserted) {
          records.push_back(std::move(record));
        } else {
          records[it->second] = std::move(record);
        }
      });
  return records;
}

}  // namespace moebench
