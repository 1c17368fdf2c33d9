// One file out of an archive (zip, tar, ...), by libarchive.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace moebench {

struct ArchiveLimits {
  std::int64_t max_entries = 100'000;
  std::int64_t max_bytes = std::int64_t{1} << 30;  // of the file, unpacked
};

// Writes the member called `member` to `target`. Only that one is unpacked, and to the place the
// caller chose: names inside the archive decide nothing. Throws Error naming the archive for what
// is none, a member that is not there or no regular file, a wrong password, and what exceeds
// `limits`.
void extract_member(const std::filesystem::path& archive, const std::string& member,
                    const std::string& password, const std::filesystem::path& target,
                    const ArchiveLimits& limits = {});

}  // namespace moebench
