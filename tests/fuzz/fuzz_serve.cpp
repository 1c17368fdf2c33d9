// Fuzz entry for what describes a load: the first line is tried as a length, as limits and as a
// sweep, the rest as a recorded trace. What is accepted is in its bounds.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "bench/arrivals.h"
#include "bench/latency.h"
#include "bench/serve.h"
#include "kernels/core/error.h"

namespace {

void check(bool ok) {
  if (!ok) std::abort();
}

template <class Try>
void may_refuse(const Try& attempt) {
  try {
    attempt();
  } catch (const moebench::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view line = text.substr(0, text.find('\n'));
  may_refuse([&] {
    const moebench::LengthSpec spec = moebench::parse_length(line, "length");
    for (const double u : {0.0, 0.3, 0.999999999}) {
      check(spec.at(u) >= 1 && spec.at(u) <= spec.most());
    }
  });
  may_refuse([&] {
    const moebench::Slo slo = moebench::parse_slo(line, "slo");
    for (const auto& limit : {slo.ttft, slo.ttff, slo.tpot, slo.itl, slo.e2e}) {
      check(!limit || (std::isfinite(*limit) && *limit > 0));
    }
  });
  may_refuse([&] {
    const moebench::Sweep sweep = moebench::parse_sweep(line, "sweep");
    for (const double rate : sweep.rates) check(std::isfinite(rate) && rate > 0);
  });
  may_refuse([&] {
    const std::string_view rest = text.substr(std::min(line.size() + 1, text.size()));
    const auto trace = moebench::parse_trace(rest, "trace.jsonl", true);
    moebench::Arrivals arrivals;
    arrivals.kind = moebench::ArrivalKind::kTrace;
    const auto schedule = moebench::make_schedule(arrivals, {}, {}, trace);
    std::int64_t before = 0;
    for (const auto& request : schedule) {
      check(request.arrival_ns >= before && request.input_tokens > 0 && request.output_tokens > 0);
      before = request.arrival_ns;
    }
  });
  return 0;
}
