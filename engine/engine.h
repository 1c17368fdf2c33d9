// Engine: everything that turns a model directory and a plan into answers: tokenizer, weights,
// model and cache, sized together.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/plan.h"
#include "engine/tokenizer.h"
#include "engine/weights.h"

namespace moebench {

struct EngineOptions {
  std::int64_t max_batch = 16;   // sequences decoded at once
  std::int64_t max_context = 0;  // positions of one sequence; 0: the model's, at most 4096
  std::int64_t step_tokens = 0;  // tokens of one step: bounds prompt chunks; 0: by the backend
  std::int64_t kv_tokens = 0;    // positions over all sequences; 0: max_batch * max_context
  std::int64_t logit_rows = 0;   // rows of logits of one step; 0: max_batch
};

// Where memory goes, in bytes. Weights that are used in the mapped file count like any other: they
// are resident once touched.
struct MemoryBudget {
  std::array<std::size_t, kNumWeightGroups> weights{};  // by WeightGroup
  std::size_t kv_cache = 0;
  std::size_t activations = 0;
  std::size_t workspace = 0;
  std::size_t logits = 0;
  std::size_t graphs = 0;  // of the GPU: predicted by the rule of Model::memory_needed

  std::size_t total_weights() const;
  std::size_t total() const;
};

struct Engine {
  std::filesystem::path directory;
  std::optional<Tokenizer> tokenizer;  // absent if the directory has none
  std::shared_ptr<const Weights> weights;
  std::unique_ptr<Model> model;
  std::unique_ptr<KvCache> cache;

  // The tokenizer, or an Error(kUnsupported) that says what needs it.
  const Tokenizer& require_tokenizer() const;

  MemoryBudget memory() const;

  // Where that memory lies, if it is the host's: what the system can be asked about.
  struct Range {
    std::string category;  // "kv_cache", "activations", "workspace", "logits", or a weight group's
    std::span<const std::byte> bytes;
    bool mapped = false;  // part of the checkpoint's file
  };
  std::vector<Range> host_ranges() const;
};

// What EngineOptions::kv_tokens is for so many sequences of this length at once: whole pages for
// each, otherwise the last of a full batch would wait for the first.
std::int64_t kv_tokens_for(std::int64_t context, std::int64_t sequences);

// `model` is a directory or the word nano (see resolve_model).
Engine load_engine(const std::filesystem::path& model, const Plan& plan,
                   const EngineOptions& options, ThreadPool& pool);

// A second engine on the same weights with other variants: what a plan's speed is checked against.
Engine with_ops(const Engine& engine, const EngineOptions& options, const OpTables& ops,
                ThreadPool& pool);

// What load_engine would take, from headers and shapes alone. Of a plan for a GPU that is not
// here, within the life of a gpu::DescribedDevice (kernels/core/described_device.h).
MemoryBudget predict_memory(const std::filesystem::path& model, const Plan& plan,
                            const EngineOptions& options, int num_threads);
MemoryBudget predict_memory(const ModelConfig& config, const WeightLayout& layout, const Plan& plan,
                            const EngineOptions& options, int num_threads);

// A path as it is; the word "nano" becomes the directory of the model that ships, unless a model
// of that name lies in the current directory.
std::filesystem::path resolve_model(const std::filesystem::path& model);

}  // namespace moebench
