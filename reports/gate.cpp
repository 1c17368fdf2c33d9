// Default margins, and gate files.
#include "reports/gate.h"

#include <algorithm>

#include "bench/record.h"
#include "engine/mapped_file.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"
#include "kernels/formats/format.h"

namespace moebench {
namespace {

// Two runs of one program on a quiet machine differ by one to three per cent; see bench/README.md
// for how to measure your own, and give it in the gate.
constexpr double kBetweenRunSd = 0.02;
constexpr double kSpeedMargin = 0.03;

MetricRule speed_rule() {
  MetricRule rule;
  rule.family = "speed";
  rule.pairing = Pairing::kRuns;
  rule.margin = kSpeedMargin;
  rule.between_run_sd = kBetweenRunSd;
  return rule;
}

MetricRule exact_rule(std::string family, double margin, bool required = true) {
  MetricRule rule;
  rule.family = std::move(family);
  rule.margin = margin;
  rule.required = required;
  return rule;
}

std::vector<std::string> metric_names(const Gate& gate) {
  std::vector<std::string> names;
  for (const auto& [name, rule] : gate.metrics) names.push_back(name);
  return names;
}

// A number that is given, checked against a range.
void read_number(JsonFields& fields, const char* name, double low, double high, double& value) {
  value = in_range(fields.optional<double>(name, value), low, high, fields.path(name));
}

std::optional<double> read_bound(JsonFields& fields, const char* name) {
  const Json* given = fields.find(name);
  if (given == nullptr || given->is_null()) return std::nullopt;
  return fields.required<double>(name);
}

void read_rule(MetricRule& rule, const Json& json, const std::string& where) {
  constexpr double kMostMargin = 1e6;
  JsonFields fields(json, where);
  read_number(fields, "margin", 0, kMostMargin, rule.margin);
  read_number(fields, "between_run_sd", 0, 0.5, rule.between_run_sd);
  read_number(fields, "floor", 0, kMostMargin, rule.floor);
  rule.required = fields.optional<bool>("required", rule.required);
  rule.minimum = read_bound(fields, "minimum");
  rule.maximum = read_bound(fields, "maximum");
  require(!rule.minimum || !rule.maximum || *rule.minimum <= *rule.maximum,
          "{}: {} is above maximum {}", fields.path("minimum"), rule.minimum.value_or(0),
          rule.maximum.value_or(0));
  fields.finish();
}

}  // namespace

Gate default_gate() {
  Gate gate;
  auto& m = gate.metrics;
  m[rate_metric("decode")] = speed_rule();
  m[rate_metric("prefill")] = speed_rule();

  MetricRule accuracy = exact_rule("accuracy", 0.02);
  accuracy.pairing = Pairing::kAnswers;
  accuracy.relative = false;
  m["accuracy"] = accuracy;

  MetricRule length = exact_rule("length", 0.1, false);
  length.pairing = Pairing::kTokens;
  m["output_tokens_mean"] = length;

  MetricRule kl = exact_rule("fidelity", 0.1);
  kl.pairing = Pairing::kTraces;
  kl.floor = 1e-6;  // nats: what rounding of float32 in another order does
  m["mean_kl"] = kl;

  MetricRule perplexity = exact_rule("fidelity", 0.01);
  perplexity.pairing = Pairing::kBlocks;
  m["perplexity"] = perplexity;

  m["weights_bytes"] = exact_rule("memory", 0.001);
  // What allocators and page tables do weighs only on models of a few megabytes.
  for (const auto& [name, margin] : {std::pair{"device_bytes", 0.03}, {"peak_rss_bytes", 0.05}}) {
    m[name] = exact_rule("memory", margin);
    m[name].floor = 64e6;
  }
  m["deterministic"] = exact_rule("determinism", 0);
  m["batch_invariant"] = exact_rule("determinism", 0);
  return gate;
}

Gate gate_from_json(const Json& json, const std::string& where) {
  Gate gate = default_gate();
  JsonFields fields(json, where);
  const auto schema = fields.required<std::string>("schema");
  require(schema == kGateSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kGateSchema);
  fields.optional<std::string>("description", "");
  gate.level =
      in_range(fields.optional<double>("level", gate.level), 0.5, 0.9999, fields.path("level"));
  if (const Json* metrics = fields.find("metrics"); metrics != nullptr) {
    require(metrics->is_object(), "{}: expected an object of metrics, got {}",
            fields.path("metrics"), json_excerpt(*metrics));
    for (const auto& [name, rule] : metrics->items()) {
      const auto it = gate.metrics.find(name);
      require(it != gate.metrics.end(), "{}: no metric '{}' is compared; {}",
              fields.path("metrics"), name.substr(0, 60), suggestion(name, metric_names(gate)));
      read_rule(it->second, rule, fields.path("metrics." + name));
    }
  }
  gate.allowed_formats = fields.optional<std::vector<std::string>>("allowed_formats", {});
  std::vector<std::string> known = {"stored"};
  for (const Codec* codec : codecs()) known.emplace_back(codec->name);
  for (const std::string& format : gate.allowed_formats) {
    require(std::find(known.begin(), known.end(), format) != known.end(), "{}: no format '{}'; {}",
            fields.path("allowed_formats"), format.substr(0, 60), suggestion(format, known));
  }
  fields.finish();
  return gate;
}

Gate load_gate(const std::filesystem::path& path) {
  return gate_from_json(parse_json(read_text_file(path), path.string()), path.string());
}

}  // namespace moebench
