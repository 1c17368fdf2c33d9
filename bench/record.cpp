// Records to JSON and back.
#include "bench/record.h"

#include <array>
#include <cmath>

#include "kernels/core/error.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::array<std::string_view, 8> kStatusNames = {
    "ok",          "failed",       "crashed",    "timeout", "out_of_memory",
    "unsupported", "wrong_output", "interrupted"};

}  // namespace

std::string_view status_name(Status status) {
  return kStatusNames[static_cast<std::size_t>(status)];
}

Status parse_status(std::string_view name, std::string_view where) {
  return static_cast<Status>(index_of_name(kStatusNames, name, where, "status"));
}

OrderedJson to_json(const Interval& interval) {
  return {{"low", interval.low}, {"high", interval.high}, {"level", interval.level}};
}

OrderedJson to_json(const Metric& metric) {
  OrderedJson json = {{"value", metric.absent ? OrderedJson() : OrderedJson(metric.value)},
                      {"unit", metric.unit}};
  if (!metric.better.empty()) json["better"] = metric.better;
  if (metric.interval) json["interval"] = to_json(*metric.interval);
  if (!metric.interval_method.empty()) json["interval_method"] = metric.interval_method;
  json["count"] = metric.count;
  if (!metric.samples.empty()) json["samples"] = metric.samples;
  return json;
}

Metric metric_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  Metric metric;
  const Json* value = fields.find("value");
  metric.absent = value == nullptr || value->is_null();
  metric.value = fields.optional<double>("value", 0.0);
  metric.unit = fields.required<std::string>("unit");
  metric.better = fields.optional<std::string>("better", "");
  metric.interval_method = fields.optional<std::string>("interval_method", "");
  metric.count = fields.optional<std::int64_t>("count", 0);
  if (const Json* interval = fields.find("interval")) {
    JsonFields ends(*interval, fields.path("interval"));
    metric.interval = Interval{ends.required<double>("low"), ends.required<double>("high"),
                               ends.required<double>("level")};
  }
  if (const Json* samples = fields.find("samples")) {
    require(samples->is_array(), "{}: expected a list of numbers", fields.path("samples"));
    for (const Json& sample : *samples) {
      require(sample.is_number(), "{}: expected numbers, got {}", fields.path("samples"),
              json_excerpt(sample));
      metric.samples.push_back(sample.get<double>());
    }
  }
  return metric;
}

std::string rate_metric(std::string_view kind) { return fmt::format("{}_tokens_per_second", kind); }

// A plan's name may hold " / " itself, so the label alone does not tell.
std::string scenario_of_label(std::string_view label, std::string_view plan) {
  const std::string prefix = fmt::format("{} / ", plan);
  return std::string(label.starts_with(prefix) ? label.substr(prefix.size()) : label);
}

OrderedJson to_json(const Record& record) {
  OrderedJson metrics = OrderedJson::object();
  for (const auto& [name, metric] : record.metrics) {
    // JSON has no NaN: a number that is not finite is a bug of whoever computed it.
    require(metric.absent || std::isfinite(metric.value), "write record {}: metric {} is {}",
            record.label, name, metric.value);
    metrics[name] = to_json(metric);
  }
  return {{"schema", kRecordSchema},
          {"case_id", record.case_id},
          {"label", record.label},
          {"model", record.model},
          {"plan", record.plan},
          {"kind", record.kind},
          {"scenario", record.scenario},
          {"status", status_name(record.status)},
          {"reason", record.reason},
          {"started", record.started},
          {"duration_s", record.duration_s},
          {"metrics", metrics},
          {"details", record.details}};
}

Record record_from_json(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  const auto schema = fields.required<std::string>("schema");
  require(schema == kRecordSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kRecordSchema);
  Record record;
  record.case_id = fields.required<std::string>("case_id");
  record.label = fields.required<std::string>("label");
  record.model = fields.required<std::string>("model");
  record.plan = fields.required<std::string>("plan");
  record.kind = fields.required<std::string>("kind");
  if (const Json* scenario = fields.find("scenario")) record.scenario = *scenario;
  record.status = parse_status(fields.required<std::string>("status"), fields.path("status"));
  record.reason = fields.optional<std::string>("reason", "");
  record.started = fields.optional<std::string>("started", "");
  record.duration_s = fields.optional<double>("duration_s", 0.0);
  if (const Json* metrics = fields.find("metrics")) {
    require(metrics->is_object(), "{}: expected an object", fields.path("metrics"));
    for (const auto& [name, metric] : metrics->items()) {
      record.metrics[name] =
          metric_from_json(metric, fmt::format("{}.{}", fields.path("metrics"), name));
    }
  }
  if (const Json* details = fields.find("details")) record.details = *details;
  return record;
}

}  // namespace moebench
