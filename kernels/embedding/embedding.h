// embedding: the row of each token.
//
//   out[t] = table[token[t]], or table[drawn[-1 - token[t]]] if token[t] is negative
//
// The second is for tokens that the GPU drew and the host has not seen yet.
//
// Source: openai/gpt-oss, gpt_oss/torch/model.py, Transformer.forward (no scaling).
// Lower bound: the bytes of the rows read.
#pragma once

#include "kernels/core/variant.h"
#include "kernels/core/view.h"
#include "kernels/formats/format.h"

namespace moebench::embedding {

struct Problem {
  Format format = Format::kF32;
  std::int64_t num_tokens = 0;
  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
};

struct Args {
  View<const std::int32_t, 1> tokens;      // [num_tokens], each in [-num_drawn, vocab_size)
  MatrixView table;                        // [vocab_size, hidden_size]
  View<float, 2> out;                      // [num_tokens, hidden_size]; overwritten
  View<const std::int32_t, 1> drawn = {};  // [num_drawn], or none; each in [0, vocab_size)
};

using Variant = moebench::Variant<Problem, Args>;

#define MOEBENCH_EMBEDDING_VARIANTS(X) X(reference)
#define MOEBENCH_EMBEDDING_CUDA_VARIANTS(X) X(cuda_rows)
MOEBENCH_VARIANTS(MOEBENCH_EMBEDDING_VARIANTS, MOEBENCH_EMBEDDING_CUDA_VARIANTS)

}  // namespace moebench::embedding
