// Reading question files.
#include "datasets/questions.h"

#include <fstream>
#include <iterator>
#include <set>

#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/json_fields.h"

namespace moebench {
namespace {

Question parse_question(const Json& json, const std::string& where) {
  JsonFields fields(json, where);
  Question q;
  q.id = fields.required<std::string>("id");
  q.category = fields.required<std::string>("category");
  q.key = fields.optional<std::string>("key", "");
  q.question = fields.required<std::string>("question");
  q.choices = fields.required<std::vector<std::string>>("choices");
  q.answer = fields.required<std::string>("answer");
  fields.finish();
  require(!q.id.empty(), "{}: the id is empty", where);
  require(q.choices.size() >= 2 && q.choices.size() <= 26, "{}: {} choices (2 to 26 are accepted)",
          where, q.choices.size());
  const char last = static_cast<char>('A' + q.choices.size() - 1);
  require(q.answer.size() == 1 && q.answer[0] >= 'A' && q.answer[0] <= last,
          "{}: answer '{}' is not a letter from A to {}", where, q.answer.substr(0, 20), last);
  return q;
}

}  // namespace

QuestionSet parse_questions(std::string_view text, std::string_view where) {
  QuestionSet set;
  set.hash = hash_hex(content_hash(text));
  std::set<std::string> ids;
  for_each_json_line(text, where, 8, [&](const Json& json, const std::string& place) {
    Question question = parse_question(json, place);
    require(ids.insert(question.id).second, "{}: the id '{}' stood before", place, question.id);
    set.questions.push_back(std::move(question));
  });
  require(!set.questions.empty(), "read {}: there are no questions in it", where);
  return set;
}

QuestionSet load_questions(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  require_or(ErrorCode::kIo, stream.good(), "open {}: it cannot be read", path.string());
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  return parse_questions(text, path.string());
}

bool nano_key_is_held_out(std::string_view key) { return fnv1a64(key) % 16 == 0; }

}  // namespace moebench
