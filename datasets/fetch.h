// Getting a dataset: download, unpack, check, put in place.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "datasets/download.h"
#include "datasets/manifest.h"

namespace moebench {

struct FetchOptions {
  std::filesystem::path folder;  // empty: the first of data_folders()
  // Instead of the manifest's URLs: <mirror>/<dataset>/<file>, unpacked already. May be http.
  std::string mirror;
  bool again = false;  // also what is there and right
  DownloadOptions download;
  std::function<void(const std::string& line)> say;
};

// Every file of the dataset, in its place when whole and right. A file whose checksum, rows or
// columns are not the manifest's does not get there. Where the manifest knows no checksum, that of
// this fetch is recorded for later ones. Throws Error that says what to do by hand if no URL
// served.
void fetch_dataset(const DatasetInfo& info, const FetchOptions& options);

}  // namespace moebench
