// Reading archives entry by entry.
#include "datasets/archive.h"

#include <archive.h>
#include <archive_entry.h>

#include <fstream>
#include <memory>

#include "kernels/core/error.h"

namespace moebench {
namespace {

constexpr std::size_t kBlockBytes = std::size_t{64} << 10;

struct ArchiveFree {
  void operator()(archive* handle) const { archive_read_free(handle); }
};

std::string reason_of(archive* handle) {
  const char* text = archive_error_string(handle);
  return text == nullptr ? "libarchive gave no reason" : text;
}

// The data of the entry the archive stands at.
void copy_entry(archive* handle, const std::string& what, const std::filesystem::path& target,
                const ArchiveLimits& limits) {
  std::ofstream out(target, std::ios::binary | std::ios::trunc);
  require_or(ErrorCode::kIo, out.good(), "unpack {}: {} cannot be written", what, target.string());
  std::string block(kBlockBytes, '\0');
  std::int64_t bytes = 0;
  while (true) {
    const la_ssize_t count = archive_read_data(handle, block.data(), block.size());
    require_or(ErrorCode::kParse, count >= 0, "unpack {}: {}", what, reason_of(handle));
    if (count == 0) break;
    bytes += count;
    // What the entry says of its size is not believed: this is what comes out of it.
    require_or(ErrorCode::kParse, bytes <= limits.max_bytes, "unpack {}: more than {} bytes", what,
               limits.max_bytes);
    out.write(block.data(), count);
  }
  out.flush();
  require_or(ErrorCode::kIo, out.good(), "unpack {}: {} cannot be written", what, target.string());
}

}  // namespace

void extract_member(const std::filesystem::path& path, const std::string& member,
                    const std::string& password, const std::filesystem::path& target,
                    const ArchiveLimits& limits) {
  const std::unique_ptr<archive, ArchiveFree> handle(archive_read_new());
  require_or(ErrorCode::kOutOfMemory, handle != nullptr, "unpack {}: no memory", path.string());
  archive_read_support_format_zip(handle.get());
  archive_read_support_format_tar(handle.get());
  archive_read_support_filter_gzip(handle.get());
  if (!password.empty()) archive_read_add_passphrase(handle.get(), password.c_str());
  require_or(ErrorCode::kParse,
             archive_read_open_filename(handle.get(), path.c_str(), kBlockBytes) == ARCHIVE_OK,
             "unpack {}: {}", path.string(), reason_of(handle.get()));
  archive_entry* entry = nullptr;
  for (std::int64_t seen = 0;; ++seen) {
    require_or(ErrorCode::kParse, seen < limits.max_entries, "unpack {}: more than {} entries",
               path.string(), limits.max_entries);
    const int code = archive_read_next_header(handle.get(), &entry);
    if (code == ARCHIVE_EOF) break;
    require_or(ErrorCode::kParse, code == ARCHIVE_OK || code == ARCHIVE_WARN, "unpack {}: {}",
               path.string(), reason_of(handle.get()));
    const char* name = archive_entry_pathname(entry);
    if (name == nullptr || name != member) continue;
    const std::string what = fmt::format("{} of {}", member, path.string());
    require_or(ErrorCode::kParse, archive_entry_filetype(entry) == AE_IFREG,
               "unpack {}: it is no regular file", what);
    copy_entry(handle.get(), what, target, limits);
    return;
  }
  fail(ErrorCode::kParse, "unpack {}: there is no member '{}'", path.string(), member);
}

}  // namespace moebench
