// Finding the files of a checkpoint and joining their tensors.
#include "engine/checkpoint.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "kernels/core/error.h"
#include "kernels/core/json_fields.h"
#include "kernels/core/suggest.h"

namespace moebench {
namespace {

constexpr std::string_view kIndexName = "model.safetensors.index.json";

// Tensor name -> file name, as the index says.
std::unordered_map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Json json = parse_json(read_text_file(path), where, 8);
  JsonFields fields(json, where);
  const Json* map = fields.find("weight_map");
  require_or(ErrorCode::kParse, map != nullptr && map->is_object(),
             "read {}: field 'weight_map' is missing or not an object", where);
  std::unordered_map<std::string, std::string> result;
  for (const auto& [tensor, file] : map->items()) {
    require_or(ErrorCode::kParse, file.is_string(), "read {}: weight_map['{}'] is not a file name",
               where, tensor.substr(0, 200));
    const auto name = file.get<std::string>();
    // A name with a directory in it could point anywhere on the disk.
    require_or(ErrorCode::kParse,
               !name.empty() && name.find('/') == std::string::npos && name != "..",
               "read {}: weight_map['{}'] = '{}' is not a plain file name", where,
               tensor.substr(0, 200), name.substr(0, 200));
    result.emplace(tensor, name);
  }
  return result;
}

std::vector<std::string> scan_directory(const std::filesystem::path& directory) {
  std::vector<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(directory)) {
    if (item.path().extension() == ".safetensors") names.push_back(item.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Checkpoint Checkpoint::open(const std::filesystem::path& directory) {
  require_or(ErrorCode::kIo, std::filesystem::is_directory(directory),
             "open model {}: it is not a directory", directory.string());
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;

  std::unordered_map<std::string, std::string> index;
  std::vector<std::string> names;
  const std::filesystem::path index_path = directory / kIndexName;
  if (std::filesystem::exists(index_path)) {
    index = read_index(index_path);
    std::set<std::string> unique;
    for (const auto& [tensor, file] : index) unique.insert(file);
    names.assign(unique.begin(), unique.end());
  } else {
    names = scan_directory(directory);
  }
  require_or(ErrorCode::kIo, !names.empty(), "open model {}: no *.safetensors file and no {} in it",
             directory.string(), kIndexName);

  checkpoint.files_.reserve(names.size());
  for (const std::string& name : names) {
    const MappedFile& file = checkpoint.files_.emplace_back(directory / name);
    const std::string where = file.path().string();
    for (SafetensorsEntry& entry : parse_safetensors(file.bytes(), where)) {
      const auto [existing, inserted] = checkpoint.tensors_.try_emplace(entry.name, entry);
      require_or(ErrorCode::kParse, inserted, "read {}: tensor '{}' stands in {} too", where,
                 entry.name, checkpoint.file_of(existing->second));
    }
  }
  for (const auto& [tensor, file] : index) {
    const SafetensorsEntry* entry = checkpoint.find(tensor);
    require_or(ErrorCode::kParse,
               entry != nullptr && checkpoint.file_of(*entry) == (directory / file).string(),
               "read {}: tensor '{}' is not in {}, where the index says it is", index_path.string(),
               tensor.substr(0, 200), file);
  }
  return checkpoint;
}

Checkpoint Checkpoint::of_headers(std::string name, std::vector<SafetensorsEntry> entries) {
  Checkpoint checkpoint;
  checkpoint.directory_ = std::move(name);
  for (SafetensorsEntry& entry : entries) {
    const std::string key = entry.name;
    checkpoint.tensors_.emplace(key, std::move(entry));
  }
  return checkpoint;
}

void Checkpoint::release() const {
  for (const MappedFile& file : files_) MappedFile::release(file.bytes());
}

const SafetensorsEntry* Checkpoint::find(std::string_view name) const {
  const auto it = tensors_.find(std::string(name));
  return it == tensors_.end() ? nullptr : &it->second;
}

const SafetensorsEntry& Checkpoint::require_tensor(std::string_view name,
                                                   std::span<const std::string_view> dtypes,
                                                   std::span<const std::int64_t> shape) const {
  const SafetensorsEntry* entry = find(name);
  if (entry == nullptr) {
    std::vector<std::string> known;
    for (const auto& [other, ignored] : tensors_) known.push_back(other);
    const std::string nearest = nearest_name(name, known);
    fail(ErrorCode::kParse, "read {}: tensor '{}' is missing{}", directory_.string(), name,
         nearest.empty() ? "" : fmt::format(" (there is '{}')", nearest));
  }
  require_or(ErrorCode::kParse,
             std::find(dtypes.begin(), dtypes.end(), entry->dtype) != dtypes.end(),
             "read {}: tensor '{}' is {}, expected {}", file_of(*entry), name, entry->dtype,
             fmt::join(dtypes, " or "));
  require_or(ErrorCode::kParse,
             std::equal(shape.begin(), shape.end(), entry->shape.begin(), entry->shape.end()),
             "read {}: tensor '{}' has shape {}, but config.json asks for {}", file_of(*entry),
             name, shape_text(entry->shape), shape_text(shape));
  return *entry;
}

std::string Checkpoint::file_of(const SafetensorsEntry& tensor) const {
  for (const MappedFile& file : files_) {
    const auto bytes = file.bytes();
    const std::byte* end = bytes.data() + bytes.size();
    // `<=` at the end: an empty tensor may start there.
    if (tensor.data.data() >= bytes.data() && tensor.data.data() <= end) {
      return file.path().string();
    }
  }
  return directory_.string();
}

}  // namespace moebench
