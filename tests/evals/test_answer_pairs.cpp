// Pairing answers by (item, repeat).
#include <catch2/catch.hpp>

#include "evals/answer_pairs.h"
#include "tests/support/run_folder.h"

namespace moebench::test {

TEST_CASE("answer pairs: by item and repeat, in any order") {
  const std::vector<LedgerLine> base = {answer("a", true), answer("b", true, 1),
                                        answer("b", false, 0), answer("only here", true)};
  std::vector<LedgerLine> candidate = {answer("b", true, 0), answer("b", false, 1),
                                       answer("a", true), answer("c", true)};
  candidate[2].output_tokens = 11;
  candidate[2].seed = 5;
  candidate[0].token_digest = "d";
  std::vector<LedgerLine> digested = base;
  digested[2].token_digest = "d";
  CHECK(pair_answers(base, candidate).identical == 0);  // no digest is no evidence
  CHECK(pair_answers(digested, candidate).identical == 1);
  const AnswerPairs pairs = pair_answers(base, candidate);
  REQUIRE(pairs.size() == 3);
  CHECK(pairs.base_correct == std::vector<double>{1, 0, 1});
  CHECK(pairs.candidate_correct == std::vector<double>{1, 1, 0});
  CHECK(pairs.candidate_tokens == std::vector<double>{11, 3, 3});
  CHECK(pairs.item_numbers == std::vector<std::int64_t>{0, 1, 1});
  CHECK(pairs.num_gained == 1);
  CHECK(pairs.num_lost == 1);
  CHECK(pairs.gained == std::vector<std::string>{"b"});
  CHECK(pairs.lost == std::vector<std::string>{"b"});
  CHECK(pairs.unpaired == 2);
  CHECK(pairs.different_seeds == 1);
}

TEST_CASE("answer pairs: of two lines of one answer the last counts; none is no pair") {
  const std::vector<LedgerLine> twice = {answer("a", false), answer("a", true)};
  const std::vector<LedgerLine> once = {answer("a", true)};
  const AnswerPairs pairs = pair_answers(once, twice);
  CHECK(pairs.size() == 1);
  CHECK(pairs.num_lost == 0);
  CHECK(pair_answers({}, once).size() == 0);
  CHECK(pair_answers({}, once).unpaired == 1);
}

}  // namespace moebench::test
