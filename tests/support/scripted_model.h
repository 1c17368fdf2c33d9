// A checkpoint whose answer is known: it says a given text after every prompt of nano's tokenizer.
//
// Its next token depends on the last one alone. Embeddings are one-hot, attention and experts add
// nothing, and the unembedding holds one number per token: the successor's. So a script in which no
// token has two successors comes out of the whole engine word for word.
#pragma once

#include <map>

#include "engine/harmony.h"
#include "engine/tokenizer.h"
#include "tests/support/checkpoint_builder.h"

namespace moebench::test {

inline std::filesystem::path nano_tokenizer_path() {
  return source_dir() / "datasets" / "nano" / "model" / "tokenizer.json";
}

// The successors that make a model say `script` (special tokens by name) after "assistant".
inline std::map<std::int32_t, std::int32_t> successors_of(const Tokenizer& tokenizer,
                                                          const std::string& script) {
  std::map<std::int32_t, std::int32_t> next;
  std::int32_t last = tokenizer.encode("assistant").back();
  for (const std::int32_t token : tokenizer.encode_with_special(script)) {
    const auto [it, inserted] = next.emplace(last, token);
    if (it->second != token) throw std::logic_error("one token, two successors in: " + script);
    last = token;
  }
  return next;
}

// A tensor of bf16 zeros but for `entries`: (row, column) -> value.
inline TensorSpec sparse_tensor(
    std::string name, std::int64_t rows, std::int64_t cols,
    const std::map<std::pair<std::int64_t, std::int64_t>, float>& entries) {
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (const auto& [place, value] : entries) {
    values[static_cast<std::size_t>(place.first * cols + place.second)] = value;
  }
  return tensor_of_floats(std::move(name), "BF16", {rows, cols}, values);
}

inline TensorSpec zeros_like(const TensorSpec& tensor) {
  return tensor_of_bytes(tensor.name, tensor.dtype, tensor.shape,
                         std::string(static_cast<std::size_t>(tensor.bytes()), '\0'));
}

// A model directory, tokenizer included. `context` bounds prompt and answer.
inline void write_scripted_checkpoint(const std::filesystem::path& directory,
                                      const std::string& script, std::int64_t context = 512) {
  std::filesystem::create_directories(directory);
  std::filesystem::copy_file(nano_tokenizer_path(), directory / "tokenizer.json",
                             std::filesystem::copy_options::overwrite_existing);
  const Tokenizer tokenizer = Tokenizer::load(directory);
  constexpr std::int64_t kVocab = 768;  // of nano's tokenizer; a multiple of a block
  SyntheticShape shape;
  shape.num_layers = 1;
  shape.hidden_size = kVocab;
  shape.intermediate_size = 32;
  shape.num_heads = shape.num_kv_heads = 1;
  shape.num_experts = 2;
  shape.top_k = 1;
  shape.vocab_size = kVocab;
  shape.max_context = context;
  std::map<std::pair<std::int64_t, std::int64_t>, float> one_hot;
  for (std::int64_t i = 0; i < kVocab; ++i) one_hot[{i, i}] = 1;
  std::map<std::pair<std::int64_t, std::int64_t>, float> answers;
  for (const auto& [token, next] : successors_of(tokenizer, script)) answers[{next, token}] = 1;
  TensorSpecs tensors = synthetic_tensors(shape, 1);
  for (TensorSpec& tensor : tensors) {
    const auto holds = [&](std::string_view part) {
      return tensor.name.find(part) != std::string::npos;
    };
    if (holds("o_proj") || holds("down_proj")) tensor = zeros_like(tensor);
    if (holds("embed_tokens")) tensor = sparse_tensor(tensor.name, kVocab, kVocab, one_hot);
    if (holds("lm_head")) tensor = sparse_tensor(tensor.name, kVocab, kVocab, answers);
  }
  Json config = synthetic_config(shape);
  config["eos_token_id"] = HarmonyTokens::of(tokenizer).return_;
  write_checkpoint(directory, config, tensors);
}

// What a well-behaved model answers.
inline constexpr const char* kSaysB = "<|channel|>final<|message|>Answer: B<|return|>";

}  // namespace moebench::test
