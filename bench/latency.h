// Latencies, windows and throughput, derived from the event log. bench/definitions.md has every
// definition beside those of other tools.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/event_log.h"

namespace moebench {

// Milliseconds. A request counts from its arrival (RequestEvents::arrived_ns).
struct LatencySamples {
  std::vector<double> ttft;  // one per request: arrival to first output token
  std::vector<double> ttff;  // one per request with known channels: arrival to first final token
  std::vector<double> tpot;  // one per request of two tokens or more: (last - first) / (tokens - 1)
  std::vector<double> itl;   // all gaps between consecutive output tokens, pooled over requests
  std::vector<double> longest_itl;  // one per request of two tokens or more: its longest gap
  std::vector<double> e2e;          // one per request: arrival to last token
  std::vector<double> queue;        // one per request that started: arrival to its first step
  std::vector<double> lateness;     // one per scheduled request: schedule to submission
};
// A request without tokens adds its lateness and queueing only.
void add_latencies(const RequestEvents& events, LatencySamples& samples);
LatencySamples latencies_of(std::span<const RequestEvents> log);

// --- Service level objectives --------------------------------------------------------------------

// Limits in milliseconds; what is not set does not matter. `itl` limits a request's longest gap.
struct Slo {
  std::optional<double> ttft, ttff, tpot, itl, e2e;
  bool empty() const { return !ttft && !ttff && !tpot && !itl && !e2e; }
};
// "ttft:200 tpot:50 itl:80 e2e:5000", separated by spaces or commas; e2el is another name of e2e,
// as in vLLM. Throws Error(kInvalidArgument) naming `where`.
Slo parse_slo(std::string_view text, std::string_view where);

// Whether a request succeeded and kept within every limit. One token alone has no TPOT and no gap
// to break a limit with; unknown channels break a limit on `ttff`.
bool meets(const RequestEvents& events, const Slo& slo);

// --- Windows and throughput ----------------------------------------------------------------------

struct Window {
  std::int64_t begin_ns = 0;
  std::int64_t end_ns = 0;
  double seconds() const { return static_cast<double>(end_ns - begin_ns) / 1e9; }
};

// From the first arrival to the last end of a request. Nothing for an empty log.
std::optional<Window> whole_window(std::span<const RequestEvents> log);

// Ramp-up ends when the first request has succeeded: until then the number under way has only
// grown. Drain begins with the last arrival: from then on it only shrinks. Steady is what lies
// between; nothing if that is no time at all.
std::optional<Window> steady_window(std::span<const RequestEvents> log);

// What happened in (begin, end]: requests by their end, input tokens by the first output token,
// which completes the prompt, output tokens by their own times. Failed requests do not count.
struct Throughput {
  double requests = 0;       // per second
  double input_tokens = 0;   // per second
  double output_tokens = 0;  // per second
  double total_tokens() const { return input_tokens + output_tokens; }
};
Throughput throughput_in(std::span<const RequestEvents> log, const Window& window);

// The largest number of requests between arrival and end at one moment.
std::int64_t peak_concurrency(std::span<const RequestEvents> log);

}  // namespace moebench
