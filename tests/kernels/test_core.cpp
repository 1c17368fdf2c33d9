// The small tools under every op: errors, views, threads, workspaces, dot, random numbers, hashes.
#include <algorithm>
#include <array>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/buffer.h"
#include "kernels/core/context.h"
#include "kernels/core/dot.h"
#include "kernels/core/error.h"
#include "kernels/core/hash.h"
#include "kernels/core/random.h"
#include "kernels/core/suggest.h"
#include "kernels/core/thread_pool.h"
#include "kernels/core/view.h"
#include "kernels/linear/linear.h"
#include "tests/support/throws.h"

namespace moebench::test {

// --- Errors -------------------------------------------------------------------------------------

TEST_CASE("error: require throws invalid_argument with the formatted message and its own line") {
  const int top_k = 9;
  unsigned line = 0;
  try {
    line = __LINE__ + 1;
    require(top_k <= 8, "top_k {} exceeds num_experts {}", top_k, 8);
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(error.what() == std::string("top_k 9 exceeds num_experts 8"));
    CHECK(error.where().line() == line);
    CHECK(std::string(error.where().file_name()).find("test_core.cpp") != std::string::npos);
  }
}

TEST_CASE("error: require_or and fail carry the code they are given") {
  CHECK_NOTHROW(require(true, "unused"));
  CHECK_NOTHROW(require_or(ErrorCode::kIo, true, "unused {}", 1));
  CHECK(error_of([] { require_or(ErrorCode::kIo, false, "disk {}", "full"); }).code() ==
        ErrorCode::kIo);
  CHECK(error_of([] { fail(ErrorCode::kParse, "bad"); }).code() == ErrorCode::kParse);
}

TEST_CASE("error: every code has a word of its own") {
  std::set<std::string_view> words;
  for (const ErrorCode code :
       {ErrorCode::kInvalidArgument, ErrorCode::kUnsupported, ErrorCode::kOutOfMemory,
        ErrorCode::kIo, ErrorCode::kParse, ErrorCode::kUsage, ErrorCode::kInterrupted}) {
    CHECK(error_code_name(code) != "unknown");
    CHECK(words.insert(error_code_name(code)).second);
  }
}

// --- Views and memory ---------------------------------------------------------------------------

TEST_CASE("view: sub-views of a 3-dimensional array are row-major") {
  std::array<int, 24> numbers;
  std::iota(numbers.begin(), numbers.end(), 0);
  const View<int, 3> cube{numbers.data(), {2, 3, 4}};
  CHECK(cube.size() == 24);
  for (std::int64_t i = 0; i < 2; ++i) {
    CHECK(cube[i].size() == 12);
    for (std::int64_t j = 0; j < 3; ++j) {
      for (std::int64_t k = 0; k < 4; ++k) CHECK(cube[i][j][k] == 12 * i + 4 * j + k);
    }
  }
  cube[1][2][3] = -1;
  CHECK(numbers[23] == -1);
  const View<const int, 3> readable = cube;
  CHECK(readable[1][2].span().back() == -1);
}

TEST_CASE("view: an extent of 0 makes an empty view") {
  const View<const float, 2> none{nullptr, {0, 7}};
  CHECK(none.size() == 0);
  CHECK(none.span().empty());
}

TEST_CASE("buffer: memory is zeroed and page-aligned, and moves without copying") {
  Buffer buffer(100'000, "a test");
  CHECK(std::all_of(buffer.span().begin(), buffer.span().end(),
                    [](std::byte b) { return b == std::byte{0}; }));
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 4096 == 0);
  const std::byte* const address = buffer.data();
  Buffer moved = std::move(buffer);
  CHECK(moved.data() == address);
  CHECK(moved.size() == 100'000);
  Buffer assigned(8, "another");
  assigned = std::move(moved);
  CHECK(assigned.data() == address);
  CHECK(Buffer(0).data() == nullptr);
}

TEST_CASE("buffer: more than the machine can map is out_of_memory, with the purpose named") {
  const Error error = error_of([] { Buffer(std::size_t{1} << 60, "the moon"); });
  CHECK(error.code() == ErrorCode::kOutOfMemory);
  CHECK(error.what() == std::string("allocate 1152921504606846976 bytes for the moon"));
}

TEST_CASE("workspace: measuring and taking agree, and pieces are 256-byte aligned and apart") {
  const auto take_all = [](Workspace& workspace) {
    return std::array<std::byte*, 3>{
        reinterpret_cast<std::byte*>(workspace.take<float>(3)),
        reinterpret_cast<std::byte*>(workspace.take<std::byte>(257)),
        reinterpret_cast<std::byte*>(workspace.take<double>(8)),
    };
  };
  Workspace measure;
  take_all(measure);
  CHECK(measure.used() == 256 + 512 + 256);
  Buffer memory(measure.used());
  Workspace workspace(memory.span());
  const auto pieces = take_all(workspace);
  CHECK(pieces[0] == memory.data());
  CHECK(pieces[1] == memory.data() + 256);
  CHECK(pieces[2] == memory.data() + 768);
  CHECK(message_of([&] { workspace.take<char>(1); }) == "workspace: 1280 bytes needed, 1024 given");
}

// --- Threads ------------------------------------------------------------------------------------

TEST_CASE("thread pool: parts cover the range once, each at least a grain, by known threads") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.num_threads() == threads);
    for (const std::int64_t count : {1, 2, 7, 8, 9, 64, 1000}) {
      for (const std::int64_t grain : {0, 1, 4, 100, 5000}) {
        std::vector<std::array<std::int64_t, 3>> parts;
        std::mutex mutex;
        pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
          const std::lock_guard lock(mutex);
          parts.push_back({begin, end, thread});
        });
        std::sort(parts.begin(), parts.end());
        INFO(threads << " threads, " << count << " items, grain " << grain);
        if (grain >= count) CHECK(parts.size() == 1);
        std::int64_t at = 0;
        for (const auto& [begin, end, thread] : parts) {
          CHECK(thread >= 0);
          CHECK(thread < threads);
          CHECK(begin == at);
          CHECK(end > begin);
          CHECK((parts.size() == 1 || end - begin >= grain));
          at = end;
        }
        CHECK(at == count);
      }
    }
  }
}

