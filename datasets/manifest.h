// The manifest: which datasets there are, where they come from, and under which terms.
// datasets/manifest.json is the one that ships.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/rows.h"

namespace moebench {

// One file of rows. It is stored as <data folder>/<dataset>/<name>.
struct DatasetFile {
  std::string name;            // a plain file name
  std::string split = "test";  // "test" is asked, "few_shot" gives examples
  DataFormat format = DataFormat::kJsonl;
  std::vector<std::string> urls;      // tried in order; none: `instructions` say what to do
  std::optional<std::string> sha256;  // of the file; absent where its publisher gives none
  std::int64_t rows = 0;
  // Where the file is a member of an archive at the URLs: its path there, and the password.
  std::string archive_member;
  std::string archive_password;
};

struct DatasetInfo {
  std::string name;
  std::string description;
  std::string licence;
  std::string homepage;
  std::string citation;
  std::vector<std::string> columns;  // that a row must have; more are fine
  std::vector<DatasetFile> files;
  bool public_text = true;   // false: its authors ask that items appear on no page; see the README
  bool gated = false;        // the publisher wants an account: HF_TOKEN is sent to its host
  std::string shipped_path;  // of a set that comes with the program, below its files; else ""
  std::string instructions;  // what to do where no URL serves; may be ""

  std::int64_t rows(std::string_view split = "test") const;
};

// Throws Error naming `where` and the field: unknown fields, names that lead out of their folder,
// URLs that are not https, checksums that are none.
std::vector<DatasetInfo> parse_manifest(std::string_view text, std::string_view where);

// The manifest that ships.
const std::vector<DatasetInfo>& shipped_manifest();

// Throws Error(kInvalidArgument) with `where` and the nearest name.
const DatasetInfo& find_dataset(std::string_view name, std::string_view where = "find a dataset");

}  // namespace moebench
