// When requests arrive and how long they are: schedules for the workload `serve`.
//
// Everything drawn is a pure function of (seed, what it is for, number of the request): the same
// seed gives the same schedule, and more requests do not change the ones before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

// A number of tokens, written
//   512                            always 512
//   uniform:256:1024               each whole number from 256 to 1024, equally likely
//   lognormal:400:0.6[:MOST]       median 400, the logarithm's standard deviation 0.6; cut at 1 and
//                                  at MOST, which is e^(3 * 0.6) medians if not given
struct LengthSpec {
  enum class Kind { kFixed, kUniform, kLognormal };
  Kind kind = Kind::kFixed;
  std::int64_t low = 1;   // kUniform: the least
  std::int64_t high = 1;  // the most; of kFixed the length itself
  double median = 0;      // kLognormal
  double sigma = 0;

  std::int64_t most() const { return high; }
  // `uniform` in [0, 1): the inverse of the distribution function there.
  std::int64_t at(double uniform) const;
};
// Throws Error(kInvalidArgument) naming `where`.
LengthSpec parse_length(std::string_view text, std::string_view where);

enum class ArrivalKind {
  kPoisson,   // gaps are exponential: independent users
  kConstant,  // gaps are equal
  kBurst,     // gaps follow a gamma distribution of shape `burstiness`
  kTrace,     // times are recorded ones
  kClosed,    // no times: a new request comes when one has finished
};
std::string_view arrival_kind_name(ArrivalKind kind);
// Throws Error(kInvalidArgument) naming `where` and the nearest name.
ArrivalKind parse_arrival_kind(std::string_view name, std::string_view where);

// One request of a recorded trace.
struct TraceRequest {
  std::int64_t arrival_ns = 0;  // since the first request of the trace
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
};
// Reads JSON lines {"timestamp": milliseconds, "input_length": n, "output_length": n}, the format
// of the Mooncake traces (FAST 2025), whose "hash_ids" are ignored. Times must not decrease.
// `needs_times` false: the timestamp may be absent, for a file of lengths.
// Throws Error naming the file, the line and the field.
std::vector<TraceRequest> parse_trace(std::string_view text, std::string_view where,
                                      bool needs_times);
std::vector<TraceRequest> read_trace(const std::filesystem::path& path, bool needs_times);

struct Arrivals {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate = 1;              // requests per second; infinity: all at once. Not of a trace
  double burstiness = 1;        // shape of kBurst: 1 is Poisson, less is more bursty
  std::int64_t requests = 100;  // the most; 0: a million
  double duration_s = 0;        // none arrives after this; 0: no limit
  std::uint64_t seed = 0;
};

struct ScheduledRequest {
  std::int64_t arrival_ns = 0;  // since the start; 0 of a closed loop
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
};

// The first request arrives at 0. Lengths come from `trace` if it is not empty (over and over, if
// there are more requests than lines), else from the specs. A trace's times are used by kTrace
// only, which ends with the trace.
std::vector<ScheduledRequest> make_schedule(const Arrivals& arrivals, const LengthSpec& input,
                                            const LengthSpec& output,
                                            const std::vector<TraceRequest>& trace);

}  // namespace moebench
