// Ledgers: what is written can be read back, and damage is named by file and line.
#include <catch2/catch.hpp>
#include <limits>

#include "evals/ledger.h"
#include "kernels/core/append_file.h"
#include "tests/support/files.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

LedgerLine full_line() {
  LedgerLine line;
  line.item = "nano-0007";
  line.category = "clock";
  line.repeat = 3;
  line.seed = std::numeric_limits<std::uint64_t>::max() - 1;  // all 64 bits count
  line.verdict = Verdict::kChannelError;
  line.expected = "B";
  line.answer = "C";
  line.finish = "length";
  line.prompt_tokens = 150;
  line.cached_tokens = 90;
  line.output_tokens = 42;
  line.reasoning_tokens = 30;
  line.log_probability = -12.345678901234567;
  line.token_digest = "0123456789abcdef";
  line.analysis = "quotes \" and\nnewlines, ümläuts";
  line.final_text = "<|end|> </script>";
  line.error = "none of ours";
  line.timing = {1.25, 0.5, 21.75};
  return line;
}

std::string text_of(const LedgerLine& line) { return json_line(to_json(line)); }

}  // namespace

TEST_CASE("ledger: every field survives the way through a file") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "deep" / "ledger.jsonl";
  const LedgerLine line = full_line();
  {
    LineWriter writer(path);
    writer.append(text_of(line));
    writer.append(text_of(LedgerLine{}));
  }
  const auto back = read_ledger(path);
  REQUIRE(back.size() == 2);
  CHECK(text_of(back[0]) == text_of(line));
  CHECK(back[0].seed == 18446744073709551614U);
  CHECK(back[0].log_probability == line.log_probability);
  CHECK(back[0].analysis == line.analysis);
  CHECK(back[0].timing.e2e_ms == 21.75);
  CHECK(back[1].verdict == Verdict::kFailed);
}

TEST_CASE("ledger: every verdict has a name that reads back") {
  for (int v = 0; v < kNumVerdicts; ++v) {
    const auto verdict = static_cast<Verdict>(v);
    CHECK(parse_verdict(verdict_name(verdict), "here") == verdict);
  }
  check_error([] { parse_verdict("corect", "here"); }, ErrorCode::kInvalidArgument,
              {"here: ", "'corect'", "did you mean 'correct'?"});
}

TEST_CASE("ledger: no file is an empty ledger") {
  const TemporaryDirectory folder;
  CHECK(read_ledger(folder.path() / "absent.jsonl").empty());
}

TEST_CASE("ledger: a last line that was cut off is left out, and the next writer removes it") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "ledger.jsonl";
  const std::string whole = text_of(full_line()) + "\n";
  // Cut everywhere, also inside a multi-byte character and right before the newline.
  for (std::size_t length = 1; length < whole.size(); length += 7) {
    write_file(path, whole + whole.substr(0, length));
    CHECK(read_ledger(path).size() == 1);
  }
  write_file(path, whole + whole.substr(0, whole.size() - 1));
  CHECK(read_ledger(path).size() == 1);
  LineWriter(path).append(text_of(LedgerLine{}));
  CHECK(read_ledger(path).size() == 2);
  CHECK(read_file(path) == whole + text_of(LedgerLine{}) + "\n");
}

TEST_CASE("ledger: a broken line in the middle is an error with its file, line and field") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "ledger.jsonl";
  const std::string good = text_of(full_line()) + "\n";
  const auto error_with = [&](const std::string& second_line, ErrorCode code,
                              std::initializer_list<std::string> words) {
    write_file(path, good + second_line + "\n" + good);
    check_error([&] { read_ledger(path); }, code, words);
    check_error([&] { read_ledger(path); }, code, {path.string(), "line 2"});
  };
  error_with("{\"item\":", ErrorCode::kParse, {});
  error_with("[1]", ErrorCode::kInvalidArgument, {"an array"});
  error_with(R"({"item":"a","verdict":"wrong"})", ErrorCode::kInvalidArgument, {"'repeat'"});
  error_with(R"({"item":"a","repeat":0,"verdict":"right"})", ErrorCode::kInvalidArgument,
             {"'right'"});
  error_with(R"({"item":"a","repeat":"0","verdict":"wrong"})", ErrorCode::kInvalidArgument,
             {"repeat", "expected an integer"});
}

}  // namespace moebench::test
