// The tiny golden checkpoint as an engine, for tests of what runs on one.
#pragma once

#include "engine/engine.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/files.h"

namespace moebench::test {

struct Tiny {
  ThreadPool pool{2};
  Engine engine;

  // step_tokens 0: the engine's default.
  explicit Tiny(std::int64_t max_batch = 3, std::int64_t step_tokens = 0) {
    EngineOptions options;
    options.max_batch = max_batch;
    options.max_context = 100;
    options.step_tokens = step_tokens;
    engine = load_engine(golden("gpt-oss-tiny-a"), Plan{}, options, pool);
  }
};

}  // namespace moebench::test
