// CSV as RFC 4180 has it: quoted fields may hold commas, quotes (doubled) and line breaks.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

// What untrusted text may ask of us.
struct CsvLimits {
  std::size_t max_rows = 4'000'000;
  std::size_t max_columns = 1000;
  std::size_t max_field_bytes = std::size_t{4} << 20;
};

// The records of `text`, the header among them. Lines end in LF or CRLF; a UTF-8 byte order mark at
// the front is dropped; empty lines are skipped; white space belongs to its field. Bytes are kept
// as they are. Throws Error(kParse) naming `where` and the line for a quote that is never closed,
// text after a closing quote, a bare quote inside an unquoted field, and what exceeds `limits`.
std::vector<std::vector<std::string>> parse_csv(std::string_view text, std::string_view where,
                                                char separator = ',', const CsvLimits& limits = {});

}  // namespace moebench
