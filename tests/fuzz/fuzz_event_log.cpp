// Fuzz entry for event logs. Whatever the bytes, a line that is accepted can be written again and
// then reads as the same, and every tool's metrics of an accepted log are finite numbers.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "bench/definitions.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace {

void check(bool ok) {
  if (!ok) std::abort();
}

void check_finite(const moebench::OrderedJson& json) {
  if (json.is_number_float()) check(json.get<double>() - json.get<double>() == 0);
  if (json.is_structured()) {
    for (const auto& inner : json) check_finite(inner);
  }
}

// Whoever buckets by seconds makes a list as long as the log.
constexpr std::int64_t kLongestNs = std::int64_t{100'000} * 1'000'000'000;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  std::vector<moebench::RequestEvents> log;
  try {
    moebench::for_each_json_line(text, "events.jsonl", 64,
                                 [&](const moebench::Json& json, const std::string& place) {
                                   log.push_back(moebench::request_events_from_json(json, place));
                                 });
  } catch (const moebench::Error&) {
    return 0;
  }
  for (const moebench::RequestEvents& events : log) {
    const std::string written = moebench::json_line(moebench::to_json(events));
    const auto again = moebench::request_events_from_json(
        moebench::parse_json(written, "written by us"), "written by us");
    check(moebench::json_line(moebench::to_json(again)) == written);
    if (events.finished_ns > kLongestNs) return 0;
  }
  moebench::LoadFacts facts;
  facts.slo = moebench::parse_slo("ttft:200 itl:50", "fuzz");
  for (const std::string_view name : moebench::definition_names()) {
    try {
      check_finite(moebench::metrics_by(name, log, facts));
    } catch (const moebench::Error&) {
    }
  }
  return 0;
}
