// Two models in step over the same tokens.
#include "evals/fidelity.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/mapped_file.h"
#include "engine/sampling.h"
#include "engine/scoring.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"

namespace moebench {
namespace {

struct Position {
  double kl = 0;
  bool same_top1 = false;
  std::int32_t plan_top1 = 0;
  double reference_log_probability = 0;  // of the trace's next token
  double plan_log_probability = 0;
};

std::size_t argmax(std::span<const float> logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Position compare_position(std::span<const float> reference, std::span<const float> plan,
                          std::int32_t next_token) {
  for (const auto& [name, logits] : {std::pair{"reference", reference}, {"plan", plan}}) {
    for (const float logit : logits) {
      require(std::isfinite(logit), "compare fidelity: the {} gives a logit of {}", name, logit);
    }
  }
  const double reference_norm = log_sum_exp(reference);
  const double plan_norm = log_sum_exp(plan);
  Position result;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double log_p = static_cast<double>(reference[i]) - reference_norm;
    const double log_q = static_cast<double>(plan[i]) - plan_norm;
    result.kl += std::exp(log_p) * (log_p - log_q);
  }
  result.kl = std::max(result.kl, 0.0);  // rounding can leave -1e-17
  result.plan_top1 = static_cast<std::int32_t>(argmax(plan));
  result.same_top1 = argmax(reference) == static_cast<std::size_t>(result.plan_top1);
  const auto next = static_cast<std::size_t>(next_token);
  result.reference_log_probability = static_cast<double>(reference[next]) - reference_norm;
  result.plan_log_probability = static_cast<double>(plan[next]) - plan_norm;
  return result;
}

// The experts a token was sent to, and their weights, by expert.
using Gates = std::vector<std::pair<std::int32_t, float>>;

bool same_experts(const Gates& a, const Gates& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first; });
}

double mass_moved(const Gates& reference, const Gates& plan) {
  double sum = 0;
  std::size_t i = 0;
  std::size_t j = 0;
  while (i < reference.size() || j < plan.size()) {
    const bool only_reference =
        j == plan.size() || (i < reference.size() && reference[i].first < plan[j].first);
    const bool only_plan =
        i == reference.size() || (j < plan.size() && plan[j].first < reference[i].first);
    const double before = only_plan ? 0 : static_cast<double>(reference[i++].second);
    const double after = only_reference ? 0 : static_cast<double>(plan[j++].second);
    sum += std::fabs(after - before);
  }
  return sum / 2;
}

// The gates of one chunk: [layer][token].
class RoutingLog {
 public:
  explicit RoutingLog(std::int64_t num_layers) : gates_(static_cast<std::size_t>(num_layers)) {
    observer_.routing = [this](std::int64_t layer, View<const std::int32_t, 2> ids,
                               View<const float, 2> weights) {
      auto& tokens = gates_[static_cast<std::size_t>(layer)];
      tokens.clear();
      for (std::int64_t t = 0; t < ids.shape[0]; ++t) {
        Gates gates;
        for (std::int64_t k = 0; k < ids.shape[1]; ++k) {
          gates.emplace_back(ids[t].data[k], weights[t].data[k]);
        }
        std::sort(gates.begin(), gates.end());
        tokens.push_back(std::move(gates));
      }
    };
  }
  RoutingLog(const RoutingLog&) = delete;
  RoutingLog& operator=(const RoutingLog&) = delete;

  const Observer& observer() const { return observer_; }
  const std::vector<Gates>& layer(std::size_t l) const { return gates_[l]; }

 private:
  std::vector<std::vector<Gates>> gates_;
  Observer observer_;
};

// Sums over all traces; finish() turns them into the result.
class Comparison {
 public:
  Comparison(Engine& reference, Engine& plan)
      : reference_(reference),
        plan_(plan),
        num_layers_(reference.model->config().num_layers),
        flips_(static_cast<std::size_t>(num_layers_)),
        moved_by_layer_(static_cast<std::size_t>(num_layers_)) {
    const ModelConfig& a = reference.model->config();
    const ModelConfig& b = plan.model->config();
    require(a.vocab_size == b.vocab_size && a.num_layers == b.num_layers,
            "compare fidelity: the reference has {} layers and {} tokens, the plan {} and {}; they "
            "are not the same model",
            a.num_layers, a.vocab_size, b.num_layers, b.vocab_size);
  }

