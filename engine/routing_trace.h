// Which experts a model chose, written down: real text does not choose evenly, so kernels are timed
// on what it did choose.
//
// The file is JSON lines: a header, then one line per layer.
//   {"schema": "moebench.routing/1", "model": ..., "text": ..., "num_experts": 32, "top_k": 4,
//    "num_tokens": 512}
//   {"layer": 0, "expert_ids": [3, 17, ...]}     num_tokens * top_k ids, token after token
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace moebench {

inline constexpr std::string_view kRoutingSchema = "moebench.routing/1";

struct RoutingTrace {
  std::string model;  // its name: where it lies is nobody's business
  std::string text;   // what was read
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t num_tokens = 0;
  std::vector<std::vector<std::int32_t>> layers;  // [layer][token * top_k + k]

  // The choices of `count` tokens from `first` on, round the end if need be: [count * top_k].
  std::vector<std::int32_t> window(std::int64_t layer, std::int64_t first,
                                   std::int64_t count) const;
};

// The choices of every layer for `tokens`, in the engine's plan: read as one sequence, or as several
// one after another where they are longer than `sequence_length`, which the engine must have room
// for.
RoutingTrace record_routing(Engine& engine, std::span<const std::int32_t> tokens,
                            std::int64_t sequence_length);

std::string routing_text(const RoutingTrace& trace);

// Throws Error naming `where`, the line and the field: for counts that do not agree, an id beyond
// the experts, an expert that a token chose twice.
RoutingTrace parse_routing(std::string_view text, const std::string& where);
RoutingTrace load_routing(const std::filesystem::path& path);

// How many different experts are among `ids`.
std::int64_t distinct_experts(std::span<const std::int32_t> ids);

}  // namespace moebench
