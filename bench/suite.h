// Suites: JSON files that say which models, plans and scenarios to run, and their expansion into
// cases. CONTRIBUTING.md and bench/suites/demo.json show every field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/scenario.h"
#include "engine/engine.h"
#include "engine/plan.h"
#include "kernels/core/json_fields.h"

namespace moebench {

struct Suite {
  std::string name;
  std::string description;
  std::vector<std::string> models;  // directories, or "nano"
  std::vector<Plan> plans;
  std::vector<Scenario> scenarios;
  int threads = 0;                // 0: one per usable CPU
  std::int64_t timeout_s = 3600;  // of one case
  EngineOptions engine;           // batch, context and step of tasks
};

// The unit of isolation, of resuming and of sharding.
struct Case {
  std::string id;  // 16 hexadecimal digits of (model, plan, scenario, engine settings)
  std::string model;
  Plan plan;
  Scenario scenario;

  std::string label() const;  // "int4 / nano high"
};

// Throws Error(kInvalidArgument) naming `where`, the field, and for unknown names the nearest one.
Suite parse_suite(const Json& json, const std::string& where);

// Reads a suite file, or the shipped suite of that name, after applying `settings`: "key=value"
// with a dotted path ("tasks.0.limit=50"; "*" stands for every element of a list).
Suite load_suite(const std::filesystem::path& path, const std::vector<std::string>& settings);

// Every (model, plan) with all scenarios, in order; `load` comes first for each, `fidelity` to the
// plan itself is left out.
std::vector<Case> expand_suite(const Suite& suite);

}  // namespace moebench
