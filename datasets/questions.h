// Multiple-choice questions in JSON lines: the held-out set of the nano model, and anything of the
// same shape.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moebench {

struct Question {
  std::string id;
  std::string category;
  std::string key;  // defines the problem, whatever its wording; may be empty
  std::string question;
  std::vector<std::string> choices;  // 2 to 26
  std::string answer;                // the letter of the right choice, "A" ...
};

struct QuestionSet {
  std::vector<Question> questions;
  std::string hash;  // of the file's content
};

// One JSON object per line: id, category, question, choices, answer, and optionally key. Throws
// Error naming `where`, the line and the field for anything else, and for two equal ids.
QuestionSet parse_questions(std::string_view text, std::string_view where);
QuestionSet load_questions(const std::filesystem::path& path);

// Training and held-out problems of nano part by the hash of the key: fnv1a64(key) % 16 == 0 is
// held out. The generator (datasets/nano/train/problems.py) obeys the same rule.
bool nano_key_is_held_out(std::string_view key);

}  // namespace moebench
