// reference: each row decoded as stored.
#include "kernels/core/thread_pool.h"
#include "kernels/embedding/embedding.h"

namespace moebench::embedding {
namespace {

void run(const Args& args, Context& context) {
  context.pool.parallel_for(
      args.tokens.shape[0], 8, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t t = begin; t < end; ++t) {
          const std::int32_t token = args.tokens[t];
          args.table.decode_row(token < 0 ? args.drawn[-1 - token] : token, args.out[t].data);
        }
      });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "rows decoded one by one",
    .rounds = "nothing",
    .max_nmse = [](const Problem&) { return 0.0; },
    .unsupported = [](const Problem&) { return std::string(); },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::embedding
