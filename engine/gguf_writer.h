// The same numbers for other engines: a gpt-oss checkpoint as a GGUF file.
//
// For measuring a peer on the very weights that a plan is measured on. There is no tokenizer in it
// (tokenizer.ggml.model is "no_vocab"), which benchmarks do not need.
//
// Source: ggml-org/ggml, docs/gguf.md (container); ggml-org/llama.cpp, convert_hf_to_gguf.py,
// GptOssModel (names, the split of gate and up, the order of nibbles).
#pragma once

#include <filesystem>

#include "kernels/formats/format.h"

namespace moebench {

// Converts the Hugging Face checkpoint in `directory`. Dense matrices are kept (kBf16) or rounded
// (kInt8: GGUF's Q8_0, the numbers that a plan with attention=int8,unembedding=int8 computes with).
// Throws Error(kUnsupported) for another format or for experts that are not MXFP4, Error(kIo) for a
// file that cannot be written.
void write_gguf(const std::filesystem::path& directory, const std::filesystem::path& path,
                Format dense_format);

}  // namespace moebench
