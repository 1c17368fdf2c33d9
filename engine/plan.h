// A plan: which formats the weights and the cache are held in, and which variant runs each op.
//
// Spelled as
//   reference                     everything as the checkpoint stores it, f32 cache, reference ops
//   fast, accurate                the same weights, run by the variants of that family
//   int4                          as fast, with the experts re-encoded as int4 (any format name)
//   experts=int4,kv=fp8_e4m3,ops=accurate
//                                 one by one: experts, attention, embedding, unembedding and kv
//                                 take a format; ops takes a family (fast unless given); the name
//                                 of an op takes a variant, over the family's (attention takes
//                                 either)
//   cuda, cuda_accurate, cuda_int4, backend=cuda,kv=bf16
//                                 the same on the GPU
//   linear=cuda_rows_bf16+cuda_mma_bf16
//                                 two variants: for steps of few tokens, and of many;
//                                 attention of single tokens takes the first in either
//   backend=cuda,fuse=yes         several ops in one launch, where variants can
//   backend=cuda,overlap=no       each step is read before the next is enqueued
//   {"name": ..., "experts": ..., "ops": {"default": "accurate", "linear": "reference"}}
//                                 the same in JSON (suites, files)
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/json_fields.h"
#include "kernels/formats/format.h"

namespace moebench {

// Who runs the ops that a plan names no variant for. Lists of variants: engine/op_choice.cpp.
enum class OpFamily : std::uint8_t {
  kReference,  // the oracle: plain loops
  kAccurate,   // inputs of 15 bits or float32: close to the reference, at the speed of memory
  kFast,       // inputs may be rounded to int8 (CPU) or bfloat16 (CUDA)
  kInvariant,  // as fast, but the same variant for any number of tokens: a sequence's logits keep
               // their bits in any batch and chunking
};
std::string_view op_family_name(OpFamily family);

enum class PlanBackend : std::uint8_t { kCpu, kCuda };
std::string_view backend_name(PlanBackend backend);  // "cpu", "cuda": as in Variant::backend

// Weight formats: empty means "as stored in the checkpoint".
struct Plan {
  std::string name = "reference";
  PlanBackend backend = PlanBackend::kCpu;
  std::optional<Format> experts;
  std::optional<Format> attention;
  std::optional<Format> embedding;
  std::optional<Format> unembedding;
  Format kv = Format::kF32;
  OpFamily family = OpFamily::kReference;
  // op -> variant, or "variant for few tokens+variant for many", where it is not the family's
  // choice
  std::map<std::string, std::string> ops;
  // Variants with choices of their own (cuBLASLt's algorithms) make them by measuring, the first
  // time they meet a shape. Set by --autotune; in JSON "tune": true.
  bool tunes = false;

  // Variants do on the way what others would do before or after them (the norm before a product,
  // say) where they can: the same bits in fewer launches. In JSON "fuse": true, in words fuse=yes.
  // Families fast and invariant have router and experts do so in any case: the rest was slower on
  // an H200.
  bool fuses = false;

  // On the GPU, steps are enqueued before the last one's tokens are read (Model::overlaps): the
  // same results with less waiting. In JSON "overlap": false, in words overlap=no, to see what it
  // gains.
  bool overlaps = true;

  // The variant named for `op`, or else the name of the family.
  std::string variant_of(std::string_view op) const;
  // Where its weights and activations live.
  Place place() const { return backend == PlanBackend::kCuda ? Place::kDevice : Place::kHost; }
  // Formats and variants only, without the name: two plans with equal keys do the same thing.
  std::string canonical_text() const;
  // "experts int4, cache bf16" or "as stored": for people.
  std::string describe() const;
};

// "a+b" names a for few tokens and b for many; "a" names a for both.
std::string_view variant_for(std::string_view named, bool many_tokens);

Json plan_to_json(const Plan& plan);

// Throws Error(kInvalidArgument) with the nearest name.
Plan parse_plan(std::string_view text);
Plan plan_from_json(const Json& json, const std::string& where);

// Names that parse_plan accepts on their own.
std::vector<std::string> builtin_plan_names();

}  // namespace moebench
