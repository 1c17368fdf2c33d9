// moebench publish: a static site from the folders of runs.
#include <fmt/core.h>

#include <memory>

#include "cli/command.h"
#include "kernels/core/error.h"
#include "reports/history.h"
#include "reports/site.h"
#include "reports/trend.h"

namespace moebench::cli {
namespace {

// What a small picture still shows.
constexpr std::int64_t kTrendRuns = 200;

struct PublishOptions {
  std::vector<std::string> runs;
  std::string out = "site";
  std::string gate;
  std::string history;  // URL
  std::string history_name = "main";
  SiteOptions site;
};

int run_publish(const PublishOptions& options) {
  SiteOptions site_options = options.site;
  if (!options.gate.empty()) site_options.gate = load_gate(options.gate);
  const auto& url = site_options.url;
  require(url.empty() || url.starts_with("https://") || url.starts_with("http://"),
          "publish: '{}' is no address of a site (https://name.github.io/project/)", url);
  if (!options.history.empty()) {
    History history(options.history, false);
    HistoryFilter filter;
    filter.name = options.history_name;
    filter.last = kTrendRuns;
    site_options.trends = read_trends(history, filter);
    require(!site_options.trends.empty(),
            "publish: the history {} has no good run of the name '{}' with a metric that is "
            "compared (see `moebench history list`)",
            options.history, options.history_name);
  }
  const std::vector<std::filesystem::path> runs(options.runs.begin(), options.runs.end());
  const OrderedJson site = write_site(runs, options.out, site_options);
  std::size_t regressions = 0;
  for (const OrderedJson& comparison : site.at("comparisons")) {
    regressions += comparison.at("regressions").empty() ? 0 : 1;
  }
  fmt::print("site: {} ({} runs, {} numbers, {} of {} comparisons with a regression)\n",
             (std::filesystem::path(options.out) / "index.html").string(), site.at("runs").size(),
             site.at("leaderboard").size(), regressions, site.at("comparisons").size());
  return kExitOk;
}

}  // namespace

void add_publish(CLI::App& app, Action& action) {
  auto options = std::make_shared<PublishOptions>();
  CLI::App* command = add_command(
      app, action, "publish",
      "Make a static site of runs: leaderboard, pages, JSON, CSV, badges and a feed of regressions",
      options, run_publish);
  command
      ->add_option("runs", options->runs,
                   "Folders of runs, or folders that hold several; also other tools' results")
      ->type_name("RUN...")
      ->required();
  command->add_option("-o,--out", options->out, "The site's folder")
      ->type_name("DIR")
      ->capture_default_str();
  command->add_option("--title", options->site.title, "Title of the site")
      ->type_name("TEXT")
      ->capture_default_str();
  command->add_option("--url", options->site.url, "Where the site will be: for links in the feed")
      ->type_name("URL");
  command
      ->add_option(
          "--gate", options->gate,
          "What counts as a regression between runs of one suite (reports/gate.schema.json)")
      ->type_name("FILE");
  command->add_flag("!--no-items", options->site.include_items,
                    "Leave questions and transcripts out of the runs' pages");
  command
      ->add_option("--history", options->history,
                   "A history, for the trend of each metric: a file of SQLite, or "
                   "postgresql://USER@HOST/NAME")
      ->type_name("URL");
  command->add_option("--history-name", options->history_name, "Of its runs those of this name")
      ->type_name("NAME")
      ->capture_default_str();
  add_examples(command, {"moebench publish moebench-out -o site",
                         "moebench publish runs/* -o site --history history.db",
                         "moebench publish runs/* -o site --url https://name.github.io/project/"});
}

}  // namespace moebench::cli
