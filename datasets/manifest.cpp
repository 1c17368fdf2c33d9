// Strict reading of the manifest.
#include "datasets/manifest.h"

#include <algorithm>
#include <fstream>
#include <set>

#include "kernels/core/error.h"
#include "kernels/core/resources.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::string_view kSchema = "moebench.datasets/1";
constexpr std::int64_t kMostRows = 4'000'000;

// Letters, digits, "_", "-" and single dots: what cannot lead out of a folder on any system.
void require_plain_name(const std::string& name, const std::string& path) {
  const bool plain = !name.empty() && name.size() <= 100 && name.front() != '.' &&
                     std::all_of(name.begin(), name.end(), [](char c) {
                       return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                              (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
                     });
  require(plain, "{}: '{}' is not a plain name (letters, digits, '_', '-', '.')", path,
          name.substr(0, 100));
}

const Json& required_list(JsonFields& fields, std::string_view name) {
  const Json* list = fields.find(name);
  require(list != nullptr && list->is_array() && !list->empty(),
          "{}: expected a list of at least one", fields.path(name));
  return *list;
}

DatasetFile parse_file(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  DatasetFile file;
  file.name = fields.required<std::string>("name");
  require_plain_name(file.name, fields.path("name"));
  file.split = fields.optional<std::string>("split", file.split);
  require(file.split == "test" || file.split == "few_shot",
          "{}: '{}' is not a split (test, few_shot)", fields.path("split"),
          file.split.substr(0, 60));
  file.format =
      data_format_from_name(fields.required<std::string>("format"), fields.path("format"));
  file.urls = fields.optional<std::vector<std::string>>("urls", {});
  for (const std::string& url : file.urls) {
    require(url.starts_with("https://"), "{}: '{}' is not an https URL", fields.path("urls"),
            url.substr(0, 100));
  }
  const auto sha256 = fields.optional<std::string>("sha256", "");
  if (!sha256.empty()) {
    const bool is_hash =
        sha256.size() == 64 && sha256.find_first_not_of("0123456789abcdef") == std::string::npos;
    require(is_hash, "{}: '{}' is not 64 lower-case hexadecimal digits", fields.path("sha256"),
            sha256.substr(0, 80));
    file.sha256 = sha256;
  }
  file.rows = in_range<std::int64_t>(fields.required<std::int64_t>("rows"), 1, kMostRows,
                                     fields.path("rows"));
  if (const Json* archive = fields.find("archive"); archive != nullptr && !archive->is_null()) {
    JsonFields inner(*archive, fields.path("archive"));
    file.archive_member = inner.required<std::string>("member");
    require(!file.archive_member.empty(), "{}: the name is empty", inner.path("member"));
    file.archive_password = inner.optional<std::string>("password", "");
    inner.finish();
  }
  fields.finish();
  return file;
}

DatasetInfo parse_dataset(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  DatasetInfo info;
  info.name = fields.required<std::string>("name");
  require_plain_name(info.name, fields.path("name"));
  info.description = fields.required<std::string>("description");
  info.licence = fields.required<std::string>("licence");
  info.homepage = fields.required<std::string>("homepage");
  info.citation = fields.required<std::string>("citation");
  info.columns = fields.required<std::vector<std::string>>("columns");
  info.public_text = fields.optional<bool>("public_text", true);
  info.gated = fields.optional<bool>("gated", false);
  info.shipped_path = fields.optional<std::string>("shipped_path", "");
  info.instructions = fields.optional<std::string>("instructions", "");
  std::set<std::string> names;
  for (const Json& file : required_list(fields, "files")) {
    const std::string place = fmt::format("{}[{}]", fields.path("files"), info.files.size());
    info.files.push_back(parse_file(file, place));
    require(names.insert(info.files.back().name).second, "{}: two files have the name '{}'", place,
            info.files.back().name);
  }
  fields.finish();
  return info;
}

}  // namespace

std::int64_t DatasetInfo::rows(std::string_view split) const {
  std::int64_t total = 0;
  for (const DatasetFile& file : files) total += file.split == split ? file.rows : 0;
  return total;
}

std::vector<DatasetInfo> parse_manifest(std::string_view text, std::string_view where) {
  const Json json = parse_json(text, where, 8);
  JsonFields fields(json, std::string(where));
  const auto schema = fields.required<std::string>("schema");
  require(schema == kSchema, "{}: '{}' is not supported ({} is)", fields.path("schema"),
          schema.substr(0, 60), kSchema);
  std::vector<DatasetInfo> datasets;
  std::set<std::string> names;
  for (const Json& dataset : required_list(fields, "datasets")) {
    const std::string place = fmt::format("{}[{}]", fields.path("datasets"), datasets.size());
    datasets.push_back(parse_dataset(dataset, place));
    require(names.insert(datasets.back().name).second, "{}: the name '{}' stood before", place,
            datasets.back().name);
  }
  fields.finish();
  return datasets;
}

const std::vector<DatasetInfo>& shipped_manifest() {
  static const std::vector<DatasetInfo> datasets = [] {
    const std::filesystem::path path = find_resource("datasets/manifest.json");
    std::ifstream stream(path, std::ios::binary);
    require_or(ErrorCode::kIo, stream.good(), "open {}: it cannot be read", path.string());
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    return parse_manifest(text, path.string());
  }();
  return datasets;
}

const DatasetInfo& find_dataset(std::string_view name, std::string_view where) {
  const std::vector<DatasetInfo>& all = shipped_manifest();
  std::vector<std::string_view> known;
  known.reserve(all.size());
  for (const DatasetInfo& info : all) known.emplace_back(info.name);
  return all[index_of_name(known, name, where, "dataset")];
}

}  // namespace moebench
