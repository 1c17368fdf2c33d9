// Fuzz entry for plans, as text and as JSON. Whatever the bytes, a plan that is accepted survives
// being written as JSON and read back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/plan.h"
#include "kernels/core/error.h"

namespace {

void check_round_trip(const moebench::Plan& plan) {
  const moebench::Plan copy = moebench::plan_from_json(moebench::plan_to_json(plan), "fuzz.json");
  if (copy.name != plan.name || copy.canonical_text() != plan.canonical_text()) std::abort();
  if (plan.describe().empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // Each reading in a block of its own: the round trip of an accepted plan must not throw.
  const auto read_and_check = [&](const auto& read) {
    moebench::Plan plan;
    try {
      plan = read();
    } catch (const moebench::Error&) {
      return;
    }
    check_round_trip(plan);
  };
  read_and_check([&] { return moebench::parse_plan(text); });
  read_and_check([&] {
    return moebench::plan_from_json(moebench::parse_json(text, "fuzz.json"), "fuzz.json");
  });
  return 0;
}
