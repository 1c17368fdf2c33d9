// Means by trace, percentiles, and labels of positions.
#include "evals/fidelity_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "engine/harmony.h"
#include "kernels/core/error.h"

namespace moebench {
namespace {

std::vector<double> mapped(const FidelityResult& result,
                           const std::function<double(double base, double plan)>& of) {
  std::vector<double> values;
  values.reserve(result.kl_by_position.size());
  for (std::size_t i = 0; i < result.kl_by_position.size(); ++i) {
    values.push_back(of(result.reference_log_probabilities[i], result.plan_log_probabilities[i]));
  }
  return values;
}

double correlation(const std::vector<double>& x, double x_mean, const std::vector<double>& y,
                   double y_mean) {
  double xy = 0;
  double xx = 0;
  double yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - x_mean) * (y[i] - y_mean);
    xx += (x[i] - x_mean) * (x[i] - x_mean);
    yy += (y[i] - y_mean) * (y[i] - y_mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 1;
}

// "99.9%" in the width of llama-perplexity's table.
struct Quantile {
  const char* name;
  double q;
};

}  // namespace

std::vector<NamedStatistic> llama_statistics(const FidelityResult& result) {
  const auto mean_of = [&](const std::vector<double>& values) {
    return mean_with_clustered_interval(values, result.trace_by_position);
  };
  std::vector<NamedStatistic> rows;
  const auto add = [&](std::string name, double value, std::optional<double> error = {}) {
    rows.push_back({std::move(name), value, error});
  };
  const auto times = [](double factor, const std::optional<double>& error) {
    return error ? std::optional<double>(std::abs(factor) * *error) : std::nullopt;
  };

  const std::vector<double> base_nll = mapped(result, [](double b, double) { return -b; });
  const std::vector<double> plan_nll = mapped(result, [](double, double p) { return -p; });
  const std::vector<double> log_ratio = mapped(result, [](double b, double p) { return b - p; });
  const MeanEstimate base = mean_of(base_nll);
  const MeanEstimate plan = mean_of(plan_nll);
  const MeanEstimate ratio = mean_of(log_ratio);
  const double base_ppl = std::exp(base.mean);
  const double plan_ppl = std::exp(plan.mean);
  add("Mean PPL(Q)", plan_ppl, times(plan_ppl, plan.standard_error));
  add("Mean PPL(base)", base_ppl, times(base_ppl, base.standard_error));
  add("Cor(ln(PPL(Q)), ln(PPL(base)))", correlation(plan_nll, plan.mean, base_nll, base.mean));
  add("Mean ln(PPL(Q)/PPL(base))", ratio.mean, ratio.standard_error);
  add("Mean PPL(Q)/PPL(base)", std::exp(ratio.mean),
      times(std::exp(ratio.mean), ratio.standard_error));
  // d(PPL(Q) - PPL(base)) = PPL(Q) d ln PPL(Q) - PPL(base) d ln PPL(base), position by position.
  const MeanEstimate difference =
      mean_of(mapped(result, [&](double b, double p) { return plan_ppl * -p - base_ppl * -b; }));
  add("Mean PPL(Q)-PPL(base)", plan_ppl - base_ppl, difference.standard_error);

  const std::vector<double>& kl = result.kl_by_position;
  const MeanEstimate mean_kl = mean_of(kl);
  add("Mean    KLD", mean_kl.mean, mean_kl.standard_error);
  add("Maximum KLD", percentile(kl, 1));
  for (const auto& [name, q] :
       {Quantile{"99.9%", 0.999}, {"99.0%", 0.99}, {"95.0%", 0.95}, {"90.0%", 0.9}}) {
    add(fmt::format("{}   KLD", name), percentile(kl, q));
  }
  add("Median  KLD", percentile(kl, 0.5));
  for (const auto& [name, q] :
       {Quantile{"10.0%", 0.1}, {" 5.0%", 0.05}, {" 1.0%", 0.01}, {" 0.1%", 0.001}}) {
    add(fmt::format("{}   KLD", name), percentile(kl, q));
  }
  add("Minimum KLD", percentile(kl, 0));

  const std::vector<double> delta =
      mapped(result, [](double b, double p) { return std::exp(p) - std::exp(b); });
  const MeanEstimate mean_delta = mean_of(delta);
  add("Mean    Δp", mean_delta.mean, mean_delta.standard_error);
  add("Maximum Δp", percentile(delta, 1));
  for (const auto& [name, q] : {Quantile{"99.9%", 0.999},
                                {"99.0%", 0.99},
                                {"95.0%", 0.95},
                                {"90.0%", 0.9},
                                {"75.0%", 0.75}}) {
    add(fmt::format("{}   Δp", name), percentile(delta, q));
  }
  add("Median  Δp", percentile(delta, 0.5));
  for (const auto& [name, q] : {Quantile{"25.0%", 0.25},
                                {"10.0%", 0.1},
                                {" 5.0%", 0.05},
                                {" 1.0%", 0.01},
                                {" 0.1%", 0.001}}) {
    add(fmt::format("{}   Δp", name), percentile(delta, q));
  }
  add("Minimum Δp", percentile(delta, 0));
  std::vector<double> squares;
  for (const double d : delta) squares.push_back(d * d);
  const MeanEstimate square = mean_of(squares);
  const double rms = std::sqrt(square.mean);
  add("RMS Δp", rms, rms > 0 ? times(0.5 / rms, square.standard_error) : std::nullopt);
  add("Same top p", result.top1_agreement.mean, result.top1_agreement.standard_error);
  return rows;
}

std::vector<KlGroup> kl_by_label(const FidelityResult& result,
                                 const std::vector<std::string>& label_by_position) {
  require(label_by_position.size() == result.kl_by_position.size(),
          "divergence by label: {} labels for {} positions", label_by_position.size(),
          result.kl_by_position.size());
  struct Positions {
    std::string name;
    std::vector<double> kl;
    std::vector<std::int64_t> traces;
  };
  std::vector<Positions> groups;
  for (std::size_t i = 0; i < label_by_position.size(); ++i) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Positions& one) {
      return one.name == label_by_position[i];
    });
    if (group == groups.end()) {
      group = groups.insert(groups.end(), Positions{label_by_position[i], {}, {}});
    }
    group->kl.push_back(result.kl_by_position[i]);
    group->traces.push_back(result.trace_by_position[i]);
  }
  std::vector<KlGroup> out;
  for (const Positions& group : groups) {
    out.push_back({group.name, mean_kl_estimate(group.kl, group.traces)});
  }
  return out;
}