  void add(const Trace& trace) {
    const auto length = static_cast<std::int64_t>(trace.tokens.size());
    require(trace.first >= 1 && trace.first < length,
            "compare fidelity: trace '{}' counts from token {} of {}", trace.id, trace.first,
            length);
    for (const std::int32_t token : trace.tokens) {
      require(token >= 0 && token < reference_.model->config().vocab_size,
              "compare fidelity: trace '{}' holds token {}, outside the vocabulary of {}", trace.id,
              token, reference_.model->config().vocab_size);
    }
    // The last token predicts nothing that is known.
    const std::span<const std::int32_t> fed(trace.tokens.data(), trace.tokens.size() - 1);
    SequenceScorer reference(*reference_.model, *reference_.cache, fed, trace.first - 1);
    SequenceScorer plan(*plan_.model, *plan_.cache, fed, trace.first - 1);
    std::int64_t divergence = -1;
    std::int32_t diverged_to = -1;
    while (!reference.done()) {
      const std::int64_t begin = reference.position();
      const std::int64_t count = std::min(reference.max_chunk(), plan.max_chunk());
      const auto p = reference.advance(count, &reference_routing_.observer());
      const auto q = plan.advance(count, &plan_routing_.observer());
      for (std::int64_t row = 0; row < p.logits.shape[0]; ++row) {
        const std::int64_t position = p.first_position + row;
        const Position result =
            compare_position(p.logits[row].span(), q.logits[row].span(),
                             trace.tokens[static_cast<std::size_t>(position + 1)]);
        if (!result.same_top1 && divergence < 0) {
          divergence = position + 1 - trace.first;
          diverged_to = result.plan_top1;
        }
        compare_routing(static_cast<std::size_t>(position - begin));
        positions_.push_back(result);
        clusters_.push_back(num_traces_);
      }
    }
    result_.first_divergence.push_back(divergence);
    result_.diverged_to.push_back(diverged_to);
    ++num_traces_;
  }

  FidelityResult finish() {
    require(!positions_.empty(), "compare fidelity: there are no positions to compare");
    std::vector<double> kl;
    std::vector<double> agreement;
    double reference_sum = 0;
    double plan_sum = 0;
    for (const Position& p : positions_) {
      kl.push_back(p.kl);
      agreement.push_back(p.same_top1 ? 1 : 0);
      reference_sum += p.reference_log_probability;
      plan_sum += p.plan_log_probability;
      result_.reference_log_probabilities.push_back(p.reference_log_probability);
      result_.plan_log_probabilities.push_back(p.plan_log_probability);
      result_.mean_abs_delta_p +=
          std::fabs(std::exp(p.plan_log_probability) - std::exp(p.reference_log_probability));
    }
    const auto n = static_cast<double>(positions_.size());
    result_.num_traces = num_traces_;
    result_.num_positions = static_cast<std::int64_t>(positions_.size());
    result_.mean_kl = mean_kl_estimate(kl, clusters_);
    result_.top1_agreement = mean_with_clustered_interval(agreement, clusters_);
    result_.median_kl = percentile(kl, 0.5);
    result_.p90_kl = percentile(kl, 0.9);
    result_.p99_kl = percentile(kl, 0.99);
    result_.max_kl = *std::max_element(kl.begin(), kl.end());
    result_.mean_abs_delta_p /= n;
    result_.reference_perplexity = std::exp(-reference_sum / n);
    result_.plan_perplexity = std::exp(-plan_sum / n);
    for (const std::int64_t flips : flips_) {
      result_.router_flip_rate_by_layer.push_back(static_cast<double>(flips) / n);
    }
    result_.router_flip_rate = std::accumulate(result_.router_flip_rate_by_layer.begin(),
                                               result_.router_flip_rate_by_layer.end(), 0.0) /
                               static_cast<double>(num_layers_);
    for (const double moved : moved_by_layer_) {
      result_.gate_mass_moved_by_layer.push_back(moved / n);
    }
    result_.gate_mass_moved = mean_kl_estimate(moved_, clusters_);
    result_.kl_by_position = std::move(kl);
    result_.trace_by_position = std::move(clusters_);
    return std::move(result_);
  }

