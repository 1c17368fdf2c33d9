// Marks by op, medians by kernel.
#include "bench/kernel_times.h"

#include <algorithm>
#include <map>

#include "evals/statistics.h"

namespace moebench {
namespace {

constexpr double kNsPerMs = 1e6;

struct Sum {
  std::int64_t launches = 0;
  double milliseconds = 0;
  double exposed = 0;
};
using Key = std::pair<std::string, std::string>;  // op, kernel

// The time that intervals cover together; `kernels` in the order of their begin.
double covered_ms(const std::vector<gpu::KernelTime>& kernels) {
  std::int64_t covered = 0;
  std::int64_t end = kernels.front().begin_ns;
  for (const gpu::KernelTime& kernel : kernels) {
    covered += std::max<std::int64_t>(0, kernel.end_ns - std::max(end, kernel.begin_ns));
    end = std::max(end, kernel.end_ns);
  }
  return static_cast<double>(covered) / kNsPerMs;
}

}  // namespace

StepKernels record_kernels(gpu::KernelRecorder& recorder, Model& model, const Step& step,
                           KvCache& cache) {
  StepKernels run;
  const Model::Tracer before = model.tracer();
  recorder.start();
  recorder.mark(1);
  // A span comes at the end of an op, which is the beginning of the next.
  model.set_tracer({[&](const Model::Span& span) {
                      if (span.name == "step") return;
                      run.ops.emplace_back(span.name);
                      recorder.mark(run.ops.size() + 1);
                    },
                    [](const RequestResult&) {}});
  try {
    model.forward(step, cache);
  } catch (...) {
    model.set_tracer(before);
    throw;
  }
  model.set_tracer(before);
  run.kernels = recorder.stop();
  return run;
}

StepKernels record_kernels_in_use(gpu::KernelRecorder& recorder, Model& model, const Step& step,
                                  KvCache& cache) {
  recorder.start();
  model.forward(step, cache);
  return {recorder.stop(), {}};
}

OrderedJson kernel_times_json(std::span<const StepKernels> runs) {
  std::map<Key, std::vector<Sum>> by_kernel;  // one sum for each run
  std::vector<double> busy;
  std::vector<double> spans;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    if (runs[r].kernels.empty()) return {};
    std::int64_t last = runs[r].kernels.front().begin_ns;
    for (const gpu::KernelTime& kernel : runs[r].kernels) {
      const bool known = kernel.mark >= 1 && kernel.mark <= runs[r].ops.size();
      auto& sums = by_kernel[{known ? runs[r].ops[kernel.mark - 1] : "", kernel.name}];
      sums.resize(runs.size());
      ++sums[r].launches;
      sums[r].milliseconds += static_cast<double>(kernel.end_ns - kernel.begin_ns) / kNsPerMs;
      sums[r].exposed +=
          static_cast<double>(std::max<std::int64_t>(0, kernel.end_ns - last)) / kNsPerMs;
      last = std::max(last, kernel.end_ns);
    }
    busy.push_back(covered_ms(runs[r].kernels));
    spans.push_back(static_cast<double>(last - runs[r].kernels.front().begin_ns) / kNsPerMs);
  }
  if (busy.empty()) return {};
  struct Row {
    Key key;
    double launches = 0;
    double milliseconds = 0;
    double exposed = 0;
  };
  std::vector<Row> rows;
  std::map<std::string, double> by_op;
  for (const auto& [key, sums] : by_kernel) {
    std::vector<double> launches;
    std::vector<double> milliseconds;
    std::vector<double> exposed;
    for (const Sum& sum : sums) {
      launches.push_back(static_cast<double>(sum.launches));
      milliseconds.push_back(sum.milliseconds);
      exposed.push_back(sum.exposed);
    }
    rows.push_back({key, median(launches), median(milliseconds), median(exposed)});
    by_op[key.first] += rows.back().milliseconds;
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.milliseconds > b.milliseconds; });
  OrderedJson list = OrderedJson::array();
  for (const Row& row : rows) {
    list.push_back({{"op", row.key.first},
                    {"kernel", row.key.second},
                    {"launches", row.launches},
                    {"ms", row.milliseconds},
                    {"exposed_ms", row.exposed}});
  }
  return {{"kernels", list},
          {"kernels_ms", by_op},
          {"busy_ms", median(busy)},
          {"span_ms", median(spans)}};
}

}  // namespace moebench
