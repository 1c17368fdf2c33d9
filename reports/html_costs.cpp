// What a plan changes and takes: fidelity and memory.
#include <algorithm>

#include "reports/html_memory.h"
#include "reports/html_page.h"
#include "reports/html_text.h"

namespace moebench::page {
namespace {

std::string yes_no(const OrderedJson& metric) {
  const auto value = value_of(metric);
  if (!value) return std::string(kNoValue);
  return *value > 0.5 ? "<span class=good>yes</span>" : "<span class=bad>no</span>";
}

// Where routing changes: a row per plan, a column per layer, the share as number and as tint.
std::string layers_table(const Report& report, const char* detail, std::string_view title,
                         std::string_view column) {
  std::size_t num_layers = 0;
  double most = 0;
  const auto shares_of = [&](const Row& row) -> const OrderedJson& {
    const auto records = report.records(row, "fidelity");
    if (records.empty()) return kNull;
    const auto it = records.front()->at("details").find(detail);
    return it == records.front()->at("details").end() || !it->is_array() ? kNull : *it;
  };
  for (const Row& row : report.rows) {
    const OrderedJson& shares = shares_of(row);
    num_layers = std::max(num_layers, shares.size());
    for (const OrderedJson& one : shares) most = std::max(most, one.get<double>());
  }
  if (num_layers == 0) return "";
  std::string head = "<tr><th scope=col>plan</th>";
  for (std::size_t layer = 0; layer < num_layers; ++layer) {
    head += fmt::format("<th scope=col>{} {}</th>", column, layer);
  }
  std::string body;
  for (const Row& row : report.rows) {
    const OrderedJson& shares = shares_of(row);
    if (shares.is_null()) continue;
    body += "<tr>" + row_head(row);
    for (const OrderedJson& one : shares) {
      const auto share = one.get<double>();
      body += fmt::format("<td class=flips style=\"--s:{:.0f}%\">{:.1f}</td>",
                          most > 0 ? 85 * share / most : 0.0, 100 * share);
    }
    body += "</tr>";
  }
  return fmt::format("<h3>{}, %</h3>", title) + table(head + "</tr>", body, "heat dense");
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
    for (const char* name : {"top1_agreement", "router_flip_rate", "gate_mass_moved",
                             "diverged_traces", "changed_answers"}) {
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
                "agreement</th><th scope=col>router flips</th><th scope=col>gate mass "
                "moved</th><th scope=col>answers that diverge</th><th scope=col>answers that "
                "change</th><th scope=col>perplexity ratio</th><th "
                "scope=col>deterministic</th><th scope=col>batch-invariant</th></tr>",
                body, "dense") +
          figure("kl-by-position",
                 "Mean KL by position in the answer, nats (both axes logarithmic)", "half") +
          layers_table(report, "router_flip_rate_by_layer", "Router flips by layer", "layer") +
          layers_table(report, "gate_mass_moved_by_layer", "Gate mass moved by layer",
                       "gates of layer"));
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

}  // namespace moebench::page
