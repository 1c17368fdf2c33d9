// Bytes as a tokenizer file, and then as text for it. The first byte chooses the format; what
// follows the last byte 0xFF is the text.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/tokenizer.h"
#include "engine/utf8.h"
#include "kernels/core/error.h"

using namespace moebench;

namespace {

void check(bool ok) {
  if (!ok) __builtin_trap();
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  const std::string valid = to_valid_utf8(text);
  check(tokenizer.decode(tokenizer.encode_with_special(text)).size() <= valid.size());
  const std::vector<TokenId> ids = tokenizer.encode(text);
  // Shorter where the pattern drops what it does not match.
  check(tokenizer.decode(ids).size() <= valid.size());
  for (const TokenId id : ids) check(!tokenizer.is_special(id));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const bool is_json = data[0] % 2 == 0;
  std::string_view file(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::string_view text = "Hello, \xF0\x9F world's  12345\n\n<|end|> \xE4\xBD\xA0!!";
  if (const std::size_t cut = file.rfind('\xFF'); cut != std::string_view::npos) {
    text = file.substr(cut + 1);
    file = file.substr(0, cut);
  }
  try {
    use(is_json ? Tokenizer::from_json(file, "fuzz") : Tokenizer::from_tiktoken(file, "fuzz"),
        text);
  } catch (const Error&) {
  }
  return 0;
}