 private:
  void compare_routing(std::size_t token_of_chunk) {
    double sum = 0;
    for (std::size_t l = 0; l < flips_.size(); ++l) {
      const Gates& before = reference_routing_.layer(l)[token_of_chunk];
      const Gates& after = plan_routing_.layer(l)[token_of_chunk];
      flips_[l] += same_experts(before, after) ? 0 : 1;
      const double moved = mass_moved(before, after);
      moved_by_layer_[l] += moved;
      sum += moved;
    }
    moved_.push_back(sum / static_cast<double>(num_layers_));
  }

  Engine& reference_;
  Engine& plan_;
  std::int64_t num_layers_;
  std::vector<std::int64_t> flips_;
  std::vector<double> moved_by_layer_;
  std::vector<double> moved_;  // by position, mean over layers
  RoutingLog reference_routing_{num_layers_};
  RoutingLog plan_routing_{num_layers_};
  std::vector<Position> positions_;
  std::vector<std::int64_t> clusters_;
  std::int64_t num_traces_ = 0;
  FidelityResult result_;
};

}  // namespace

MeanEstimate mean_kl_estimate(const std::vector<double>& kl,
                              const std::vector<std::int64_t>& traces) {
  constexpr std::int64_t kEnoughTraces = 20;
  constexpr std::int64_t kResamples = 2000;
  MeanEstimate estimate = mean_with_clustered_interval(kl, traces);
  // Wilson's interval, which that gives for values that are all 0, is for shares.
  if (std::all_of(kl.begin(), kl.end(), [](double value) { return value == 0; })) {
    estimate.interval.reset();
    estimate.method.clear();
    estimate.reason = "every position is exactly equal";
  }
  if (!estimate.interval) return estimate;
  if (estimate.num_clusters >= kEnoughTraces) {
    estimate.interval =
        cluster_bootstrap_interval(kl, traces, kResamples, estimate.interval->level, 0);
    estimate.method = "bootstrap_by_trace";
  }
  estimate.interval->low = std::max(0.0, estimate.interval->low);
  return estimate;
}

FidelityResult compare_fidelity(Engine& reference, Engine& plan, const std::vector<Trace>& traces) {
  Comparison comparison(reference, plan);
  for (const Trace& trace : traces) comparison.add(trace);
  return comparison.finish();
}

std::vector<Trace> load_traces(const std::filesystem::path& path) {
  std::vector<Trace> traces;
  const auto read_line = [&](const Json& json, const std::string& place) {
    JsonFields fields(json, place);
    Trace trace;
    trace.id = fields.optional<std::string>("id", place);
    for (const std::int64_t token : fields.required<std::vector<std::int64_t>>("tokens")) {
      trace.tokens.push_back(static_cast<std::int32_t>(
          in_range<std::int64_t>(token, 0, 1 << 30, fields.path("tokens"))));
    }
    trace.first = fields.optional<std::int64_t>("first", 1);
    fields.finish();
    require(trace.tokens.size() >= 2, "{}: a trace needs at least 2 tokens, not {}", place,
            trace.tokens.size());
    in_range<std::int64_t>(trace.first, 1, static_cast<std::int64_t>(trace.tokens.size()) - 1,
                           fields.path("first"));
    traces.push_back(std::move(trace));
  };
  for_each_json_line(read_text_file(path), path.string(), 4, read_line);
  require(!traces.empty(), "read {}: there are no traces in it", path.string());
  return traces;
}

std::string traces_text(const std::vector<Trace>& traces) {
  std::string text;
  for (const Trace& trace : traces) {
    text += json_line({{"id", trace.id}, {"tokens", trace.tokens}, {"first", trace.first}}) + "\n";
  }
  return text;
}

}  // namespace moebench
