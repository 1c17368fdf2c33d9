// Results in the formats of continuous benchmarking tools.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/json_fields.h"
#include "reports/run_results.h"

namespace moebench {

struct ExportOptions {
  std::vector<std::string> metrics;  // of records; empty: those that are better higher or lower
  std::string better;                // "higher" or "lower": only such; "": both
};

// Google Benchmark's JSON (--benchmark_format=json), for its compare.py, Bencher (cpp_google) and
// github-action-benchmark (googlecpp): the nanoseconds that a token took in each repetition of the
// timed cases. Repetitions are rows of one name, so that compare.py can test them against another
// run's; rates become times, since that is what its readers take to be better lower.
// Source: google/benchmark 1.7, docs/tools.md and json_reporter.cc.
OrderedJson to_google_benchmark(const RunResults& run);

// Bencher Metric Format: {"model / plan / scenario": {"metric-name": {"value", "lower_value",
// "upper_value"}}}, the bounds being the ends of the interval where there is one.
// Source: https://bencher.dev/docs/reference/bencher-metric-format
OrderedJson to_bencher(const RunResults& run, const ExportOptions& options);

// github-action-benchmark's customBiggerIsBetter and customSmallerIsBetter: a list of {"name",
// "unit", "value", "range", "extra"}. One file is one direction: `options.better` says which.
// Throws Error(kInvalidArgument) if it does not.
// Source: https://github.com/benchmark-action/github-action-benchmark, README "Custom benchmarks".
OrderedJson to_action_benchmark(const RunResults& run, const ExportOptions& options);

}  // namespace moebench
