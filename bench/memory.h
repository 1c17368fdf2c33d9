// Memory as a waterfall: what the engine predicted, what it took, and what the system says is
// resident, category by category; and what the process costs beside the model.
//
//   predicted   before loading, from headers and shapes (predict_memory) and this process so far
//   taken       by the engine's own count of what it asked for
//   measured    pages that are resident (/proc/self/pagemap for the engine's ranges,
//               /proc/self/smaps for the rest)
//
// Pages that nobody has written to or read are not resident, so a cache that is half used looks
// half as large. make_resident() touches everything once, as a long run would: the comparison is
// then of like with like, and no page fault falls into what is timed afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "engine/engine.h"
#include "kernels/core/json_fields.h"

namespace moebench {

// Resident bytes of this process, from smaps. All 0 where /proc does not tell.
struct ProcessMemory {
  std::int64_t rss = 0;
  std::int64_t pss = 0;        // pages that others share count by their share
  std::int64_t code = 0;       // program and libraries
  std::int64_t files = 0;      // checkpoint files (*.safetensors)
  std::int64_t anonymous = 0;  // heap, stacks, buffers
  std::int64_t huge = 0;       // of these, in huge pages
};
// `proc` is /proc/self, or a folder with such a `smaps` file.
ProcessMemory read_process_memory(const std::filesystem::path& proc = "/proc/self");

// Bytes of `range` in pages that are resident; -1 where /proc/self/pagemap does not tell.
std::int64_t resident_bytes_of(std::span<const std::byte> range);

// What a process needs beside the model: predicted before the model is loaded.
struct ProcessPrediction {
  std::int64_t code = 0;
  std::int64_t heap = 0;       // and stacks, without the tokenizer
  std::int64_t tokenizer = 0;  // its tables; 0 without one
};
ProcessPrediction predict_process(const ProcessMemory& before, const std::filesystem::path& model,
                                  const ModelConfig& config);

// Makes every page of the engine's host memory resident, and gives what the heap has free back to
// the system. Returns why not where that is impossible (no room for it: the system's available
// memory, or the limit of the control group), else "".
std::string make_resident(const Engine& engine);

// {"rows": [{"category", "predicted", "taken", "measured"}, ...],
//  "predicted_rss", "measured_rss", "measured_pss", "difference": share, "not_resident": reason}
// The rows add up to the totals; `taken` is absent for what the engine does not count.
OrderedJson memory_waterfall(const Engine& engine, const MemoryBudget& predicted,
                             const ProcessPrediction& process, const ProcessMemory& measured,
                             const std::string& not_resident);

}  // namespace moebench
