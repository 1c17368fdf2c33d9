// Drawing of schedules, by inverting distribution functions: one random number per draw.
#include "bench/arrivals.h"

#include <algorithm>
#include <array>
#include <boost/math/distributions/gamma.hpp>
#include <boost/math/distributions/normal.hpp>
#include <charconv>
#include <cmath>

#include "engine/mapped_file.h"
#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/random.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::int64_t kMostLength = std::int64_t{1} << 24;
constexpr std::size_t kMostRequests = 1'000'000;
constexpr double kMostSeconds = 1e7;
constexpr double kNsPerSecond = 1e9;

// Streams of random numbers, by what they are for.
enum Stream : std::uint64_t { kGapStream = 1, kInputStream = 2, kOutputStream = 3 };

constexpr std::array<std::string_view, 5> kArrivalNames = {"poisson", "constant", "burst", "trace",
                                                           "closed"};

template <class Number>
Number parse_number(std::string_view text, std::string_view whole, std::string_view where) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc() && end == text.data() + text.size(),
          "{}: '{}' is no length; 512, uniform:256:1024 and lognormal:400:0.6[:MOST] are", where,
          whole.substr(0, 60));
  return value;
}

std::int64_t checked_length(std::int64_t length, std::string_view where) {
  return in_range<std::int64_t>(length, 1, kMostLength, where);
}

// The gap before request `index`, in seconds.
double gap_seconds(const Arrivals& arrivals, std::uint64_t index) {
  if (std::isinf(arrivals.rate)) return 0;
  const double mean = 1 / arrivals.rate;
  const double u = random_uniform(arrivals.seed, kGapStream, index);
  switch (arrivals.kind) {
    case ArrivalKind::kPoisson:
      return -std::log1p(-u) * mean;
    case ArrivalKind::kBurst: {
      // As vLLM: shape b and scale mean / b, so that b changes the spread (1 / sqrt(b) of the mean)
      // and not the mean. A quantile of 0 exactly would be an error for some shapes.
      const boost::math::gamma_distribution<double> gamma(arrivals.burstiness,
                                                          mean / arrivals.burstiness);
      return u > 0 ? boost::math::quantile(gamma, u) : 0;
    }
    default:
      return mean;
  }
}

}  // namespace

std::int64_t LengthSpec::at(double uniform) const {
  if (kind == Kind::kFixed) return high;
  if (kind == Kind::kUniform) {
    return std::min(high,
                    low + static_cast<std::int64_t>(uniform * static_cast<double>(high - low + 1)));
  }
  const double u = std::clamp(uniform, 1e-15, 1 - 1e-15);
  const double z = boost::math::quantile(boost::math::normal(), u);
  const double length = std::round(median * std::exp(sigma * z));
  return static_cast<std::int64_t>(std::clamp(length, 1.0, static_cast<double>(high)));
}

