// Records: what one case yielded. They are what results.jsonl holds, and all that reports read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "evals/statistics.h"
#include "kernels/core/json_fields.h"

namespace moebench {

inline constexpr std::string_view kRecordSchema = "moebench.record/1";

enum class Status {
  kOk,
  kFailed,   // an error inside the case; see the reason
  kCrashed,  // its process died
  kTimeout,  // its process was killed because it ran too long
  kOutOfMemory,
  kUnsupported,  // the plan cannot run this model
  kWrongOutput,  // outputs were checked and found wrong, so there is no time to report
  kInterrupted,  // the user stopped the run
};
std::string_view status_name(Status status);
// Throws Error(kInvalidArgument) naming `where` and the nearest name.
Status parse_status(std::string_view name, std::string_view where);

// One number with its unit and, where it has one, its interval.
struct Metric {
  double value = 0;
  std::string unit;
  std::string better;  // "higher", "lower" or "" where neither is
  std::optional<Interval> interval;
  std::string interval_method;  // how the interval was made, or why there is none
  std::int64_t count = 0;       // observations behind the value
  std::vector<double> samples;  // raw, where there are few enough to keep

  // A value that cannot be quoted; `interval_method` says why. Written as null.
  bool absent = false;
};

struct Record {
  std::string case_id;
  std::string label;     // "int4 / nano high"
  std::string model;     // name
  std::string plan;      // name
  std::string kind;      // as scenario_kind names them: "load", "decode", ...
  OrderedJson scenario;  // parameters of the case
  Status status = Status::kOk;
  std::string reason;
  std::string started;  // UTC
  double duration_s = 0;
  std::map<std::string, Metric> metrics;
  OrderedJson details = OrderedJson::object();  // what is particular to the kind
};

OrderedJson to_json(const Interval& interval);
OrderedJson to_json(const Metric& metric);
// Throws Error naming `where` and the field.
Metric metric_from_json(const Json& json, const std::string& where);
OrderedJson to_json(const Record& record);

// The metric that tells the speed of a workload's kind: "decode_tokens_per_second".
std::string rate_metric(std::string_view kind);

// The scenario in a label "<plan> / <scenario>": what is the same for every plan.
std::string scenario_of_label(std::string_view label, std::string_view plan);

// Throws Error naming `where` and the field.
Record record_from_json(const Json& json, const std::string& where);

}  // namespace moebench
