// Event logs written by hand, in milliseconds.
#pragma once

#include "bench/event_log.h"

namespace moebench::test {

inline constexpr std::int64_t kMs = 1'000'000;

// A request that was submitted at once when it arrived, and ended with its last token.
inline RequestEvents request(std::uint64_t id, std::int64_t arrival_ms,
                             const std::vector<std::int64_t>& token_ms, std::int64_t prompt = 10) {
  RequestEvents events;
  events.id = id;
  events.scheduled_ns = arrival_ms * kMs;
  events.submitted_ns = arrival_ms * kMs;
  events.started_ns = arrival_ms * kMs;
  for (const std::int64_t ms : token_ms) events.token_ns.push_back(ms * kMs);
  events.finished_ns = (token_ms.empty() ? arrival_ms : token_ms.back()) * kMs;
  events.prompt_tokens = prompt;
  return events;
}

}  // namespace moebench::test
