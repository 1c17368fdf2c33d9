// Fuzz entry for the extraction rules: the first byte chooses rule and language, the rest is the
// text. Whatever the bytes, what comes back is valid UTF-8 and no longer than the text allows.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "evals/extract.h"
#include "evals/extract_unicode.h"

namespace {

void check(const std::optional<std::string>& got, std::string_view text) {
  if (!got) return;
  const std::size_t longest = 3 * text.size();  // each ill-formed byte becomes three
  if (got->size() > longest) std::abort();
  // Decoding would replace what is ill-formed.
  if (moebench::unicode::encode_utf8(moebench::unicode::decode_utf8(*got)) != *got) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::array<std::string_view, 11> kLanguages = {"en", "bn", "de", "es", "fr", "ja",
                                                           "ru", "sw", "te", "th", "zh"};
  if (size == 0) return 0;
  const auto rules = moebench::extraction_rules();
  const moebench::ExtractionRule& rule = rules[data[0] % rules.size()];
  const std::string_view language = kLanguages[data[0] / rules.size() % kLanguages.size()];
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const moebench::Extraction got = moebench::extract(rule.name, text, language);
  check(got.answer, text);
  check(got.value, text);
  if (got.value && !got.answer) std::abort();
  return 0;
}
