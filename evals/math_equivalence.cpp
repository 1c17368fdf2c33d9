// The steps of the published rule, in its order: later ones rely on earlier ones.
#include "evals/math_equivalence.h"

#include <algorithm>
#include <optional>

namespace moebench {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  std::string result;
  std::size_t at = 0;
  while (true) {
    const std::size_t found = text.find(from, at);
    if (found == std::string::npos) break;
    result.append(text, at, found - at).append(to);
    at = found + from.size();
  }
  result.append(text, at);
  text = std::move(result);
}

std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

// The bytes of the character at `at`: the published rule counts characters.
std::string character_at(std::string_view text, std::size_t at) {
  std::size_t end = at + 1;
  while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
  return std::string(text.substr(at, end - at));
}

// \sqrt3 -> \sqrt{3}. nullopt where an argument is missing.
std::optional<std::string> with_braced_roots(std::string_view text) {
  constexpr std::string_view kRoot = "\\sqrt";
  std::string result;
  std::size_t at = 0;
  while (true) {
    const std::size_t found = text.find(kRoot, at);
    if (found == std::string_view::npos) break;
    result.append(text.substr(at, found + kRoot.size() - at));
    at = found + kRoot.size();
    if (at == text.size() || text.substr(at).starts_with(kRoot)) return std::nullopt;
    if (text[at] == '{') continue;
    const std::string argument = character_at(text, at);
    result += "{" + argument + "}";
    at += argument.size();
  }
  return result.append(text.substr(at));
}

// \frac12 -> \frac{1}{2}, \frac1{72} -> \frac{1}{72}. The text itself where an argument is missing
// after one; nullopt where there is none at all.
std::optional<std::string> with_braced_fractions(std::string_view text) {
  constexpr std::string_view kFraction = "\\frac";
  std::string result;
  std::size_t at = 0;
  while (true) {
    const std::size_t found = text.find(kFraction, at);
    if (found == std::string_view::npos) break;
    result.append(text.substr(at, found + kFraction.size() - at));
    at = found + kFraction.size();
    const std::size_t end = std::min(text.find(kFraction, at), text.size());
    if (at == end) return std::nullopt;
    if (text[at] == '{') continue;
    const std::string numerator = character_at(text, at);
    at += numerator.size();
    if (at == end) return std::string(text);
    result += "{" + numerator + "}";
    if (text[at] == '{') continue;
    const std::string denominator = character_at(text, at);
    result += "{" + denominator + "}";
    at += denominator.size();
  }
  return result.append(text.substr(at));
}

// An integer as Python prints it: no sign but "-", no leading zeros.
bool is_plain_integer(std::string_view text) {
  const bool negative = text.starts_with('-');
  const std::string_view digits = text.substr(negative ? 1 : 0);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return false;
  }
  return digits == "0" ? !negative : digits.front() != '0';
}

std::string with_slash_as_fraction(const std::string& text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) return text;
  const std::string numerator = text.substr(0, slash);
  const std::string denominator = text.substr(slash + 1);
  if (!is_plain_integer(numerator) || !is_plain_integer(denominator)) return text;
  return "\\frac{" + numerator + "}{" + denominator + "}";
}

// nullopt where the published rule stops in the middle.
std::optional<std::string> normal_form(std::string_view original) {
  std::string text(original);
  replace_all(text, "\n", "");
  replace_all(text, "\\!", "");
  replace_all(text, "\\\\", "\\");
  replace_all(text, "tfrac", "frac");
  replace_all(text, "dfrac", "frac");
  replace_all(text, "\\left", "");
  replace_all(text, "\\right", "");
  replace_all(text, "^{\\circ}", "");
  replace_all(text, "^\\circ", "");
  replace_all(text, "\\$", "");
  // Units stand on the right, after "\text{ ".
  constexpr std::string_view kUnit = "\\text{ ";
  if (const std::size_t units = count_of(text, kUnit); units > 0) {
    if (units > 1) return std::nullopt;
    text.resize(text.find(kUnit));
  }
  replace_all(text, "\\%", "");
  replace_all(text, "%", "");
  replace_all(text, " .", " 0.");
  replace_all(text, "{.", "{0.");
  if (text.empty()) return text;
  if (text.front() == '.') text.insert(0, "0");
  if (const std::size_t sign = text.find('='); count_of(text, "=") == 1) {
    // A name of one or two characters in front.
    const auto is_start = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
    const auto characters =
        std::count_if(text.begin(), text.begin() + static_cast<long>(sign), is_start);
    if (characters <= 2) text.erase(0, sign + 1);
  }
  const auto rooted = with_braced_roots(text);
  if (!rooted) return std::nullopt;
  text = *rooted;
  replace_all(text, " ", "");
  const auto fractioned = with_braced_fractions(text);
  if (!fractioned) return std::nullopt;
  text = *fractioned;
  if (text == "0.5") text = "\\frac{1}{2}";
  return with_slash_as_fraction(text);
}

}  // namespace

bool math_equivalent(std::string_view a, std::string_view b) {
  const auto first = normal_form(a);
  const auto second = normal_form(b);
  if (!first || !second) return a == b;
  return *first == *second;
}

}  // namespace moebench
