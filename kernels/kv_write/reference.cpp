// reference: one row after the other through the codec.
#include "kernels/core/thread_pool.h"
#include "kernels/kv_write/kv_write.h"

namespace moebench::kv_write {
namespace {

void run(const Args& args, Context& context) {
  const KvLayerView& kv = args.kv;
  context.pool.parallel_for(args.keys.shape[0], 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t position = args.places.position[t];
      const std::int32_t page =
          args.places.page_tables[args.places.sequence[t]][position / kv.page_size];
      for (std::int64_t h = 0; h < kv.num_kv_heads; ++h) {
        const std::int64_t slot = position % kv.page_size;
        kv.encode(kv.row(kv.keys, page, slot, h), args.keys[t][h].data);
        kv.encode(kv.row(kv.values, page, slot, h), args.values[t][h].data);
      }
    }
  });
}

}  // namespace

const Variant reference = {
    .name = "reference",
    .backend = "cpu",
    .summary = "each vector through the format's codec",
    .rounds = "to the cache's format",
    .max_nmse = [](const Problem&) { return 0.0; },
    .unsupported = [](const Problem& problem) -> std::string {
      const std::int64_t block = codec(problem.kv_format).block;
      return problem.head_dim % block == 0
                 ? ""
                 : fmt::format("head_dim {} is not a multiple of the {} block, {}",
                               problem.head_dim, format_name(problem.kv_format), block);
    },
    .workspace_bytes = [](const Problem&, int) { return std::size_t{0}; },
    .run = run,
};

}  // namespace moebench::kv_write
