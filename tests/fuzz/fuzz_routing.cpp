// Fuzz entry for recorded routings. Whatever is accepted can be cut into windows and written again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/routing_trace.h"
#include "kernels/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  bool is_ours = false;  // not by the message: a file may say whatever stands there
  try {
    const moebench::RoutingTrace trace = moebench::parse_routing(text, "routing.jsonl");
    const auto window = trace.window(0, trace.num_tokens - 1, 2);
    for (const std::int32_t id : window) {
      if (id < 0 || id >= trace.num_experts) std::abort();
    }
    is_ours = true;
    const auto again = moebench::parse_routing(moebench::routing_text(trace), "written by us");
    if (again.layers != trace.layers) std::abort();
  } catch (const moebench::Error&) {
    if (is_ours) std::abort();
  }
  return 0;
}
