// Fuzz entry for suites. Whatever the bytes, the cases of an accepted suite have ids of their own,
// and each scenario survives being written as JSON and read back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "bench/suite.h"
#include "kernels/core/error.h"

namespace {

void check(bool ok) {
  if (!ok) std::abort();
}

// Lists multiply: what a small file asks for may take long to write down.
constexpr std::size_t kMostCases = 1000;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  bool is_ours = false;  // not by the message: a file may say whatever stands there
  try {
    const auto suite =
        moebench::parse_suite(moebench::parse_json(text, "suite.json"), "suite.json");
    check(!suite.models.empty() && !suite.plans.empty() && !suite.scenarios.empty());
    const std::size_t most = suite.models.size() * suite.plans.size() * suite.scenarios.size();
    if (most > kMostCases) return 0;
    const auto cases = moebench::expand_suite(suite);
    check(!cases.empty() && cases.size() <= most);
    std::set<std::string> ids;
    for (const moebench::Case& one : cases) {
      check(ids.insert(one.id).second && !one.label().empty());
      is_ours = true;
      const moebench::Json json = moebench::scenario_to_json(one.scenario);
      check(moebench::Json(moebench::scenario_to_json(
                moebench::scenario_from_json(json, "written by us"))) == json);
    }
  } catch (const moebench::Error&) {
    check(!is_ours);
  }
  return 0;
}
