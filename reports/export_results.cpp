// From records to other tools' JSON.
#include "reports/export_results.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"
#include "reports/compare_metrics.h"

namespace moebench {
namespace {

std::string name_of(const Record& record) {
  return fmt::format("{} / {}", record.model, record.label);
}

// The metrics of a record that are asked for, in its order.
template <class Visit>
void for_each_metric(const RunResults& run, const ExportOptions& options, Visit visit) {
  const auto& wanted = options.metrics;
  for (const Record& record : run.records) {
    if (record.status != Status::kOk) continue;
    for (const auto& [name, metric] : record.metrics) {
      const bool named = std::find(wanted.begin(), wanted.end(), name) != wanted.end();
      if (metric.absent || (wanted.empty() ? metric.better.empty() : !named)) continue;
      if (!options.better.empty() && metric.better != options.better) continue;
      visit(record, name, metric);
    }
  }
}

// Bencher names measures in kebab case, of 64 characters at most.
std::string slug_of(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name.substr(0, 64);
}

}  // namespace

OrderedJson to_google_benchmark(const RunResults& run) {
  const OrderedJson& environment = comparing::object_at(run.description, "environment");
  const OrderedJson& cpus = comparing::object_at(environment, "logical_cpus");
  OrderedJson benchmarks = OrderedJson::array();
  std::int64_t family = 0;
  for (const Record& record : run.records) {
    const auto it = record.metrics.find(rate_metric(record.kind));
    if (record.status != Status::kOk || it == record.metrics.end()) continue;
    const Metric& rate = it->second;
    std::vector<double> samples = rate.samples;
    if (samples.empty() && !rate.absent) samples = {rate.value};
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (!(samples[i] > 0)) continue;
      const double ns = 1e9 / samples[i];
      if (!std::isfinite(ns)) continue;
      benchmarks.push_back({{"name", name_of(record)},
                            {"family_index", family},
                            {"per_family_instance_index", 0},
                            {"run_name", name_of(record)},
                            {"run_type", "iteration"},
                            {"repetitions", samples.size()},
                            {"repetition_index", i},
                            {"threads", 1},
                            {"iterations", 1},
                            {"real_time", ns},
                            {"cpu_time", ns},
                            {"time_unit", "ns"},
                            {"items_per_second", samples[i]}});
    }
    ++family;
  }
  return {{"context",
           {{"date", comparing::text_at(run.description, "started")},
            {"host_name", "moebench"},
            {"executable", comparing::text_at(run.description, "suite")},
            {"num_cpus", cpus.is_number_integer() ? cpus : OrderedJson(1)},
            {"mhz_per_cpu", 0},
            {"cpu_scaling_enabled", false},
            {"caches", OrderedJson::array()},
            {"load_avg", OrderedJson::array()},
            {"library_build_type", "release"},
            {"cpu", comparing::text_at(environment, "cpu")},
            {"git_commit", comparing::text_at(environment, "git_commit")}}},
          {"benchmarks", benchmarks}};
}

OrderedJson to_bencher(const RunResults& run, const ExportOptions& options) {
  OrderedJson json = OrderedJson::object();
  for_each_metric(run, options,
                  [&](const Record& record, const std::string& name, const Metric& metric) {
                    OrderedJson value = {{"value", metric.value}};
                    if (metric.interval) {
                      value["lower_value"] = metric.interval->low;
                      value["upper_value"] = metric.interval->high;
                    }
                    json[name_of(record)][slug_of(name)] = value;
                  });
  return json;
}

OrderedJson to_action_benchmark(const RunResults& run, const ExportOptions& options) {
  require(options.better == "higher" || options.better == "lower",
          "export for github-action-benchmark: a file is either of metrics that are better higher "
          "or of those that are better lower; say which");
  OrderedJson list = OrderedJson::array();
  for_each_metric(
      run, options, [&](const Record& record, const std::string& name, const Metric& metric) {
        OrderedJson one = {{"name", fmt::format("{}: {}", name_of(record), name)},
                           {"unit", metric.unit},
                           {"value", metric.value}};
        if (metric.interval) {
          one["range"] =
              fmt::format("{:.6g} to {:.6g}", metric.interval->low, metric.interval->high);
        }
        one["extra"] = fmt::format("{} observations", metric.count);
        list.push_back(std::move(one));
      });
  return list;
}

}  // namespace moebench
