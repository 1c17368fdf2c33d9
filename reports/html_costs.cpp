// What a plan changes and takes: fidelity, memory; and the machine it was measured on.
#include "reports/html_memory.h"
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

const OrderedJson kNull;

std::string yes_no(const OrderedJson& metric) {
  const auto value = value_of(metric);
  if (!value) return std::string(kNoValue);
  return *value > 0.5 ? "<span class=good>yes</span>" : "<span class=bad>no</span>";
}

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

}  // namespace

std::string fidelity_section(const Report& report) {
  std::string body;
  for (const Row& row : report.rows) {
    const auto records = report.records(row, "fidelity");
    const auto invariance = report.records(row, "invariance");
    if (records.empty() && invariance.empty()) continue;
    body += "<tr>" + row_head(row);
    const OrderedJson& owner = records.empty() ? kNull : *records.front();
    for (const char* name : {"mean_kl", "median_kl", "p90_kl", "p99_kl", "max_kl"}) {
      body += fmt::format("<td>{}</td>", metric_cell(metric_of(owner, name), format_number));
    }
    for (const char* name : {"top1_agreement", "router_flip_rate", "diverged_traces"}) {
      body += fmt::format("<td>{}</td>", metric_cell(metric_of(owner, name), format_percent));
    }
    body += fmt::format("<td>{}</td>",
                        metric_cell(metric_of(owner, "perplexity_ratio"), format_number));
    const OrderedJson& second = invariance.empty() ? kNull : *invariance.front();
    body += fmt::format("<td>{}</td><td>{}</td></tr>", yes_no(metric_of(second, "deterministic")),
                        yes_no(metric_of(second, "batch_invariant")));
  }
  if (body.empty()) return "";
  return section(
      "fidelity", "Fidelity",
      "Both plans read the reference's own answers, token by token (teacher forcing), so this "
      "needs "
      "no key and sees damage that accuracy is too coarse for. KL of the plan's next-token "
      "distribution from the reference's, in nats; a router flip is a token and layer whose set of "
      "chosen experts changed. Deterministic: bitwise the same logits again; batch-invariant: "
      "bitwise the same logits whatever the batch and the chunking.",
      figure("kl", "Mean KL divergence from the reference, with 95 % intervals (logarithmic)") +
          table("<tr><th scope=col>plan</th><th scope=col>mean KL</th><th scope=col>median</th><th "
                "scope=col>p90</th><th scope=col>p99</th><th scope=col>max</th><th scope=col>top-1 "
                "agreement</th><th scope=col>router flips</th><th scope=col>answers that "
                "diverge</th><th scope=col>perplexity ratio</th><th "
                "scope=col>deterministic</th><th scope=col>batch-invariant</th></tr>",
                body, "dense"));
}

std::string memory_section(const Report& report) {
  std::string body;
  for (const Row& row : report.rows) {
    const auto loads = report.records(row, "load");
    if (loads.empty()) continue;
    const OrderedJson& details = loads.front()->at("details");
    const OrderedJson taken = details.value("memory_taken", OrderedJson::object());
    const auto cell = [&](const char* name) {
      return taken.contains(name) ? format_size(taken.at(name).get<double>())
                                  : std::string(kNoValue);
    };
    const OrderedJson& peak = row.summary->at("peak_rss_bytes");
    const auto predicted = value_of(metric_of(*row.summary, "predicted_rss_bytes"));
    const auto graphs = graphs_bytes(row);
    body += fmt::format(
        "<tr>{}<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td></tr>",
        row_head(row), metric_cell(metric_of(*row.summary, "weights_bytes"), format_size),
        cell("kv_cache"), cell("activations"), cell("workspace"), cell("logits"),
        graphs ? format_size(*graphs) : std::string(kNoValue),
        predicted ? format_size(*predicted) : std::string(kNoValue),
        peak.is_null() ? std::string(kNoValue) : format_size(peak.get<double>()));
  }
  if (body.empty()) return "";
  std::string encoding;
  for (const Row& row : report.rows) {
    const auto loads = report.records(row, "load");
    if (loads.empty()) continue;
    const OrderedJson groups = loads.front()
                                   ->at("details")
                                   .value("encoding", OrderedJson::object())
                                   .value("groups", OrderedJson::object());
    std::string cells;
    for (const char* group : {"experts", "attention", "embedding", "unembedding"}) {
      const OrderedJson one = groups.value(group, OrderedJson::object());
      const bool known = one.contains("sqnr_db") && one.at("sqnr_db").is_number();
      cells +=
          fmt::format("<td>{}</td>", known ? fmt::format("{:.1f}", one.at("sqnr_db").get<double>())
                                     : one.empty() ? "as stored"
                                                   : "lossless");
    }
    encoding += "<tr>" + row_head(row) + cells + "</tr>";
  }
  return section(
      "memory", "Memory",
      "What the engine took by category, the resident memory it predicted before loading, and the "
      "peak that the system measured. 1 MB = 1e6 bytes.",
      figure("memory", "Memory taken by category, in MB") +
          table("<tr><th scope=col>plan</th><th scope=col>weights</th><th scope=col>KV "
                "cache</th><th scope=col>activations</th><th scope=col>workspace</th><th "
                "scope=col>logits</th><th scope=col>CUDA graphs</th><th scope=col>predicted "
                "RSS</th><th scope=col>measured peak "
                "RSS</th></tr>",
                body) +
          "<details><summary>What re-encoding the weights cost: SQNR in dB by weight group"
          "</summary>" +
          table("<tr><th scope=col>plan</th><th scope=col>experts</th><th scope=col>attention</th>"
                "<th scope=col>embedding</th><th scope=col>unembedding</th></tr>",
                encoding) +
          "</details>" + memory_waterfalls(report) + memory_frontiers(report));
}

std::string environment_section(const Report& report) {
  std::string body;
  for (const OrderedJson& run : report.json.at("runs")) {
    const OrderedJson& e = run.at("environment");
    std::string rows;
    const auto add = [&](std::string_view name, const std::string& value) {
      if (!value.empty()) {
        rows += fmt::format("<tr><th scope=row>{}</th><td>{}</td></tr>", name, escape_html(value));
      }
    };
    add("suite",
        run.value("suite", "") +
            (run.value("description", "").empty() ? "" : ": " + run.value("description", "")));
    add("started", run.value("started", ""));
    for (const OrderedJson& model : run.at("models")) {
      add("model",
          fmt::format("{} ({}, {} parameters, content hash {})", model.value("name", ""),
                      model.value("family", ""), format_number(model.value("parameters", 0.0)),
                      model.value("hash", "")));
    }
    add("processor", fmt::format("{}, {} logical, {} usable", e.value("cpu", ""),
                                 e.value("logical_cpus", 0), e.value("usable_cpus", 0)));
    add("instruction sets", e.value("cpu_features", ""));
    add("memory", format_size(e.value("memory_bytes", 0.0)));
    if (e.contains("gpu")) add("GPU", gpu_text(e.at("gpu")));
    add("system", e.value("os", ""));
    add("frequency governor", e.value("governor", ""));
    add("load when it began", fmt::format("{:.2f}", e.value("load_average", 0.0)));
    add("build",
        fmt::format("moebench {} ({}), {}, {}", e.value("version", ""), e.value("git_commit", ""),
                    e.value("compiler", ""), e.value("build_type", "")));
    add("CUDA kernels", e.value("cuda", ""));
    body += table("", rows, "facts");
  }
  return section("environment", "Measured on",
                 "A number without its machine is a rumour. Nothing here names a person or a host.",
                 body);
}

}  // namespace moebench::page
