// The event log: what happened to each request, and when. Every latency metric is derived from it.
//
// A run keeps one file per case, events/ID.jsonl, one line per request, appended when it ends:
//
//   {"id": 3, "point": 0, "scheduled_ns": 750000000, "submitted_ns": 750120000, "started_ns": ...,
//    "token_ns": [...], "channels": "rrrof", "finished_ns": ..., "finish": "length", "error": "",
//    "prompt_tokens": 512, "cached_tokens": 0}
//
// Times are nanoseconds since the start of the point on the steady clock, never negative and in
// order: submitted <= started <= first token <= ... <= finished.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/scheduler.h"
#include "engine/tokenizer.h"
#include "kernels/core/json_fields.h"

namespace moebench {

// What an output token belongs to, one letter per token in RequestEvents::channels.
inline constexpr char kReasoningToken = 'r';  // text on harmony's channel analysis
inline constexpr char kFinalToken = 'f';      // text on channel final: what the user reads
inline constexpr char kOtherToken = 'o';      // markers, headers and other channels

struct RequestEvents {
  std::uint64_t id = 0;
  std::int64_t point = 0;  // repetition of a workload, or point of a sweep, counted from 0
  std::optional<std::int64_t> scheduled_ns;  // when it should arrive; nothing in a closed loop
  std::int64_t submitted_ns = 0;             // when the engine was given it
  std::optional<std::int64_t> started_ns;    // when it left the queue; nothing if it never did
  std::vector<std::int64_t> token_ns;        // when each output token was known
  std::string channels;                      // one letter per token; empty: not known
  std::int64_t finished_ns = 0;
  FinishReason finish = FinishReason::kLength;
  std::string error;               // of FinishReason::kFailed
  std::int64_t prompt_tokens = 0;  // all of the prompt
  std::int64_t cached_tokens = 0;  // of these, found in the cache

  // When the user began to wait: the schedule's time if there is one. A load generator that falls
  // behind its schedule must not hide the waiting that this causes ("coordinated omission").
  std::int64_t arrived_ns() const { return scheduled_ns.value_or(submitted_ns); }
  std::int64_t output_tokens() const { return static_cast<std::int64_t>(token_ns.size()); }
  // Whether it ended by itself, with at least one token.
  bool succeeded() const {
    return finish != FinishReason::kCancelled && finish != FinishReason::kFailed &&
           !token_ns.empty();
  }
};

// The events of a result whose times count from `origin_ns` on the steady clock.
RequestEvents events_of(const RequestResult& result, std::int64_t origin_ns);

// The letters of an answer to a prompt for completion in the harmony format.
// Throws Error(kUnsupported) if the tokenizer lacks harmony's special tokens.
std::string token_channels(const Tokenizer& tokenizer, std::span<const std::int32_t> tokens);

OrderedJson to_json(const RequestEvents& events);
// Throws Error(kInvalidArgument) naming `where` and the field: unknown fields, times that are
// negative or out of order, letters that do not match the tokens.
RequestEvents request_events_from_json(const Json& json, const std::string& where);

// Where a case's log lies in a run's folder.
std::filesystem::path event_log_path(const std::filesystem::path& out_dir,
                                     std::string_view case_id);

// All lines of a log, a last one that was cut off left out. Throws Error(kIo) if there is no such
// file.
std::vector<RequestEvents> read_event_log(const std::filesystem::path& path);

}  // namespace moebench
