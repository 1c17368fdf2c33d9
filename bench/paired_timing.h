// The procedure of a speed comparison: sessions of fresh processes, rounds in mirrored random
// order, a look at the data after each session, and an end as soon as every question is answered or
// the budget is used up. bench/README.md says why.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "bench/comparison.h"

namespace moebench {

struct PairedTiming;

struct PairedOptions {
  std::size_t num_arms = 2;  // the first is the base
  std::size_t num_tests = 1;
  double budget_s = 90;     // wall time, starting of processes included
  double precision = 0.02;  // width of the interval of a ratio that is narrow enough
  double threshold = 0.02;  // differences up to this share do not matter
  std::uint64_t seed = 1;   // of the order
  std::int64_t rounds = 0;  // of each test, exactly; 0: as many as it takes
  double alpha = 0.05;      // chance that any interval misses
  bool self_test = true;    // a second process of the base stands beside the first
  // After each session: what is known so far (`complete` is false).
  std::function<void(const PairedTiming&)> on_session;
};

struct PairedTiming {
  std::vector<TimedSample> samples;
  std::vector<Comparison> comparisons;  // by arm (from 1), then by test
  // The base against itself, by test: its verdict must be SAME or INCONCLUSIVE. Empty without.
  std::vector<Comparison> self_tests;
  std::int64_t sessions = 0;
  double elapsed_s = 0;
  bool interrupted = false;
  bool complete = false;                                            // the measuring has ended
  std::map<std::pair<std::size_t, std::size_t>, Trouble> troubles;  // by arm and test
  std::int64_t unsteady_warm_ups = 0;  // that were still getting faster when measuring began
};

// Why an arm has no samples of a test.
Trouble trouble_of(const PairedTiming& timing, std::size_t arm, std::size_t test);

// Never throws for what happens to an arm: its comparisons say it. Error(kInterrupted) of the host
// ends the measuring; what was measured is in the result.
PairedTiming run_paired(ArmHost& host, const PairedOptions& options);

}  // namespace moebench
