// Fuzz entry for the reader of config.json. Whatever the bytes, a config that is accepted can be
// computed with: extents are positive, heads divide, every rotary frequency is finite.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/model_config.h"
#include "engine/rope_table.h"
#include "kernels/core/error.h"

namespace {

void check(bool ok) {
  if (!ok) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto json = moebench::parse_json(text, "config.json");
    const auto config = moebench::parse_model_config(json, "config.json");
    check(config.num_layers > 0 && config.hidden_size > 0 && config.intermediate_size > 0);
    check(config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0);
    check(config.head_dim > 0 && config.head_dim % 2 == 0);
    check(config.top_k > 0 && config.top_k <= config.num_experts);
    check(config.vocab_size > 0 && config.sliding_window > 0 && config.max_context > 0);
    check(config.layer_is_sliding.size() == static_cast<std::size_t>(config.num_layers));
    for (const std::int64_t id : config.stop_token_ids) check(id >= 0 && id < config.vocab_size);
    const auto table = moebench::make_rope_table(config.rope, config.head_dim);
    check(std::isfinite(table.concentration));
    for (const double frequency : table.frequencies) {
      check(std::isfinite(frequency) && frequency >= 0 && frequency <= 1);
    }
  } catch (const moebench::Error&) {
  }
  return 0;
}
