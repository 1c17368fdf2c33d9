// moebench data: the datasets, what of them is on this machine, and getting the rest.
#include <fmt/core.h>

#include <cstdlib>
#include <memory>

#include "bench/interrupt.h"
#include "cli/command.h"
#include "cli/model_options.h"
#include "cli/table.h"
#include "datasets/fetch.h"
#include "datasets/manifest.h"
#include "datasets/store.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"

namespace moebench::cli {
namespace {

struct DataOptions {
  std::vector<std::string> names;
  std::int64_t count = 3;
  std::string folder;
  std::string mirror;
  bool again = false;
  bool json = false;
};

std::vector<const DatasetInfo*> chosen(const DataOptions& options) {
  std::vector<const DatasetInfo*> list;
  if (options.names.empty()) {
    for (const DatasetInfo& info : shipped_manifest()) list.push_back(&info);
  }
  for (const std::string& name : options.names) list.push_back(&find_dataset(name));
  return list;
}

struct LocalState {
  std::size_t found = 0;  // files
  std::uintmax_t bytes = 0;
};

LocalState local_state(const DatasetInfo& info) {
  LocalState state;
  for (const DatasetFile& file : info.files) {
    if (const auto path = find_data_file(info, file)) {
      ++state.found;
      state.bytes += std::filesystem::file_size(*path);
    }
  }
  return state;
}

int run_list(const DataOptions& options) {
  Table table({"dataset", ">rows", "here", ">size", "licence"});
  OrderedJson json = OrderedJson::array();
  for (const DatasetInfo* info : chosen(options)) {
    const LocalState state = local_state(*info);
    const bool whole = state.found == info->files.size();
    const std::string here = whole ? "yes" : state.found > 0 ? "in part" : "no";
    table.add({info->name, format_count(info->rows()), here,
               state.found > 0 ? format_bytes(static_cast<double>(state.bytes)) : "",
               info->licence});
    json.push_back({{"name", info->name},
                    {"description", info->description},
                    {"rows", info->rows()},
                    {"here", whole},
                    {"bytes", state.bytes},
                    {"licence", info->licence},
                    {"homepage", info->homepage},
                    {"citation", info->citation},
                    {"public_text", info->public_text}});
  }
  if (options.json) {
    fmt::print("{}\n", json_line(json));
    return kExitOk;
  }
  fmt::print("{}\nlooked for in: ", table.text());
  std::string folders;
  for (const auto& folder : data_folders()) {
    folders += fmt::format("{}{}", folders.empty() ? "" : ", ", folder.string());
  }
  fmt::print("{}\n", folders);
  return kExitOk;
}

void show(const DatasetInfo& info, std::int64_t count) {
  fmt::print("{}: {}\nrows: {}\nlicence: {}\nhomepage: {}\ncite: {}\n", info.name, info.description,
             format_count(info.rows()), info.licence, info.homepage, info.citation);
  if (!info.public_text) {
    fmt::print("note: its authors ask that items are not published; reports hold hashes instead\n");
  }
  const DataRows data = load_dataset(info);
  for (std::size_t i = 0; i < data.rows.size() && i < static_cast<std::size_t>(count); ++i) {
    fmt::print("\n[{}]\n", i + 1);
    for (const std::string& column : info.columns) {
      const Json& value = raw_field(data.rows[i], column);
      fmt::print("  {}: {}\n", column,
                 value.is_string() ? value.get<std::string>() : json_line(OrderedJson(value)));
    }
  }
}

int run_show(const DataOptions& options) {
  for (const std::string& name : options.names) show(find_dataset(name), options.count);
  return kExitOk;
}

int run_verify(const DataOptions& options) {
  Table table({"file", "status", "what was seen"});
  bool wrong = false;
  for (const DatasetInfo* info : chosen(options)) {
    for (const DatasetFile& file : info->files) {
      const VerifiedFile result = verify_file(*info, file);
      // Only what was asked for by name has to be there.
      wrong = wrong || result.status == VerifyStatus::kWrong ||
              (result.status == VerifyStatus::kMissing && !options.names.empty());
      table.add({info->name + "/" + file.name, std::string(verify_status_name(result.status)),
                 result.message});
    }
  }
  fmt::print("{}", table.text());
  return wrong ? kExitFailed : kExitOk;
}

int run_fetch(const DataOptions& options) {
  watch_for_interrupts();
  FetchOptions fetch;
  fetch.folder = options.folder;
  fetch.mirror = options.mirror;
  if (const char* mirror = std::getenv("MOEBENCH_MIRROR"); fetch.mirror.empty() && mirror) {
    fetch.mirror = mirror;
  }
  fetch.again = options.again;
  if (const char* token = std::getenv("HF_TOKEN")) fetch.download.token = token;
  fetch.download.stop_requested = interrupted;
  fetch.say = [](const std::string& line) { fmt::print("{}\n", line); };
  std::int64_t shown_percent = -1;
  fetch.download.on_progress = [&](std::int64_t done, std::int64_t total) {
    const std::int64_t percent = total > 0 ? done * 100 / total : 0;
    if (total < 10'000'000 || percent / 10 == shown_percent / 10) return;
    shown_percent = percent;
    fmt::print(stderr, "  {} of {}\n", format_bytes(static_cast<double>(done)),
               format_bytes(static_cast<double>(total)));
  };
  for (const std::string& name : options.names) fetch_dataset(find_dataset(name), fetch);
  return kExitOk;
}

CLI::Validator is_dataset() {
  return read_by([](const std::string& name) { find_dataset(name, "choose a dataset"); });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("data", "Datasets: list them, get them, check them, look at them");
  command->require_subcommand(1);
  add_examples(command, {"moebench data list", "moebench data fetch gpqa_diamond aime_2025",
                         "moebench data show gsm8k -n 2", "moebench data verify"});
  auto options = std::make_shared<DataOptions>();

  CLI::App* list =
      add_command(*command, action, "list", "Every dataset: rows, licence, whether it is here",
                  options, run_list);
  list->add_flag("--json", options->json, "As JSON, with homepage and citation");
  add_examples(list, {"moebench data list --json"});

  CLI::App* show_command = add_command(
      *command, action, "show", "The first items of a dataset, and whose it is", options, run_show);
  show_command->add_option("names", options->names, "Datasets")
      ->type_name("NAME...")
      ->check(is_dataset())
      ->required();
  show_command->add_option("-n", options->count, "Items")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_examples(show_command, {"moebench data show nano -n 2"});

  CLI::App* verify =
      add_command(*command, action, "verify", "Check checksums, columns and rows of what is here",
                  options, run_verify);
  verify->add_option("names", options->names, "Datasets (default: all; named ones must be here)")
      ->type_name("NAME...")
      ->check(is_dataset());
  add_examples(verify, {"moebench data verify", "moebench data verify gpqa_diamond"});

  CLI::App* fetch =
      add_command(*command, action, "fetch", "Download datasets, check them, put them in place",
                  options, run_fetch);
  fetch->add_option("names", options->names, "Datasets")
      ->type_name("NAME...")
      ->check(is_dataset())
      ->required();
  fetch->add_option("--to", options->folder, "Data folder (default: MOEBENCH_DATA, or the cache)")
      ->type_name("DIR");
  fetch
      ->add_option("--mirror", options->mirror,
                   "Take URL/<dataset>/<file> instead of the publishers' URLs; http is accepted "
                   "(default: MOEBENCH_MIRROR)")
      ->type_name("URL");
  fetch->add_flag("--again", options->again, "Also what is there already");
  add_examples(fetch,
               {"moebench data fetch gsm8k",
                "moebench data fetch gpqa_diamond --mirror http://10.0.0.2/data",
                "HF_TOKEN=... moebench data fetch NAME       (sent to huggingface.co only)"});
}

}  // namespace moebench::cli
