// One file after the other, each by way of names that end in .part.
#include "datasets/fetch.h"

#include "datasets/archive.h"
#include "datasets/sha256.h"
#include "datasets/store.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"

namespace moebench {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> urls_of(const DatasetInfo& info, const DatasetFile& file,
                                 const FetchOptions& options) {
  if (options.mirror.empty()) return file.urls;
  std::string base = options.mirror;
  while (base.ends_with('/')) base.pop_back();
  return {fmt::format("{}/{}/{}", base, info.name, file.name)};
}

// Downloads what the first URL that serves has; returns its path.
fs::path download_first(const DatasetInfo& info, const DatasetFile& file, const fs::path& folder,
                        const FetchOptions& options) {
  const fs::path place = folder / info.name / file.name;
  const std::vector<std::string> urls = urls_of(info, file, options);
  require_or(ErrorCode::kUnsupported, !urls.empty(), "fetch {}: {}", info.name,
             how_to_get_by_hand(info, folder));
  DownloadOptions download_options = options.download;
  download_options.allow_http = !options.mirror.empty();
  std::string failures;
  for (const std::string& url : urls) {
    // Named after the URL, so that a part of one is never continued by another.
    const fs::path part = fmt::format("{}.{}.part", place.string(), hash_hex(content_hash(url)));
    try {
      if (options.say) options.say(fmt::format("{}: from {}", file.name, shown_url(url)));
      const DownloadResult result = download(url, part, download_options);
      if (options.say && result.resumed_from > 0) {
        options.say(fmt::format("{}: continued after {} bytes", file.name, result.resumed_from));
      }
      return part;
    } catch (const Error& error) {
      if (error.code() == ErrorCode::kInterrupted) throw;
      failures += fmt::format("{}\n  ", error.what());
    }
  }
  fail(ErrorCode::kIo, "fetch {}: no URL served:\n  {}{}", info.name, failures,
       how_to_get_by_hand(info, folder));
}

void check_rows(const DatasetInfo& info, const DatasetFile& file, const fs::path& path) {
  const DataRows data = load_rows(path, file.format, info.columns);
  require(static_cast<std::int64_t>(data.rows.size()) == file.rows, "{} rows, the manifest has {}",
          data.rows.size(), file.rows);
}

void fetch_file(const DatasetInfo& info, const DatasetFile& file, const fs::path& folder,
                const FetchOptions& options) {
  const fs::path place = folder / info.name / file.name;
  fs::create_directories(place.parent_path());
  const fs::path downloaded = download_first(info, file, folder, options);
  fs::path candidate = downloaded;
  std::error_code ignored;
  try {
    if (!file.archive_member.empty() && options.mirror.empty()) {
      candidate = place.string() + ".unpacked.part";
      extract_member(downloaded, file.archive_member, file.archive_password, candidate);
    }
    const std::string sha256 = sha256_of_file(candidate);
    const auto recorded = file.sha256 ? file.sha256 : recorded_sha256(folder, info, file);
    require(!recorded || *recorded == sha256, "its SHA-256 is {}, {} has {}", sha256,
            file.sha256 ? "the manifest" : "the first fetch", recorded.value_or(""));
    check_rows(info, file, candidate);
    fs::rename(candidate, place);
    if (!file.sha256) {
      record_sha256(folder, info, file, sha256);
      if (options.say && !recorded) {
        options.say(
            fmt::format("{}: its publisher gives no checksum; recorded SHA-256 {} for later",
                        file.name, sha256));
      }
    }
  } catch (const Error& error) {
    fs::remove(candidate, ignored);
    fs::remove(downloaded, ignored);
    fail(error.code(), "fetch {}: what {} gave is not the file: {}", info.name,
         options.mirror.empty() ? "its URL" : "the mirror", error.what());
  }
  fs::remove(downloaded, ignored);
}

}  // namespace

void fetch_dataset(const DatasetInfo& info, const FetchOptions& options) {
  require(info.shipped_path.empty(), "fetch {}: it comes with moebench", info.name);
  const fs::path folder = options.folder.empty() ? data_folders().front() : options.folder;
  for (const DatasetFile& file : info.files) {
    if (!options.again) {
      const VerifiedFile there = verify_file(info, file, folder / info.name / file.name);
      if (there.status == VerifyStatus::kVerified || there.status == VerifyStatus::kAsRecorded) {
        if (options.say) {
          options.say(fmt::format("{}: there already, {} ({})", file.name,
                                  verify_status_name(there.status), there.path.string()));
        }
        continue;
      }
    }
    fetch_file(info, file, folder, options);
    if (options.say) {
      options.say(fmt::format("{}: {} rows in {}", file.name, file.rows,
                              (folder / info.name / file.name).string()));
    }
  }
}

}  // namespace moebench
