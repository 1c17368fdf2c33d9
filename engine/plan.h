// A plan: which formats the weights and the cache are held in, and which variant runs each op.
//
// Spelled as
//   reference                     everything as the checkpoint stores it, f32 cache, reference ops
//   int4                          the same, with the experts re-encoded as int4 (any format name)
//   experts=int4,kv=fp8_e4m3      groups and ops one by one: experts, attention, embedding,
//                                 unembedding, kv take a format; op names take a variant
//   {"name": ..., "experts": ..., "ops": {"linear": "reference"}}    the same in JSON (suites,
//   files)
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"
#include "kernels/formats/format.h"

namespace moebench {

// Weight formats: empty means "as stored in the checkpoint".
struct Plan {
  std::string name = "reference";
  std::optional<Format> experts;
  std::optional<Format> attention;
  std::optional<Format> embedding;
  std::optional<Format> unembedding;
  Format kv = Format::kF32;
  std::map<std::string, std::string> ops;  // op -> variant; absent ops run `reference`

  std::string variant_of(std::string_view op) const;
  // Formats and variants only, without the name: two plans with equal keys do the same thing.
  std::string canonical_text() const;
  // "experts int4, cache bf16" or "as stored": for people.
  std::string describe() const;
};

Json plan_to_json(const Plan& plan);

// Throws Error(kInvalidArgument) with the nearest name.
Plan parse_plan(std::string_view text);
Plan plan_from_json(const Json& json, const std::string& where);

// Names that parse_plan accepts on their own.
std::vector<std::string> builtin_plan_names();

}  // namespace moebench
