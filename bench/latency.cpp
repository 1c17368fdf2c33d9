// The arithmetic of bench/latency.h.
#include "bench/latency.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

double milliseconds(std::int64_t from_ns, std::int64_t to_ns) {
  return static_cast<double>(to_ns - from_ns) / 1e6;
}

std::optional<double> first_final_ms(const RequestEvents& events) {
  const std::size_t at = events.channels.find(kFinalToken);
  if (at == std::string::npos) return std::nullopt;
  return milliseconds(events.arrived_ns(), events.token_ns[at]);
}

std::optional<double> tpot_ms(const RequestEvents& events) {
  if (events.token_ns.size() < 2) return std::nullopt;
  return milliseconds(events.token_ns.front(), events.token_ns.back()) /
         static_cast<double>(events.token_ns.size() - 1);
}

std::optional<double> longest_gap_ms(const RequestEvents& events) {
  if (events.token_ns.size() < 2) return std::nullopt;
  double longest = 0;
  for (std::size_t i = 1; i < events.token_ns.size(); ++i) {
    longest = std::max(longest, milliseconds(events.token_ns[i - 1], events.token_ns[i]));
  }
  return longest;
}

}  // namespace

void add_latencies(const RequestEvents& events, LatencySamples& samples) {
  const std::int64_t arrived = events.arrived_ns();
  if (events.scheduled_ns) {
    samples.lateness.push_back(milliseconds(*events.scheduled_ns, events.submitted_ns));
  }
  if (events.started_ns) samples.queue.push_back(milliseconds(arrived, *events.started_ns));
  const auto& times = events.token_ns;
  if (times.empty()) return;
  samples.ttft.push_back(milliseconds(arrived, times.front()));
  samples.e2e.push_back(milliseconds(arrived, times.back()));
  if (const auto final_ms = first_final_ms(events)) samples.ttff.push_back(*final_ms);
  for (std::size_t i = 1; i < times.size(); ++i) {
    samples.itl.push_back(milliseconds(times[i - 1], times[i]));
  }
  if (const auto tpot = tpot_ms(events)) samples.tpot.push_back(*tpot);
  if (const auto gap = longest_gap_ms(events)) samples.longest_itl.push_back(*gap);
}

LatencySamples latencies_of(std::span<const RequestEvents> log) {
  LatencySamples samples;
  for (const RequestEvents& events : log) {
    if (events.succeeded()) add_latencies(events, samples);
  }
  return samples;
}

Slo parse_slo(std::string_view text, std::string_view where) {
  static constexpr std::array<std::string_view, 6> kNames = {"ttft", "ttff", "tpot",
                                                             "itl",  "e2e",  "e2el"};
  Slo slo;
  const std::array<std::optional<double>*, 6> limits = {&slo.ttft, &slo.ttff, &slo.tpot,
                                                        &slo.itl,  &slo.e2e,  &slo.e2e};
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(" ,"), text.size()));
    if (text.empty()) return slo;
    const std::string_view pair = text.substr(0, text.find_first_of(" ,"));
    text.remove_prefix(pair.size());
    const std::size_t colon = pair.find(':');
    require(colon != std::string_view::npos,
            "{}: '{}' is not NAME:MILLISECONDS, as in ttft:200 tpot:50", where, pair);
    const std::size_t name = index_of_name(kNames, pair.substr(0, colon), where, "latency");
    const std::string_view number = pair.substr(colon + 1);
    double value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    require(error == std::errc() && end == number.data() + number.size() && std::isfinite(value) &&
                value > 0,
            "{}: '{}' of {} is not a positive number of milliseconds", where, number, kNames[name]);
    require(!limits[name]->has_value(), "{}: {} has two limits", where, kNames[name]);
    *limits[name] = value;
  }
}

bool meets(const RequestEvents& events, const Slo& slo) {
  if (!events.succeeded()) return false;
  const auto within = [](std::optional<double> limit, double value) {
    return !limit || value <= *limit;
  };
  const auto final_ms = first_final_ms(events);
  return within(slo.ttft, milliseconds(events.arrived_ns(), events.token_ns.front())) &&
         (!slo.ttff || (final_ms && *final_ms <= *slo.ttff)) &&
         within(slo.tpot, tpot_ms(events).value_or(0)) &&
         within(slo.itl, longest_gap_ms(events).value_or(0)) &&
         within(slo.e2e, milliseconds(events.arrived_ns(), events.token_ns.back()));
}

std::optional<Window> whole_window(std::span<const RequestEvents> log) {
  if (log.empty()) return std::nullopt;
  Window window{log.front().arrived_ns(), log.front().finished_ns};
  for (const RequestEvents& events : log) {
    window.begin_ns = std::min(window.begin_ns, events.arrived_ns());
    window.end_ns = std::max(window.end_ns, events.finished_ns);
  }
  return window;
}

std::optional<Window> steady_window(std::span<const RequestEvents> log) {
  Window window{std::numeric_limits<std::int64_t>::max(), 0};
  for (const RequestEvents& events : log) {
    if (events.succeeded()) window.begin_ns = std::min(window.begin_ns, events.finished_ns);
    window.end_ns = std::max(window.end_ns, events.arrived_ns());
  }
  if (window.begin_ns >= window.end_ns) return std::nullopt;
  return window;
}

Throughput throughput_in(std::span<const RequestEvents> log, const Window& window) {
  if (window.end_ns <= window.begin_ns) return {};
  const auto inside = [&](std::int64_t ns) { return ns > window.begin_ns && ns <= window.end_ns; };
  std::int64_t requests = 0;
  std::int64_t input = 0;
  std::int64_t output = 0;
  for (const RequestEvents& events : log) {
    if (!events.succeeded()) continue;
    if (inside(events.finished_ns)) ++requests;
    if (inside(events.token_ns.front())) input += events.prompt_tokens;
    output += std::count_if(events.token_ns.begin(), events.token_ns.end(), inside);
  }
  const double seconds = window.seconds();
  return {static_cast<double>(requests) / seconds, static_cast<double>(input) / seconds,
          static_cast<double>(output) / seconds};
}

std::int64_t peak_concurrency(std::span<const RequestEvents> log) {
  // At one moment ends come before arrivals: who takes a free place is not beside who left it.
  std::vector<std::pair<std::int64_t, int>> changes;
  for (const RequestEvents& events : log) {
    changes.emplace_back(events.arrived_ns(), 1);
    changes.emplace_back(events.finished_ns, -1);
  }
  std::sort(changes.begin(), changes.end());
  std::int64_t now = 0;
  std::int64_t peak = 0;
  for (const auto& [ns, change] : changes) peak = std::max(peak, now += change);
  return peak;
}

}  // namespace moebench
