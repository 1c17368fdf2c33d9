// The same traces, arranged in several ways.
#include "evals/invariance.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/scoring.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

using Logits = std::vector<std::vector<float>>;  // [position][vocab_size], trace after trace

Logits run_alone(Engine& engine, const std::vector<Trace>& traces, std::int64_t chunk) {
  Logits rows;
  for (const Trace& trace : traces) {
    SequenceScorer scorer(*engine.model, *engine.cache, trace.tokens, 0);
    while (!scorer.done()) {
      const auto part = scorer.advance(std::min(chunk, scorer.max_chunk()));
      for (std::int64_t r = 0; r < part.logits.shape[0]; ++r) {
        const auto row = part.logits[r].span();
        rows.emplace_back(row.begin(), row.end());
      }
    }
  }
  return rows;
}

// All traces side by side, one token each per step; trace i starts i steps late, so that every
// position meets another mix of neighbours.
Logits run_together(Engine& engine, const std::vector<Trace>& traces) {
  KvCache& cache = *engine.cache;
  struct Lease {
    KvCache& cache;
    std::vector<std::int32_t> sequences;
    ~Lease() {
      for (const std::int32_t s : sequences) cache.release(s);
    }
  } lease{cache, {}};
  std::vector<std::size_t> first_row;
  std::size_t total = 0;
  std::size_t longest = 0;
  for (const Trace& trace : traces) {
    lease.sequences.push_back(cache.create());
    first_row.push_back(total);
    total += trace.tokens.size();
    longest = std::max(longest, trace.tokens.size());
  }
  Logits rows(total);
  for (std::size_t number = 0; number < longest + traces.size(); ++number) {
    Step step;
    std::vector<std::size_t> owner;
    for (std::size_t i = 0; i < traces.size(); ++i) {
      if (number < i || number - i >= traces[i].tokens.size()) continue;
      const auto position = static_cast<std::int64_t>(number - i);
      cache.trim(lease.sequences[i], position);
      cache.grow(lease.sequences[i], position + 1);
      step.logit_rows.push_back(static_cast<std::int32_t>(step.tokens.size()));
      step.tokens.push_back(traces[i].tokens[number - i]);
      step.positions.push_back(position);
      step.sequences.push_back(lease.sequences[i]);
      owner.push_back(first_row[i] + number - i);
    }
    if (step.tokens.empty()) continue;
    const auto logits = engine.model->forward(step, cache);
    for (std::size_t r = 0; r < owner.size(); ++r) {
      const auto row = logits[static_cast<std::int64_t>(r)].span();
      rows[owner[r]].assign(row.begin(), row.end());
    }
  }
  return rows;
}

ArrangementResult compare(std::string name, const Logits& want, const Logits& got) {
  ArrangementResult result;
  result.name = std::move(name);
  result.num_positions = static_cast<std::int64_t>(want.size());
  for (std::size_t p = 0; p < want.size(); ++p) {
    if (std::memcmp(want[p].data(), got[p].data(), want[p].size() * sizeof(float)) == 0) continue;
    ++result.num_different;
    for (std::size_t i = 0; i < want[p].size(); ++i) {
      const double d = std::fabs(static_cast<double>(want[p][i]) - static_cast<double>(got[p][i]));
      if (!(d <= result.max_abs_difference)) {
        result.max_abs_difference = std::isfinite(d) ? d : std::numeric_limits<double>::infinity();
      }
    }
  }
  return result;
}

}  // namespace

bool InvarianceResult::batch_invariant() const {
  return std::all_of(arrangements.begin(), arrangements.end(),
                     [](const ArrangementResult& a) { return a.num_different == 0; });
}

InvarianceResult measure_invariance(Engine& engine, const std::vector<Trace>& traces) {
  require(!traces.empty(), "measure invariance: there are no traces");
  const auto most = static_cast<std::size_t>(engine.model->limits().max_logit_rows);
  const std::vector<Trace> used(
      traces.begin(), traces.begin() + static_cast<std::ptrdiff_t>(std::min(most, traces.size())));
  constexpr std::int64_t kWhole = std::numeric_limits<std::int64_t>::max();
  const Logits base = run_alone(engine, used, kWhole);
  InvarianceResult result;
  result.again = compare("again", base, run_alone(engine, used, kWhole));
  result.arrangements.push_back(compare("one token at a time", base, run_alone(engine, used, 1)));
  result.arrangements.push_back(compare("chunks of 7", base, run_alone(engine, used, 7)));
  result.arrangements.push_back(
      compare(fmt::format("batch of {}", used.size()), base, run_together(engine, used)));
  if (engine.weights->plan.backend == PlanBackend::kCuda) {
    // Everything above ran as graphs where it could: steps of few tokens whose shape came again.
    engine.model->set_graphs(false);
    result.arrangements.push_back(compare("graphs off", base, run_alone(engine, used, kWhole)));
    result.arrangements.push_back(
        compare("one token at a time, graphs off", base, run_alone(engine, used, 1)));
    engine.model->set_graphs(true);
  }
  std::uint64_t hash = 0;
  for (const auto& row : base) hash = content_hash(std::as_bytes(std::span(row)), hash);
  result.digest = hash_hex(hash);
  return result;
}

}  // namespace moebench
