// Looking for data files, reading them, and checking them against the manifest.
#include "datasets/store.h"

#include <array>
#include <cstdlib>
#include <fstream>

#include "datasets/sha256.h"
#include "kernels/core/append_file.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/resources.h"

namespace moebench {
namespace {

constexpr std::uintmax_t kMostBytes = std::uintmax_t{1} << 30;
constexpr std::string_view kChecksumSchema = "moebench.checksums/1";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string read_bounded(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  require_or(ErrorCode::kIo, !error, "open {}: {}", path.string(), error.message());
  require_or(ErrorCode::kIo, size <= kMostBytes, "read {}: {} bytes (at most {} are accepted)",
             path.string(), size, kMostBytes);
  std::ifstream stream(path, std::ios::binary);
  require_or(ErrorCode::kIo, stream.good(), "open {}: it cannot be read", path.string());
  return {std::istreambuf_iterator<char>(stream), {}};
}

void check_columns(const std::vector<DataRow>& rows, const std::vector<std::string>& columns) {
  for (const DataRow& row : rows) {
    for (const std::string& column : columns) raw_field(row, column);
  }
}

std::vector<DataRow> read_checked(const std::filesystem::path& path, const std::string& text,
                                  DataFormat format, const std::vector<std::string>& columns) {
  std::vector<DataRow> rows = parse_rows(text, format, path.filename().string());
  check_columns(rows, columns);
  return rows;
}

std::filesystem::path checksum_path(const std::filesystem::path& folder) {
  return folder / "checksums.json";
}

OrderedJson read_checksums(const std::filesystem::path& folder) {
  const std::filesystem::path path = checksum_path(folder);
  OrderedJson files = OrderedJson::object();
  if (!std::filesystem::exists(path)) return files;
  const Json json = parse_json(read_bounded(path), path.string(), 4);
  JsonFields fields(json, path.string());
  const auto schema = fields.required<std::string>("schema");
  require(schema == kChecksumSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kChecksumSchema);
  const Json* list = fields.find("files");
  require(list != nullptr && list->is_object(), "{}: expected an object", fields.path("files"));
  for (const auto& [name, value] : list->items()) {
    require(value.is_string(), "{}.{}: expected text", fields.path("files"), name);
    files[name] = value.get<std::string>();
  }
  fields.finish();
  return files;
}

std::string key_of(const DatasetInfo& info, const DatasetFile& file) {
  return info.name + "/" + file.name;
}

}  // namespace

std::vector<std::filesystem::path> data_folders() {
  std::vector<std::filesystem::path> folders;
  if (const std::string data = environment("MOEBENCH_DATA"); !data.empty()) {
    folders.emplace_back(data);
  }
  const std::string cache = environment("XDG_CACHE_HOME");
  const std::string home = environment("HOME");
  if (!cache.empty()) {
    folders.push_back(std::filesystem::path(cache) / "moebench" / "data");
  } else if (!home.empty()) {
    folders.push_back(std::filesystem::path(home) / ".cache" / "moebench" / "data");
  }
  require_or(ErrorCode::kIo, !folders.empty(),
             "find the data folder: none of MOEBENCH_DATA, XDG_CACHE_HOME and HOME is set");
  return folders;
}

std::optional<std::filesystem::path> find_data_file(const DatasetInfo& info,
                                                    const DatasetFile& file) {
  if (!info.shipped_path.empty()) return find_resource(info.shipped_path);
  for (const std::filesystem::path& folder : data_folders()) {
    std::error_code ignored;
    const std::filesystem::path path = folder / info.name / file.name;
    if (std::filesystem::is_regular_file(path, ignored)) return path;
  }
  return std::nullopt;
}

std::string how_to_get_by_hand(const DatasetInfo& info, const std::filesystem::path& folder) {
  std::string text = info.instructions.empty() ? "" : info.instructions + "; ";
  text += "by hand, the files belong at";
  for (const DatasetFile& file : info.files) {
    text += fmt::format("\n  {}", (folder / info.name / file.name).string());
    for (const std::string& url : file.urls) {
      text += fmt::format("\n    from {}", url);
      if (!file.archive_member.empty()) text += ", member " + file.archive_member;
      if (!file.archive_password.empty()) text += ", password " + file.archive_password;
    }
  }
  return text;
}

std::string how_to_get(const DatasetInfo& info) {
  const std::string command = info.files.front().urls.empty()
                                  ? ""
                                  : fmt::format("`moebench data fetch {}` gets it; ", info.name);
  return command + how_to_get_by_hand(info, data_folders().front());
}

DataRows load_rows(const std::filesystem::path& path, DataFormat format,
                   const std::vector<std::string>& columns) {
  const std::string text = read_bounded(path);
  DataRows data{read_checked(path, text, format, columns), hash_hex(content_hash(text))};
  require(!data.rows.empty(), "read {}: there are no rows in it", path.string());
  return data;
}

DataRows load_dataset(const DatasetInfo& info, std::string_view split) {
  DataRows data;
  std::uint64_t hash = 0;
  for (const DatasetFile& file : info.files) {
    if (file.split != split) continue;
    const auto path = find_data_file(info, file);
    require_or(ErrorCode::kIo, path.has_value(),
               "load the dataset {}: {} is not on this machine; {}", info.name, file.name,
               how_to_get(info));
    const std::string text = read_bounded(*path);
    hash = content_hash(text, hash);
    for (DataRow& row : read_checked(*path, text, file.format, info.columns)) {
      data.rows.push_back(std::move(row));
    }
  }
  require(!data.rows.empty(), "load the dataset {}: there are no rows in its split {}", info.name,
          split);
  data.hash = hash_hex(hash);
  return data;
}

std::string_view verify_status_name(VerifyStatus status) {
  constexpr std::array<std::string_view, 5> kNames = {"verified", "as first fetched",
                                                      "no checksum known", "missing", "wrong"};
  return kNames[static_cast<std::size_t>(status)];
}

VerifiedFile verify_file(const DatasetInfo& info, const DatasetFile& file) {
  const auto path = find_data_file(info, file);
  return path ? verify_file(info, file, *path)
              : VerifiedFile{VerifyStatus::kMissing, "not on this machine", "", ""};
}

VerifiedFile verify_file(const DatasetInfo& info, const DatasetFile& file,
                         const std::filesystem::path& path) {
  VerifiedFile result;
  if (!std::filesystem::exists(path)) {
    result.message = "not on this machine";
    return result;
  }
  result.path = path;
  result.status = VerifyStatus::kWrong;
  const std::string text = read_bounded(path);
  result.sha256 = sha256_of_text(text);
  std::optional<std::string> expected = file.sha256;
  const bool from_manifest = expected.has_value();
  if (!expected && info.shipped_path.empty()) {
    expected = recorded_sha256(path.parent_path().parent_path(), info, file);
  }
  if (expected && *expected != result.sha256) {
    result.message = fmt::format("SHA-256 is {}, {} has {}", result.sha256,
                                 from_manifest ? "the manifest" : "the first fetch", *expected);
    return result;
  }
  try {
    const auto rows = read_checked(path, text, file.format, info.columns);
    if (static_cast<std::int64_t>(rows.size()) != file.rows) {
      result.message = fmt::format("{} rows, the manifest has {}", rows.size(), file.rows);
      return result;
    }
  } catch (const Error& error) {
    result.message = error.what();
    return result;
  }
  result.status = from_manifest ? VerifyStatus::kVerified
                  : expected    ? VerifyStatus::kAsRecorded
                                : VerifyStatus::kUnknown;
  result.message = fmt::format("{} rows, columns as expected", file.rows);
  return result;
}

std::optional<std::string> recorded_sha256(const std::filesystem::path& folder,
                                           const DatasetInfo& info, const DatasetFile& file) {
  const OrderedJson files = read_checksums(folder);
  const auto it = files.find(key_of(info, file));
  if (it == files.end()) return std::nullopt;
  return it->get<std::string>();
}

void record_sha256(const std::filesystem::path& folder, const DatasetInfo& info,
                   const DatasetFile& file, const std::string& sha256) {
  OrderedJson files = read_checksums(folder);
  files[key_of(info, file)] = sha256;
  const OrderedJson json = {{"schema", kChecksumSchema}, {"files", std::move(files)}};
  write_file_atomically(checksum_path(folder), json.dump(1) + "\n");
}

}  // namespace moebench
