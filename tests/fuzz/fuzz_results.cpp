// Fuzz entry for the lines that a run writes and a report reads back: records (results.jsonl) and
// answers (ledger/*.jsonl); and for what is remembered of a machine. Each line is tried as all of
// them. Whatever the bytes, what is accepted can be written again, and then reads as the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "bench/record.h"
#include "bench/roofline.h"
#include "evals/ledger.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace {

// `read` makes one kind of line from JSON. Once accepted, nothing may be thrown.
template <class Read>
void check_line(const moebench::Json& json, const std::string& place, const Read& read) {
  std::string written;
  try {
    written = moebench::json_line(to_json(read(json, place)));
  } catch (const moebench::Error&) {
    return;
  }
  const auto again = read(moebench::parse_json(written, "written by us"), "written by us");
  if (moebench::json_line(to_json(again)) != written) std::abort();
  if (written.find('\n') != std::string::npos) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto visit = [](const moebench::Json& json, const std::string& place) {
    check_line(json, place, moebench::ledger_line_from_json);
    check_line(json, place, moebench::record_from_json);
    check_line(json, place, moebench::roofline_from_json);
    check_line(json, place, moebench::ceilings_from_json);
  };
  try {
    moebench::for_each_json_line(text, "results.jsonl", 64, visit);
  } catch (const moebench::Error&) {
  }
  return 0;
}
