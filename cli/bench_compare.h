// What `moebench bench` does with two arms or more: time them in turns, and say which is faster.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/arm_process.h"
#include "bench/paired_timing.h"
#include "cli/command.h"

namespace moebench::cli {

struct BenchCompareOptions {
  bool no_interleave = false;
  std::string against_program;
  double budget_s = 0;  // 0: 90 for each test
  double precision_percent = 2;
  double threshold_percent = 2;
  double block_s = 0.02;
  std::uint64_t seed = 1;
  bool fail_if_slower = false;
  bool inconclusive_ok = false;
  std::string out;
};

void add_compare_options(CLI::App* command, BenchCompareOptions& options);

// What is compared on what: arms[0] is the base.
struct ComparedTests {
  std::string model;
  std::vector<ArmSpec> arms;
  std::vector<std::string> names;  // "pp512", "tg128", ...
  std::vector<Scenario> scenarios;
  int threads = 0;
  std::int64_t rounds = 0;  // 0: as many as it takes
};

// The arms of the plans, or of one plan run by `options.against_program` (the base) and by this
// program. Throws Error(kUsage) for a program that cannot be one.
std::vector<ArmSpec> make_arms(const std::vector<Plan>& plans, const BenchCompareOptions& options);

struct CompareResult {
  PairedTiming timing;
  std::vector<OrderedJson> arm_details;  // what each arm said of itself
};
// Calls on_session, if there is one, with what is known after each session.
CompareResult compare(const ComparedTests& tests, const BenchCompareOptions& options,
                      const std::function<void(const CompareResult&)>& on_session = {});

// Everything, raw samples included, as one object.
OrderedJson comparison_json(const ComparedTests& tests, const BenchCompareOptions& options,
                            const CompareResult& result);

// One line per arm and test, and what they rest on.
std::string comparison_text(const ComparedTests& tests, const BenchCompareOptions& options,
                            const CompareResult& result, bool markdown);

// The tokens per second of an arm's blocks on a test, in the order of time; of the base those of
// its first process.
std::vector<double> block_rates(const PairedTiming& timing, std::size_t arm, std::size_t test);

// kExitOk, or with --fail-if-slower kExitRegression or kExitInconclusive.
int comparison_exit_code(const BenchCompareOptions& options, const PairedTiming& timing);

}  // namespace moebench::cli