std::vector<std::string> channel_by_position(const Tokenizer& tokenizer,
                                             const std::vector<Trace>& traces) {
  const HarmonyTokens special = HarmonyTokens::of(tokenizer);
  std::vector<std::string> channels;
  for (const Trace& trace : traces) {
    HarmonyParser parser(tokenizer, Role::kAssistant);
    for (auto i = static_cast<std::size_t>(trace.first); i < trace.tokens.size(); ++i) {
      const Message* message = parser.current();
      const bool is_content = message != nullptr && !special.ends_message(trace.tokens[i]);
      channels.push_back(!is_content                ? "markers"
                         : message->channel.empty() ? "no channel"
                                                    : message->channel);
      parser.push(trace.tokens[i]);
    }
  }
  return channels;
}

std::vector<KlStage> kl_by_stage(const FidelityResult& result, const std::vector<Trace>& traces) {
  struct Positions {
    std::vector<double> kl;
    std::vector<std::int64_t> traces;
  };
  std::vector<Positions> stages;  // stage s begins at 2^s - 1
  std::size_t position = 0;
  for (const Trace& trace : traces) {
    const auto count = static_cast<std::int64_t>(trace.tokens.size()) - trace.first;
    for (std::int64_t i = 0; i < count; ++i, ++position) {
      const auto stage =
          static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(i) + 1) - 1);
      if (stage >= stages.size()) stages.resize(stage + 1);
      stages[stage].kl.push_back(result.kl_by_position[position]);
      stages[stage].traces.push_back(result.trace_by_position[position]);
    }
  }
  std::vector<KlStage> out;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const std::int64_t from = (std::int64_t{1} << s) - 1;
    out.push_back({from, 2 * from + 1, mean_kl_estimate(stages[s].kl, stages[s].traces)});
  }
  return out;
}

}  // namespace moebench
