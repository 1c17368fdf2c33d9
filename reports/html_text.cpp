// Escaping and number formatting.
#include "reports/html_text.h"

#include <cmath>

#include "engine/utf8.h"

namespace moebench {
namespace {

constexpr std::string_view kMinus = "\xE2\x88\x92";

std::string_view entity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return "";
  }
}

bool is_control(char32_t c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F; }

bool turns_direction(char32_t c) {
  return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

// "1.23×10⁻⁴"
std::string scientific(double magnitude) {
  static constexpr std::string_view kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  const std::string text = fmt::format("{:.2e}", magnitude);
  const std::size_t e = text.find('e');
  std::string out = text.substr(0, e) + "×10";
  if (text[e + 1] == '-') out += "⁻";
  for (const char digit : std::to_string(std::stoi(text.substr(e + 2)))) {
    out += kDigits[static_cast<std::size_t>(digit - '0')];
  }
  return out;
}

std::string with_thousands(const std::string& digits) {
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

}  // namespace

std::string visible_text(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Prefix prefix = utf8_prefix(text);
    if (prefix.kind != Utf8Kind::kCharacter || is_control(prefix.code_point)) {
      out += kReplacementCharacter;
    } else if (turns_direction(prefix.code_point)) {
      out += fmt::format("[U+{:04X}]", static_cast<std::uint32_t>(prefix.code_point));
    } else {
      out += text.substr(0, prefix.length);
    }
    text.remove_prefix(prefix.length);
  }
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : visible_text(text)) {
    const std::string_view escaped = entity(c);
    if (escaped.empty()) {
      out += c;
    } else {
      out += escaped;
    }
  }
  return out;
}

std::string script_json(const OrderedJson& json) {
  const std::string text = json.dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "\\u003c";
        break;
      case '>':
        out += "\\u003e";
        break;
      case '&':
        out += "\\u0026";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string format_number(double value) {
  if (!std::isfinite(value)) return "not finite";
  if (value == 0) return "0";
  const double magnitude = std::fabs(value);
  const std::string sign = value < 0 ? std::string(kMinus) : "";
  if (magnitude < 1e-3 || magnitude >= 1e9) return sign + scientific(magnitude);
  if (magnitude >= 999.5) return sign + with_thousands(fmt::format("{:.0f}", magnitude));
  if (magnitude >= 99.95) return sign + fmt::format("{:.0f}", magnitude);
  if (magnitude >= 9.995) return sign + fmt::format("{:.1f}", magnitude);
  if (magnitude >= 0.9995) return sign + fmt::format("{:.2f}", magnitude);
  return sign + fmt::format("{:.3g}", magnitude);
}

std::string format_size(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.{}f} MB", bytes / 1e6, bytes < 1e8 ? 2 : 0);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{:.0f} B", bytes);
}

std::string format_percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string format_signed(double value, int decimals) {
  return fmt::format("{}{:.{}f}", value < 0 ? kMinus : "+", std::fabs(value), decimals);
}

std::string format_points(double difference) {
  const double points = 100 * difference;
  if (std::fabs(points) < 0.05) return "0.0";
  return format_signed(points);
}

std::string format_value(double value, std::string_view unit) {
  if (unit == "share") return format_percent(value);
  if (unit == "bytes") return format_size(value);
  return format_number(value);
}

std::string format_p_value(double p) {
  return p < 0.001 ? "< 0.001" : fmt::format("{:.{}f}", p, p < 0.1 ? 3 : 2);
}

}  // namespace moebench
