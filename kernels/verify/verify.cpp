// The table of checks.
#include "kernels/verify/verify.h"

#include <algorithm>

#include "kernels/attention/attention.h"
#include "kernels/core/error.h"
#include "kernels/core/suggest.h"
#include "kernels/embedding/embedding.h"
#include "kernels/encode/encode.h"
#include "kernels/kv_write/kv_write.h"
#include "kernels/linear/linear.h"
#include "kernels/log_softmax/log_softmax.h"
#include "kernels/moe_experts/moe_experts.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/router/router.h"
#include "kernels/sample/sample.h"
#include "kernels/verify/compare.h"

namespace moebench {
namespace {

template <class V>
void list_op(std::string_view op, std::span<const V* const> variants,
             std::vector<VariantInfo>& out) {
  for (const V* v : variants) {
    out.push_back({std::string(op), std::string(v->name), std::string(v->backend),
                   std::string(v->summary), std::string(v->rounds)});
  }
}

struct OpCheck {
  std::string_view op;
  void (*check)(verify::Check&);
};
constexpr OpCheck kChecks[] = {
    {"embedding", verify::check_embedding}, {"rms_norm", verify::check_rms_norm},
    {"linear", verify::check_linear},       {"rope", verify::check_rope},
    {"kv_write", verify::check_kv_write},   {"attention", verify::check_attention},
    {"router", verify::check_router},       {"moe_experts", verify::check_moe_experts},
    {"sample", verify::check_sample},       {"log_softmax", verify::check_log_softmax},
    {"encode", verify::check_encode},
};

// Throws unless `name` is empty or one of the column.
void check_name(const std::string& name, std::string_view what,
                const std::vector<VariantInfo>& infos, std::string VariantInfo::*column) {
  if (name.empty()) return;
  std::vector<std::string> known;
  for (const VariantInfo& info : infos) {
    if (std::find(known.begin(), known.end(), info.*column) == known.end()) {
      known.push_back(info.*column);
    }
  }
  require(std::find(known.begin(), known.end(), name) != known.end(),
          "verify {} '{}': no such {}; {}", what, name, what, suggestion(name, known));
}

}  // namespace

std::vector<VariantInfo> list_variants() {
  std::vector<VariantInfo> infos;
  list_op("embedding", embedding::variants(), infos);
  list_op("rms_norm", rms_norm::variants(), infos);
  list_op("linear", linear::variants(), infos);
  list_op("rope", rope::variants(), infos);
  list_op("kv_write", kv_write::variants(), infos);
  list_op("attention", attention::variants(), infos);
  list_op("router", router::variants(), infos);
  list_op("moe_experts", moe_experts::variants(), infos);
  list_op("sample", sample::variants(), infos);
  list_op("log_softmax", log_softmax::variants(), infos);
  list_op("encode", encode::variants(), infos);
  return infos;
}

std::vector<VerifyResult> verify_variants(const VerifyFilter& filter, std::uint64_t seed,
                                          ThreadPool& pool) {
  const std::vector<VariantInfo> infos = list_variants();
  check_name(filter.op, "op", infos, &VariantInfo::op);
  check_name(filter.variant, "variant", infos, &VariantInfo::variant);
  check_name(filter.backend, "backend", infos, &VariantInfo::backend);
  std::vector<VerifyResult> results;
  verify::Check check{filter, seed, pool, results};
  for (const OpCheck& one : kChecks) {
    if (filter.op.empty() || filter.op == one.op) one.check(check);
  }
  return results;
}

}  // namespace moebench
