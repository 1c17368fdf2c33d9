// SHA-256 of files and texts, in 64 lower-case hexadecimal digits: what publishers print.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace moebench {

std::string sha256_of_text(std::string_view text);
// Reads the file piece by piece. Throws Error(kIo) naming it.
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace moebench
