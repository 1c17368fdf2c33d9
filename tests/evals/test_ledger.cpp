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
  line.tokens = {200005, 0, std::numeric_limits<std::int32_t>::max()};
  line.token_bytes = {0, 29, 17};
  line.error = "none of ours";
  line.timing = {1.25, 0.5, 21.75};
  return line;
}

// An answer of these tokens, each with its bytes; the first `thinking` of them think.
LedgerLine answer_of(const std::vector<std::int32_t>& tokens,
                     const std::vector<std::string>& pieces, std::size_t thinking) {
  LedgerLine line;
  line.tokens = tokens;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    (i < thinking ? line.analysis : line.final_text) += pieces[i];
    line.token_bytes.push_back(static_cast<std::int32_t>(pieces[i].size()));
  }
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
  CHECK(back[0].tokens == line.tokens);
  CHECK(back[0].token_bytes == line.token_bytes);
  CHECK(back[0].timing.e2e_ms == 21.75);
  CHECK(back[1].verdict == Verdict::kFailed);
  CHECK(back[1].tokens.empty());  // as in ledgers from before there were any
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
  const std::string start = R"({"item":"a","repeat":0,"verdict":"wrong","tokens":)";
  error_with(start + "[1,-2]}", ErrorCode::kInvalidArgument, {"tokens", "-2"});
  error_with(start + "[2147483648]}", ErrorCode::kInvalidArgument, {"tokens", "2147483648"});
  error_with(start + R"(["1"]})", ErrorCode::kInvalidArgument, {"tokens"});
  error_with(start + R"([1,2],"token_bytes":[3]})", ErrorCode::kInvalidArgument,
             {"token_bytes", "1 lengths for 2 tokens"});
}

TEST_CASE("ledger: where an answer leaves another is a token of it, and its bytes in the text") {
  // Markers (9, 8) are no text; 5 and 6 are two halves of "é", whose bytes come with the second.
  const LedgerLine base = answer_of({9, 1, 2, 3, 8, 4}, {"", "two", " and", " two", "", "four"}, 4);
  CHECK_FALSE(first_divergence(base, base));
  const auto check = [&](const LedgerLine& line, std::int64_t token, const std::string& thinking,
                         const std::string& said, const std::string& first) {
    const auto found = first_divergence(base, line);
    REQUIRE(found);
    CHECK(found->token == token);
    CHECK(found->in_final == thinking.empty());
    const std::string& text = found->in_final ? line.final_text : line.analysis;
    const auto begin = static_cast<std::size_t>(found->byte);
    CHECK(text.substr(0, begin) == (thinking.empty() ? said : thinking));
    CHECK(text.substr(begin, static_cast<std::size_t>(found->bytes)) == first);
  };
  check(answer_of({9, 1, 7, 3, 8, 4}, {"", "two", " an", "d two", "", "four"}, 4), 2, "two", "",
        " an");  // the same text in other tokens leaves it too
  check(answer_of({9, 1, 2, 5, 6, 8, 4}, {"", "two", " and", "", "é", "", "four"}, 5), 3, "two and",
        "", "é");
  check(answer_of({9, 1, 2, 3, 8, 7}, {"", "two", " and", " two", "", "five"}, 4), 5, "", "",
        "five");
  // It thinks on where the other stops: the end marker is not the same.
  check(answer_of({9, 1, 2, 3, 2, 8}, {"", "two", " and", " two", " and", ""}, 5), 4, "two and two",
        "", " and");
  // It stops where the other goes on.
  check(answer_of({9, 1, 2}, {"", "two", " and"}, 3), 3, "two and", "", "");
  check(answer_of({9, 1, 2, 3, 8}, {"", "two", " and", " two", ""}, 4), 5, "two and two", "", "");
  check(answer_of({9, 1, 2, 3, 8, 4, 4}, {"", "two", " and", " two", "", "four", "four"}, 4), 6, "",
        "four", "four");
  // Without tokens on either side nothing is known.
  CHECK_FALSE(first_divergence(base, LedgerLine{}));
  CHECK_FALSE(first_divergence(LedgerLine{}, base));
  LedgerLine without_lengths = answer_of({9, 7}, {"", "x"}, 2);
  without_lengths.token_bytes.clear();
  CHECK_FALSE(first_divergence(base, without_lengths));
}

}  // namespace moebench::test
