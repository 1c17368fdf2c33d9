// The machine and the build that runs were measured on; where there are several, what differs.
#include <algorithm>

#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

std::string gpu_text(const OrderedJson& g) {
  std::string text = fmt::format("{}, compute capability {}, {} SMs, {}", g.value("name", ""),
                                 g.value("compute_capability", ""), g.value("num_sms", 0),
                                 format_size(g.value("memory_bytes", 0.0)));
  if (g.contains("power_limit_watts")) {
    text += fmt::format(", {:.0f} W", g.value("power_limit_watts", 0.0));
  }
  if (g.contains("max_sm_clock_mhz")) {
    text += fmt::format(", SM clock up to {} MHz", g.value("max_sm_clock_mhz", 0));
  }
  if (g.contains("max_memory_clock_mhz")) {
    text += fmt::format(", memory clock up to {} MHz", g.value("max_memory_clock_mhz", 0));
  }
  if (g.contains("ecc")) text += g.value("ecc", false) ? ", ECC on" : ", ECC off";
  return text + fmt::format("; driver {} (CUDA {}), runtime {}; {}", g.value("driver", ""),
                            g.value("cuda_driver", ""), g.value("cuda_runtime", ""),
                            g.value("uuid", ""));
}

// A name and its value in one run, "" where it has none.
using Fact = std::pair<std::string, std::string>;

std::vector<Fact> facts_of(const OrderedJson& run) {
  const OrderedJson& e = run.at("environment");
  const std::string description = run.value("description", "");
  std::string models;
  for (const OrderedJson& model : run.at("models")) {
    models += fmt::format("{}{} ({}, {} parameters, content hash {})", models.empty() ? "" : "; ",
                          model.value("name", ""), model.value("family", ""),
                          format_number(model.value("parameters", 0.0)), model.value("hash", ""));
  }
  const auto text = [&](const char* name) { return e.value(name, std::string()); };
  std::string libraries;
  const OrderedJson list = e.value("libraries", OrderedJson::object());
  for (const auto& [name, version] : list.items()) {
    if (!version.is_string()) continue;
    libraries +=
        fmt::format("{}{} {}", libraries.empty() ? "" : ", ", name, version.get<std::string>());
  }
  return {{"suite", run.value("suite", "") + (description.empty() ? "" : ": " + description)},
          {"started", run.value("started", "")},
          {"model", models},
          {"processor", fmt::format("{}, {} logical, {} usable", text("cpu"),
                                    e.value("logical_cpus", 0), e.value("usable_cpus", 0))},
          {"instruction sets", text("cpu_features")},
          {"memory", format_size(e.value("memory_bytes", 0.0))},
          {"GPU", e.contains("gpu") ? gpu_text(e.at("gpu")) : ""},
          {"system", text("os")},
          {"virtualisation", text("virtualisation")},
          {"frequency governor", text("governor")},
          {"huge pages", text("transparent_huge_pages")},
          {"load when it began", fmt::format("{:.2f}", e.value("load_average", 0.0))},
          {"build", fmt::format("moebench {} ({}), {}, {}", text("version"), text("git_commit"),
                                text("compiler"), text("build_type"))},
          {"compiler flags", text("compiler_flags")},
          {"libraries", libraries},
          {"CUDA kernels", text("cuda")}};
}

}  // namespace

std::string environment_section(const Report& report) {
  std::vector<std::vector<Fact>> runs;
  std::string head = "<tr><th scope=col>run</th>";
  for (const OrderedJson& run : report.json.at("runs")) {
    runs.push_back(facts_of(run));
    head += fmt::format("<th scope=col>{}</th>", escape_html(run.value("folder", "")));
  }
  std::string body;
  int num_different = 0;
  for (std::size_t i = 0; !runs.empty() && i < runs.front().size(); ++i) {
    const auto value = [&](const auto& run) { return run[i].second; };
    if (std::all_of(runs.begin(), runs.end(),
                    [&](const auto& run) { return value(run).empty(); })) {
      continue;
    }
    const bool differs = std::any_of(runs.begin(), runs.end(), [&](const auto& run) {
      return value(run) != value(runs.front());
    });
    num_different += differs ? 1 : 0;
    body += fmt::format("<tr{}><th scope=row>{}</th>", differs ? " class=differs" : "",
                        runs.front()[i].first);
    for (const auto& run : runs) {
      body += fmt::format("<td>{}</td>",
                          value(run).empty() ? std::string(kNoValue) : escape_html(value(run)));
    }
    body += "</tr>";
  }
  std::string lead =
      "A number without its machine is a rumour. Nothing here names a person or a host.";
  if (runs.size() > 1) {
    lead += fmt::format(" The {} runs differ in {} of these lines, which are marked.", runs.size(),
                        num_different);
  }
  return section("environment", "Measured on", lead,
                 table(runs.size() > 1 ? head + "</tr>" : "", body, "facts"));
}

}  // namespace moebench::page
