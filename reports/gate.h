// What counts as a regression: a margin for each metric, bounds, and formats that are allowed. A
// gate file says it in JSON; gate.schema.json describes the file.
//
//   {"schema": "moebench.gate/1",
//    "metrics": {"accuracy": {"margin": 0.01, "minimum": 0.6},
//                "decode_tokens_per_second": {"margin": 0.02, "between_run_sd": 0.01},
//                "output_tokens_mean": {"required": false}},
//    "allowed_formats": ["stored", "bf16", "mxfp4"]}
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"

namespace moebench {

inline constexpr std::string_view kGateSchema = "moebench.gate/1";

// How the two sides' values of a metric are made comparable.
enum class Pairing {
  kAnswers,  // same question, same repeat
  kTokens,   // the same, of the answers' lengths
  kTraces,   // same sequence of tokens
  kBlocks,   // same stretch of a text
  kRuns,     // samples of one side against those of the other
  kExact,    // the value itself, which has no spread
};

struct MetricRule {
  std::string family;  // "speed", "accuracy", "fidelity", "memory", "length", "determinism": tests
                       // are corrected for their number within a family
  Pairing pairing = Pairing::kExact;
  bool relative = true;  // the change and the margin are parts of the base's value
  // The largest change for the worse that nobody minds: in parts of the base, or in the metric's
  // unit.
  double margin = 0;
  // Of runs of the same thing, relative: what `Pairing::kRuns` has to add where each side is one
  // run.
  double between_run_sd = 0;
  // Values of both sides below this are the same, whatever their ratio.
  double floor = 0;
  bool required = true;  // whether its verdict decides the exit code
  std::optional<double> minimum;
  std::optional<double> maximum;
};

struct Gate {
  double level = 0.95;  // of intervals; 1 - level is the chance of a false alarm per family
  std::map<std::string, MetricRule, std::less<>> metrics;
  // Of a plan's weight groups and cache, "stored" for weights that are left as they are. Empty:
  // any.
  std::vector<std::string> allowed_formats;
};

// Every metric that is compared, with the margins that hold unless a gate file says otherwise.
Gate default_gate();

// The default gate with what `json` changes. Throws Error(kInvalidArgument) naming `where`, the
// field, and for unknown metrics and formats the nearest name.
Gate gate_from_json(const Json& json, const std::string& where);
Gate load_gate(const std::filesystem::path& path);

}  // namespace moebench
