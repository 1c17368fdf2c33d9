// The feasibility frontier: how long a context how many sequences can have under a plan in a given
// memory, from headers and shapes alone. Nothing is loaded, and there need be no checkpoint.
//
// The arithmetic is predict_memory's, so sliding-window layers hold only their window, and a step's
// activations, workspace and logits count. Source of the shapes: engine/synthetic_checkpoint.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/engine.h"
#include "engine/model_config.h"
#include "engine/plan.h"

namespace moebench {

// A model without its numbers.
struct ModelOutline {
  std::string name;
  ModelConfig config;
  Checkpoint checkpoint;
  bool only_shape = false;  // there is no checkpoint: "20b" and "120b"
};
// `model` is a directory or the word nano (resolve_model), or else a shape's name, 20b or 120b.
// Throws Error as Checkpoint::open.
ModelOutline outline_model(const std::filesystem::path& model);

// A memory to fit into. Not all of it is ours: a laptop keeps a quarter for system and programs, a
// GPU a twentieth for its context and what the allocator loses.
struct MemorySize {
  std::string name;  // "24 GB GPU"
  double bytes = 0;
  double usable = 0;  // share

  double usable_bytes() const { return bytes * usable; }
};
// 16 GB laptop, 24, 48, 80 and 141 GB GPU.
std::vector<MemorySize> usual_memory_sizes();
// `gigabytes` of which 95 % are usable.
MemorySize memory_size(double gigabytes);

inline constexpr std::int64_t kFrontierBatches[] = {1, 8, 32, 128};

struct FrontierPoint {
  std::int64_t batch = 0;
  std::int64_t max_context = 0;  // of each sequence; 0: not even one page of positions fits
  std::size_t bytes = 0;         // taken there; or by one page, where that does not fit
};
struct Frontier {
  MemorySize memory;
  bool weights_fit = false;
  std::vector<FrontierPoint> points;  // one per batch
};

// The longest context of `batch` sequences that are decoded at once, up to the model's own, in
// whole KV pages. Everything else of `options` is kept.
FrontierPoint longest_context(const ModelConfig& config, const WeightLayout& layout,
                              const Plan& plan, const EngineOptions& options, int num_threads,
                              std::int64_t batch, double usable_bytes);

std::vector<Frontier> feasibility_frontier(const ModelConfig& config, const WeightLayout& layout,
                                           const Plan& plan, int num_threads,
                                           const std::vector<MemorySize>& sizes);

// {"memories": [{"name", "bytes", "usable_bytes", "weights_fit", "max_context": {"1": 131072,
// ...}}]}
OrderedJson to_json(const std::vector<Frontier>& frontier);

}  // namespace moebench
