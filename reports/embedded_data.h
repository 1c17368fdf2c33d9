// Data inside a page: compressed and as text, so that thousands of transcripts fit into one file.
#pragma once

#include <string>
#include <string_view>

namespace moebench {

// The bytes as a zlib stream (RFC 1950) in base64 (RFC 4648, padded): what a browser's
// DecompressionStream("deflate") reads after atob. Throws Error(kOutOfMemory).
std::string deflate_base64(std::string_view bytes);

}  // namespace moebench
