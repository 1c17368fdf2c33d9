// A site of runs: what `moebench publish` writes, as plain files that any static server can give
// out.
//
//   index.html        leaderboard, regressions, trends, runs, published scores
//   index.json        the same as data (site.schema.json)
//   leaderboard.csv   one number a line
//   feed.xml          RSS 2.0: the regressions, newest first
//   badges/*.json     shields.io endpoints: "accuracy | 84.2 % [77.5 %, 90.8 %]"
//   runs/NAME/        index.html (the report's page) and report.json of each run
//   .nojekyll         GitHub Pages then serves the files as they are
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "reports/gate.h"
#include "reports/report.h"
#include "reports/run_results.h"
#include "reports/trend.h"

namespace moebench {

inline constexpr std::string_view kSiteSchema = "moebench.site/1";

struct SiteOptions {
  std::string title = "moebench";
  std::string url;  // where the site will be, "https://...": links of the feed need it
  Gate gate = default_gate();
  bool include_items = true;  // questions and transcripts in the runs' pages
  std::vector<Trend> trends;  // of a history, for a picture of each; none: no such section
};

// What index.json holds. `runs` in any order. Runs of one suite are compared, each with the one
// before it in time; the leaderboard has for each machine, model and plan the newest run of each
// suite. `names` gives each run's folder under runs/.
OrderedJson build_site(const std::vector<RunResults>& runs, const std::vector<std::string>& names,
                       const SiteOptions& options);

// Different names for the runs' folders, safe in links: from the folders' own names.
std::vector<std::string> site_names(const std::vector<RunResults>& runs);

// The machines that a list of index.json names, in its order.
std::vector<std::string> machines_of(const OrderedJson& list);

// Parts of the site, made from index.json.
std::string site_page(const OrderedJson& site);
std::string site_trends(const OrderedJson& site);  // a section of the page; "" without trends
std::string site_feed(const OrderedJson& site);
std::string site_csv(const OrderedJson& site);
// File name and content of each.
std::vector<std::pair<std::string, std::string>> site_badges(const OrderedJson& site);

// Writes all of it into `out`, which is made. Files of another site there are replaced, others
// stay. Throws Error(kIo / kParse) naming the run or the file. Returns what index.json holds.
OrderedJson write_site(const std::vector<std::filesystem::path>& runs,
                       const std::filesystem::path& out, const SiteOptions& options);

}  // namespace moebench
