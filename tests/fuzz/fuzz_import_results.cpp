// Fuzz entry for results of other tools. Whatever the bytes, a record and an answer made from them
// can be written and read again as the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "reports/import_results.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  moebench::ImportedRun run;
  try {
    run = moebench::import_results_text(text, "results.json");
  } catch (const moebench::Error&) {
    return 0;
  }
  if (run.records.empty()) std::abort();
  for (const moebench::Record& record : run.records) {
    const std::string written = moebench::json_line(moebench::to_json(record));
    const moebench::Json json = moebench::parse_json(written, "written by us");
    // Compared as values: what is read again has its keys in another order.
    const auto again = moebench::record_from_json(json, "written by us");
    if (moebench::Json(moebench::to_json(again)) != json) std::abort();
  }
  for (const auto& [case_id, lines] : run.answers) {
    for (const moebench::LedgerLine& line : lines) {
      const std::string written = moebench::json_line(moebench::to_json(line));
      const moebench::Json json = moebench::parse_json(written, "written by us");
      const auto again = moebench::ledger_line_from_json(json, "written by us");
      if (moebench::Json(moebench::to_json(again)) != json || line.item.empty()) std::abort();
    }
  }
  return 0;
}
