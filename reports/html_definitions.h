// What the numbers of the page mean, said once: shown at every column that holds such a number, and
// as a list at the page's end.
#pragma once

#include <string>
#include <string_view>

namespace moebench::page {

// The definition of what a column of this title holds ("TTFT p50, ms", "decode batch 1, context 64,
// tokens/s"): plain text without markup; "" if it needs none.
std::string_view definition_of(std::string_view title);

// Those that these sections of the page need, as a <section>.
std::string definitions_section(std::string_view page);

}  // namespace moebench::page
