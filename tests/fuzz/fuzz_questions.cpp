// Fuzz entry for question files (JSON lines). Whatever the bytes, every accepted question can be
// asked: it has an id of its own, two choices at least, and an answer among them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "datasets/questions.h"
#include "kernels/core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const moebench::QuestionSet set = moebench::parse_questions(text, "questions.jsonl");
    if (set.questions.empty() || set.hash.empty()) std::abort();
    std::set<std::string> ids;
    for (const moebench::Question& q : set.questions) {
      if (q.id.empty() || !ids.insert(q.id).second) std::abort();
      if (q.choices.size() < 2 || q.answer.size() != 1) std::abort();
      const auto index = static_cast<std::size_t>(q.answer[0] - 'A');
      if (index >= q.choices.size()) std::abort();
    }
  } catch (const moebench::Error&) {
  }
  return 0;
}
