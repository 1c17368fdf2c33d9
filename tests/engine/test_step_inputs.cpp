// What a step's ops are told of its shape.
#include <catch2/catch.hpp>

#include "engine/step_inputs.h"
#include "tests/support/checkpoint_builder.h"

namespace moebench::test {
namespace {

StepShape shape_of(const std::vector<std::int32_t>& sequences) {
  KvCacheOptions options;
  options.page_size = 4;
  KvCache cache(parse_model_config(synthetic_config({}), "config.json"), options);
  std::vector<std::int64_t> next(8, 0);
  for (std::size_t s = 0; s < next.size(); ++s) cache.grow(cache.create(), 9);
  Step step;
  for (const std::int32_t sequence : sequences) {
    step.tokens.push_back(1);
    step.positions.push_back(next[static_cast<std::size_t>(sequence)]++);
    step.sequences.push_back(sequence);
  }
  StepInputs inputs(Place::kHost);
  inputs.pack(step, cache, {});
  return inputs.shape();
}

}  // namespace

TEST_CASE("step inputs: tokens at the beginning that are the only ones of their sequences") {
  const auto [sequences, singles] = GENERATE(
      std::pair{std::vector<std::int32_t>{0}, 1}, std::pair{std::vector{4, 0, 2}, 3},
      std::pair{std::vector{4, 0, 2, 2, 2}, 2}, std::pair{std::vector{3, 3, 0, 1}, 0},
      // Apart, too: the second token of a sequence takes the first one with it.
      std::pair{std::vector{5, 6, 7, 1, 1, 6}, 1}, std::pair{std::vector{5, 6, 7, 1, 1, 7, 2}, 2});
  CAPTURE(sequences);
  CHECK(shape_of(sequences).num_single == singles);
  CHECK(shape_of(sequences).num_tokens == static_cast<std::int64_t>(sequences.size()));
}

TEST_CASE("step inputs: packed again they know nothing of the step before") {
  KvCacheOptions options;
  options.page_size = 4;
  KvCache cache(parse_model_config(synthetic_config({}), "config.json"), options);
  for (int s = 0; s < 3; ++s) cache.grow(cache.create(), s == 1 ? 9 : 2);
  StepInputs inputs(Place::kHost);
  const auto check = [&](const Step& step, const std::vector<std::int32_t>& numbers,
                         const std::vector<std::int32_t>& table) {
    inputs.pack(step, cache, {});
    const TokenPlaces places = inputs.places(KvCache::kFull);
    CHECK(std::vector(places.sequence.data, places.sequence.data + numbers.size()) == numbers);
    CHECK(places.page_tables.size() == static_cast<std::int64_t>(table.size()));
    CHECK(std::vector(places.page_tables.data, places.page_tables.data + table.size()) == table);
  };
  const auto page = [&](std::int32_t sequence, std::size_t i) {
    return cache.page_table(sequence, KvCache::kFull)[i];
  };
  check({{1, 1}, {8, 1}, {1, 0}, {}}, {0, 1},
        {page(1, 0), page(1, 1), page(1, 2), page(0, 0), -1, -1});
  CHECK_THROWS(inputs.pack({{1, 1}, {0, 2}, {2, 0}, {}}, cache, {}));  // no room for position 2
  check({{1, 1, 1}, {0, 1, 1}, {0, 0, 2}, {}}, {0, 0, 1}, {page(0, 0), page(2, 0)});
}

}  // namespace moebench::test
