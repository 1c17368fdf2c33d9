// Chunks of a sequence through Model::forward.
#include "engine/scoring.h"

#include <algorithm>

namespace moebench {

void score_sequence(Model& model, KvCache& cache, std::span<const std::int32_t> tokens,
                    std::int64_t first,
                    const std::function<void(std::int64_t, std::span<const float>)>& visit,
                    const Observer* observer) {
  // Releases the sequence on every way out.
  struct Lease {
    KvCache& cache;
    std::int32_t sequence;
    ~Lease() { cache.release(sequence); }
  };
  const Lease lease{cache, cache.create()};
  const auto total = static_cast<std::int64_t>(tokens.size());
  const ModelLimits& limits = model.limits();
  const std::int64_t chunk =
      std::min({limits.max_step_tokens, limits.max_logit_rows, cache.options().max_step});
  Step step;
  for (std::int64_t begin = 0; begin < total; begin += chunk) {
    const std::int64_t end = std::min(total, begin + chunk);
    cache.trim(lease.sequence, begin);
    cache.grow(lease.sequence, end);
    step.clear();
    for (std::int64_t p = begin; p < end; ++p) {
      step.tokens.push_back(tokens[static_cast<std::size_t>(p)]);
      step.positions.push_back(p);
      step.sequences.push_back(lease.sequence);
      if (p >= first) step.logit_rows.push_back(static_cast<std::int32_t>(p - begin));
    }
    const View<const float, 2> logits = model.forward(step, cache, observer);
    for (std::size_t row = 0; row < step.logit_rows.size(); ++row) {
      visit(begin + step.logit_rows[row], logits[static_cast<std::int64_t>(row)].span());
    }
  }
}

}  // namespace moebench
