// The data folder: where files of datasets are looked for, and what is known of those found.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/manifest.h"
#include "datasets/rows.h"

namespace moebench {

// Searched in order: $MOEBENCH_DATA, then moebench/data below $XDG_CACHE_HOME (~/.cache). The first
// is where fetched files go. Files lie in <folder>/<dataset>/<file>.
std::vector<std::filesystem::path> data_folders();

// nullopt: in none of the folders. A set that ships is found beside the program.
std::optional<std::filesystem::path> find_data_file(const DatasetInfo& info,
                                                    const DatasetFile& file);

struct DataRows {
  std::vector<DataRow> rows;
  std::string hash;  // content_hash of all files, in order
};

// The rows of a split, file after file; every row has the manifest's columns. Throws Error(kIo)
// that says what to download and where to put it if a file is missing, and Error naming the row if
// it is not what the manifest says.
DataRows load_dataset(const DatasetInfo& info, std::string_view split = "test");

// The same from any one file, such as a user's. `columns` may be empty.
DataRows load_rows(const std::filesystem::path& path, DataFormat format,
                   const std::vector<std::string>& columns);

// What the text of a missing file's error says: the command, and by hand what to put where.
std::string how_to_get(const DatasetInfo& info);
std::string how_to_get_by_hand(const DatasetInfo& info, const std::filesystem::path& folder);

enum class VerifyStatus {
  kVerified,    // checksum of the manifest, rows and columns are right
  kAsRecorded,  // the manifest has no checksum: it is that of the first fetch
  kUnknown,     // rows and columns are right; nobody said what the checksum should be
  kMissing,
  kWrong,  // `message` says what
};
std::string_view verify_status_name(VerifyStatus status);

struct VerifiedFile {
  VerifyStatus status = VerifyStatus::kMissing;
  std::string message;
  std::string sha256;  // of the file found; "" if missing
  std::filesystem::path path;
};
VerifiedFile verify_file(const DatasetInfo& info, const DatasetFile& file);
VerifiedFile verify_file(const DatasetInfo& info, const DatasetFile& file,
                         const std::filesystem::path& path);

// The checksums of first fetches, in <folder>/checksums.json. A file that is there and cannot be
// read is an Error, not an empty one.
std::optional<std::string> recorded_sha256(const std::filesystem::path& folder,
                                           const DatasetInfo& info, const DatasetFile& file);
void record_sha256(const std::filesystem::path& folder, const DatasetInfo& info,
                   const DatasetFile& file, const std::string& sha256);

}  // namespace moebench
