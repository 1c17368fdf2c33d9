// Fuzz entry for gate files. Whatever the bytes, what is accepted has margins and a level in range.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kernels/core/error.h"
#include "reports/gate.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const moebench::Gate gate =
        moebench::gate_from_json(moebench::parse_json(text, "gate.json"), "gate.json");
    if (!(gate.level > 0 && gate.level < 1)) std::abort();
    for (const auto& [name, rule] : gate.metrics) {
      if (!(rule.margin >= 0) || !std::isfinite(rule.margin)) std::abort();
      if (!(rule.between_run_sd >= 0 && rule.between_run_sd < 1)) std::abort();
    }
  } catch (const moebench::Error&) {
  }
  return 0;
}