TEST_CASE("thread pool: a thread that is held up does not hold up the others' parts") {
  ThreadPool pool(2);
  std::atomic<int> done = 0;
  pool.parallel_for(16, 1, [&](std::int64_t begin, std::int64_t, int) {
    // The first part waits for all the others, which the other thread must therefore take.
    if (begin == 0) {
      while (done < 15) std::this_thread::yield();
    }
    ++done;
  });
  CHECK(done == 16);
}

TEST_CASE("thread pool: jobs that follow each other never mix") {
  for (const int threads : {2, 5}) {
    ThreadPool pool(threads);
    for (int job = 0; job < 3000; ++job) {
      const std::int64_t count = 1 + job % 37;
      std::atomic<std::int64_t> sum = 0;
      pool.parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) sum += i + job;
      });
      REQUIRE(sum == count * (count - 1) / 2 + count * job);
      if (job % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // they sleep
    }
  }
}

TEST_CASE("thread pool: with more threads than work, some threads get none and nothing hangs") {
  ThreadPool pool(16);
  for (int repeat = 0; repeat < 200; ++repeat) {
    std::atomic<int> done = 0;
    pool.parallel_for(3, 1, [&](std::int64_t begin, std::int64_t end, int) {
      done += static_cast<int>(end - begin);
    });
    REQUIRE(done == 3);
  }
}

TEST_CASE("thread pool: no work calls no body") {
  ThreadPool pool(2);
  for (const std::int64_t count : {0, -1, -100}) {
    pool.parallel_for(count, 1, [](std::int64_t, std::int64_t, int) { FAIL("called"); });
  }
}

TEST_CASE("thread pool: an exception of a body reaches the caller, and the pool works on") {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (const std::int64_t bad : {0, 50, 99}) {
      std::atomic<std::int64_t> finished = 0;
      const auto body = [&](std::int64_t begin, std::int64_t end, int) {
        if (begin <= bad && bad < end) throw std::out_of_range("at " + std::to_string(bad));
        finished += end - begin;
      };
      CHECK_THROWS_WITH(pool.parallel_for(100, 1, body), "at " + std::to_string(bad));
      if (threads > 1) CHECK(finished > 0);  // the other parts were done, and waited for
      std::atomic<std::int64_t> sum = 0;
      pool.parallel_for(100, 1, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) sum += i;
      });
      CHECK(sum == 4950);
    }
    // All at once: one of them arrives.
    CHECK_THROWS_AS(
        pool.parallel_for(100, 1, [](std::int64_t, std::int64_t, int) { throw std::bad_alloc(); }),
        std::bad_alloc);
  }
}

TEST_CASE("thread pool: absurd thread counts are refused") {
  CHECK(message_of([] { ThreadPool pool(-1); }) ==
        "start threads: -1 is out of range (0 = one per CPU, at most 1024)");
  CHECK_THROWS_AS(ThreadPool(1025), Error);
  CHECK(ThreadPool(0).num_threads() == available_cpus());
  CHECK(available_cpus() >= 1);
}

// --- Numbers ------------------------------------------------------------------------------------

TEST_CASE("dot: element i goes to partial sum i % 32, added pairwise, for any length") {
  RandomStream random(1);
  for (const std::int64_t count : {0, 1, 31, 32, 33, 63, 64, 65, 100, 1023, 2880}) {
    std::vector<float> a, b;
    for (std::int64_t i = 0; i < count; ++i) {
      a.push_back(static_cast<float>(random.uniform() - 0.5));
      b.push_back(static_cast<float>(random.uniform() - 0.5));
    }
    std::array<volatile float, 32> sums{};  // volatile: every addition is rounded and in order
    for (std::size_t i = 0; i < a.size(); ++i) {
      const volatile float product = a[i] * b[i];
      sums[i % 32] = sums[i % 32] + product;
    }
    for (std::size_t half = 16; half > 0; half /= 2) {
      for (std::size_t lane = 0; lane < half; ++lane) sums[lane] = sums[lane] + sums[lane + half];
    }
    CHECK(dot(a.data(), b.data(), count) == sums[0]);
  }
}

