// Text of the page: escaping, and numbers as people read them.
#pragma once

#include <string>
#include <string_view>

#include "kernels/core/json_fields.h"

namespace moebench {

// Text that cannot mislead: bytes that are not UTF-8 and control characters other than newline and
// tab become U+FFFD; characters that turn the direction of what follows (U+202A to U+202E, U+2066
// to U+2069) are named, "[U+202E]".
std::string visible_text(std::string_view text);

// For element content and quoted attributes: & < > " ' of visible_text become entities.
std::string escape_html(std::string_view text);

// JSON that may stand inside <script>: no '<', '>', '&', U+2028 or U+2029 is left as itself.
std::string script_json(const OrderedJson& json);

// Three significant digits, without exponent between 0.001 and 1e9: "0.0123", "812", "12,345",
// "1.23×10⁻⁴".
std::string format_number(double value);
// "1.23 MB"; 1 MB = 1e6 bytes.
std::string format_size(double bytes);
// "84.5 %" of a share in [0, 1].
std::string format_percent(double share);
// "+1.5" or "−0.5".
std::string format_signed(double value, int decimals = 1);
// "+1.5" or "−0.5", or "0.0" for less than half a tenth: percentage points, of a difference of
// shares.
std::string format_points(double difference);
// By a metric's unit: a share as percent, bytes as a size, anything else as a number, without the
// unit's name.
std::string format_value(double value, std::string_view unit);
// "0.032", or "< 0.001".
std::string format_p_value(double p);

}  // namespace moebench
