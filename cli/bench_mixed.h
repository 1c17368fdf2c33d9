// `moebench bench --mixed`: what a prompt that arrives does to those who are being answered.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebench::cli {

// The options of the command that count here; each combination is one test.
struct MixedBench {
  std::string model;
  std::vector<std::string> plans;      // timed one after another
  std::vector<std::int64_t> prompt;    // tokens of the prompt that arrives
  std::vector<std::int64_t> generate;  // tokens of each sequence that decodes; 4 at least
  std::vector<std::int64_t> batch;     // sequences that decode
  std::vector<std::int64_t> depth;     // tokens that each of them has before
  std::int64_t repetitions = 5;
  int threads = 0;
  bool autotune = false;
  std::string output;  // text, md or json (records)
};
// Runs and prints. Returns the exit code.
int run_mixed_bench(const MixedBench& bench);

}  // namespace moebench::cli