TEST_CASE("philox: the known answers of the Random123 distribution") {
  // tests/kat_vectors of DEShawResearch/random123, philox4x32, 10 rounds.
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) ==
        std::array<std::uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        std::array<std::uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        std::array<std::uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: a draw is the upper 53 bits of the first two words, below 1") {
  // From the all-zero known answer: (0x6627e8d5e169c58d >> 11) / 2^53.
  CHECK(random_uniform(0, 0, 0) ==
        static_cast<double>(0x6627e8d5e169c58dULL >> 11) / 9007199254740992.0);
  double lowest = 1, highest = 0, sum = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double draw = random_uniform(7, 3, static_cast<std::uint64_t>(i));
    lowest = std::min(lowest, draw);
    highest = std::max(highest, draw);
    sum += draw;
  }
  CHECK(lowest >= 0);
  CHECK(highest < 1);
  CHECK(std::fabs(sum / kDraws - 0.5) < 5 * std::sqrt(1.0 / 12 / kDraws));
}

TEST_CASE("random: seed, stream and index each change the draw, in their upper halves too") {
  std::set<double> draws;
  for (const std::uint64_t seed : {0ULL, 1ULL, 1ULL << 32}) {
    for (const std::uint64_t stream : {0ULL, 1ULL, 1ULL << 32}) {
      for (const std::uint64_t index : {0ULL, 1ULL, 1ULL << 32}) {
        draws.insert(random_uniform(seed, stream, index));
      }
    }
  }
  CHECK(draws.size() == 27);
}

TEST_CASE("random: a stream replays from its seed and stays below its bound") {
  RandomStream a(5, 6), b(5, 6);
  std::vector<int> counts(7);
  for (int i = 0; i < 7000; ++i) {
    const std::int64_t draw = a.below(7);
    REQUIRE(draw == b.below(7));
    REQUIRE((draw >= 0 && draw < 7));
    ++counts[static_cast<std::size_t>(draw)];
  }
  for (const int count : counts) CHECK(std::abs(count - 1000) < 5 * 30);  // 5 standard deviations
}

TEST_CASE("hash: published values of FNV-1a and XXH3") {
  CHECK(fnv1a64("") == 0xcbf29ce484222325);
  CHECK(fnv1a64("a") == 0xaf63dc4c8601ec8c);
  CHECK(fnv1a64("foobar") == 0x85944171f73967e8);
  CHECK(content_hash("") == 0x2d06800538d394c2);  // XXH3_64bits of nothing, seed 0
  CHECK(hash_hex(0x1f) == "000000000000001f");
  CHECK(hash_hex(0xffffffffffffffff) == "ffffffffffffffff");
}

TEST_CASE("hash: text and bytes of equal content hash alike, and the seed matters") {
  const std::string text = "some \0 bytes";
  CHECK(content_hash(text) == content_hash(std::as_bytes(std::span(text))));
  CHECK(content_hash(text, 1) != content_hash(text));
}

// --- Names --------------------------------------------------------------------------------------

TEST_CASE("suggest: the nearest name, if it is near enough to be a slip") {
  const std::vector<std::string> known = {"int4", "int8", "mxfp4", "reference", "unembedding"};
  CHECK(nearest_name("int4", known) == "int4");
  CHECK(nearest_name("imt8", known) == "int8");
  CHECK(nearest_name("refrence", known) == "reference");
  CHECK(nearest_name("refernece", known) == "reference");  // neighbours exchanged: one edit
  CHECK(nearest_name("embedding", known) == "unembedding");
  CHECK(nearest_name("int", known) == "int4");  // a tie: the first
  CHECK(nearest_name("banana", known).empty());
  CHECK(nearest_name("", known).empty());
  CHECK(nearest_name("int4", {}).empty());
  CHECK(suggestion("mxpf4", known) ==
        "did you mean 'mxfp4'? known: int4, int8, mxfp4, reference, unembedding");
  CHECK(suggestion("banana", known) == "known: int4, int8, mxfp4, reference, unembedding");
}

TEST_CASE("suggest: long names, which untrusted files may hold, cost little on either side") {
  // A table of edits between these would take 400 GB.
  const std::string huge(std::size_t{200} << 20, 'x');
  const std::vector<std::string> known = {huge, "short"};
  CHECK(nearest_name("shirt", known) == "short");
  CHECK(nearest_name(std::string(256, 'x'), known).empty());
  CHECK(nearest_name(huge, std::vector<std::string>{"short"}).empty());
}

TEST_CASE("variant: an unknown one is refused with the op, the nearest name and the list") {
  const std::string message =
      message_of([] { find_variant(linear::variants(), "linear", "refrence"); });
  CHECK(message.find("choose a variant of linear: no variant 'refrence'; "
                     "did you mean 'reference'? known: reference") == 0);
  CHECK(find_variant(linear::variants(), "linear", "reference").backend == "cpu");
}

}  // namespace moebench::test
