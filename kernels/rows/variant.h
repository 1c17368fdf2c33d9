// A variant made of row products.
#pragma once

#include <string_view>

#include "kernels/core/variant.h"

namespace moebench {

// `Rows` has the functions of V, and reads interleaved weights.
template <class V, class Rows>
constexpr V variant_by_rows(std::string_view name, std::string_view summary,
                            std::string_view rounds,
                            double (*max_nmse)(const typename V::Problem&)) {
  return {.name = name,
          .backend = "cpu",
          .summary = summary,
          .rounds = rounds,
          .max_nmse = max_nmse,
          .weight_layout = RowLayout::kInterleaved,
          .unsupported = Rows::unsupported,
          .workspace_bytes = Rows::workspace_bytes,
          .run = Rows::run};
}

}  // namespace moebench