LengthSpec parse_length(std::string_view text, std::string_view where) {
  std::vector<std::string_view> parts;
  for (std::string_view rest = text;;) {
    const std::size_t colon = rest.find(':');
    parts.push_back(rest.substr(0, colon));
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  const auto whole = [&](std::size_t i) {
    return checked_length(parse_number<std::int64_t>(parts[i], text, where), where);
  };
  LengthSpec spec;
  if (parts[0] == "uniform" && parts.size() == 3) {
    spec.kind = LengthSpec::Kind::kUniform;
    spec.low = whole(1);
    spec.high = whole(2);
    require(spec.low <= spec.high, "{}: '{}' has its larger end first", where, text);
  } else if (parts[0] == "lognormal" && (parts.size() == 3 || parts.size() == 4)) {
    spec.kind = LengthSpec::Kind::kLognormal;
    spec.median = in_range<double>(parse_number<double>(parts[1], text, where), 1.0,
                                   static_cast<double>(kMostLength), where);
    spec.sigma = in_range<double>(parse_number<double>(parts[2], text, where), 0.0, 5.0, where);
    const double three_sigma = std::ceil(spec.median * std::exp(3 * spec.sigma));
    spec.high =
        parts.size() == 4
            ? whole(3)
            : static_cast<std::int64_t>(std::min(three_sigma, static_cast<double>(kMostLength)));
  } else {
    require(parts.size() == 1,
            "{}: '{}' is no length; 512, uniform:256:1024 and lognormal:400:0.6[:MOST] are", where,
            text.substr(0, 60));
    spec.low = spec.high = whole(0);
  }
  return spec;
}

std::string_view arrival_kind_name(ArrivalKind kind) {
  return kArrivalNames[static_cast<std::size_t>(kind)];
}

ArrivalKind parse_arrival_kind(std::string_view name, std::string_view where) {
  return static_cast<ArrivalKind>(index_of_name(kArrivalNames, name, where, "kind of arrivals"));
}

std::vector<TraceRequest> parse_trace(std::string_view text, std::string_view where,
                                      bool needs_times) {
  std::vector<TraceRequest> trace;
  double first_ms = 0;
  double last_ms = 0;
  for_each_json_line(text, where, 8, [&](const Json& json, const std::string& place) {
    JsonFields fields(json, place);
    TraceRequest request;
    if (needs_times || fields.has("timestamp")) {
      const double ms = in_range<double>(fields.required<double>("timestamp"), 0.0,
                                         kMostSeconds * 1e3, fields.path("timestamp"));
      if (trace.empty()) first_ms = last_ms = ms;
      require(ms >= last_ms, "{}: {} ms comes after a line of {} ms; sort the trace by time",
              fields.path("timestamp"), ms, last_ms);
      last_ms = ms;
      request.arrival_ns = static_cast<std::int64_t>(std::llround((ms - first_ms) * 1e6));
    }
    request.input_tokens =
        checked_length(fields.required<std::int64_t>("input_length"), fields.path("input_length"));
    request.output_tokens = checked_length(fields.required<std::int64_t>("output_length"),
                                           fields.path("output_length"));
    fields.ignore("hash_ids");
    fields.finish();
    require(trace.size() < kMostRequests, "{}: more than {} requests", place, kMostRequests);
    trace.push_back(request);
  });
  require(!trace.empty(), "{}: the trace holds no request", where);
  return trace;
}

std::vector<TraceRequest> read_trace(const std::filesystem::path& path, bool needs_times) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 30;
  return parse_trace(read_text_file(path, kMostBytes), path.string(), needs_times);
}

std::vector<ScheduledRequest> make_schedule(const Arrivals& arrivals, const LengthSpec& input,
                                            const LengthSpec& output,
                                            const std::vector<TraceRequest>& trace) {
  const bool recorded = arrivals.kind == ArrivalKind::kTrace;
  const bool closed = arrivals.kind == ArrivalKind::kClosed;
  require(!recorded || !trace.empty(), "make a schedule: arrivals of a trace need a trace");
  require(recorded || closed || arrivals.rate > 0,
          "make a schedule: a rate of {} requests per second is not positive", arrivals.rate);
  require(arrivals.burstiness > 0, "make a schedule: burstiness {} is not positive",
          arrivals.burstiness);
  auto most = static_cast<std::size_t>(
      in_range<std::int64_t>(arrivals.requests, 0, kMostRequests, "make a schedule: requests"));
  if (most == 0) most = kMostRequests;
  if (recorded) most = std::min(most, trace.size());
  std::vector<ScheduledRequest> schedule;
  double seconds = 0;
  for (std::size_t i = 0; i < most; ++i) {
    ScheduledRequest request;
    if (recorded) {
      request.arrival_ns = trace[i].arrival_ns;
    } else if (!closed && i > 0) {
      seconds += gap_seconds(arrivals, i);
      require(seconds <= kMostSeconds, "make a schedule: it would take more than {} s",
              kMostSeconds);
      request.arrival_ns = static_cast<std::int64_t>(std::llround(seconds * kNsPerSecond));
    }
    if (arrivals.duration_s > 0 &&
        static_cast<double>(request.arrival_ns) >= arrivals.duration_s * kNsPerSecond) {
      break;
    }
    if (trace.empty()) {
      request.input_tokens = input.at(random_uniform(arrivals.seed, kInputStream, i));
      request.output_tokens = output.at(random_uniform(arrivals.seed, kOutputStream, i));
    } else {
      request.input_tokens = trace[i % trace.size()].input_tokens;
      request.output_tokens = trace[i % trace.size()].output_tokens;
    }
    schedule.push_back(request);
  }
  return schedule;
}

}  // namespace moebench
