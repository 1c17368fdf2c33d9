// The KV cache as a keeper of pages: sliding layers hold their window and no more, prefixes are
// shared, and memory is what was promised.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "engine/kv_cache.h"
#include "tests/support/checkpoint_builder.h"
#include "tests/support/throws.h"

namespace moebench::test {
namespace {

// One sliding and one full layer, a window of 8, rows of 32 elements for each of 2 heads.
ModelConfig tiny_config() { return parse_model_config(synthetic_config({}), "config.json"); }

KvCacheOptions small_options() {
  KvCacheOptions options;
  options.page_size = 4;
  options.max_sequences = 2;
  options.max_tokens = 64;
  options.max_step = 4;
  return options;
}

std::size_t pages_held(const KvCache& cache, std::int32_t sequence, KvCache::Kind kind) {
  const auto table = cache.page_table(sequence, kind);
  return static_cast<std::size_t>(
      std::count_if(table.begin(), table.end(), [](std::int32_t page) { return page >= 0; }));
}

// Brings a sequence to `length` positions in steps of `step`, as the engine does.
void advance(KvCache& cache, std::int32_t sequence, std::int64_t length, std::int64_t step) {
  for (std::int64_t done = cache.length(sequence); done < length;) {
    cache.trim(sequence, done);
    done = std::min(length, done + step);
    cache.grow(sequence, done);
  }
}

}  // namespace

TEST_CASE("kv cache: its bytes are those of the pages, counted by hand") {
  const ModelConfig config = tiny_config();
  KvCacheOptions options = small_options();
  // A page of one layer: keys and values, 4 positions, 2 heads, 32 floats.
  const std::size_t page = 2 * 4 * 2 * 32 * 4;
  // Full: 64 / 4 pages and one a sequence. Sliding: 8 / 4 pages and two more, a sequence, and 4 / 4.
  CHECK(KvCache::bytes_needed(config, options) == (18 + 9) * page);
  CHECK(KvCache(config, options).bytes() == (18 + 9) * page);
  options.format = Format::kBf16;
  CHECK(KvCache::bytes_needed(config, options) == (18 + 9) * page / 2);
}

TEST_CASE("kv cache: a longer context costs full layers alone") {
  const ModelConfig config = tiny_config();
  const std::size_t page = 2 * 4 * 2 * 32 * 4;
  KvCacheOptions options = small_options();
  options.max_tokens = 1024;
  const std::size_t before = KvCache::bytes_needed(config, options);
  options.max_tokens = 131072;
  CHECK(KvCache::bytes_needed(config, options) - before == (131072 - 1024) / 4 * page);
}

TEST_CASE("kv cache: a sliding layer holds the window and the step, however long the sequence") {
  const std::int64_t step = GENERATE(1, 3, 4);
  KvCacheOptions options = small_options();
  options.max_tokens = 2048;
  KvCache cache(tiny_config(), options);
  const std::int32_t sequence = cache.create();
  for (std::int64_t length = step; length <= 1024; length += step) {
    advance(cache, sequence, length, step);
    REQUIRE(pages_held(cache, sequence, KvCache::kFull) ==
            static_cast<std::size_t>((length + 3) / 4));
    REQUIRE(pages_held(cache, sequence, KvCache::kSliding) <= (8 + 4) / 4 + 1);
    // What the step's first token may look at is there: itself and the 7 positions before it.
    const auto table = cache.page_table(sequence, KvCache::kSliding);
    for (std::int64_t p = std::max<std::int64_t>(0, length - step - 7); p < length; ++p) {
      REQUIRE(table[static_cast<std::size_t>(p / 4)] >= 0);
    }
  }
}

TEST_CASE("kv cache: all sequences fit at once, each with its share of the tokens") {
  KvCacheOptions options = small_options();
  options.max_sequences = 4;
  options.max_tokens = 4 * 33;
  KvCache cache(tiny_config(), options);
  std::set<std::int32_t> full_pages;
  std::vector<std::int32_t> sequences;
  for (int i = 0; i < 4; ++i) sequences.push_back(cache.create());
  for (std::int64_t length = 1; length <= 33; ++length) {
    for (const std::int32_t s : sequences) advance(cache, s, length, 4);
  }
  for (const std::int32_t s : sequences) {
    for (const std::int32_t page : cache.page_table(s, KvCache::kFull)) {
      CHECK(full_pages.insert(page).second);  // nobody shares one
    }
  }
  CHECK(full_pages.size() == 4 * 9);
}

TEST_CASE("kv cache: when pages or sequences run out it says so, and release brings them back") {
  KvCache cache(tiny_config(), small_options());
  const std::int64_t all = cache.free_full_pages();
  CHECK(all == 18);
  const std::int32_t a = cache.create();
  const std::int32_t b = cache.create();
  check_error([&] { cache.create(); }, ErrorCode::kOutOfMemory, {"all 2"});
  advance(cache, a, 64, 4);
  check_error([&] { advance(cache, b, 64, 4); }, ErrorCode::kOutOfMemory,
              {"full", "18", "4 positions"});
  cache.release(a);
  cache.release(b);
  CHECK(cache.free_full_pages() == all);
  const std::int32_t c = cache.create();
  advance(cache, c, 64, 4);
  CHECK(cache.length(c) == 64);
}

TEST_CASE("kv cache: a handle that is not alive is refused") {
  KvCache cache(tiny_config(), small_options());
  const std::int32_t a = cache.create();
  cache.release(a);
  for (const std::int32_t handle : {a, -1, 2, 1000}) {
    check_error([&] { cache.grow(handle, 1); }, ErrorCode::kInvalidArgument,
                {fmt::format("{}", handle), "not alive"});
    check_error([&] { cache.release(handle); }, ErrorCode::kInvalidArgument, {"not alive"});
  }
}

TEST_CASE("kv cache: full windows of all sequences and one step's chunk fit sliding layers") {
  KvCacheOptions options = small_options();
  options.max_sequences = 5;
  options.max_tokens = 1024;
  options.max_step = 40;
  KvCache cache(tiny_config(), options);
  std::vector<std::int32_t> sequences;
  for (std::int64_t i = 0; i < options.max_sequences; ++i) {
    const std::int32_t sequence = cache.create();
    advance(cache, sequence, 61 + i, 1);  // windows that begin and end anywhere in a page
    cache.trim(sequence, 61 + i);
    sequences.push_back(sequence);
  }
  // A step that is one chunk, then, with that trimmed, one that all have a part of.
  cache.grow(sequences[0], 61 + options.max_step);
  cache.trim(sequences[0], 61 + options.max_step);
  for (const std::int32_t sequence : sequences) {
    cache.grow(sequence, cache.length(sequence) + options.max_step / options.max_sequences);
  }
  CHECK(cache.length(sequences[4]) == 65 + 8);
}

TEST_CASE("kv cache: a fork shares whole pages and copies the part of one") {
  KvCacheOptions options = small_options();
  options.max_sequences = 3;
  options.max_step = 16;
  KvCache cache(tiny_config(), options);
  const std::int64_t all = cache.free_full_pages();
  const std::int32_t source = cache.create();
  advance(cache, source, 10, 16);  // two pages and a half
  const KvLayerView view = cache.layer(1);
  REQUIRE(cache.kind_of(1) == KvCache::kFull);
  const auto key_at = [&](std::int32_t page) {
    return view.keys + static_cast<std::size_t>(page) * view.page_stride;
  };
  const std::int32_t original = cache.page_table(source, KvCache::kFull)[2];
  std::memset(const_cast<std::byte*>(key_at(original)), 0x5a, view.row_bytes);

  const std::int32_t fork = cache.fork(source, 10);
  for (const auto kind : {KvCache::kFull, KvCache::kSliding}) {
    const auto from = cache.page_table(source, kind);
    const auto to = cache.page_table(fork, kind);
    REQUIRE(to.size() == 3);
    CHECK(to[0] == from[0]);
    CHECK(to[1] == from[1]);
    CHECK(to[2] != from[2]);
  }
  CHECK(cache.free_full_pages() == all - 4);
  const std::int32_t copy = cache.page_table(fork, KvCache::kFull)[2];
  CHECK(std::memcmp(key_at(copy), key_at(original), view.row_bytes) == 0);

  const std::int32_t even = cache.fork(source, 8);  // no part of a page: nothing to copy
  CHECK(cache.free_full_pages() == all - 4);
  cache.release(source);
  CHECK(cache.free_full_pages() == all - 3);  // the shared ones live on
  cache.release(fork);
  CHECK(cache.free_full_pages() == all - 2);
  cache.release(even);
  CHECK(cache.free_full_pages() == all);
}

TEST_CASE("kv cache: a source that gave up the window cannot be forked there") {
  KvCache cache(tiny_config(), small_options());
  const std::int32_t source = cache.create();
  advance(cache, source, 40, 4);
  check_error([&] { cache.fork(source, 12); }, ErrorCode::kInvalidArgument, {"12", "window"});
  check_error([&] { cache.fork(source, 41); }, ErrorCode::kInvalidArgument, {"40", "41"});
  CHECK(cache.length(cache.fork(source, 40)) == 40);
}

TEST_CASE("kv cache: sizes that are not positive and formats that do not fit are refused") {
  for (const auto member : {&KvCacheOptions::page_size, &KvCacheOptions::max_sequences,
                            &KvCacheOptions::max_tokens, &KvCacheOptions::max_step}) {
    KvCacheOptions options = small_options();
    options.*member = 0;
    check_error([&] { KvCache(tiny_config(), options); }, ErrorCode::kInvalidArgument,
                {"positive"});
  }
  SyntheticShape shape;
  shape.head_dim = 48;
  KvCacheOptions options = small_options();
  options.format = Format::kMxfp4;
  check_error([&] { KvCache(parse_model_config(synthetic_config(shape), "config.json"), options); },
              ErrorCode::kInvalidArgument, {"head_dim 48", "32", "mxfp4"});
}

}  // namespace moebench::test
